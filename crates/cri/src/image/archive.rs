//! Reads image archives: OCI layout in a tar, or what `docker save` writes; either may be gzipped.
//!
//! Nothing is unpacked: an index of the tar says where each blob lies, and the import reads it from there. A
//! `docker save` archive has no manifest, so one is made from its configuration and layers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;

use bytes::Bytes;
use gantry_base::error::Context;
use gantry_base::{Class, Error, Result};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::build::{ImageSource, NAME_ANNOTATION, REF_NAME_ANNOTATION};
use super::{Descriptor, Index, Manifest, media_type, normalize};

/// The largest JSON document (index, manifest, configuration) that is read.
const MAX_JSON_BYTES: u64 = 16 * 1024 * 1024;

/// The most files an archive may have: images have hundreds of blobs at most.
const MAX_ENTRIES: usize = 100_000;

/// How deep an index may hold indexes.
const MAX_INDEX_DEPTH: usize = 4;

/// The first bytes of a gzip file and of a zstd one.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// An archive of images, open for reading.
pub struct Archive {
    source: Box<dyn Source>,
    images: Vec<ArchivedImage>,
}

/// What an archive is read from.
pub(crate) trait Source: Read + Seek + Send {}
impl<T: Read + Seek + Send> Source for T {}

/// One image of an archive.
#[derive(Clone, Debug)]
pub struct ArchivedImage {
    /// Its names in their long form; may be none.
    pub names: Vec<String>,
    /// Its manifest or index.
    pub target: Descriptor,
    /// The digest of its configuration for this machine: the image id.
    pub id: Option<String>,
    /// All it consists of, each blob after those that it refers to.
    pub(crate) blobs: Vec<Blob>,
}

/// A blob with what containerd's garbage collector has to know.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    pub descriptor: Descriptor,
    pub content: Content,
    pub labels: BTreeMap<String, String>,
}

/// Where a blob's bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Memory(Bytes),
    Archive(Span),
}

/// A stretch of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub offset: u64,
    pub size: u64,
}

/// An entry of `manifest.json` in `docker save`'s format.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Archive {
    /// Opens the archive at `path`.
    ///
    /// # Errors
    /// [`Class::Missing`] if there is no such file, [`Class::Invalid`] if it is no image archive.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path)
            .map_err(|e| Error::from(e).while_doing(format_args!("open {}", path.display())))?;
        let invalid = |e: Error| e.while_doing(format_args!("read {}", path.display()));
        if starts_with(&mut file, &GZIP_MAGIC).context(Class::Retry, "read").map_err(invalid)? {
            file = inflated(file).map_err(invalid)?;
        }
        Self::read(Box::new(file)).map_err(invalid)
    }

    /// Opens an archive in memory.
    ///
    /// # Errors
    /// [`Class::Invalid`] if it is no image archive.
    pub fn from_bytes(bytes: Bytes) -> Result<Self> {
        Self::read(Box::new(Cursor::new(bytes)))
    }

    /// An archive with one image that was just built.
    pub fn of(image: &ImageSource) -> Result<Self> {
        let mut blobs = HashMap::new();
        for blob in [&image.manifest, &image.config].into_iter().chain(&image.layers) {
            blobs.insert(super::digest(blob), Content::Memory(blob.clone()));
        }
        let mut source: Box<dyn Source> = Box::new(Cursor::new(Bytes::new()));
        let target = Descriptor::of(media_type::OCI_MANIFEST, &image.manifest);
        let found = Reader { source: &mut source, blobs }.image(target, vec![image.name.clone()])?;
        Ok(Self { source, images: vec![found] })
    }

    /// The images in it.
    pub fn images(&self) -> &[ArchivedImage] {
        &self.images
    }

    /// The images, and what their blobs are read from.
    pub(crate) fn into_parts(self) -> (Box<dyn Source>, Vec<ArchivedImage>) {
        (self.source, self.images)
    }

    fn read(mut source: Box<dyn Source>) -> Result<Self> {
        let entries = entries(&mut source)?;
        let images = if entries.contains_key("index.json") {
            oci_images(&mut source, &entries)?
        } else if entries.contains_key("manifest.json") {
            docker_images(&mut source, &entries)?
        } else {
            let text = "neither index.json (OCI layout) nor manifest.json (docker save) is in it";
            return Err(Error::invalid(text));
        };
        Ok(Self { source, images })
    }
}

