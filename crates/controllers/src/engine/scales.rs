//! How many replicas something of any kind wants: what its `scale` says, looked for as `getScaleController` of upstream's
//! disruption controller does.
//!
//! Plans cannot read; they ask for it, and find the answer noted when they are made the next time.

use std::collections::HashMap;

use gantry_api::{ObjectKey, Resource};
use gantry_client::{Target, Transport};
use parking_lot::Mutex;
use serde::Deserialize;

/// What is asked about, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scaled {
    /// The key of the controller that asks: each one has its own answer.
    pub asker: ObjectKey,
    /// `example.com/v1`
    pub api_version: String,
    /// `Rocket`
    pub kind: String,
    /// Its namespace, that of the pods.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: a later one of that name is not meant.
    pub uid: String,
}

/// The number of replicas; `None` if there is no such object any more; or why nobody can tell.
pub type Answer = Result<Option<i32>, String>;

/// Answers that nobody has looked at yet.
#[derive(Debug, Default)]
pub struct Scales(Mutex<HashMap<Scaled, Answer>>);

impl Scales {
    /// Notes an answer.
    pub fn note(&self, of: Scaled, answer: Answer) {
        self.0.lock().insert(of, answer);
    }

    /// The answer, if there is one.
    pub fn get(&self, of: &Scaled) -> Option<Answer> {
        self.0.lock().get(of).cloned()
    }

    /// Forgets what was asked for a key and is not among `wanted` any more.
    pub fn keep(&self, asker: &ObjectKey, wanted: &[Scaled]) {
        self.0.lock().retain(|of, _| of.asker != *asker || wanted.contains(of));
    }
}

#[derive(Deserialize)]
struct Listed {
    resources: Vec<Known>,
}

#[derive(Deserialize)]
struct Known {
    name: String,
    kind: String,
    namespaced: bool,
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
}

#[derive(Deserialize)]
struct Scale {
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize)]
struct Meta {
    uid: String,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(default)]
    replicas: i32,
}

/// Asks the server.
pub(super) async fn read(transport: &dyn Transport, of: &Scaled) -> Answer {
    let (group, version) = of.api_version.split_once('/').unwrap_or(("", &of.api_version));
    let no_match = || format!("no matches for kind \"{}\" in version \"{}\"", of.kind, of.api_version);
    if version.is_empty() {
        return Err(no_match());
    }
    let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let listed = match transport.raw(&path).await {
        Ok(listed) => listed,
        Err(error) if error.is_not_found() => return Err(no_match()),
        Err(error) => return Err(error.to_string()),
    };
    let listed: Listed = serde_json::from_slice(&listed).map_err(|e| e.to_string())?;
    let own = listed.resources.iter().find(|r| r.kind == of.kind && !r.name.contains('/'));
    let own = own.ok_or_else(no_match)?;
    let resource = Resource {
        group: group.to_owned().into(),
        version: version.to_owned().into(),
        kind: own.kind.clone().into(),
        plural: own.name.clone().into(),
        namespaced: own.namespaced,
    };
    let target = Target {
        resource,
        namespace: if own.namespaced { of.namespace.as_str().into() } else { "".into() },
        name: of.name.as_str().into(),
        subresource: "scale",
    };
    match transport.get(&target).await {
        Ok(found) => {
            let scale: Scale = serde_json::from_slice(found.bytes()).map_err(|e| e.to_string())?;
            Ok((scale.metadata.uid == of.uid).then_some(scale.spec.replicas))
        }
        Err(error) if error.is_not_found() => {
            let name = format!("{}/scale", own.name);
            let is_scale = |r: &&Known| {
                r.name == name
                    && r.kind == "Scale"
                    && matches!(
                        (r.group.as_str(), r.version.as_str()),
                        ("autoscaling", "v1") | ("extensions" | "apps", "v1beta1" | "v1beta2")
                    )
            };
            match listed.resources.iter().find(is_scale) {
                Some(_) => Ok(None),
                None => {
                    let qualified =
                        if group.is_empty() { own.name.clone() } else { format!("{}.{group}", own.name) };
                    Err(format!("{qualified} does not implement the scale subresource"))
                }
            }
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use bytes::Bytes;
    use gantry_api::status::Result;
    use gantry_api::{ApiError, Encoded};
    use gantry_client::{List, ListParams, Mutation, WatchParams, WatchStream};
    use serde_json::json;

    use super::*;

    /// A server with rockets that can be scaled and stones that cannot.
    struct Space;

    #[async_trait]
    impl Transport for Space {
        async fn get(&self, target: &Target) -> Result<Arc<Encoded>> {
            let is_there = (&*target.resource.plural, &*target.namespace, &*target.name, target.subresource)
                == ("rockets", "a", "r", "scale");
            if !is_there {
                return Err(ApiError::not_found(&target.resource, &target.name));
            }
            let scale = json!({"metadata": {"name": "r", "uid": "u"}, "spec": {"replicas": 3}});
            Ok(Arc::new(Encoded::new(Bytes::from(scale.to_string()), 1)))
        }

        async fn list(&self, _: &Target, _: &ListParams) -> Result<List> {
            Err(ApiError::no_such_path())
        }

        async fn watch(&self, _: &Target, _: &WatchParams) -> Result<WatchStream> {
            Err(ApiError::no_such_path())
        }

        async fn mutate(&self, _: Mutation) -> Result<Arc<Encoded>> {
            Err(ApiError::no_such_path())
        }

        async fn raw(&self, path: &str) -> Result<Bytes> {
            if path != "/apis/example.com/v1" {
                return Err(ApiError::no_such_path());
            }
            let scale = json!({"name": "rockets/scale", "kind": "Scale", "namespaced": true,
                "group": "autoscaling", "version": "v1"});
            let kind = |name: &str, kind: &str| json!({"name": name, "kind": kind, "namespaced": true});
            let all = json!({"resources": [kind("rockets", "Rocket"), scale, kind("stones", "Stone")]});
            Ok(all.to_string().into())
        }
    }

    #[tokio::test]
    async fn whatever_has_a_scale_is_asked_for_it() {
        let refused = |why: &str| Err(why.to_owned());
        for (api_version, kind, name, uid, expected) in [
            ("example.com/v1", "Rocket", "r", "u", Ok(Some(3))),
            ("example.com/v1", "Rocket", "r", "of a former one", Ok(None)),
            ("example.com/v1", "Rocket", "gone", "u", Ok(None)),
            (
                "example.com/v1",
                "Stone",
                "s",
                "u",
                refused("stones.example.com does not implement the scale subresource"),
            ),
            (
                "example.com/v1",
                "Comet",
                "c",
                "u",
                refused("no matches for kind \"Comet\" in version \"example.com/v1\""),
            ),
            (
                "example.org/v2",
                "Rocket",
                "r",
                "u",
                refused("no matches for kind \"Rocket\" in version \"example.org/v2\""),
            ),
        ] {
            let of = Scaled {
                asker: ObjectKey::new("a", "budget"),
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
                namespace: "a".to_owned(),
                name: name.to_owned(),
                uid: uid.to_owned(),
            };
            assert_eq!(read(&Space, &of).await, expected, "{kind} {name}");
        }
    }
}
