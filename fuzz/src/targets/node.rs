//! What a node reads: the pod network's configuration, logs, small files and queries.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};

use gantry_kubelet::steps::env::expand;
use gantry_kubelet::steps::image::with_default_tag;
use gantry_kubelet::{inputs, logs};

use super::config::memory_dir;
use crate::input;

/// The configuration that a runtime gives to the CNI plugin.
pub fn cni_config(data: &[u8]) {
    if let Err(text) = gantry_cni::plugin::read_configuration(data) {
        assert!(input::json(&text).is_some(), "an error is JSON: {text}");
    }
}

thread_local! {
    static LOG: (tempfile::TempDir, File) = {
        let dir = memory_dir().expect("a directory");
        let file = File::options().create(true).truncate(true).read(true).write(true).open(dir.path().join("log"));
        (dir, file.expect("a file"))
    };
}

/// A container's log: each of its lines, and its last ones.
pub fn log_lines(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        if let Some(parsed) = logs::parse(line) {
            assert!(line.ends_with(parsed.text));
        }
    }
    LOG.with(|(dir, file)| {
        let mut file: &File = file;
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).expect("emptied");
        file.write_all(data).expect("written");
        let mut reader = file.try_clone().expect("the same file");
        let mut before = data.len() as u64;
        for lines in [0, 1, 2, 3, 100_000] {
            let offset = logs::tail_offset(&mut reader, lines).expect("an offset");
            assert!(offset <= before, "more lines begin earlier");
            before = offset;
        }
        let text = logs::last_lines(&dir.path().join("log"), 80, 2048).expect("a text");
        assert!(text.len() <= 2048 * 3, "each byte becomes at most one replacement character");
    });
}

/// References in commands, images' default tags, resolv.conf, queries of the kubelet's server.
pub fn texts(data: &[u8]) {
    let Some([text, other]) = input::parts(data) else { return };
    let expanded = expand(text, |name| (name == "A").then(|| "x".to_owned()));
    assert!(expanded.len() <= text.len(), "{expanded:?}");
    if let Ok(image) = with_default_tag(text) {
        assert!(image.starts_with(text));
    }
    inputs::resolv_conf(other);
    if let Ok(uri) = format!("/exec?{other}").parse() {
        inputs::command(&uri);
    }
}