/// Where each file of the tar lies.
fn entries(source: &mut Box<dyn Source>) -> Result<HashMap<String, Span>> {
    let not_a_tar = |e: io::Error| Error::invalid("it is no tar").because(e);
    source.seek(SeekFrom::Start(0)).map_err(not_a_tar)?;
    let mut found = HashMap::new();
    let mut links = Vec::new();
    let mut archive = tar::Archive::new(&mut *source);
    for entry in archive.entries_with_seek().map_err(not_a_tar)? {
        let entry = entry.map_err(not_a_tar)?;
        let path = plain(&entry.path().map_err(not_a_tar)?);
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                found.insert(path, Span { offset: entry.raw_file_position(), size: entry.size() });
            }
            tar::EntryType::Symlink | tar::EntryType::Link => {
                let target = entry.link_name().map_err(not_a_tar)?.unwrap_or_default().into_owned();
                let base = Path::new(&path).parent().unwrap_or(Path::new("")).to_owned();
                let hard = entry.header().entry_type() == tar::EntryType::Link;
                links.push((path, plain(&if hard { target } else { base.join(target) })));
            }
            _ => {}
        }
        if found.len() + links.len() > MAX_ENTRIES {
            return Err(Error::refused(format!("it has more than {MAX_ENTRIES} files")));
        }
    }
    // `docker save` once wrote a layer that two images share as a link.
    for (path, target) in links {
        if let Some(span) = found.get(&target).copied() {
            found.insert(path, span);
        }
    }
    Ok(found)
}

/// A path without `.`, `..` and leading slashes.
fn plain(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            std::path::Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts.join("/")
}

fn oci_images(source: &mut Box<dyn Source>, entries: &HashMap<String, Span>) -> Result<Vec<ArchivedImage>> {
    let index: Index = read_json(source, entries, "index.json")?;
    // Newer versions of `docker save` write both formats, and the names only into this one.
    let docker: Vec<DockerEntry> = match entries.get("manifest.json") {
        Some(_) => read_json(source, entries, "manifest.json")?,
        None => Vec::new(),
    };
    let blobs = entries.iter().filter_map(|(path, span)| {
        let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
        Some((format!("{algorithm}:{hex}"), Content::Archive(*span)))
    });
    let mut reader = Reader { source, blobs: blobs.collect() };
    let mut images: Vec<ArchivedImage> = Vec::new();
    for target in index.manifests {
        let name = target.annotations.get(NAME_ANNOTATION).or_else(|| {
            // OCI lets this be a bare tag, which names no image.
            target.annotations.get(REF_NAME_ANNOTATION).filter(|name| name.contains(['/', ':']))
        });
        let names: Vec<String> = name.into_iter().map(|name| normalize(name)).collect();
        if let Some(same) = images.iter_mut().find(|image| image.target.digest == target.digest) {
            same.names.extend(names);
            continue;
        }
        let mut image = reader.image(target, names)?;
        if image.names.is_empty() {
            image.names = docker_names(&docker, image.id.as_deref());
        }
        images.push(image);
    }
    Ok(images)
}

/// The names that `manifest.json` gives to the image with this id.
fn docker_names(entries: &[DockerEntry], id: Option<&str>) -> Vec<String> {
    let Some((_, hex)) = id.and_then(|id| id.split_once(':')) else { return Vec::new() };
    let entry = entries.iter().find(|entry| entry.config.contains(hex));
    let tags = entry.and_then(|entry| entry.repo_tags.clone()).unwrap_or_default();
    tags.iter().map(|tag| normalize(tag)).collect()
}

