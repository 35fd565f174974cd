//! What an engine starts from beside the corpus: made of the golden fixtures and of the literals in sources and tests,
//! so that the repository keeps neither twice.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use gantry_api::protobuf;
use serde_json::Value;

use crate::Target;

/// What a target's first inputs are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeds {
    /// The literals of its words only.
    Words,
    /// Objects of the golden fixtures, each with its successor.
    Objects,
    /// The same in protobuf.
    Protobuf,
    /// Manifests.
    Yaml,
    /// Objects with patches of this media type (the part before the first `-`).
    Patches(&'static str),
    /// Requests of the golden fixtures.
    Requests,
}

/// A literal is a word of the dictionary up to this length, else an input.
const WORD: usize = 32;
/// Longer ones are neither.
const MAX_SEED: usize = 4096;
/// Words of one dictionary: more slow the engine down.
const MAX_WORDS: usize = 1500;

/// The first inputs of a target and the words of its dictionary, from the repository at `root`.
pub fn of(target: &Target, root: &Path) -> (Vec<Vec<u8>>, String) {
    let mut literals = BTreeSet::new();
    for words in target.words {
        collect(&root.join(words), &mut literals);
    }
    let mut inputs: Vec<Vec<u8>> =
        literals.iter().filter(|l| l.len() <= MAX_SEED).map(|l| l.clone().into_bytes()).collect();
    match target.seeds {
        Seeds::Words => {}
        Seeds::Yaml => inputs.extend(manifests(root)),
        golden => inputs.extend(steps(root).iter().filter_map(|step| step.seed(golden))),
    }
    // The engine refuses a dictionary with nothing in it, and words without a letter.
    let mut dictionary = String::from("# Literals of sources and tests.\n");
    for word in literals.iter().filter(|l| (1..=WORD).contains(&l.len())).take(MAX_WORDS) {
        let escaped: String = word.bytes().map(|b| format!("\\x{b:02x}")).collect();
        // Writing to a text cannot fail.
        writeln!(dictionary, "\"{escaped}\"").expect("a text takes everything");
    }
    (inputs, dictionary)
}

fn files(path: &Path, out: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(path) else {
        out.push(path.to_owned());
        return;
    };
    let mut all: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    all.sort_unstable();
    for path in all {
        files(&path, out);
    }
}

/// The string literals of all files below `path`.
fn collect(path: &Path, literals: &mut BTreeSet<String>) {
    let mut all = Vec::new();
    files(path, &mut all);
    for file in all {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|e| e.to_str()) {
            Some("rs") => literals_of(&text, literals),
            Some("json") => texts_of(&serde_json::from_str(&text).unwrap_or_default(), literals),
            _ => {}
        }
    }
}

/// The literals of a Rust source, near enough: comments and characters may be mistaken for some.
fn literals_of(source: &str, literals: &mut BTreeSet<String>) {
    for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
        let mut rest = line;
        while let Some(at) = rest.find('"') {
            let hashes = rest[..at].bytes().rev().take_while(|b| *b == b'#').count();
            let close = format!("\"{}", "#".repeat(hashes));
            let inside = &rest[at + 1..];
            let end = (0..inside.len()).find(|i| {
                inside.is_char_boundary(*i)
                    && inside[*i..].starts_with(&close)
                    && (hashes > 0 || !inside[..*i].ends_with('\\') || inside[..*i].ends_with("\\\\"))
            });
            let Some(end) = end else { break };
            let text = &inside[..end];
            let text = if hashes > 0 { text.to_owned() } else { unescape(text) };
            if !text.is_empty() {
                literals.insert(text);
            }
            rest = &inside[end + close.len()..];
        }
    }
}

fn unescape(text: &str) -> String {
    text.replace("\\n", "\n")
        .replace("\\t", "\t")
        .replace("\\\"", "\"")
        .replace("\\0", "\0")
        .replace("\\\\", "\\")
}

/// The keys and short texts of a tree.
fn texts_of(tree: &Value, literals: &mut BTreeSet<String>) {
    match tree {
        Value::String(text) if text.len() <= WORD => drop(literals.insert(text.clone())),
        Value::Array(items) => items.iter().for_each(|item| texts_of(item, literals)),
        Value::Object(map) => {
            for (key, value) in map {
                if key.len() <= WORD {
                    literals.insert(format!("\"{key}\":"));
                }
                texts_of(value, literals);
            }
        }
        _ => {}
    }
}

fn manifests(root: &Path) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for dir in ["examples", "lab/tests/manifests"] {
        files(&root.join(dir), &mut all);
    }
    let yaml = |file: &PathBuf| file.extension().is_some_and(|e| e == "yaml");
    let texts = all.iter().filter(|file| yaml(file)).filter_map(|file| std::fs::read_to_string(file).ok());
    let documents = |text: String| text.split("\n---\n").map(|d| d.as_bytes().to_vec()).collect::<Vec<_>>();
    texts.flat_map(documents).collect()
}

/// A step of a golden fixture, and the object that was there before it.
struct Step {
    object: Value,
    send: String,
    media_type: String,
    body: Value,
}

fn steps(root: &Path) -> Vec<Step> {
    let mut all = Vec::new();
    files(&root.join("lab/golden"), &mut all);
    let mut found = Vec::new();
    for file in all {
        let fixture: Value =
            std::fs::read(&file).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
        let mut object = Value::Null;
        for step in fixture["steps"].as_array().into_iter().flatten() {
            let text = |key: &str| step[key].as_str().unwrap_or("").replace("{ns}", "default");
            let body = step["body"].clone();
            found.push(Step { object: object.clone(), send: text("send"), media_type: text("type"), body });
            let answer = &step["answer"]["body"];
            if answer.get("apiVersion").is_some() && answer["kind"] != "Status" {
                object = answer.clone();
                if let Some(metadata) = object["metadata"].as_object_mut() {
                    metadata.retain(|_, v| v.as_str().is_none_or(|t| !t.starts_with('<')));
                }
            }
        }
    }
    found
}

impl Step {
    fn seed(&self, form: Seeds) -> Option<Vec<u8>> {
        let has_kind = self.body.get("kind").is_some();
        let two = |a: &Value, b: &Value| format!("{a}\n---\n{b}").into_bytes();
        match form {
            Seeds::Objects => has_kind.then(|| two(&self.body, &self.object)),
            Seeds::Protobuf => protobuf::from_json(self.body.to_string().as_bytes()).ok(),
            Seeds::Patches(kind) => (self.media_type.contains(kind) && !self.body.is_null())
                .then(|| two(&self.object, &self.body)),
            Seeds::Requests => {
                let mut text = self.send.clone();
                if !self.media_type.is_empty() {
                    text.push_str("\ncontent-type: ");
                    text.push_str(&self.media_type);
                }
                if !self.body.is_null() {
                    text.push_str(&format!("\n\n{}", self.body));
                }
                Some(text.into_bytes())
            }
            Seeds::Words | Seeds::Yaml => None,
        }
    }
}
