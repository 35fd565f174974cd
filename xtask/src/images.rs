//! `cargo xtask images`: the images of the example and of the tests, built on this machine without a registry.
//!
//! Our own programs are compiled by plain rustc (standard library only, static); busybox and Redis are the
//! distribution's. Each archive is in the format of `docker save`, the same bytes from the same input, and is
//! built anew only when its input changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

use crate::{packages, run};

/// Changes when the way of building does, so that no old archive is taken for a new one.
const FORMAT: &str = "1";

/// Where the sources of our programs are.
const SOURCES: &str = "lab/images";

/// The user of images that need no root.
const USER: &str = "10001:10001";

/// The distribution's packages that hold Redis and its libraries, for machines where it is not installed.
const REDIS_PACKAGES: &[&str] = &[
    "redis-server",
    "redis-tools",
    "libatomic1",
    "libhiredis0.14",
    "libjemalloc2",
    "liblua5.1-0",
    "liblzf1",
    "lua-bitop",
    "lua-cjson",
];

/// Options of `images`.
#[derive(clap::Args)]
pub struct Args {
    /// Where the archives go.
    #[arg(long, default_value = ".cache/images")]
    out: PathBuf,
}

impl Args {
    /// Builds them and says where they are.
    pub fn run(&self) -> anyhow::Result<()> {
        for image in run(&self.out)? {
            println!("{:<28} {}", image.name, image.tar.display());
        }
        Ok(())
    }
}

/// An image that was built.
pub struct BuiltImage {
    /// Its reference, for example `shop/web:1`.
    pub name: String,
    /// The archive that holds it.
    pub tar: PathBuf,
}

/// Builds all images below `out` and returns them.
pub fn run(out: &Path) -> anyhow::Result<Vec<BuiltImage>> {
    std::fs::create_dir_all(out)?;
    let busybox = busybox_layer()?;
    let plain = Config { cmd: &["sh"], ..Config::default() };
    let mut built = vec![archive(out, "gantry.test/busybox:1", &plain, &[&busybox])?];
    let programs = [
        ("gantry.test/nettest:1", "nettest", ""),
        ("shop/web:1", "shop-web", USER),
        ("shop/api:1", "shop-api", USER),
    ];
    for (name, program, user) in programs {
        let binary = compile(out, program)?;
        let mut layer = Layer::default();
        layer.file(&format!("usr/bin/{program}"), 0o755, &binary)?;
        let entrypoint = format!("/usr/bin/{program}");
        let config = Config { user, entrypoint: &[&entrypoint], ..Config::default() };
        built.push(archive(out, name, &config, &[&busybox, &layer.finish()?])?);
    }
    let config = Config {
        user: USER,
        entrypoint: &["/usr/bin/redis-server"],
        cmd: &["--dir", "/data", "--appendonly", "yes"],
        working_dir: "/data",
    };
    built.push(archive(out, "shop/db:1", &config, &[&busybox, &redis_layer(out)?])?);
    Ok(built)
}

/// What an image tells the runtime.
#[derive(Default)]
struct Config<'a> {
    user: &'a str,
    entrypoint: &'a [&'a str],
    cmd: &'a [&'a str],
    working_dir: &'a str,
}

/// A layer under construction: a tar without anything that changes from build to build.
struct Layer {
    tar: tar::Builder<Vec<u8>>,
}

impl Default for Layer {
    fn default() -> Self {
        Self { tar: tar::Builder::new(Vec::new()) }
    }
}

impl Layer {
    fn dir(&mut self, path: &str, mode: u32, owner: u64) -> anyhow::Result<()> {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        header.set_uid(owner);
        header.set_gid(owner);
        Ok(self.tar.append_data(&mut header, format!("{path}/"), std::io::empty())?)
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
        Ok(self.tar.append_data(&mut header, path, content)?)
    }

    fn symlink(&mut self, path: &str, target: &str) -> anyhow::Result<()> {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        Ok(self.tar.append_link(&mut header, path, target)?)
    }

