//! Row d: what one request allocates and copies in the server: in all of it, from TLS to the durable store and what
//! controllers make of the event. The binary that counts is another one (`GANTRY_COUNTING_BIN`): its times say nothing.

use bytes::Bytes;
use gantry_client::HttpsTransport;
use gantry_client::https::Request;
use http::Method;

use super::figures::{Line, count};
use super::form::{FORMS, Form};
use super::server::Server;
use super::{apply, load, objects};

const REQUESTS: usize = 2_000;
const PODS: usize = 1_000;

pub(super) async fn run() -> anyhow::Result<Vec<Line>> {
    let server = Server::start_counting().await?;
    let client = server.client()?;
    let bench = Bench { server: &server, client: &client };
    let mut lines = Vec::new();
    for form in FORMS {
        let name = form.name();
        let body = |i: usize| objects::config_map(&format!("{}-{i}", name.to_lowercase()), 2_000);
        let bodies: Vec<Bytes> = (0..REQUESTS).map(|i| form.encode(body(i))).collect::<Result<_, _>>()?;
        let create = move |i: usize| form.create(objects::CONFIG_MAPS, bodies[i].clone());
        lines.push(bench.line(&format!("create of a 2 KB config map in {name}"), REQUESTS, create).await?);
        let path = format!("{}/{}-7", objects::CONFIG_MAPS, name.to_lowercase());
        let get = move |_| form.get(path.clone());
        lines.push(bench.line(&format!("GET of it in {name}"), REQUESTS, get).await?);
    }
    let create = |i| Form::Json.create(objects::PODS, objects::pod(i));
    lines.push(bench.line("create of a 2.5 KB pod in JSON", PODS, create).await?);
    for form in FORMS {
        let what = format!("LIST of {PODS} pods in {}", form.name());
        lines.push(bench.line(&what, 20, move |_| form.get(objects::PODS)).await?);
    }
    let body = objects::deployment("web");
    client.send(apply::request(&body)).await?;
    let again = move |_| apply::request(&body);
    lines.push(bench.line("server-side apply of an unchanged deployment", REQUESTS, again).await?);
    let patch = |i: usize| {
        let path = format!("{}/json-7", objects::CONFIG_MAPS);
        let body = format!(r#"{{"data":{{"changed":"{i}"}}}}"#);
        Request::send(Method::PATCH, path, "application/merge-patch+json", body.into())
    };
    lines.push(bench.line("merge patch of a 2 KB config map", REQUESTS, patch).await?);
    Ok(lines)
}

struct Bench<'a> {
    server: &'a Server,
    client: &'a HttpsTransport,
}

impl Bench<'_> {
    /// Sends them one after the other.
    async fn line(
        &self,
        what: &str,
        requests: usize,
        make: impl Fn(usize) -> Request + Send + Sync + 'static,
    ) -> anyhow::Result<Line> {
        let before = self.server.counts()?;
        load::send(self.server, std::slice::from_ref(self.client), requests, make).await?;
        let now = self.server.counts()?;
        let each = |which: usize| (now[which] - before[which]) / count(requests);
        Ok(Line {
            number: "d",
            what: what.to_owned(),
            figure: format!("{:.0} allocations each", each(0)),
            cpu: "not measured".to_owned(),
            memory: format!("{:.1} KB allocated, {:.1} KB copied each", each(1) / 1e3, each(2) / 1e3),
            goal: "not set",
        })
    }
}
