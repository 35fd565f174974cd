//! The code generators, which are built only when they are asked for.

use clap::Args;

/// Options of `codegen`.
#[derive(Args)]
pub struct Codegen {
    /// Change nothing; fail if the checked-in files are not what would be generated.
    #[arg(long)]
    check: bool,
}

/// Generates the schema tables.
#[cfg(feature = "generators")]
pub fn codegen(args: &Codegen) -> anyhow::Result<()> {
    crate::codegen::run(args.check)
}

/// Generates the gRPC clients.
#[cfg(feature = "generators")]
pub fn proto() -> anyhow::Result<()> {
    crate::proto::run()
}

/// Builds this program with the generators and starts that one.
#[cfg(not(feature = "generators"))]
pub fn codegen(args: &Codegen) -> anyhow::Result<()> {
    again(if args.check { &["codegen", "--check"] } else { &["codegen"] })
}

/// Builds this program with the generators and starts that one.
#[cfg(not(feature = "generators"))]
pub fn proto() -> anyhow::Result<()> {
    again(&["proto"])
}

#[cfg(not(feature = "generators"))]
fn again(args: &[&str]) -> anyhow::Result<()> {
    let mut cargo = crate::run::cargo();
    cargo.args(["run", "--quiet", "--package", "xtask", "--features", "generators", "--"]).args(args);
    crate::run::checked(&mut cargo)
}
