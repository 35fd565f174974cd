//! Small readers of text from outside, each alone: what fuzz targets call.

use http::Uri;

use crate::server::query::Query;
use crate::steps::dns;

/// Reads the query of a request to the kubelet's server; returns the command that it asks for.
pub fn command(uri: &Uri) -> Vec<String> {
    let query = Query::of(uri);
    if query.is_set("tty") && query.get("input").is_none() { query.all("command") } else { query.all("cmd") }
}

/// How many servers and search domains a resolv.conf(5) names.
pub fn resolv_conf(text: &str) -> (usize, usize) {
    let config = dns::parse_resolv_conf(text);
    (config.servers.len(), config.searches.len())
}
