//! OpenAPI: one v3 document for each group and version, and one v2 document of all, as JSON and as protobuf.
//!
//! Documents are put together from the schema tables when somebody first asks, and kept compressed. Their hash comes
//! from what goes into them, so that the index costs nothing. What did not change when a custom resource came or went
//! is carried over: the v3 documents of other groups, and the part of the v2 document that is about built-in kinds.

mod custom;
mod gnostic;
mod gnostic_v3;
mod packed;
mod paths;
mod schemas;
mod served;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) use gnostic::document as gnostic_document;
pub use packed::Packed;
pub use served::{Definition, Served, Subresource};

use paths::Dialect;
use schemas::Definitions;

/// A document as it is sent.
#[derive(Clone, Debug)]
pub struct Document {
    /// JSON, or protobuf if that was asked for.
    pub body: Packed,
    /// The hash of what it was made from: the `hash` parameter of its URL, and between quotes its `ETag`.
    pub hash: String,
}

impl Document {
    /// The value of the `ETag` header.
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.hash)
    }
}

/// The documents of a set of served resources.
#[derive(Debug)]
pub struct OpenApi {
    /// The version shown in `info`.
    version: String,
    groups: BTreeMap<String, Arc<Group>>,
    /// The part of the v2 document that is about built-in kinds, by the hash of these.
    built_in: (String, Arc<Part>),
    v2: OnceLock<Packed>,
    v2_protobuf: OnceLock<Packed>,
}

/// What one group and version serves.
#[derive(Debug)]
struct Group {
    resources: Vec<Served>,
    hash: String,
    v3: OnceLock<Packed>,
}

/// A part of the v2 document: the members of its paths and definitions.
#[derive(Debug, Default)]
struct Part(OnceLock<Packed>);

impl Part {
    /// Paths and definitions.
    fn get(&self, make: impl FnOnce() -> Value) -> Value {
        let packed = self.0.get_or_init(|| Packed::new(make().to_string().as_bytes()));
        serde_json::from_slice(&packed.plain()).expect("what was written here is JSON")
    }
}

impl OpenApi {
    /// The documents of these resources; `version` is the server's (`v1.36.0`).
    pub fn new(version: &str, resources: Vec<Served>) -> Self {
        Self::build(version, resources, None)
    }

    /// The documents of another set of resources; those that are the same as here need not be made again.
    #[must_use]
    pub fn with(&self, resources: Vec<Served>) -> Self {
        Self::build(&self.version, resources, Some(self))
    }

    fn build(version: &str, resources: Vec<Served>, known: Option<&Self>) -> Self {
        let mut by_path: BTreeMap<String, Vec<Served>> = BTreeMap::new();
        for resource in resources {
            by_path.entry(resource.root()).or_default().push(resource);
        }
        let groups = by_path.into_iter().map(|(path, mut resources)| {
            resources.sort_by(|a, b| a.plural.cmp(&b.plural));
            let hash = hash(version, &resources);
            let group = match known.and_then(|k| k.groups.get(&path)) {
                Some(group) if group.hash == hash => Arc::clone(group),
                _ => Arc::new(Group { resources, hash, v3: OnceLock::new() }),
            };
            (path, group)
        });
        let groups: BTreeMap<String, Arc<Group>> = groups.collect();
        let built_in = hash_of(groups.iter().filter(|(_, g)| !g.is_custom()));
        let part = match known {
            Some(known) if known.built_in.0 == built_in => Arc::clone(&known.built_in.1),
            _ => Arc::default(),
        };
        Self {
            version: version.to_owned(),
            groups,
            built_in: (built_in, part),
            v2: OnceLock::new(),
            v2_protobuf: OnceLock::new(),
        }
    }

    /// `/openapi/v3`: where the documents are.
    pub fn index(&self) -> Document {
        let paths: Map<String, Value> = self
            .groups
            .iter()
            .map(|(path, group)| (path.clone(), json!({ "serverRelativeURL": url(path, &group.hash) })))
            .collect();
        let body = Packed::new(json!({ "paths": paths }).to_string().as_bytes());
        Document { body, hash: self.hash() }
    }

