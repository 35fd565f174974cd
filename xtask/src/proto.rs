//! `cargo xtask proto`: generates the gRPC clients of `crates/cri` (CRI v1 and the part of containerd's own
//! API that we use) from the `.proto` files that two published crates carry.
//!
//! The result is checked in, so that building Gantry needs neither `protoc` nor those crates. The published
//! CRI file is a few releases behind Kubernetes 1.36: what 1.36 added and we use is laid over it here, field by
//! field, with the numbers of `k8s.io/cri-api` (wire facts).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};

/// Where the generated files go, relative to the workspace.
const OUT_DIR: &str = "crates/cri/src/gen";

/// The crates whose sources carry the `.proto` files, with the versions that were looked at.
const SOURCES: &str = r#"
[package]
name = "gantry-proto-sources"
version = "0.0.0"
edition = "2024"
[lib]
path = "lib.rs"
[workspace]
[dependencies]
k8s-cri = "=0.11.0"
containerd-client = "=0.9.0"
"#;

/// The containerd files we need; what they import is found by itself.
const CONTAINERD_FILES: &[&str] = &[
    "services/content/v1/content.proto",
    "services/events/v1/events.proto",
    "services/images/v1/images.proto",
    "services/leases/v1/leases.proto",
    "services/namespaces/v1/namespace.proto",
    "events/container.proto",
    "events/task.proto",
];

/// Fields of CRI v1 that are newer than the published file: (message or service, text to insert).
const CRI_ADDED_FIELDS: &[(&str, &str)] = &[
    ("message Mount", "string image_sub_path = 10;"),
    ("message LinuxPodSandboxStats", "IoUsage io = 6;"),
    ("message ImageSpec", "string image_ref = 20;"),
    ("message ContainerConfig", "Signal stop_signal = 18;"),
    ("message ContainerStatus", "Signal stop_signal = 19;"),
    ("message RuntimeFeatures", "bool user_namespaces_host_network = 2;"),
    ("message ContainerStats", "IoUsage io = 6;"),
    ("message CpuUsage", "PsiStats psi = 4;"),
    ("message MemoryUsage", "PsiStats psi = 8;"),
    (
        "service RuntimeService",
        "rpc UpdatePodSandboxResources(UpdatePodSandboxResourcesRequest) returns (UpdatePodSandboxResourcesResponse) {}",
    ),
];

/// Messages of CRI v1 that are newer than the published file.
const CRI_ADDED_MESSAGES: &str = "
message PsiStats { PsiData Full = 1; PsiData Some = 2; }
message PsiData { uint64 Total = 1; double Avg10 = 2; double Avg60 = 3; double Avg300 = 4; }
message IoUsage { int64 timestamp = 1; PsiStats psi = 2; }
message UpdatePodSandboxResourcesRequest {
    string pod_sandbox_id = 1;
    LinuxContainerResources overhead = 2;
    LinuxContainerResources resources = 3;
}
message UpdatePodSandboxResourcesResponse {}
";