fn docker_images(
    source: &mut Box<dyn Source>,
    entries: &HashMap<String, Span>,
) -> Result<Vec<ArchivedImage>> {
    let list: Vec<DockerEntry> = read_json(source, entries, "manifest.json")?;
    let mut images = Vec::new();
    for entry in list {
        let config = read_small(source, entries, &entry.config)?;
        let mut blobs = HashMap::new();
        let mut layers = Vec::new();
        for path in &entry.layers {
            let path = plain(Path::new(path));
            let span =
                *entries.get(&path).ok_or_else(|| Error::invalid(format!("layer {path} is not in it")))?;
            let layer = layer_descriptor(source, span)?;
            blobs.insert(layer.digest.clone(), Content::Archive(span));
            layers.push(layer);
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.to_owned(),
            config: Descriptor::of(media_type::OCI_CONFIG, &config),
            layers,
        };
        let bytes: Bytes = serde_json::to_vec(&manifest).context(Class::Bug, "write a manifest")?.into();
        let target = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
        blobs.insert(manifest.config.digest, Content::Memory(config.into()));
        blobs.insert(target.digest.clone(), Content::Memory(bytes));
        let names = entry.repo_tags.unwrap_or_default().iter().map(|tag| normalize(tag)).collect();
        images.push(Reader { source, blobs }.image(target, names)?);
    }
    Ok(images)
}

/// Hashes a layer of a `docker save` archive and finds out how it is compressed.
fn layer_descriptor(source: &mut Box<dyn Source>, span: Span) -> Result<Descriptor> {
    let broken = |e: io::Error| Error::invalid("a layer is cut short").because(e);
    source.seek(SeekFrom::Start(span.offset)).map_err(broken)?;
    let mut limited = source.take(span.size);
    let mut hash = Sha256::new();
    let mut magic = [0; 4];
    let length = limited.read(&mut magic).map_err(broken)?;
    hash.update(&magic[..length]);
    let rest = io::copy(&mut limited, &mut hash).map_err(broken)?;
    if rest + length as u64 != span.size {
        return Err(Error::invalid("a layer is cut short"));
    }
    let media_type = match magic {
        _ if magic.starts_with(&GZIP_MAGIC) => media_type::OCI_LAYER_GZIP,
        ZSTD_MAGIC => media_type::OCI_LAYER_ZSTD,
        _ => media_type::OCI_LAYER,
    };
    Ok(Descriptor {
        media_type: media_type.to_owned(),
        digest: format!("sha256:{:x}", hash.finalize()),
        size: span.size,
        annotations: BTreeMap::new(),
        platform: None,
    })
}

/// Follows an image from its target to all its blobs.
struct Reader<'a> {
    source: &'a mut Box<dyn Source>,
    blobs: HashMap<String, Content>,
}

