//! Which objects a verb is about: arguments, files and selectors.

use clap::Args;
use gantry_client::https::{Request, query};
use serde_json::Value;

use crate::discovery::Found;
use crate::error::{CliError, Result, fail};
use crate::manifest;
use crate::options::Session;

/// How many objects of a list come in one page.
const PAGE: usize = 500;

/// The options of verbs on objects.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Selectors {
    /// Files, folders, or - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", value_delimiter = ',')]
    pub files: Vec<String>,
    /// Read folders with all that is below them
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Select by labels, for example app=web,tier!=db
    #[arg(short = 'l', long = "selector", value_name = "SELECTOR")]
    pub labels: Option<String>,
    /// Select by fields, for example status.phase=Running
    #[arg(long = "field-selector", value_name = "SELECTOR")]
    pub fields: Option<String>,
}

/// One object, or one collection.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its resource.
    pub found: Found,
    /// Its namespace; empty for cluster scope and for all namespaces.
    pub namespace: String,
    /// Its name; `None` for the collection.
    pub name: Option<String>,
    /// The manifest's object, if it came from one.
    pub object: Option<Value>,
    /// The manifest.
    pub source: Option<String>,
}

impl Target {
    /// The URL path.
    pub(crate) fn path(&self) -> String {
        let mut path = self.collection_path();
        if let Some(name) = &self.name {
            path.push('/');
            path.push_str(name);
        }
        path
    }

    /// The URL path of the collection.
    pub(crate) fn collection_path(&self) -> String {
        self.found.resource.path((!self.namespace.is_empty()).then_some(self.namespace.as_str()))
    }

    /// The name; empty for a collection.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("")
    }

    /// `deployment.apps/web`
    pub(crate) fn object_name(&self) -> String {
        self.found.object_name(self.name())
    }

    /// The target of an object that was read.
    pub(crate) fn of_object(found: &Found, object: &Value) -> Self {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or("").to_owned();
        Self {
            found: found.clone(),
            namespace: text("namespace"),
            name: Some(text("name")),
            object: Some(object.clone()),
            source: None,
        }
    }
}

/// Kinds and names as they stand on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mention {
    /// As the user calls it.
    pub kind: String,
    /// `None`: all of them.
    pub name: Option<String>,
}

/// Reads `pods`, `pods,svc`, `pod a b`, `pod/a svc/b`.
pub(crate) fn mentions(args: &[String]) -> Result<Vec<Mention>> {
    if args.iter().any(|a| a.contains('/')) {
        return args.iter().map(|arg| slashed(arg)).collect();
    }
    let Some((kinds, names)) = args.split_first() else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for kind in kinds.split(',').filter(|k| !k.is_empty()) {
        if names.is_empty() {
            out.push(Mention { kind: kind.to_owned(), name: None });
        }
        out.extend(names.iter().map(|name| Mention { kind: kind.to_owned(), name: Some(name.clone()) }));
    }
    Ok(out)
}

fn slashed(arg: &str) -> Result<Mention> {
    let Some((kind, name)) = arg.split_once('/') else {
        return fail(
            "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'gantry get resource/<resource_name>' instead of 'gantry get resource resource/<resource_name>'",
        );
    };
    if name.contains('/') {
        return fail("arguments in resource/name form may not have more than one slash");
    }
    if kind.is_empty() || name.is_empty() {
        return fail("arguments in resource/name form must have a single resource and name");
    }
    Ok(Mention { kind: kind.to_owned(), name: Some(name.to_owned()) })
}

/// The objects and collections that `args` and `selectors` name.
pub(crate) async fn targets(
    session: &Session,
    args: &[String],
    selectors: &Selectors,
    all_namespaces: bool,
) -> Result<Vec<Target>> {
    if !selectors.files.is_empty() {
        if !args.is_empty() {
            return fail(
                "when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well",
            );
        }
        return from_files(session, selectors).await;
    }
    if args.is_empty() {
        return fail(
            "You must provide one or more resources by argument or filename.\nExample resource specifications include:\n   '-f rsrc.yaml'\n   '--filename=rsrc.json'\n   '<resource> <name>'\n   '<resource>'",
        );
    }
    let discovery = session.discovery().await?;
    let mut out = Vec::new();
    for mention in mentions(args)? {
        let in_category = if mention.name.is_none() { discovery.category(&mention.kind) } else { Vec::new() };
        let found = if in_category.is_empty() { vec![discovery.find(&mention.kind)?] } else { in_category };
        for found in found {
            if mention.name.is_some() && all_namespaces && found.resource.namespaced {
                return fail("a resource cannot be retrieved by name across all namespaces");
            }
            if mention.name.is_some() && (selectors.labels.is_some() || selectors.fields.is_some()) {
                return fail("name cannot be provided when a selector is specified");
            }
            let namespaced = found.resource.namespaced && !all_namespaces;
            out.push(Target {
                found: found.clone(),
                namespace: if namespaced { session.namespace.clone() } else { String::new() },
                name: mention.name.clone(),
                object: None,
                source: None,
            });
        }
    }
    Ok(out)
}

async fn from_files(session: &Session, selectors: &Selectors) -> Result<Vec<Target>> {
    let discovery = session.discovery().await?;
    let mut out = Vec::new();
    for document in manifest::read(&selectors.files, selectors.recursive)? {
        let found = discovery
            .of_object(document.api_version(), document.kind())
            .ok_or_else(|| no_match(&document))?;
        out.push(of_document(session, found, document)?);
    }
    Ok(out)
}

