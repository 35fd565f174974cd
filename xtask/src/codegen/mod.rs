//! Generates the table of API types that `gantry_api::schema` embeds.
//!
//! No published package carries the aggregated schema of the Kubernetes API as data, so it is put together from
//! two that carry halves of it: `k8s-openapi` (names, types, required fields, descriptions) and `k8s-pb` (the
//! markers that say how lists and maps merge). What both lack is written by hand in `overlay.txt`. Anything that
//! remains unexplained fails the run, so that a new release of either package cannot change the table unseen.

mod openapi;
mod overlay;
mod protobuf;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// The version of `k8s-pb` that the overlay was written for. It is a scratch dependency: nothing links it.
const K8S_PB: &str = "=0.9.0";

/// Regenerates `crates/api/src/schema/generated`, or with `check` only compares.
///
/// # Errors
/// When a source cannot be found or read, when the sources contradict each other in a way the overlay does not
/// explain, or with `check` when the checked-in files differ from what the sources say.
pub fn run(check: bool) -> anyhow::Result<()> {
    let root = crate::run::root();
    let metadata = cargo_metadata::MetadataCommand::new().manifest_path(root.join("Cargo.toml")).exec()?;
    let openapi = source_of(&metadata, "k8s-openapi")?.join("src/v1_36");
    let protobuf = scratch_source(metadata.target_directory.as_std_path(), "k8s-pb", K8S_PB)?.join("src");

    let mut types = openapi::read(&openapi)?;
    let messages = protobuf::read(&protobuf)?;
    let mut overlay = overlay::Overlay::read(&root.join("xtask/src/codegen/overlay.txt"))?;
    openapi::add_lists(&mut types, &messages)?;
    let problems = overlay::merge(&mut types, &messages, &overlay);
    overlay::add_types(&mut types, &mut overlay);
    if !problems.is_empty() {
        bail!("the sources differ in ways overlay.txt does not explain:\n{}", problems.join("\n"));
    }

    let out = root.join("crates/api/src/schema/generated");
    let table = table::types(&types);
    let descriptions = table::descriptions(&types);
    if check {
        return table::compare(&out, &table, &descriptions);
    }
    table::write(&out, &table, &descriptions)?;
    println!("{} types, {} fields", types.len(), types.iter().map(|t| t.fields.len()).sum::<usize>());
    Ok(())
}

/// Where cargo keeps the source of a package the workspace depends on.
fn source_of(metadata: &cargo_metadata::Metadata, package: &str) -> anyhow::Result<PathBuf> {
    let found = metadata.packages.iter().find(|p| p.name.as_str() == package);
    let manifest = &found.with_context(|| format!("{package} is no dependency"))?.manifest_path;
    Ok(manifest.parent().context("a manifest lies in a folder")?.as_std_path().to_owned())
}

/// The source of a package only code generation reads, resolved through a throw-away project so that it stays out
/// of the workspace's lock file.
fn scratch_source(target: &Path, package: &str, version: &str) -> anyhow::Result<PathBuf> {
    let project = target.join("codegen-scratch");
    std::fs::create_dir_all(project.join("src"))?;
    std::fs::write(project.join("src/lib.rs"), "")?;
    let manifest = format!(
        "[package]\nname = \"codegen-scratch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\n{package} = \"{version}\"\n"
    );
    std::fs::write(project.join("Cargo.toml"), manifest)?;
    let fetched = Command::new("cargo").arg("fetch").arg("--quiet").current_dir(&project).status()?;
    if !fetched.success() {
        bail!("cargo fetch of {package} {version} failed: {fetched}");
    }
    let metadata = cargo_metadata::MetadataCommand::new().manifest_path(project.join("Cargo.toml")).exec()?;
    source_of(&metadata, package)
}