    /// `/openapi/v3/<path>`, where `path` is `api/v1` or `apis/apps/v1`; `None` if nothing is served there.
    pub fn v3(&self, path: &str) -> Option<Document> {
        let group = self.groups.get(path)?;
        let body = group.v3.get_or_init(|| {
            let mut definitions = Definitions::new(Dialect::V3);
            let paths = paths::of(&group.resources, Dialect::V3, &mut definitions);
            let document = json!({
                "openapi": "3.0.0",
                "info": {"title": "Kubernetes", "version": self.version},
                "paths": paths,
                "components": {
                    "schemas": definitions.finish(),
                    "securitySchemes": {"BearerToken": bearer_token()},
                },
            });
            Packed::new(document.to_string().as_bytes())
        });
        Some(Document { body: body.clone(), hash: group.hash.clone() })
    }

    /// The same in protobuf, as `openapi.v3.Document`. Hardly anybody asks for it: it is made anew each time.
    pub fn v3_protobuf(&self, path: &str) -> Option<Document> {
        let json = self.v3(path)?;
        let tree: Value = serde_json::from_slice(&json.body.plain()).unwrap_or_default();
        Some(Document { body: Packed::new(&gnostic_v3::document(&tree)), ..json })
    }

    /// `/openapi/v2`: everything in one document.
    pub fn v2(&self) -> Document {
        let body = self.v2.get_or_init(|| Packed::new(self.swagger().to_string().as_bytes()));
        Document { body: body.clone(), hash: self.hash() }
    }

    /// The same in protobuf, as `openapi.v2.Document`.
    pub fn v2_protobuf(&self) -> Document {
        let body = self.v2_protobuf.get_or_init(|| Packed::new(&gnostic::document(&self.swagger())));
        Document { body: body.clone(), hash: self.hash() }
    }

    fn swagger(&self) -> Value {
        let mut whole = self.built_in.1.get(|| part(self.groups.values().filter(|g| !g.is_custom()), true));
        let mut own = part(self.groups.values().filter(|g| g.is_custom()), false);
        for member in ["paths", "definitions"] {
            if let (Some(all), Value::Object(more)) = (whole[member].as_object_mut(), own[member].take()) {
                all.extend(more);
            }
        }
        whole["swagger"] = "2.0".into();
        whole["info"] = json!({"title": "Kubernetes", "version": self.version});
        whole["parameters"] = paths::shared_parameters();
        whole["securityDefinitions"] = json!({"BearerToken": bearer_token()});
        whole["security"] = json!([{"BearerToken": []}]);
        whole
    }

    /// The hash of everything.
    fn hash(&self) -> String {
        hash_of(self.groups.iter())
    }
}

impl Group {
    fn is_custom(&self) -> bool {
        self.resources.iter().all(Served::is_custom)
    }
}

/// The URL of a v3 document.
pub fn url(path: &str, hash: &str) -> String {
    format!("/openapi/v3/{path}?hash={hash}")
}

/// The paths of some groups, and the definitions they use: all of them, or only those of custom resources.
fn part<'a>(groups: impl Iterator<Item = &'a Arc<Group>>, built_in: bool) -> Value {
    let mut definitions = Definitions::new(Dialect::V2);
    let mut paths = Map::new();
    for group in groups {
        paths.extend(paths::of(&group.resources, Dialect::V2, &mut definitions));
    }
    let definitions = if built_in {
        definitions.want_shared();
        definitions.finish()
    } else {
        definitions.of_custom()
    };
    json!({"paths": paths, "definitions": definitions})
}

fn hash_of<'a>(groups: impl Iterator<Item = (&'a String, &'a Arc<Group>)>) -> String {
    let mut digest = Sha256::new();
    for (path, group) in groups {
        digest.update(path);
        digest.update(&group.hash);
    }
    hex(&digest.finalize())
}

fn bearer_token() -> Value {
    json!({
        "description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey",
    })
}

fn hash(version: &str, resources: &[Served]) -> String {
    let mut digest = Sha256::new();
    // The built-in schemas change with the build only.
    digest.update(env!("CARGO_PKG_VERSION"));
    digest.update(version);
    for resource in resources {
        resource.digest(&mut digest);
    }
    hex(&digest.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).map_or('0', |c| c.to_ascii_uppercase()));
        }
        text
    })
}
