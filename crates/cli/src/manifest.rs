//! Manifests: YAML and JSON documents from files, folders, and standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{CliError, Result, fail};

/// The largest manifest taken, in bytes.
const MAX_MANIFEST: u64 = 64 << 20;
/// Which files of a folder are manifests.
const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];

/// A document and where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    /// The object.
    pub object: Value,
    /// The file, or `STDIN`.
    pub source: String,
}

impl Document {
    /// `apiVersion`
    pub(crate) fn api_version(&self) -> &str {
        self.object["apiVersion"].as_str().unwrap_or("")
    }

    /// `kind`
    pub(crate) fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or("")
    }
}

/// Reads all documents of `files`: paths of files or folders, or `-`. Lists are taken apart.
pub(crate) fn read(files: &[String], recursive: bool) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for file in files {
        if file == "-" {
            let mut text = String::new();
            std::io::stdin().lock().take(MAX_MANIFEST).read_to_string(&mut text)?;
            documents.extend(parse(&text, "STDIN")?);
            continue;
        }
        if file.starts_with("http://") || file.starts_with("https://") {
            return fail(format!("{file}: URLs are not supported; download the file, or pipe it to -f -"));
        }
        let path = Path::new(file);
        let metadata = std::fs::metadata(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => CliError::message(format!("the path {file:?} does not exist")),
            _ => CliError::message(format!("the path {file:?} cannot be accessed: {e}")),
        })?;
        if metadata.is_dir() {
            let mut found = Vec::new();
            walk(path, recursive, &mut found)?;
            if found.is_empty() {
                return fail(format!(
                    "error reading [{file}]: recognized file extensions are [.json .yaml .yml]"
                ));
            }
            for path in found {
                documents.extend(read_file(&path)?);
            }
        } else {
            documents.extend(read_file(path)?);
        }
    }
    Ok(documents)
}

fn walk(folder: &Path, recursive: bool, found: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<std::io::Result<_>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if recursive {
                walk(&path, recursive, found)?;
            }
        } else if path.extension().and_then(|e| e.to_str()).is_some_and(|e| EXTENSIONS.contains(&e)) {
            found.push(path);
        }
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<Vec<Document>> {
    let source = path.display().to_string();
    let bad = |e: std::io::Error| CliError::message(format!("error reading {source:?}: {e}"));
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(bad)?;
    file.take(MAX_MANIFEST).read_to_string(&mut text).map_err(bad)?;
    parse(&text, &source)
}

/// The documents of one text.
pub(crate) fn parse(text: &str, source: &str) -> Result<Vec<Document>> {
    let values: Vec<Value> = if text.trim_start().starts_with('{') {
        let stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        match stream.collect::<Result<_, _>>() {
            Ok(values) => values,
            // A flow mapping is YAML, too.
            Err(_) => yaml(text, source)?,
        }
    } else {
        yaml(text, source)?
    };
    let mut documents = Vec::new();
    for value in values {
        flatten(value, source, &mut documents)?;
    }
    Ok(documents)
}

fn yaml(text: &str, source: &str) -> Result<Vec<Value>> {
    serde_saphyr::from_multiple(text)
        .map_err(|e| CliError::message(format!("error parsing {source}: error converting YAML to JSON: {e}")))
}

fn flatten(value: Value, source: &str, out: &mut Vec<Document>) -> Result<()> {
    if value.is_null() {
        return Ok(());
    }
    let kind = value["kind"].as_str().unwrap_or("").to_owned();
    if kind.is_empty() {
        return fail(format!("error validating {source:?}: Object 'Kind' is missing in '{value}'"));
    }
    if value["apiVersion"].as_str().unwrap_or("").is_empty() {
        return fail(format!("error validating {source:?}: Object 'apiVersion' is missing in '{value}'"));
    }
    if kind.ends_with("List")
        && let Value::Object(mut fields) = value.clone()
        && let Some(Value::Array(items)) = fields.remove("items")
    {
        for item in items {
            flatten(item, source, out)?;
        }
        return Ok(());
    }
    out.push(Document { object: value, source: source.to_owned() });
    Ok(())
}

/// What others need first comes first: namespaces, then kinds, then all else in its own order.
pub(crate) fn sort_for_creation(documents: &mut [Document]) {
    documents.sort_by_key(|document| match document.kind() {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        _ => 2,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_come_one_by_one_and_lists_are_taken_apart() {
        let text = "---\napiVersion: v1\nkind: Pod\n---\n# nothing\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace}\n- {apiVersion: v1, kind: Secret}\n";
        let mut documents = parse(text, "x").expect("good YAML");
        let kinds = |list: &[Document]| list.iter().map(|d| d.kind().to_owned()).collect::<Vec<_>>();
        assert_eq!(kinds(&documents), ["Pod", "Namespace", "Secret"]);
        sort_for_creation(&mut documents);
        assert_eq!(kinds(&documents), ["Namespace", "Pod", "Secret"]);
    }

    #[test]
    fn json_is_read_and_what_has_no_kind_is_refused() {
        assert_eq!(
            parse(r#"{"apiVersion":"v1","kind":"Pod"}{"apiVersion":"v1","kind":"Pod"}"#, "x")
                .expect("JSON")
                .len(),
            2
        );
        let error = parse("a: 1", "x").expect_err("no kind");
        assert!(error.text().contains("Object 'Kind' is missing"), "{}", error.text());
    }

    #[test]
    fn a_folders_manifests_are_read_in_order() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, kind) in [("b.yaml", "Pod"), ("a.json", "Secret"), ("c.txt", "Node")] {
            std::fs::write(folder.path().join(name), format!("{{apiVersion: v1, kind: {kind}}}"))
                .expect("writable");
        }
        let path = folder.path().display().to_string();
        let kinds: Vec<String> =
            read(&[path], false).expect("readable").iter().map(|d| d.kind().to_owned()).collect();
        assert_eq!(kinds, ["Secret", "Pod"]);
        let error = read(&["/does/not/exist".into()], false).expect_err("nothing there");
        assert_eq!(error.text(), "error: the path \"/does/not/exist\" does not exist");
    }
}
