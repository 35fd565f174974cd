//! Archives of both formats give the same image, and broken ones are refused with a reason.

use std::io::Write;

use super::*;
use crate::image::{Layer, OciConfig, digest};

fn layer(text: &str) -> Bytes {
    let mut layer = Layer::default();
    layer.file("etc/motd", 0o644, text.as_bytes()).expect("written to memory");
    layer.finish().expect("written to memory")
}

fn sample() -> ImageSource {
    let config = OciConfig { cmd: vec!["/bin/sh".to_owned()], ..OciConfig::default() };
    ImageSource::new("shop/web:1", &config, vec![layer("one"), layer("two")]).expect("built")
}

fn tar_of(files: &[(&str, &[u8])]) -> Bytes {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, *content).expect("written to memory");
    }
    tar.into_inner().expect("written to memory").into()
}

#[test]
fn an_oci_layout_gives_the_image_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image.tar");
    let image = sample();
    image.write_archive(&path).expect("written");
    let archive = Archive::open(&path).expect("read");
    let [found] = archive.images() else { panic!("one image") };
    assert_eq!(found.names, ["docker.io/shop/web:1"]);
    assert_eq!(found.target.digest, image.digest());
    assert_eq!(found.id.as_deref(), Some(digest(&image.config).as_str()));
    let last = found.blobs.last().expect("blobs");
    assert_eq!((last.descriptor.digest.clone(), last.labels.len()), (image.digest(), 3));
    assert_eq!(found.blobs.len(), 4);
}

#[test]
fn a_gzipped_archive_is_inflated() {
    let folder = tempfile::tempdir().expect("a folder");
    let (plain, zipped) = (folder.path().join("image.tar"), folder.path().join("image.tar.gz"));
    sample().write_archive(&plain).expect("written");
    let out = File::create(&zipped).expect("created");
    let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
    encoder.write_all(&std::fs::read(&plain).expect("read")).expect("written");
    encoder.finish().expect("written");
    assert_eq!(Archive::open(&zipped).expect("read").images()[0].target.digest, sample().digest());
}

#[test]
fn docker_save_archives_get_a_manifest() {
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let layer = layer("one");
    let list =
        br#"[{"Config":"c.json","RepoTags":["web:1","localhost:5000/web:2"],"Layers":["a/layer.tar"]}]"#;
    let bytes = tar_of(&[("c.json", config), ("a/layer.tar", &layer), ("manifest.json", list)]);
    let archive = Archive::from_bytes(bytes).expect("read");
    let image = &archive.images()[0];
    assert_eq!(image.names, ["docker.io/library/web:1", "localhost:5000/web:2"]);
    assert_eq!(image.id.as_deref(), Some(digest(config).as_str()));
    assert!(image.blobs.iter().any(|b| b.descriptor.digest == digest(&layer)));
}

#[test]
fn broken_archives_are_refused_with_a_reason() {
    let why = |bytes: Bytes| Archive::from_bytes(bytes).err().expect("refused").to_string();
    assert!(why(Bytes::from(vec![1; 2048])).contains("it is no tar"));
    assert!(why(tar_of(&[("hello", b"")])).contains("neither index.json"));
    let list = br#"[{"Config":"c.json","Layers":["a.tar"]}]"#;
    assert!(why(tar_of(&[("manifest.json", list)])).contains("c.json is not in it"));
    let list = br#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:00","size":3}]}"#;
    assert!(why(tar_of(&[("index.json", list)])).contains("blob sha256:00 is not in it"));
    assert!(why(tar_of(&[("index.json", list), ("blobs/sha256/00", b"{}")])).contains("has 2 bytes, not 3"));
}
