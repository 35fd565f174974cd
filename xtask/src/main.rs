//! up, down, test, bench, images, code generation and repository checks.

mod proto;

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("proto") => proto::run(),
        other => anyhow::bail!("no such task: {}", other.unwrap_or("(none)")),
    }
}