    fn finish(self) -> anyhow::Result<Vec<u8>> {
        Ok(self.tar.into_inner()?)
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// The SHA-256 of `content`.
pub fn hex_digest(content: &[u8]) -> String {
    format!("{:x}", Sha256::digest(content))
}

/// Writes the archive of an image unless it is there from the same input.
fn archive(out: &Path, name: &str, config: &Config<'_>, layers: &[&[u8]]) -> anyhow::Result<BuiltImage> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", hex_digest(layer))).collect();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {
            "User": config.user,
            "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "Entrypoint": config.entrypoint,
            "Cmd": config.cmd,
            "WorkingDir": config.working_dir,
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string();
    let tar = out.join(format!("{}.tar", name.replace(['/', ':'], "_")));
    let key = format!("{FORMAT} {name} {}\n", hex_digest(config.as_bytes()));
    let built = BuiltImage { name: name.to_owned(), tar };
    let key_file = built.tar.with_extension("key");
    if built.tar.exists() && std::fs::read_to_string(&key_file).is_ok_and(|found| found == key) {
        return Ok(built);
    }
    let config_path = format!("{}.json", hex_digest(config.as_bytes()));
    let paths: Vec<String> = layers.iter().map(|layer| format!("{}/layer.tar", hex_digest(layer))).collect();
    let list = serde_json::json!([{"Config": config_path, "RepoTags": [name], "Layers": paths}]).to_string();
    let mut whole = Layer::default();
    whole.file(&config_path, 0o644, config.as_bytes())?;
    for (path, layer) in paths.iter().zip(layers) {
        whole.file(path, 0o644, layer)?;
    }
    whole.file("manifest.json", 0o644, list.as_bytes())?;
    let new = built.tar.with_extension("new");
    std::fs::write(&new, whole.finish()?)?;
    std::fs::rename(&new, &built.tar)?;
    std::fs::write(key_file, key)?;
    println!("built {name}");
    Ok(built)
}

/// Busybox with all its applets, and the files that programs expect of a system.
fn busybox_layer() -> anyhow::Result<Vec<u8>> {
    let program = find("busybox").context("busybox is not installed: install the package busybox-static")?;
    let applets = run::output(Command::new(&program).arg("--list"))?;
    let mut layer = Layer::default();
    for (dir, mode) in [("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("var", 0o755)] {
        layer.dir(dir, mode, 0)?;
    }
    layer.file("bin/busybox", 0o755, &std::fs::read(&program)?)?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        layer.symlink(&format!("bin/{applet}"), "busybox")?;
    }
    let users = "root:x:0:0:root:/root:/bin/sh\nuser:x:10001:10001:user:/tmp:/bin/sh\n\
                 nobody:x:65534:65534:nobody:/:/bin/false\n";
    layer.file("etc/passwd", 0o644, users.as_bytes())?;
    layer.file("etc/group", 0o644, b"root:x:0:\nuser:x:10001:\nnogroup:x:65534:\n")?;
    layer.file("etc/nsswitch.conf", 0o644, b"hosts: files dns\n")?;
    layer.finish()
}

/// Compiles one of our programs, static, unless its sources are the same as before.
fn compile(out: &Path, program: &str) -> anyhow::Result<Vec<u8>> {
    let sources = run::root().join(SOURCES);
    let main = sources.join(program).join("main.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut key = run::output(Command::new(&rustc).arg("-vV"))?;
    for source in [&main, &sources.join("common/http.rs")] {
        let text = std::fs::read(source).with_context(|| format!("read {}", source.display()))?;
        writeln!(key, "{}", hex_digest(&text))?;
    }
    let binary = out.join(format!("{program}-{}", &hex_digest(key.as_bytes())[..16]));
    if !binary.exists() {
        let new = binary.with_extension("new");
        run::checked(
            Command::new(&rustc)
                .args(["--edition=2024", "-Copt-level=s", "-Cpanic=abort", "-Cstrip=symbols"])
                .args(["-Ctarget-feature=+crt-static", "-Ccodegen-units=1", "--crate-name"])
                .arg(program.replace('-', "_"))
                .arg("-o")
                .arg(&new)
                .arg(&main),
        )?;
        std::fs::rename(&new, &binary)?;
    }
    Ok(std::fs::read(&binary)?)
}

/// Redis with the libraries it is linked to, and its data directory.
fn redis_layer(out: &Path) -> anyhow::Result<Vec<u8>> {
    let root = if find("redis-server").is_some() { PathBuf::from("/") } else { downloaded_redis(out)? };
    let mut files = BTreeMap::new();
    for program in ["redis-server", "redis-cli"] {
        let path = root.join("usr/bin").join(program);
        for (place, library) in libraries(&path, &root)? {
            files.insert(place, library);
        }
        files.insert(format!("usr/bin/{program}"), path);
    }
    let mut layer = Layer::default();
    for (place, path) in files {
        let content = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        layer.file(&place, 0o755, &content)?;
    }
    let owner = USER.split(':').next().and_then(|uid| uid.parse().ok()).context("a numeric user")?;
    layer.dir("data", 0o750, owner)?;
    layer.finish()
}

/// The shared libraries of a program: where each has to be in an image, and where it is here.
fn libraries(program: &Path, root: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let folders = [root.join("usr/lib").join(&triple), root.join("lib").join(&triple)];
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    let text = run::output(Command::new("ldd").arg(program).env("LD_LIBRARY_PATH", folders.join(":")))?;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        ensure!(!line.contains("not found"), "{}: {line}", program.display());
        // `libc.so.6 => /lib/…/libc.so.6 (0x…)`, or the loader: `/lib64/ld-linux-x86-64.so.2 (0x…)`.
        let path = line.split(" => ").last().and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        if path.starts_with('/') {
            let path = PathBuf::from(path);
            let place = path.strip_prefix(root).or_else(|_| path.strip_prefix("/"))?;
            found.push((place.display().to_string(), path.clone()));
        }
    }
    Ok(found)
}

/// Redis unpacked from the distribution's packages, which are not installed by this.
fn downloaded_redis(out: &Path) -> anyhow::Result<PathBuf> {
    let root = std::path::absolute(out)?.join("redis");
    if root.join("usr/bin/redis-server").exists() {
        return Ok(root);
    }
    packages::unpack(REDIS_PACKAGES, &root)
        .context("redis-server is neither installed nor to be had: apt-get install redis-server")?;
    if !root.join("usr/bin/redis-server").exists() {
        bail!("the packages have no /usr/bin/redis-server");
    }
    Ok(root)
}

/// A program along `$PATH`.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
