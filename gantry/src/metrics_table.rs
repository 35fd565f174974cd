//! The table of metrics in `docs/metrics.md` is written from the registry: this test says if it is not.
//!
//! `GANTRY_WRITE_DOCS=1 cargo test -p gantry metrics_table` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

const BEGIN: &str = "<!-- from the registry: begin -->\n";
const END: &str = "<!-- from the registry: end -->\n";

fn table() -> String {
    gantry_apiserver::server::register_metrics();
    gantry_controllers::registry::register_metrics();
    gantry_scheduler::register_metrics();
    gantry_kubelet::register_metrics();
    gantry_proxy::register_metrics();
    gantry_dns::register_metrics();
    gantry_base::trace::register_metrics();
    gantry_client::https::register_metrics();
    let mut out = String::from("| metric | type | stability | labels | of |\n|---|---|---|---|---|\n");
    for (part, family) in gantry_base::metrics::families() {
        let desc = family.desc();
        let labels = desc.labels.join(", ");
        let stability = desc.stability.as_str();
        writeln!(out, "| `{}` | {} | {stability} | {labels} | {part} |", desc.name, desc.kind.as_str())
            .expect("a string takes anything");
    }
    out
}

#[test]
fn the_table_of_metrics_is_that_of_the_registry() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once(BEGIN).expect("where the table begins");
    let (table_now, after) = rest.split_once(END).expect("where the table ends");
    let table = table();
    if std::env::var_os("GANTRY_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).expect("the page is written");
        return;
    }
    assert_eq!(table_now, table, "docs/metrics.md: see the head of this file");
}