impl Reader<'_> {
    fn image(&mut self, target: Descriptor, names: Vec<String>) -> Result<ArchivedImage> {
        let mut image = ArchivedImage { names, target: target.clone(), id: None, blobs: Vec::new() };
        let mut seen = HashSet::new();
        self.walk(target, &mut image, &mut seen, 0)?;
        Ok(image)
    }

    /// Adds what `descriptor` refers to, then itself.
    fn walk(
        &mut self,
        descriptor: Descriptor,
        image: &mut ArchivedImage,
        seen: &mut HashSet<String>,
        depth: usize,
    ) -> Result<()> {
        if !seen.insert(descriptor.digest.clone()) {
            return Ok(());
        }
        let mut labels = BTreeMap::new();
        match descriptor.media_type.as_str() {
            media_type::OCI_INDEX | media_type::DOCKER_INDEX => {
                if depth == MAX_INDEX_DEPTH {
                    return Err(Error::refused(format!("indexes nest deeper than {MAX_INDEX_DEPTH}")));
                }
                let index: Index = self.json(&descriptor)?;
                // An archive may hold only some of the platforms.
                let present = index.manifests.into_iter().filter(|m| self.blobs.contains_key(&m.digest));
                let present: Vec<Descriptor> = present.collect();
                for (n, child) in present.into_iter().enumerate() {
                    labels.insert(format!("containerd.io/gc.ref.content.m.{n}"), child.digest.clone());
                    self.walk(child, image, seen, depth + 1)?;
                }
            }
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => {
                let manifest: Manifest = self.json(&descriptor)?;
                image.id.get_or_insert_with(|| manifest.config.digest.clone());
                labels
                    .insert("containerd.io/gc.ref.content.config".to_owned(), manifest.config.digest.clone());
                self.walk(manifest.config, image, seen, depth + 1)?;
                for (n, layer) in manifest.layers.into_iter().enumerate() {
                    labels.insert(format!("containerd.io/gc.ref.content.l.{n}"), layer.digest.clone());
                    self.walk(layer, image, seen, depth + 1)?;
                }
            }
            _ => {}
        }
        let content = self.content(&descriptor)?;
        image.blobs.push(Blob { descriptor, content, labels });
        Ok(())
    }

    fn content(&self, descriptor: &Descriptor) -> Result<Content> {
        let Some(content) = self.blobs.get(&descriptor.digest) else {
            return Err(Error::invalid(format!("blob {} is not in it", descriptor.digest)));
        };
        let size = match content {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::Archive(span) => span.size,
        };
        if size != descriptor.size {
            let text = format!("blob {} has {size} bytes, not {}", descriptor.digest, descriptor.size);
            return Err(Error::invalid(text));
        }
        Ok(content.clone())
    }

    fn json<T: for<'de> Deserialize<'de>>(&mut self, descriptor: &Descriptor) -> Result<T> {
        let bytes = match self.content(descriptor)? {
            Content::Memory(bytes) => bytes,
            Content::Archive(span) => read_span(self.source, span, &descriptor.digest)?.into(),
        };
        serde_json::from_slice(&bytes).context(Class::Invalid, format_args!("read {}", descriptor.digest))
    }
}

fn read_json<T: for<'de> Deserialize<'de>>(
    source: &mut Box<dyn Source>,
    entries: &HashMap<String, Span>,
    path: &str,
) -> Result<T> {
    let bytes = read_small(source, entries, path)?;
    serde_json::from_slice(&bytes).context(Class::Invalid, format_args!("read {path}"))
}

fn read_small(source: &mut Box<dyn Source>, entries: &HashMap<String, Span>, path: &str) -> Result<Vec<u8>> {
    let path = plain(Path::new(path));
    let span = *entries.get(&path).ok_or_else(|| Error::invalid(format!("{path} is not in it")))?;
    read_span(source, span, &path)
}

fn read_span(source: &mut Box<dyn Source>, span: Span, name: &str) -> Result<Vec<u8>> {
    if span.size > MAX_JSON_BYTES {
        return Err(Error::refused(format!("{name} has {} bytes, more than {MAX_JSON_BYTES}", span.size)));
    }
    let mut bytes = vec![0; usize::try_from(span.size).unwrap_or(usize::MAX)];
    source
        .seek(SeekFrom::Start(span.offset))
        .and_then(|_| source.read_exact(&mut bytes))
        .context(Class::Invalid, format_args!("{name} is cut short"))?;
    Ok(bytes)
}

fn starts_with(file: &mut File, magic: &[u8]) -> io::Result<bool> {
    let mut start = vec![0; magic.len()];
    let length = file.read(&mut start)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(&start[..length] == magic)
}

/// The inflated form of a gzip file, in a file without a name that vanishes with its last reader.
fn inflated(file: File) -> Result<File> {
    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let unnamed: OwnedFd = open(&std::env::temp_dir(), flags, Mode::S_IRUSR | Mode::S_IWUSR)
        .context(Class::Retry, "make a temporary file")?;
    let mut unnamed = File::from(unnamed);
    io::copy(&mut flate2::read::MultiGzDecoder::new(io::BufReader::new(file)), &mut unnamed)
        .context(Class::Invalid, "inflate it")?;
    unnamed.seek(SeekFrom::Start(0)).context(Class::Retry, "read it back")?;
    Ok(unnamed)
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
