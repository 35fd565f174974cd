//! OpenAPI: one v3 document for each group and version, and one v2 document of all.
//!
//! Documents are put together from the schema tables when somebody first asks and kept as bytes. Their hash comes
//! from what goes into them, so that the index costs nothing; a document whose input did not change when a custom
//! resource came or went is carried over.

mod custom;
mod paths;
mod schemas;
mod served;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

pub use served::{Definition, Served, Subresource};

use paths::Dialect;
use schemas::Definitions;

/// A document as it is sent.
#[derive(Clone, Debug)]
pub struct Document {
    /// JSON.
    pub body: Bytes,
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
    v2: OnceLock<Document>,
}

/// What one group and version serves.
#[derive(Debug)]
struct Group {
    resources: Vec<Served>,
    hash: String,
    v3: OnceLock<Bytes>,
}

impl OpenApi {
    /// The documents of these resources; `version` is the server's (`v1.36.0`).
    pub fn new(version: &str, resources: Vec<Served>) -> Self {
        Self::build(version, resources, &BTreeMap::new())
    }

    /// The documents of another set of resources; those that are the same as here need not be made again.
    #[must_use]
    pub fn with(&self, resources: Vec<Served>) -> Self {
        Self::build(&self.version, resources, &self.groups)
    }

    fn build(version: &str, resources: Vec<Served>, known: &BTreeMap<String, Arc<Group>>) -> Self {
        let mut by_path: BTreeMap<String, Vec<Served>> = BTreeMap::new();
        for resource in resources {
            by_path.entry(resource.root()).or_default().push(resource);
        }
        let groups = by_path.into_iter().map(|(path, mut resources)| {
            resources.sort_by(|a, b| a.plural.cmp(&b.plural));
            let hash = hash(version, &resources);
            let group = match known.get(&path) {
                Some(group) if group.hash == hash => Arc::clone(group),
                _ => Arc::new(Group { resources, hash, v3: OnceLock::new() }),
            };
            (path, group)
        });
        Self { version: version.to_owned(), groups: groups.collect(), v2: OnceLock::new() }
    }

    /// `/openapi/v3`: where the documents are.
    pub fn index(&self) -> Document {
        let paths: Map<String, Value> = self
            .groups
            .iter()
            .map(|(path, group)| {
                let url = format!("/openapi/v3/{path}?hash={}", group.hash);
                (path.clone(), json!({ "serverRelativeURL": url }))
            })
            .collect();
        let hash = self.hash();
        Document { body: json!({ "paths": paths }).to_string().into(), hash }
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
            document.to_string().into()
        });
        Some(Document { body: body.clone(), hash: group.hash.clone() })
    }

    /// `/openapi/v2`: everything in one document.
    pub fn v2(&self) -> Document {
        let document = self.v2.get_or_init(|| {
            let mut definitions = Definitions::new(Dialect::V2);
            let mut all = Map::new();
            for group in self.groups.values() {
                all.extend(paths::of(&group.resources, Dialect::V2, &mut definitions));
            }
            let document = json!({
                "swagger": "2.0",
                "info": {"title": "Kubernetes", "version": self.version},
                "paths": all,
                "parameters": paths::shared_parameters(),
                "definitions": definitions.finish(),
                "securityDefinitions": {"BearerToken": bearer_token()},
                "security": [{"BearerToken": []}],
            });
            Document { body: document.to_string().into(), hash: self.hash() }
        });
        document.clone()
    }

    /// The hash of everything.
    fn hash(&self) -> String {
        let mut digest = Sha256::new();
        for (path, group) in &self.groups {
            digest.update(path);
            digest.update(&group.hash);
        }
        hex(&digest.finalize())
    }
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
