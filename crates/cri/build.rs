//! Builds the `pause` program of the sandbox image: a static binary without libc, embedded by `image/pause.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = "pause/main.rs";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(variable("OUT_DIR")).join("pause");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .args(["--edition=2024", "--crate-name=pause", "--crate-type=bin", "--target"])
        .arg(variable("TARGET"))
        .args(["-Cpanic=abort", "-Copt-level=s", "-Crelocation-model=static", "-Cstrip=symbols"])
        .args(["-Clink-arg=-nostartfiles", "-Clink-arg=-nostdlib", "-Clink-arg=-static"])
        // One page instead of one per segment, and nothing that changes from build to build.
        .args(["-Clink-arg=-Wl,--build-id=none,-n,-z,noseparate-code", "-Cdebuginfo=0"])
        .arg("-o")
        .args([&out, Path::new(SOURCE)]);
    if let Ok(linker) = std::env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    let status = rustc.status().expect("rustc can be run");
    assert!(status.success(), "rustc could not build {SOURCE}");
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
