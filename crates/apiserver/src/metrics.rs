//! What `/metrics` says of requests, under upstream's names.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use crate::route::RequestInfo;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VerbLabels {
    verb: String,
    resource: String,
}

struct Metrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<VerbLabels, Histogram>,
}

fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
        const BUCKETS: [f64; 12] =
            [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 60.0];
        let requests = Family::<RequestLabels, Counter>::default();
        let seconds = Family::<VerbLabels, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        let registry = gantry_base::telemetry::metrics();
        let mut registry = registry.lock();
        registry.register("apiserver_request", "Requests by verb, resource and HTTP code", requests.clone());
        registry.register(
            "apiserver_request_duration_seconds",
            "Time from a request's headers to its response's headers",
            seconds.clone(),
        );
        Metrics { requests, seconds }
    });
    &METRICS
}

/// Counts a request. Resources that do not exist share one label, so that strangers cannot make up many.
pub(crate) fn request(info: &RequestInfo, code: u16, took: Duration) {
    let known = info.is_resource && code != 404;
    let text = |text: &str| if known { text.to_owned() } else { String::new() };
    let verb = info.verb.to_uppercase();
    let labels = RequestLabels {
        verb: verb.clone(),
        group: text(&info.group),
        version: text(&info.version),
        resource: text(&info.resource),
        subresource: text(&info.subresource),
        code,
    };
    metrics().requests.get_or_create(&labels).inc();
    if info.verb != "watch" {
        metrics()
            .seconds
            .get_or_create(&VerbLabels { verb, resource: text(&info.resource) })
            .observe(took.as_secs_f64());
    }
}

/// All metrics of the process as text.
pub(crate) fn text() -> String {
    let mut out = String::new();
    if let Err(error) = encode(&mut out, &gantry_base::telemetry::metrics().lock()) {
        tracing::error!(%error, "metrics cannot be written");
    }
    out
}