/// The error of a manifest whose kind is not served.
pub(crate) fn no_match(document: &manifest::Document) -> CliError {
    CliError::message(format!(
        "resource mapping not found for name: {:?} namespace: {:?} from {:?}: no matches for kind {:?} in version {:?}\nensure CRDs are installed first",
        document.object["metadata"]["name"].as_str().unwrap_or(""),
        document.object["metadata"]["namespace"].as_str().unwrap_or(""),
        document.source,
        document.kind(),
        document.api_version(),
    ))
}

/// The target of a manifest: in its own namespace, or in the session's.
pub(crate) fn of_document(session: &Session, found: &Found, document: manifest::Document) -> Result<Target> {
    let metadata = &document.object["metadata"];
    let mut namespace = String::new();
    if found.resource.namespaced {
        let own = metadata["namespace"].as_str().unwrap_or("");
        if session.namespace_is_explicit && !own.is_empty() && own != session.namespace {
            return fail(format!(
                "the namespace from the provided object {own:?} does not match the namespace {:?}. You must pass '--namespace={own}' to perform this operation.",
                session.namespace
            ));
        }
        namespace = if own.is_empty() { session.namespace.clone() } else { own.to_owned() };
    }
    let name = metadata["name"].as_str().filter(|n| !n.is_empty()).map(str::to_owned);
    let mut object = document.object;
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = namespace.clone().into();
    }
    Ok(Target { found: found.clone(), namespace, name, object: Some(object), source: Some(document.source) })
}

/// Reads JSON from the server.
pub(crate) async fn read(session: &Session, path: &str) -> Result<Value> {
    let reply = session.client.send(Request::get(path)).await?;
    json(&reply.body)
}

/// Bytes of the server as JSON.
pub(crate) fn json(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes)
        .map_err(|e| CliError::message(format!("the server's answer cannot be read: {e}")))
}

/// The query of selectors.
pub(crate) fn selector_pairs(selectors: &Selectors) -> Vec<(&'static str, String)> {
    let mut pairs = Vec::new();
    if let Some(labels) = selectors.labels.as_ref().filter(|l| !l.is_empty()) {
        pairs.push(("labelSelector", labels.clone()));
    }
    if let Some(fields) = selectors.fields.as_ref().filter(|f| !f.is_empty()) {
        pairs.push(("fieldSelector", fields.clone()));
    }
    pairs
}

/// All objects of a collection, page by page, with `apiVersion` and `kind` on each.
pub(crate) async fn list(
    session: &Session,
    target: &Target,
    pairs: &[(&'static str, String)],
) -> Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut token = String::new();
    loop {
        let mut all = pairs.to_vec();
        all.push(("limit", PAGE.to_string()));
        if !token.is_empty() {
            all.push(("continue", token));
        }
        let mut page = read(session, &format!("{}{}", target.collection_path(), query(&all))).await?;
        token = page["metadata"]["continue"].as_str().unwrap_or("").to_owned();
        if let Value::Array(list) = page["items"].take() {
            items.extend(list.into_iter().map(|item| with_kind(item, &target.found)));
        }
        if token.is_empty() {
            return Ok(items);
        }
    }
}

/// An object of a list knows its kind, too.
pub(crate) fn with_kind(mut item: Value, found: &Found) -> Value {
    if item["kind"].is_null() {
        item["kind"] = found.resource.kind.as_ref().into();
        item["apiVersion"] = found.resource.api_version().into();
    }
    item
}

/// The single objects that targets stand for: collections are listed, named ones taken as they are (and not read).
pub(crate) async fn objects(
    session: &Session,
    targets: Vec<Target>,
    selectors: &Selectors,
) -> Result<Vec<Target>> {
    let mut out = Vec::new();
    for target in targets {
        if target.name.is_some() {
            out.push(target);
            continue;
        }
        if target.object.is_some() {
            return fail("resource name may not be empty");
        }
        let items = list(session, &target, &selector_pairs(selectors)).await?;
        out.extend(items.iter().map(|item| Target::of_object(&target.found, item)));
    }
    Ok(out)
}

/// Reads a named target's object.
pub(crate) async fn object(session: &Session, target: &Target) -> Result<Value> {
    read(session, &target.path()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Vec<(String, String)>> {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        Ok(mentions(&args)?.into_iter().map(|m| (m.kind, m.name.unwrap_or_default())).collect())
    }

    fn pair(kind: &str, name: &str) -> (String, String) {
        (kind.to_owned(), name.to_owned())
    }

    #[test]
    fn arguments_name_kinds_and_objects() {
        assert_eq!(parsed(&["pods"]).expect("good"), [pair("pods", "")]);
        assert_eq!(parsed(&["pods,svc"]).expect("good"), [pair("pods", ""), pair("svc", "")]);
        assert_eq!(parsed(&["pod", "a", "b"]).expect("good"), [pair("pod", "a"), pair("pod", "b")]);
        assert_eq!(
            parsed(&["deploy/web", "svc/x"]).expect("good"),
            [pair("deploy", "web"), pair("svc", "x")]
        );
        assert!(parsed(&["pods", "deploy/web"]).is_err());
        assert!(parsed(&["deploy/web/x"]).is_err());
        assert!(parsed(&["deploy/"]).is_err());
    }
}
