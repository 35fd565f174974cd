//! The golden fixtures, replayed against our API server in this process.
//!
//! `GOLDEN_RECORD=1` replaces the recorded answers by what the server says now.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use futures::future::BoxFuture;
use gantry_apiserver::admission::AdmissionOptions;
use gantry_apiserver::parts::{Deps, ISSUER, parts};
use gantry_apiserver::pki::Pki;
use gantry_apiserver::server::{ApiServer, Options};
use gantry_apiserver::testing::{Everybody, http};
use gantry_base::{Clock, SystemClock, Tasks};
use gantry_lab::golden::{Raw, Sent, Server, all, differences, folder, replay};
use gantry_store::Memory;

struct InProcess(ApiServer);

impl Server for InProcess {
    fn send(&self, request: Sent) -> BoxFuture<'_, anyhow::Result<Raw>> {
        Box::pin(async move {
            let headers = request.headers();
            let mut headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            if request.content_type.is_empty() {
                headers.push(("content-type", ""));
            }
            let answer = http(&self.0, &request.method, &request.path, &headers, request.body.clone()).await;
            Ok(Raw::new(answer.code, &answer.headers, &answer.bytes))
        })
    }
}

async fn server(tasks: &Tasks) -> InProcess {
    let folder = tempfile::tempdir().expect("a folder");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let pki = Arc::new(Pki::load_or_create(folder.path(), clock.now()).expect("keys"));
    let deps = Deps {
        pki,
        clock: Arc::clone(&clock),
        tasks: tasks.clone(),
        issuer: ISSUER.to_owned(),
        service_cidr: (Ipv4Addr::new(10, 43, 0, 0), 16),
        admission: AdmissionOptions::new(&[], &["ServiceAccount".to_owned()]).expect("options"),
        identify: gantry_apiserver::identify::Options::default(),
        authorize: gantry_apiserver::authorize::Options::default(),
        audit: gantry_apiserver::audit::Options::default(),
        in_flight: gantry_apiserver::fairness::Options::default(),
        own_node: None,
    };
    let options = Options { store: Arc::new(Memory::default()), kinds: gantry_kinds::builtin(), clock };
    let make = Box::new(move |transport| {
        let mut parts = parts(&deps, transport)?.parts;
        parts.authenticator = Arc::new(Everybody);
        Ok(parts)
    });
    InProcess(ApiServer::start(options, make, tasks).await.expect("the server starts"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_are_the_recorded_ones() {
    let tasks = Tasks::new();
    let server = server(&tasks).await;
    let record = std::env::var_os("GOLDEN_RECORD").is_some();
    let mut complaints = Vec::new();
    for (path, fixture) in all(&folder(), "").expect("fixtures") {
        let found = replay(&server, &fixture).await.unwrap_or_else(|e| panic!("{}: {e:#}", path.display()));
        if record {
            found.write(&path).expect("a file");
            continue;
        }
        let lines = differences(&fixture, &found);
        complaints.extend(lines.into_iter().map(|line| format!("{}: {line}", path.display())));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn every_kind_has_a_fixture() {
    let mut created = BTreeSet::new();
    for (_, fixture) in all(&folder(), "").expect("fixtures") {
        for step in fixture.steps.iter().filter(|s| s.send.starts_with("POST ")) {
            let body = step.body.clone().unwrap_or_default();
            let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
            created.insert((text("apiVersion"), text("kind")));
        }
    }
    let kinds = gantry_kinds::builtin();
    let missing: Vec<String> = kinds
        .iter()
        .map(|kind| kind.resource())
        // Made up from the server's health; nobody writes one.
        .filter(|r| r.plural != "componentstatuses")
        .filter(|r| !created.contains(&(r.api_version(), r.kind.to_string())))
        .map(ToString::to_string)
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}
