//! Calls to a server in the same process.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use http::{Response, StatusCode};
use serde_json::json;

use super::*;
use crate::reach::{Resolve, Target};
use crate::testing::hook::{self, Handle, Hook};

/// Knows services by name.
struct Fixed(HashMap<&'static str, String>);

#[async_trait]
impl Resolve for Fixed {
    async fn resolve(&self, _namespace: &str, name: &str, _port: u16) -> Result<Target, String> {
        self.0.get(name).map(Target::outside).ok_or_else(|| format!("service \"{name}\" not found"))
    }
}

fn service(name: &str) -> Place {
    Place::Service { namespace: "ns".into(), name: name.into(), port: 443, path: "/hook".into() }
}

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_service_is_called_under_its_name_and_failures_read_as_gos() {
    let tasks = Tasks::new();
    let handle: Handle = Arc::new(|request| {
        Box::pin(async move {
            Some(match request.uri().path() {
                "/hook" => {
                    let seen = json!({"host": request.headers()["host"].to_str().ok(), "query": request.uri().query(),
                        "auth": request.headers().get("authorization").and_then(|v| v.to_str().ok())});
                    hook::json(&seen)
                }
                "/refuse" => {
                    let mut response = Response::new(Bytes::from_static(b"no such luck\n"));
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                    response
                }
                "/moved" => Response::builder()
                    .status(302)
                    .header("location", "/hook")
                    .body(Bytes::new())
                    .expect("a response"),
                "/break" => return None,
                _ => std::future::pending().await,
            })
        })
    });
    let server = Hook::start(&["web.ns.svc", "localhost"], handle, &tasks).await;
    let closed = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        gone.local_addr().expect("an address")
    };
    let known = HashMap::from([
        ("web", server.address.to_string()),
        ("other", server.address.to_string()),
        ("down", closed.to_string()),
    ]);
    let callout = Callout::new(Reach::to_services(Arc::new(Fixed(known))), tasks.clone());
    let ca = Bytes::from(server.ca_pem.clone());
    let text = async |config: &Config, timeout| {
        let caller = callout.caller(config).expect("a caller");
        caller.post_json(Bytes::from_static(b"{}"), timeout).await.expect_err("a failure").to_string()
    };

    let mut config = Config::new(service("web"), ca.clone());
    config.basic = Some(Basic { username: "u".into(), password: "p".into() });
    let caller = callout.caller(&config).expect("a caller");
    for _ in 0..2 {
        let body =
            caller.post_json(Bytes::from_static(b"{}"), Duration::from_secs(90)).await.expect("an answer");
        let seen: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(seen, json!({"host": "web.ns.svc:443", "query": "timeout=1m30s", "auth": "Basic dTpw"}));
    }

    let post = |name: &str| format!("Post \"https://{name}.ns.svc:443/hook?timeout=20s\": ");
    let table = [
        (
            Config::new(service("other"), ca.clone()),
            post("other")
                + "tls: failed to verify certificate: x509: certificate is valid for localhost, web.ns.svc, not other.ns.svc",
        ),
        (Config::new(service("none"), ca.clone()), post("none") + "service \"none\" not found"),
        (
            Config::new(service("down"), ca.clone()),
            post("down") + &format!("dial tcp {closed}: connect: connection refused"),
        ),
        (
            Config::new(service("web"), Bytes::new()),
            post("web") + "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        ),
    ];
    for (config, expected) in table {
        let mut got = text(&config, SOON).await;
        // The order of names in the certificate is nobody's business.
        got = got.replace("web.ns.svc, localhost", "localhost, web.ns.svc");
        assert_eq!(got, expected);
    }
    let url = |path: &str| {
        Config::new(Place::Url(format!("https://localhost:{}{path}", server.address.port())), ca.clone())
    };
    assert_eq!(
        text(&url("/refuse"), SOON).await,
        "an error on the server (\"no such luck\") has prevented the request from succeeding"
    );
    assert_eq!(
        text(&url("/moved"), SOON).await,
        "the server responded with the status code 302 but did not return more information"
    );
    let address = format!("https://localhost:{}", server.address.port());
    assert_eq!(text(&url("/break"), SOON).await, format!("Post \"{address}/break?timeout=20s\": EOF"));
    assert_eq!(
        text(&url("/hang"), Duration::from_millis(50)).await,
        format!("Post \"{address}/hang?timeout=1s\": context deadline exceeded")
    );
    let mut trusting = Config::new(service("other"), Bytes::new());
    trusting.insecure = true;
    let caller = callout.caller(&trusting).expect("a caller");
    caller.post_json(Bytes::from_static(b"{}"), SOON).await.expect("an answer from whoever it is");
    assert!(tasks.shut_down(SOON).await);
}

#[test]
fn outside_of_a_pod_there_is_no_cluster_to_be_in() {
    for host in [None, Some("10.0.0.1".to_owned()), Some(String::new())] {
        let env = |name: &str| host.clone().filter(|_| name == "KUBERNETES_SERVICE_HOST");
        let why = Config::in_cluster(&env).expect_err("no pod").to_string();
        assert_eq!(
            why,
            "unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined"
        );
    }
}
