//! What is counted of identification, as `apiserver/pkg/endpoints/filters` and `authentication/request/x509` count it.

use gantry_api::status::Result;
use gantry_base::metrics::{CounterVec, Family, Histogram, HistogramVec, Stability};

use super::{Credentials, User};
use crate::core::Core;

/// Doubling from a millisecond on.
pub(crate) const DOUBLING: &[f64] = &[
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
];

static USERS: CounterVec = CounterVec::new(
    "authenticated_user_requests",
    "Counter of authenticated requests broken out by username.",
    Stability::Alpha,
    &["username"],
);
static ATTEMPTS: CounterVec = CounterVec::new(
    "authentication_attempts",
    "Counter of authenticated attempts.",
    Stability::Alpha,
    &["result"],
);
static SECONDS: HistogramVec = HistogramVec::new(
    "authentication_duration_seconds",
    "Authentication duration in seconds broken out by result.",
    Stability::Alpha,
    &["result"],
    DOUBLING,
);
/// Minutes, hours, days, weeks, up to a year.
static EXPIRATION: Histogram = Histogram::new(
    "apiserver_client_certificate_expiration_seconds",
    "Distribution of the remaining lifetime on the certificate used to authenticate a request.",
    Stability::Alpha,
    &[
        0.0,
        1_800.0,
        3_600.0,
        7_200.0,
        21_600.0,
        43_200.0,
        86_400.0,
        172_800.0,
        345_600.0,
        604_800.0,
        2_592_000.0,
        7_776_000.0,
        15_552_000.0,
        31_104_000.0,
    ],
);

pub(crate) static FAMILIES: &[&dyn Family] = &[&USERS, &ATTEMPTS, &SECONDS, &EXPIRATION];

/// Asks who it is, and counts the answer.
pub(crate) async fn authenticate(core: &Core, credentials: &Credentials<'_>) -> Result<Option<User>> {
    let since = core.clock.monotonic();
    let answer = core.parts.authenticator.authenticate(credentials).await;
    let result = match &answer {
        Ok(Some(user)) => {
            USERS.with(&[known_name(&user.name)], |n| n.inc());
            "success"
        }
        Ok(None) => "failure",
        Err(_) => "error",
    };
    ATTEMPTS.with(&[result], |n| n.inc());
    let took = core.clock.monotonic().saturating_sub(since);
    SECONDS.observe(&[result], took.as_secs_f64());
    crate::metrics::filter("authentication", took);
    answer
}

/// Upstream's `compressUsername`: there may be any number of users.
fn known_name(name: &str) -> &str {
    match name {
        "admin" | "client" | "kube_proxy" | "kubelet" | "system:serviceaccount:kube-system:default" => name,
        _ if name.contains('@') => "email_id",
        _ => "other",
    }
}

/// A certificate was shown that is good for this many more seconds.
pub(crate) fn certificate_lasts(seconds: f64) {
    EXPIRATION.observe(seconds);
}
