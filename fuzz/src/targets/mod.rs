//! The targets, one line each.

mod apply;
mod cel;
mod config;
mod credentials;
mod custom;
mod disk;
mod node;
mod objects;
mod patches;
mod requests;
mod text;
mod wire;

use crate::seeds::Seeds;

/// A fuzz target.
#[derive(Debug)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Reads any bytes; panics if a property does not hold.
    pub run: fn(&[u8]),
    /// Files and directories, from the root of the repository, whose string literals an engine mixes in.
    pub words: &'static [&'static str],
    /// What the first inputs are made of.
    pub seeds: Seeds,
}

/// A target that starts from its words.
const fn target(name: &'static str, run: fn(&[u8]), words: &'static [&'static str]) -> Target {
    Target { name, run, words, seeds: Seeds::Words }
}

impl Target {
    const fn seeded(mut self, seeds: Seeds) -> Self {
        self.seeds = seeds;
        self
    }
}

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// All of them.
pub static TARGETS: &[Target] = &[
    // Bodies.
    target("object_json", objects::json, &["lab/golden", "crates/kinds/src"]).seeded(Seeds::Objects),
    target("object_yaml", objects::yaml, &["lab/golden"]).seeded(Seeds::Yaml),
    target("object_protobuf", objects::protobuf, &["lab/golden"]).seeded(Seeds::Protobuf),
    target("spliced", objects::spliced, &["crates/apiserver/src/splice.rs"]).seeded(Seeds::Objects),
    // Patches and apply.
    target("json_patch", patches::json_patch, &["crates/apiserver/src/apply/patch.rs"])
        .seeded(Seeds::Patches("json-patch")),
    target("merge_patch", patches::merge_patch, &["crates/apiserver/src/apply"])
        .seeded(Seeds::Patches("merge-patch")),
    target("strategic_patch", patches::strategic_patch, &["crates/apiserver/src/apply"])
        .seeded(Seeds::Patches("merge-patch")),
    target("apply", apply::apply, &["crates/apiserver/src/apply"]).seeded(Seeds::Objects),
    target("managed_fields", apply::managed_fields, &["crates/apiserver/src/apply"])
        .seeded(Seeds::Patches("apply-patch")),
    // Requests.
    target("request", requests::request, &["crates/apiserver/src/route.rs", "crates/apiserver/src/query.rs"])
        .seeded(Seeds::Requests),
    target(
        "request_line",
        requests::line,
        &["crates/apiserver/src/route.rs", "crates/apiserver/src/query.rs"],
    )
    .seeded(Seeds::Requests),
    target("accept", requests::accept, &["crates/apiserver/src/respond"]),
    target("continue_token", requests::continue_token, &["crates/apiserver/src/verbs/list.rs"]),
    target("proxied_page", requests::proxied_page, &["crates/apiserver/src/connect/rewrite.rs"]),
    // Credentials.
    target("jwt", credentials::jwt, &["crates/apiserver/src/identify"]),
    target("keys", credentials::keys, &["crates/apiserver/src/identify/keys.rs"]),
    target("token_file", credentials::token_file, &["crates/apiserver/src/identify/token_file.rs"]),
    target("certificate_request", credentials::certificate_request, &["crates/apiserver/src/pki"]),
    // Configuration.
    target("encryption_config", config::encryption, &["crates/apiserver/src/encryption"]),
    target("authentication_config", config::authentication, &["crates/apiserver/src/identify"]),
    target("authorization_config", config::authorization, &["crates/apiserver/src/authorize"]),
    target("kubeconfig", config::kubeconfig, &["crates/client/src/kubeconfig.rs"]),
    // Expressions, custom resources.
    target("cel", cel::run, &["crates/cel/src", "crates/cel/tests"]),
    target("schema", custom::schema, &["crates/apiserver/src/structural", "crates/api/src/schema"]),
    target("json_path", custom::json_path, &["crates/apiserver/src/custom/json_path.rs"]),
    target("open_api", custom::open_api, &["crates/apiserver/src/openapi"]),
    // Small texts.
    target("quantity", text::quantity, &["crates/api/src/quantity.rs"]),
    target("label_selector", text::label_selector, &["crates/api/src/selector.rs"]),
    target("field_selector", text::field_selector, &["crates/api/src/selector.rs"]),
    target("names", text::names, &["crates/api/src/names.rs"]),
    target("times", text::times, &["crates/kinds/src/common/cron.rs"]),
    target("images", text::images, &["crates/base/src/image"]),
    // Streams and names.
    target("spdy_frames", wire::spdy_frames, &["crates/stream/src/spdy"]),
    target("spdy_connection", wire::spdy_connection, &["crates/stream/src/spdy"]),
    target("websocket", wire::websocket, &["crates/stream/src/websocket"]),
    target("dns", wire::dns, &["crates/dns/src"]),
    // The node.
    target("cni_config", node::cni_config, &["crates/cni/src"]),
    target("log_lines", node::log_lines, &["crates/kubelet/src/logs.rs"]),
    target("kubelet_texts", node::texts, &["crates/kubelet/src/steps", "crates/kubelet/src/server"]),
    // The disk.
    target("store_record", disk::record, &[]),
    target("store_journal", disk::journal, &[]),
];
