//! containerd's configuration: what this machine allows, in a file of version 2 (which 1.6 to 2.x read).

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use gantry_base::error::Context;
use gantry_base::{Class, Error, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sha2::{Digest, Sha256};

use super::{ContainerdOptions, Layout};

/// `CAP_SYS_RESOURCE` (capabilities(7)): without it no process may lower its OOM score.
const CAP_SYS_RESOURCE: u32 = 24;

/// How badly the kernel wants to kill containerd: hardly, as the kubelet's own score.
const OOM_SCORE: i32 = -999;

/// What we do not need, for the sake of memory; and NRI, whose socket belongs to the machine's containerd.
/// (1.6 does not work without the old `io.containerd.runtime.v1.linux`, though nothing uses it.)
const DISABLED_PLUGINS: &[&str] = &[
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.monitor.container.v1.restart",
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
];

/// What keeps the layers of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshotter {
    /// Overlay mounts where the file system allows them, else copies.
    Auto,
    /// Overlay mounts.
    Overlayfs,
    /// Copies: works everywhere, slowly.
    Native,
}

/// What was decided for this machine.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub containerd: PathBuf,
    /// The text of the configuration file.
    pub text: String,
    /// Changes with the configuration and with the containerd program.
    pub fingerprint: String,
    cni_conf_dir: PathBuf,
    registry_dir: PathBuf,
}

impl Settings {
    /// Looks at the machine and decides.
    pub fn find(options: &ContainerdOptions, layout: &Layout) -> Result<Self> {
        let path = match &options.search_path {
            Some(path) => path.clone(),
            None => std::env::var_os("PATH").unwrap_or_default(),
        };
        let containerd = program("containerd", "containerd", &path)?;
        program("containerd-shim-runc-v2", "containerd", &path)?;
        let runc = program("runc", "runc", &path)?;
        make_dirs(layout)?;
        let registry_dir = options.registry_config_dir.clone().unwrap_or_else(|| layout.dir.join("certs.d"));
        let machine = Machine {
            runc,
            snapshotter: snapshotter(options.snapshotter, layout)?,
            may_lower_oom_score: has_capability(CAP_SYS_RESOURCE)?,
            has_apparmor: has_apparmor(),
        };
        let text = render(options, layout, &registry_dir, &machine)?;
        let fingerprint = fingerprint(&text, &containerd)?;
        Ok(Self { containerd, text, fingerprint, cni_conf_dir: options.cni_conf_dir.clone(), registry_dir })
    }

    /// Writes the configuration, and makes the directories that containerd watches.
    pub fn write_files(&self, layout: &Layout) -> Result<()> {
        for dir in [&self.cni_conf_dir, &self.registry_dir] {
            std::fs::create_dir_all(dir).context(Class::Refused, format_args!("create {}", dir.display()))?;
        }
        super::process::write_whole(&layout.config, self.text.as_bytes())
    }
}

/// What the machine has.
struct Machine {
    runc: PathBuf,
    snapshotter: &'static str,
    may_lower_oom_score: bool,
    has_apparmor: bool,
}

fn make_dirs(layout: &Layout) -> Result<()> {
    for dir in [&layout.dir, &layout.root, &layout.state] {
        let what = format!("create {}", dir.display());
        std::fs::create_dir_all(dir).context(Class::Refused, &what)?;
    }
    let private = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(&layout.dir, private).context(Class::Refused, "restrict containerd's directory")
}

/// The program `name`, found along `path`.
fn program(name: &str, package: &str, path: &OsStr) -> Result<PathBuf> {
    let runs = |file: &PathBuf| {
        std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path).map(|dir| dir.join(name)).find(runs).ok_or_else(|| {
        let text = format!(
            "{name} is not installed: install the package {package} (apt-get install {package}), or name a \
             runtime with --container-runtime-endpoint"
        );
        Error::missing(text)
    })
}

/// True if this process has the capability (`CapEff` of proc(5)).
fn has_capability(number: u32) -> Result<bool> {
    let status =
        std::fs::read_to_string("/proc/self/status").context(Class::Retry, "read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let mask = mask.ok_or_else(|| Error::bug("/proc/self/status has no CapEff"))?;
    Ok(mask & (1 << number) != 0)
}

/// True if AppArmor is on and its parser, which containerd needs to load its profile, is there.
fn has_apparmor() -> bool {
    let on = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    on.is_ok_and(|on| on.starts_with('Y')) && Path::new("/sbin/apparmor_parser").exists()
}

fn snapshotter(wanted: Snapshotter, layout: &Layout) -> Result<&'static str> {
    match wanted {
        Snapshotter::Overlayfs => Ok("overlayfs"),
        Snapshotter::Native => Ok("native"),
        Snapshotter::Auto => match try_overlay(&layout.root) {
            Ok(()) => Ok("overlayfs"),
            Err(error) => {
                tracing::warn!(%error, "overlay mounts do not work here: images are copied instead");
                Ok("native")
            }
        },
    }
}

/// Makes an overlay mount below `dir` and takes it away again.
fn try_overlay(dir: &Path) -> Result<()> {
    let place = dir.join(".overlay-check");
    let result = (|| {
        for part in ["lower", "upper", "work", "merged"] {
            std::fs::create_dir_all(place.join(part)).context(Class::Refused, "create a directory")?;
        }
        let part = |name: &str| place.join(name).display().to_string();
        let options =
            format!("lowerdir={},upperdir={},workdir={}", part("lower"), part("upper"), part("work"));
        let merged = place.join("merged");
        mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .context(Class::Refused, "mount an overlay")?;
        umount2(&merged, MntFlags::MNT_DETACH).context(Class::Retry, "unmount an overlay")
    })();
    super::process::remove_dir_if_there(&place)?;
    result
}