/// The signals of `runtime.v1.Signal` in order: the number of each is its place.
const SIGNALS: &[&str] = &[
    "RUNTIME_DEFAULT",
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

/// How many real-time signals count up from `SIGRTMIN`, and how many down to `SIGRTMAX`.
const REAL_TIME_SIGNALS: (u32, u32) = (15, 14);

/// Generates the clients.
///
/// # Errors
/// When the sources cannot be had, do not compile, or no longer have the messages that are laid over.
pub fn run() -> Result<()> {
    let scratch = std::env::temp_dir().join(format!("gantry-proto-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let result = generate(&scratch);
    std::fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
    result
}

fn generate(scratch: &Path) -> Result<()> {
    let sources = crate_sources(scratch)?;
    let cri = patched_cri(&sources["k8s-cri"].join("proto/v1.proto"))?;
    let vendor = sources["containerd-client"].join("vendor");
    let mut resolver = ChainFileResolver::new();
    resolver.add(OneFile { name: "runtime/v1.proto", text: cri });
    resolver.add(IncludeFileResolver::new(vendor));
    resolver.add(GoogleFileResolver::new());

    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true);
    compiler.open_file("runtime/v1.proto").map_err(|e| anyhow::anyhow!("{e:?}"))?;
    for file in CONTAINERD_FILES {
        let path = format!("github.com/containerd/containerd/api/{file}");
        compiler.open_file(&path).map_err(|e| anyhow::anyhow!("{e:?}"))?;
    }
    let out = workspace()?.join(OUT_DIR);
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .disable_comments(["."])
        .emit_rerun_if_changed(false)
        .bytes(".containerd.services.content.v1")
        // Their derived Debug would show passwords: `crates/cri/src/types.rs` has one that does not.
        .skip_debug([".runtime.v1.AuthConfig"])
        .include_file("mod.rs")
        .out_dir(&out)
        .compile_fds(compiler.file_descriptor_set())
        .context("generate the Rust files")?;
    remove_empty_files(&out)
}

/// Packages without a message or service that we need give files without code.
fn remove_empty_files(out: &Path) -> Result<()> {
    for entry in std::fs::read_dir(out)? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        if path.file_name().is_some_and(|n| n != "mod.rs") && text.lines().all(|l| l.starts_with("//")) {
            bail!("{} is empty: leave its package out", path.display());
        }
    }
    Ok(())
}

/// The source directories of the crates in [`SOURCES`], fetched by cargo.
fn crate_sources(scratch: &Path) -> Result<BTreeMap<String, PathBuf>> {
    std::fs::write(scratch.join("Cargo.toml"), SOURCES)?;
    std::fs::write(scratch.join("lib.rs"), "")?;
    let metadata = cargo_metadata::MetadataCommand::new()
        .current_dir(scratch)
        .manifest_path(scratch.join("Cargo.toml"))
        .exec()
        .context("cargo metadata of the crates that carry the .proto files")?;
    let mut found = BTreeMap::new();
    for package in metadata.packages {
        let folder = package.manifest_path.parent().context("a manifest has a folder")?;
        found.insert(package.name.to_string(), folder.as_std_path().to_owned());
    }
    for name in ["k8s-cri", "containerd-client"] {
        ensure!(found.contains_key(name), "cargo metadata does not list {name}");
    }
    Ok(found)
}

/// The published CRI file with the additions of 1.36.
fn patched_cri(path: &Path) -> Result<String> {
    let mut text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    for (message, field) in CRI_ADDED_FIELDS {
        let opening = format!("\n{message} {{\n");
        let Some(at) = text.find(&opening) else { bail!("{} has no `{message}`", path.display()) };
        text.insert_str(at + opening.len(), &format!("    {field}\n"));
    }
    text.push_str(CRI_ADDED_MESSAGES);
    text.push_str(&signal_enum());
    Ok(text)
}

fn signal_enum() -> String {
    let (up, down) = REAL_TIME_SIGNALS;
    let mut names: Vec<String> = SIGNALS.iter().map(ToString::to_string).collect();
    names.push("SIGRTMIN".to_owned());
    names.extend((1..=up).map(|n| format!("SIGRTMINPLUS{n}")));
    names.extend((1..=down).rev().map(|n| format!("SIGRTMAXMINUS{n}")));
    names.push("SIGRTMAX".to_owned());
    let lines: Vec<String> = names.iter().enumerate().map(|(n, name)| format!("    {name} = {n};")).collect();
    format!("\nenum Signal {{\n{}\n}}\n", lines.join("\n"))
}

/// Resolves one name to a text in memory.
struct OneFile {
    name: &'static str,
    text: String,
}

impl FileResolver for OneFile {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == self.name {
            File::from_source(name, &self.text)
        } else {
            Err(protox::Error::file_not_found(name))
        }
    }
}

/// The root of this workspace.
fn workspace() -> Result<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["locate-project", "--workspace", "--message-format", "plain"])
        .output()
        .context("cargo locate-project")?;
    ensure!(output.status.success(), "cargo locate-project: {}", String::from_utf8_lossy(&output.stderr));
    let manifest = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    Ok(manifest.parent().context("Cargo.toml has a folder")?.to_owned())
}
