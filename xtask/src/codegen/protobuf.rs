//! Reads the markers of `k8s-pb`: the comments above its messages and fields.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;

/// Messages by module and normalised name.
#[derive(Debug, Default)]
pub struct Messages(BTreeMap<String, Message>);

/// One protobuf message.
#[derive(Debug, Default)]
pub struct Message {
    /// Its comment, joined to one paragraph, without markers.
    pub text: String,
    /// Markers on the message.
    pub markers: BTreeMap<String, Vec<String>>,
    fields: Vec<(String, MessageField)>,
}

/// One field of a message.
#[derive(Debug, Default)]
pub struct MessageField {
    /// Its comment, joined to one paragraph, without markers.
    pub text: String,
    /// Markers on the field.
    pub markers: BTreeMap<String, Vec<String>>,
    /// The last word of its type, by which an embedded message is found.
    pub ty: String,
    /// Its number on the wire.
    pub tag: u16,
}

impl Messages {
    /// The message of an OpenAPI definition.
    pub fn find(&self, definition: &str) -> Option<&Message> {
        let path = definition.strip_prefix("io.k8s.")?.replace('-', "_");
        let (module, name) = path.rsplit_once('.')?;
        self.0.get(&format!("{module}.{}", normal(name)))
    }

    /// A message in the module of another one, or in the stable version of its group: what is embedded lives there.
    pub fn beside(&self, definition: &str, name: &str) -> Option<&Message> {
        let (module, _) = definition.rsplit_once('.')?;
        let (group, _) = module.rsplit_once('.')?;
        self.find(&format!("{module}.{name}")).or_else(|| self.find(&format!("{group}.v1.{name}")))
    }
}

impl Message {
    /// A field by its JSON name.
    pub fn field(&self, json: &str) -> Option<&MessageField> {
        let wanted = normal(json);
        self.fields.iter().find(|(name, _)| *name == wanted).map(|(_, field)| field)
    }

    /// Every field by its normalised name.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &MessageField)> {
        self.fields.iter().map(|(name, field)| (name.as_str(), field))
    }
}

/// prost writes `pod_i_ps` and `HttpGetAction` where JSON says `podIPs` and `HTTPGetAction`: compared without case
/// and separators they are equal.
pub fn normal(name: &str) -> String {
    let name = name.trim_start_matches("r#");
    name.chars().filter(char::is_ascii_alphanumeric).flat_map(char::to_lowercase).collect()
}

/// Reads every message below `root`.
pub fn read(root: &Path) -> anyhow::Result<Messages> {
    let mut messages = Messages::default();
    read_folder(root, "", &mut messages)?;
    Ok(messages)
}

fn read_folder(folder: &Path, module: &str, messages: &mut Messages) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            let inner = if module.is_empty() { name } else { format!("{module}.{name}") };
            read_folder(&path, &inner, messages)?;
        } else if name.ends_with(".rs") {
            read_module(&std::fs::read_to_string(&path)?, module, messages);
        }
    }
    Ok(())
}

fn read_module(text: &str, module: &str, messages: &mut Messages) {
    let mut doc: Vec<&str> = Vec::new();
    let mut current: Option<String> = None;
    let mut tag = 0;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        if let Some((_, rest)) = trimmed.split_once("tag = \"") {
            tag = rest.split('"').next().and_then(|n| n.parse().ok()).unwrap_or_default();
        } else if let Some(comment) = trimmed.strip_prefix("///") {
            doc.push(comment.trim());
        } else if let Some(rest) = line.strip_prefix("pub struct ") {
            let name = rest.split([' ', '{', ';']).next().unwrap_or_default();
            let key = format!("{module}.{}", normal(name));
            let (text, markers) = split(&doc);
            messages.0.insert(key.clone(), Message { text, markers, fields: Vec::new() });
            doc.clear();
            current = (!rest.contains('}')).then_some(key);
        } else if line == "}" {
            current = None;
            doc.clear();
        } else if let Some(rest) = line.strip_prefix("    pub ")
            && let Some(message) = current.as_ref().and_then(|key| messages.0.get_mut(key))
        {
            let (name, mut ty) = rest.split_once(':').unwrap_or((rest, ""));
            if ty.trim().is_empty() {
                ty = lines.peek().copied().unwrap_or_default();
            }
            let ty =
                ty.trim().trim_end_matches([',', '>']).rsplit(['<', ':', ' ']).next().unwrap_or_default();
            let (text, markers) = split(&doc);
            message.fields.push((normal(name), MessageField { text, markers, ty: ty.to_owned(), tag }));
            doc.clear();
        }
    }
}

/// Divides a comment into its text and its `+name=value` markers.
fn split(doc: &[&str]) -> (String, BTreeMap<String, Vec<String>>) {
    let mut text = String::new();
    let mut markers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in doc {
        if let Some(marker) = line.strip_prefix('+') {
            if let Some((name, value)) = marker.split_once('=') {
                markers.entry(name.trim().to_owned()).or_default().push(value.trim().to_owned());
            }
        } else if !line.is_empty() {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(&line.replace(['<', '>'], ""));
        }
    }
    (text, markers)
}
