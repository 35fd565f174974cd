//! Row a: what admission adds to a write where there are no webhooks and no policies: the same dry-run creates on a
//! server with the default plugins and on one with every plugin off that can be turned off, in alternation. What a
//! plugin puts into an object counts as well: the larger object is encoded and sent.

use gantry_client::HttpsTransport;

use super::figures::{Line, Series, count};
use super::form::Form;
use super::server::Server;
use super::{load, objects};

const CLIENTS: usize = 8;
const WRITES: usize = 5_000;
const REPETITIONS: usize = 9;

/// Upstream's default plugins, and NodeRestriction.
const PLUGINS: &str = "NamespaceLifecycle,LimitRanger,ServiceAccount,NodeRestriction,TaintNodesByCondition,\
PodSecurity,Priority,DefaultTolerationSeconds,DefaultStorageClass,StorageObjectInUseProtection,\
PersistentVolumeClaimResize,RuntimeClass,CertificateApproval,CertificateSigning,CertificateSubjectRestriction,\
DefaultIngressClass,PodTopologyLabels,PodResizeValidator,MutatingAdmissionPolicy,MutatingAdmissionWebhook,\
ValidatingAdmissionPolicy,ValidatingAdmissionWebhook,ResourceQuota";

/// A server and what is sent to it.
struct Side {
    server: Server,
    clients: Vec<HttpsTransport>,
}

impl Side {
    async fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let server = Server::start_with(arguments).await?;
        load::create_nodes(&server).await?;
        let clients = server.clients(CLIENTS)?;
        load::warm(&clients).await?;
        Ok(Self { server, clients })
    }

    /// Server CPU of one dry-run create, in microseconds.
    async fn measure(&self, path: &'static str, body: fn(usize) -> bytes::Bytes) -> anyhow::Result<f64> {
        let before = self.server.process().precise_cpu()?;
        let path = format!("{path}?dryRun=All");
        let make = move |i| Form::Json.create(&path, body(i));
        load::send(&self.server, &self.clients, WRITES, make).await?;
        Ok((self.server.process().precise_cpu()? - before) / count(WRITES) * 1e6)
    }
}

pub(super) async fn run() -> anyhow::Result<Vec<Line>> {
    let with = Side::start(&[]).await?;
    let without = Side::start(&["--disable-admission-plugins", PLUGINS]).await?;
    let config_map: fn(usize) -> bytes::Bytes = |i| objects::config_map(&format!("a-{i}"), 2_000);
    let mut lines = Vec::new();
    for (what, path, body) in [
        ("config map of 2 KB", objects::CONFIG_MAPS, config_map),
        ("pod of 2.5 KB", objects::PODS, objects::pod),
    ] {
        let (mut all, mut none, mut more) = (Series::default(), Series::default(), Series::default());
        for repetition in 0..REPETITIONS {
            let (a, b) = if repetition % 2 == 0 {
                (with.measure(path, body).await?, without.measure(path, body).await?)
            } else {
                let b = without.measure(path, body).await?;
                (with.measure(path, body).await?, b)
            };
            all.push(a);
            none.push(b);
            more.push(a - b);
        }
        lines.push(Line {
            number: "a",
            what: format!("admission without webhooks, dry-run create of a {what}"),
            figure: format!("{} more", more.show(1, " µs")),
            cpu: format!("{} with, {} without", all.show(1, " µs"), none.show(1, " µs")),
            memory: with.server.process().memory()?.show(),
            goal: "< 10 µs CPU",
        });
    }
    Ok(lines)
}
