//! What no compiler checks: that dependencies point down, and that every unit is registered.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::run;

/// The layer of each crate: a crate may depend on lower layers only, and on the peers named in [`PEERS`].
const LAYERS: &[(&str, u8)] = &[
    ("gantry-base", 0),
    ("gantry-api", 1),
    ("gantry-cel", 1),
    ("gantry-nft", 1),
    ("gantry-stream", 1),
    ("gantry-kinds", 2),
    ("gantry-store", 2),
    ("gantry-client", 2),
    ("gantry-cri", 2),
    ("gantry-apiserver", 3),
    ("gantry-controllers", 3),
    ("gantry-scheduler", 3),
    ("gantry-kubelet", 3),
    ("gantry-proxy", 3),
    ("gantry-cni", 3),
    ("gantry-dns", 3),
    ("gantry-cli", 3),
    ("gantry", 4),
    ("gantry-lab", 5),
    ("gantry-fuzz", 5),
    ("xtask", 5),
];

/// Who may depend on another crate of the same layer.
const PEERS: &[(&str, &str)] = &[("gantry-kubelet", "gantry-cni"), ("gantry-cel", "gantry-api")];

/// Only these may depend on these: `apiserver` alone sees both kinds and store.
const RESERVED: &[(&str, &[&str])] = &[
    ("gantry-store", &["gantry-apiserver", "gantry"]),
    ("gantry-kinds", &["gantry-apiserver", "gantry-kubelet", "gantry-controllers", "gantry"]),
    ("gantry-cri", &["gantry-kubelet", "gantry"]),
];

/// Folders of units whose every file must be named in the registry file.
const REGISTRIES: &[(&str, &str)] = &[
    ("crates/kinds/src/core", "crates/kinds/src/registry.rs"),
    ("crates/kinds/src/apps", "crates/kinds/src/registry.rs"),
    ("crates/kinds/src/batch", "crates/kinds/src/registry.rs"),
];

/// Runs all checks and reports every fault.
pub fn run() -> anyhow::Result<()> {
    let mut faults = layers()?;
    for (folder, registry) in REGISTRIES {
        faults.extend(unregistered(folder, registry)?);
    }
    if faults.is_empty() {
        println!("check: layers and registries are in order");
        return Ok(());
    }
    bail!("{} faults:\n  {}", faults.len(), faults.join("\n  "))
}

fn layers() -> anyhow::Result<Vec<String>> {
    let text =
        run::output(run::cargo().args(["metadata", "--format-version", "1", "--no-deps", "--offline"]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata printed no JSON")?;
    let layer: BTreeMap<&str, u8> = LAYERS.iter().copied().collect();
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or("");
        let Some(own) = layer.get(name) else {
            faults.push(format!("{name} has no layer: add it to LAYERS in xtask/src/check.rs"));
            continue;
        };
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        for dependency in dependencies.filter(|d| d["kind"].as_str() != Some("dev")) {
            let target = dependency["name"].as_str().unwrap_or("");
            let Some(below) = layer.get(target) else { continue };
            let allowed_peer = PEERS.contains(&(name, target));
            if below >= own && !allowed_peer {
                faults.push(format!("{name} (layer {own}) depends on {target} (layer {below})"));
            }
            let reserved = RESERVED.iter().find(|(crate_name, _)| *crate_name == target);
            if reserved.is_some_and(|(_, users)| *own == 3 && !users.contains(&name)) {
                faults.push(format!("{name} depends on {target}, which is not for it"));
            }
        }
    }
    Ok(faults)
}

fn unregistered(folder: &str, registry: &str) -> anyhow::Result<Vec<String>> {
    let root = run::root();
    let listed = std::fs::read_to_string(root.join(registry)).with_context(|| registry.to_owned())?;
    let mut faults = Vec::new();
    for entry in std::fs::read_dir(root.join(folder)).with_context(|| folder.to_owned())? {
        let path = entry?.path();
        let unit = path.file_stem().and_then(|s| s.to_str()).unwrap_or("").to_owned();
        if unit != "mod" && !listed.contains(&format!("::{unit}::")) && is_unit(&path) {
            faults.push(format!("{folder}/{unit} is not listed in {registry}"));
        }
    }
    Ok(faults)
}

fn is_unit(path: &Path) -> bool {
    let file = if path.is_dir() { path.join("mod.rs") } else { path.to_owned() };
    std::fs::read_to_string(file).is_ok_and(|text| text.contains("impl Kind for"))
}
