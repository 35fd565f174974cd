//! Builds an image from layers, byte for byte the same from the same input.

use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use gantry_base::error::Context;
use gantry_base::{Class, Result};
use serde::Serialize;

use super::{Descriptor, Index, Manifest, digest, media_type};

/// The annotation of an index entry that holds the image's whole name (containerd's).
pub(crate) const NAME_ANNOTATION: &str = "io.containerd.image.name";

/// The annotation of an index entry that holds the tag or name (OCI's).
pub(crate) const REF_NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// What an image tells the runtime about its process (OCI image configuration, `config`).
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct OciConfig {
    /// Who it runs as (`65535:65535`); empty for root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Its arguments, which a pod may replace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Where it starts; empty for `/`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
}

/// A layer under construction: a tar without times, owners' names or other things that change.
pub struct Layer {
    tar: tar::Builder<Vec<u8>>,
}

impl Default for Layer {
    fn default() -> Self {
        Self { tar: tar::Builder::new(Vec::new()) }
    }
}

impl Layer {
    /// Adds a directory.
    ///
    /// # Errors
    /// If the path cannot be written into a tar.
    pub fn dir(&mut self, path: &str, mode: u32) -> io::Result<()> {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        self.tar.append_data(&mut header, format!("{}/", path.trim_matches('/')), io::empty())
    }

    /// Adds a file owned by root.
    ///
    /// # Errors
    /// As [`Layer::dir`].
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
        self.tar.append_data(&mut header, path.trim_start_matches('/'), content)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// As [`Layer::dir`].
    pub fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        self.tar.append_link(&mut header, path.trim_start_matches('/'), target)
    }

    /// Adds a directory that belongs to this user and group.
    ///
    /// # Errors
    /// As [`Layer::dir`].
    pub fn owned_dir(&mut self, path: &str, mode: u32, uid: u64, gid: u64) -> io::Result<()> {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        header.set_uid(uid);
        header.set_gid(gid);
        self.tar.append_data(&mut header, format!("{}/", path.trim_matches('/')), io::empty())
    }

    /// The finished tar.
    ///
    /// # Errors
    /// Never in practice: it is written to memory.
    pub fn finish(self) -> io::Result<Bytes> {
        Ok(self.tar.into_inner()?.into())
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

/// An image in memory: its blobs and its name.
#[derive(Clone, Debug)]
pub struct ImageSource {
    /// The name in its long form (`gantry.test/busybox:1`).
    pub name: String,
    pub(crate) manifest: Bytes,
    pub(crate) config: Bytes,
    pub(crate) layers: Vec<Bytes>,
}

#[derive(Serialize)]
struct ConfigFile<'a> {
    architecture: &'a str,
    os: &'a str,
    config: &'a OciConfig,
    rootfs: RootFs,
}

#[derive(Serialize)]
struct RootFs {
    r#type: &'static str,
    diff_ids: Vec<String>,
}

impl ImageSource {
    /// The image of these layers (uncompressed tars, lowest first) for this machine's architecture.
    ///
    /// # Errors
    /// [`Class::Bug`] if the configuration cannot be written as JSON.
    pub fn new(name: &str, config: &OciConfig, layers: Vec<Bytes>) -> Result<Self> {
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let file = ConfigFile {
            architecture: architecture(),
            os: "linux",
            config,
            rootfs: RootFs { r#type: "layers", diff_ids },
        };
        let config = json(&file)?;
        let manifest = json(&Manifest {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.to_owned(),
            config: Descriptor::of(media_type::OCI_CONFIG, &config),
            layers: layers.iter().map(|l| Descriptor::of(media_type::OCI_LAYER, l)).collect(),
        })?;
        Ok(Self { name: super::normalize(name), manifest, config, layers })
    }

    /// The digest of its manifest.
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// Writes the image as a tar in OCI layout.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_archive(&self, path: &Path) -> Result<()> {
        let what = format!("write {}", path.display());
        let file = std::fs::File::create(path).context(Class::Retry, &what)?;
        let mut writer = io::BufWriter::new(file);
        self.write_tar(&mut writer).and_then(|()| writer.flush()).context(Class::Retry, &what)
    }

    fn write_tar(&self, writer: &mut impl Write) -> io::Result<()> {
        let mut entry = Descriptor::of(media_type::OCI_MANIFEST, &self.manifest);
        entry.annotations.insert(NAME_ANNOTATION.to_owned(), self.name.clone());
        if let Some((_, tag)) = self.name.rsplit_once(':') {
            entry.annotations.insert(REF_NAME_ANNOTATION.to_owned(), tag.to_owned());
        }
        let index =
            Index { schema_version: 2, media_type: media_type::OCI_INDEX.to_owned(), manifests: vec![entry] };
        let mut tar = tar::Builder::new(writer);
        let mut add = |path: &str, content: &[u8]| {
            let mut header = header(tar::EntryType::Regular, 0o644, content.len() as u64);
            tar.append_data(&mut header, path, content)
        };
        add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        add("index.json", &serde_json::to_vec(&index)?)?;
        for blob in [&self.manifest, &self.config].into_iter().chain(&self.layers) {
            add(&format!("blobs/{}", digest(blob).replace(':', "/")), blob)?;
        }
        tar.finish()
    }
}

fn json(value: &impl Serialize) -> Result<Bytes> {
    Ok(serde_json::to_vec(value).context(Class::Bug, "write an image's JSON")?.into())
}

/// This machine's architecture in Go's words, which OCI uses.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