/// A digest of what a running containerd must have been started with to be adopted.
fn fingerprint(text: &str, containerd: &Path) -> Result<String> {
    let what = format!("look at {}", containerd.display());
    let program = std::fs::metadata(containerd).context(Class::Retry, what)?;
    let mut hash = Sha256::new();
    hash.update(text);
    hash.update(format!("\n{} {} {}", containerd.display(), program.size(), program.mtime()));
    Ok(format!("{:x}", hash.finalize()))
}

/// The configuration file.
fn render(
    options: &ContainerdOptions,
    layout: &Layout,
    registry: &Path,
    machine: &Machine,
) -> Result<String> {
    let disabled: Vec<String> = DISABLED_PLUGINS.iter().map(|name| string(name)).collect();
    let mut out = String::from("# Written by Gantry at each start: changes are lost.\nversion = 2\n");
    let mut line = |text: std::fmt::Arguments<'_>| writeln!(out, "{text}").context(Class::Bug, "format");
    line(format_args!("root = {}", path(&layout.root)?))?;
    line(format_args!("state = {}", path(&layout.state)?))?;
    line(format_args!("oom_score = {}", if machine.may_lower_oom_score { OOM_SCORE } else { 0 }))?;
    line(format_args!("disabled_plugins = [{}]", disabled.join(", ")))?;
    line(format_args!("[grpc]\n  address = {}\n  uid = 0\n  gid = 0", path(&layout.socket)?))?;
    line(format_args!("[debug]\n  level = {}", string(&options.log_level)))?;
    line(format_args!("[metrics]\n  address = \"\""))?;
    line(format_args!("[plugins.\"io.containerd.monitor.v1.cgroups\"]\n  no_prometheus = true"))?;
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    line(format_args!("[{cri}]"))?;
    line(format_args!("  sandbox_image = {}", string(&options.sandbox_image)))?;
    line(format_args!("  max_container_log_line_size = {}", options.max_container_log_line_size))?;
    line(format_args!("  disable_apparmor = {}", !machine.has_apparmor))?;
    line(format_args!("  restrict_oom_score_adj = {}", !machine.may_lower_oom_score))?;
    line(format_args!("  enable_selinux = false"))?;
    line(format_args!("  tolerate_missing_hugetlb_controller = true"))?;
    line(format_args!("  netns_mounts_under_state_dir = true"))?;
    line(format_args!("  enable_unprivileged_ports = true\n  enable_unprivileged_icmp = true"))?;
    line(format_args!("  stream_server_address = \"127.0.0.1\"\n  stream_server_port = \"0\""))?;
    line(format_args!("  [{cri}.containerd]"))?;
    line(format_args!("    snapshotter = {}", string(machine.snapshotter)))?;
    line(format_args!("    default_runtime_name = \"runc\""))?;
    line(format_args!("  [{cri}.containerd.runtimes.runc]\n    runtime_type = \"io.containerd.runc.v2\""))?;
    line(format_args!("  [{cri}.containerd.runtimes.runc.options]"))?;
    line(format_args!("    SystemdCgroup = false\n    BinaryName = {}", path(&machine.runc)?))?;
    line(format_args!("    Root = {}", path(&layout.state.join("runc"))?))?;
    line(format_args!("  [{cri}.cni]"))?;
    line(format_args!("    bin_dir = {}", path(&options.cni_bin_dir)?))?;
    line(format_args!("    conf_dir = {}", path(&options.cni_conf_dir)?))?;
    line(format_args!("    max_conf_num = 1"))?;
    line(format_args!("  [{cri}.registry]\n    config_path = {}", path(registry)?))?;
    Ok(out)
}

fn path(path: &Path) -> Result<String> {
    let absolute = std::path::absolute(path).context(Class::Invalid, format_args!("{}", path.display()))?;
    let text = absolute.to_str();
    Ok(string(text.ok_or_else(|| Error::invalid(format!("{} is not UTF-8", path.display())))?))
}

/// A TOML basic string. JSON's escapes are among TOML's.
fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(capable: bool) -> Machine {
        Machine {
            runc: "/usr/sbin/runc".into(),
            snapshotter: "overlayfs",
            may_lower_oom_score: capable,
            has_apparmor: false,
        }
    }

    #[test]
    fn the_configuration_follows_the_machine() {
        let options = ContainerdOptions::new("/var/lib/gantry");
        let layout = Layout::of(&options.data_dir).expect("a short path");
        let render = |capable| {
            render(&options, &layout, Path::new("/var/lib/gantry/containerd/certs.d"), &machine(capable))
                .expect("plain paths")
        };
        let (full, restricted) = (render(true), render(false));
        assert!(full.contains("oom_score = -999\n") && full.contains("restrict_oom_score_adj = false\n"));
        assert!(
            restricted.contains("oom_score = 0\n") && restricted.contains("restrict_oom_score_adj = true\n")
        );
        assert!(full.contains("address = \"/var/lib/gantry/containerd/containerd.sock\"\n"));
        assert!(full.contains("conf_dir = \"/var/lib/gantry/cni/net.d\"\n"));
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = program("runc", "runc", OsStr::new("/nonexistent")).expect_err("not there");
        assert_eq!(error.class(), Class::Missing);
        assert!(error.to_string().starts_with("runc is not installed: install the package runc"), "{error}");
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        let error = Layout::of(Path::new(&format!("/{}", "x".repeat(100)))).expect_err("too long");
        assert_eq!(error.class(), Class::Invalid);
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(string("a\"b\\c"), r#""a\"b\\c""#);
    }
}
