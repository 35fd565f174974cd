//! What is served: resources, their versions and their watch caches.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded, Resource};
use gantry_base::Result as BaseResult;
use gantry_kinds::AnyKind;
use serde_json::Value;

use crate::aggregate::Remote;
use crate::cache::{self, Cache, Hub, ROOT};
use crate::callout::Callout;
use crate::custom::Converter;
use crate::splice;
use crate::virtual_resource::VirtualResource;

/// A resource with all its versions.
#[derive(Clone)]
pub(crate) struct Entry {
    /// The version that is stored.
    pub(crate) storage: Arc<dyn AnyKind>,
    /// The served versions, the preferred one first.
    pub(crate) versions: Vec<Version>,
    pub(crate) cache: Arc<Cache>,
    /// `/registry/<group>/<plural>/`
    pub(crate) prefix: Arc<str>,
    /// Whether it comes from a custom resource definition.
    pub(crate) custom: bool,
    /// Whether the definition is being deleted: nothing new may be created.
    pub(crate) terminating: bool,
    /// The definition's generation.
    pub(crate) generation: i64,
    /// The definition's UID.
    pub(crate) uid: String,
}

/// A served version of a resource.
#[derive(Clone)]
pub(crate) struct Version {
    pub(crate) kind: Arc<dyn AnyKind>,
    pub(crate) conversion: Conversion,
    /// `ConfigMapList`
    pub(crate) list_kind: String,
    /// A `Warning` for every request.
    pub(crate) deprecation: Option<String>,
}

/// How the stored form becomes this version's, and back.
#[derive(Clone, Debug)]
pub(crate) enum Conversion {
    /// It is this version's.
    Same,
    /// A custom resource: versions differ in `apiVersion` only, or are converted by a webhook. What is read is pruned
    /// and defaulted by the schema as it is now.
    Custom(Option<Arc<Converter>>),
    /// Another version of a built-in kind is stored.
    Kind(Arc<gantry_kinds::StoredAs>),
}

/// One version of one resource: what a request is about.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) entry: Arc<Entry>,
    pub(crate) kind: Arc<dyn AnyKind>,
    pub(crate) conversion: Conversion,
    pub(crate) list_kind: String,
    pub(crate) deprecation: Option<String>,
}

impl Served {
    pub(crate) fn resource(&self) -> &Resource {
        self.kind.resource()
    }

    /// The store's key of an object.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> Arc<str> {
        if self.resource().namespaced {
            format!("{}{namespace}/{name}", self.entry.prefix).into()
        } else {
            format!("{}{name}", self.entry.prefix).into()
        }
    }

    /// Stored bytes in this version. A webhook is not asked: what it converts must have been converted.
    fn read_stored(&self, bytes: &Bytes) -> Result<Bytes> {
        self.convert(bytes, self.resource(), false)
    }

    /// Stored bytes in this version.
    ///
    /// # Errors
    /// They cannot be converted.
    pub(crate) async fn read(&self, callout: &Callout, bytes: &Bytes) -> Result<Bytes> {
        match self.converter() {
            None => self.read_stored(bytes),
            Some(converter) => {
                let converted = webhook(converter, callout, &[bytes], self.resource()).await?;
                converted.first().map_or_else(|| self.read_stored(bytes), |bytes| self.read_stored(bytes))
            }
        }
    }

    /// This version's bytes as they are stored.
    ///
    /// # Errors
    /// They cannot be converted.
    pub(crate) async fn storable(&self, callout: &Callout, bytes: Bytes) -> Result<Bytes> {
        let storage = self.entry.storage.resource();
        let bytes = match self.converter() {
            None => bytes,
            Some(converter) => {
                webhook(converter, callout, &[&bytes], storage).await?.into_iter().next().unwrap_or(bytes)
            }
        };
        self.convert(&bytes, storage, true)
    }

    /// Whether these bytes are in another version than objects are stored in now: the definition's storage version has
    /// changed since.
    pub(crate) fn is_stale(&self, stored: &Bytes) -> bool {
        let storage = || self.entry.storage.resource().api_version();
        matches!(self.conversion, Conversion::Custom(_)) && splice::type_meta(stored).0 != storage()
    }

    /// The webhook that converts the resource's versions.
    pub(crate) fn converter(&self) -> Option<&Converter> {
        match &self.conversion {
            Conversion::Custom(Some(converter)) => Some(converter),
            _ => None,
        }
    }

    /// Cached objects in this version, where a webhook has to be asked; else as they are.
    ///
    /// # Errors
    /// They cannot be converted.
    pub(crate) async fn translated(
        &self,
        callout: &Callout,
        entries: Vec<Arc<cache::Entry>>,
    ) -> Result<Vec<Arc<cache::Entry>>> {
        let Some(converter) = self.converter() else { return Ok(entries) };
        let bytes: Vec<&Bytes> = entries.iter().map(|e| e.encoded.bytes()).collect();
        let converted = webhook(converter, callout, &bytes, self.resource()).await?;
        let prefix_len = self.entry.prefix.len();
        let translate = |(entry, bytes): (&Arc<cache::Entry>, Bytes)| -> Result<Arc<cache::Entry>> {
            let bytes = self.read_stored(&bytes)?;
            let encoded = Arc::new(Encoded::new(bytes, entry.encoded.revision()));
            Ok(Arc::new(cache::Entry::new(Arc::clone(&entry.key), prefix_len, encoded, &*self.kind)))
        };
        entries.iter().zip(converted).map(translate).collect()
    }

    fn convert(&self, bytes: &Bytes, to: &Resource, storing: bool) -> Result<Bytes> {
        let converted = |result: std::result::Result<Vec<u8>, gantry_api::DecodeError>| {
            result.map(Bytes::from).map_err(ApiError::internal)
        };
        match &self.conversion {
            Conversion::Same => Ok(bytes.clone()),
            Conversion::Custom(_) if storing => splice::with_api_version(bytes, &to.api_version())
                .ok_or_else(|| ApiError::internal(format!("an object of {to} has no apiVersion"))),
            Conversion::Custom(_) => {
                let mut object = self.kind.decode(bytes, false).map_err(ApiError::internal)?.object;
                self.kind.defaults(&mut *object);
                Ok(Bytes::from(object.encode()))
            }
            Conversion::Kind(stored) if storing => converted((stored.write)(bytes)),
            Conversion::Kind(stored) => converted((stored.read)(bytes)),
        }
    }

    /// An object as it is stored, in this version.
    ///
    /// # Errors
    /// It cannot be converted.
    pub(crate) async fn fetched(&self, callout: &Callout, stored: &Arc<Encoded>) -> Result<Arc<Encoded>> {
        if self.converter().is_none() {
            return self.encoded(stored);
        }
        Ok(Arc::new(Encoded::new(self.read(callout, stored.bytes()).await?, stored.revision())))
    }

    /// A cached object in this version, which went through [`Served::translated`].
    pub(crate) fn encoded(&self, stored: &Arc<Encoded>) -> Result<Arc<Encoded>> {
        match self.conversion {
            Conversion::Same => Ok(Arc::clone(stored)),
            _ => Ok(Arc::new(Encoded::new(self.read_stored(stored.bytes())?, stored.revision()))),
        }
    }
}

async fn webhook(
    converter: &Converter,
    callout: &Callout,
    objects: &[&Bytes],
    to: &Resource,
) -> Result<Vec<Bytes>> {
    let api_version = to.api_version();
    if objects.iter().all(|bytes| splice::type_meta(bytes).0 == api_version) {
        return Ok(objects.iter().map(|bytes| (*bytes).clone()).collect());
    }
    let trees: Vec<Value> = objects
        .iter()
        .map(|bytes| serde_json::from_slice(bytes).map_err(ApiError::internal))
        .collect::<Result<_>>()?;
    let converted = converter.convert(callout, trees, &api_version).await?;
    Ok(converted.iter().map(|tree| Bytes::from(tree.to_string())).collect())
}

/// Everything that is served now. Replaced as a whole when custom resources come and go.
#[derive(Clone, Default)]
pub(crate) struct Table {
    groups: BTreeMap<String, BTreeMap<String, Arc<Entry>>>,
    pub(crate) virtuals: Vec<Arc<dyn VirtualResource>>,
    /// Groups and versions that other servers serve.
    pub(crate) remotes: BTreeMap<(String, String), Arc<Remote>>,
}

impl Table {
    pub(crate) fn entry(&self, group: &str, plural: &str) -> Option<&Arc<Entry>> {
        self.groups.get(group)?.get(plural)
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Served> {
        let entry = self.entry(group, plural)?;
        let version = entry.versions.iter().find(|v| v.kind.resource().version == version)?;
        Some(Served {
            entry: Arc::clone(entry),
            kind: Arc::clone(&version.kind),
            conversion: version.conversion.clone(),
            list_kind: version.list_kind.clone(),
            deprecation: version.deprecation.clone(),
        })
    }

    /// Whether the group version is one of our own, and not one of custom resources.
    pub(crate) fn is_builtin(&self, group: &str, version: &str) -> bool {
        let of_ours = |r: &Resource| r.group == group && r.version == version;
        self.virtuals.iter().any(|v| of_ours(v.resource()))
            || self.groups.get(group).is_some_and(|entries| {
                entries.values().any(|e| !e.custom && e.versions.iter().any(|v| of_ours(v.kind.resource())))
            })
    }

    /// Whether there is such a resource, stored or not.
    pub(crate) fn serves(&self, group: &str, version: &str, plural: &str) -> bool {
        let stored = self.entry(group, plural);
        let served = stored.is_some_and(|e| e.versions.iter().any(|v| v.kind.resource().version == version));
        served || self.find_virtual(group, version, plural).is_some()
    }

    /// The other served versions of what `served` is a version of: whatever is stored in the same place.
    pub(crate) fn equivalents(&self, served: &Served) -> Vec<Served> {
        let same = self.entries().filter(|entry| entry.prefix == served.entry.prefix);
        let names = same.flat_map(|entry| entry.versions.iter().map(|v| v.kind.resource()));
        names
            .filter(|names| *names != served.resource())
            .filter_map(|names| self.find(&names.group, &names.version, &names.plural))
            .collect()
    }

    /// The stored version, served or not.
    pub(crate) fn find_stored(&self, group: &str, plural: &str, version: &str) -> Option<Served> {
        self.find(group, version, plural).or_else(|| {
            let entry = self.entry(group, plural)?;
            Some(Served {
                entry: Arc::clone(entry),
                kind: Arc::clone(&entry.storage),
                conversion: entry.versions.first().map_or(Conversion::Custom(None), |v| v.conversion.clone()),
                list_kind: String::new(),
                deprecation: None,
            })
        })
    }

    pub(crate) fn find_virtual(
        &self,
        group: &str,
        version: &str,
        plural: &str,
    ) -> Option<&Arc<dyn VirtualResource>> {
        self.virtuals.iter().find(|v| {
            let r = v.resource();
            r.group == group && r.version == version && r.plural == plural
        })
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.groups.values().flat_map(|g| g.values())
    }

    pub(crate) fn insert(&mut self, group: &str, plural: &str, entry: Arc<Entry>) {
        self.groups.entry(group.to_owned()).or_default().insert(plural.to_owned(), entry);
    }

    pub(crate) fn remove(&mut self, group: &str, plural: &str) {
        if let Some(resources) = self.groups.get_mut(group) {
            resources.remove(plural);
            if resources.is_empty() {
                self.groups.remove(group);
            }
        }
    }
}

/// The prefix of a resource's keys.
pub(crate) fn prefix(group: &str, plural: &str) -> Arc<str> {
    let group = if group.is_empty() { "core" } else { group };
    format!("{ROOT}{group}/{plural}/").into()
}

/// The group and the plural name of a key under a prefix of [`prefix`].
pub(crate) fn split_key(key: &str) -> Option<(&str, &str)> {
    let (group, rest) = key.strip_prefix(ROOT)?.split_once('/')?;
    let (plural, _) = rest.split_once('/')?;
    Some((if group == "core" { "" } else { group }, plural))
}

/// Builds the table of the built-in kinds, each with its cache.
pub(crate) async fn builtin(
    kinds: &[Arc<dyn AnyKind>],
    virtuals: Vec<Arc<dyn VirtualResource>>,
    hub: &Hub,
) -> BaseResult<ArcSwap<Table>> {
    let mut table = Table { virtuals, ..Table::default() };
    for kind in kinds {
        let (resource, stored) = (kind.resource(), kind.stored());
        let storage = match &stored {
            None => kind,
            Some(stored) => kinds.iter().find(|k| *k.resource() == stored.resource).ok_or_else(|| {
                gantry_base::Error::bug(format!("{resource} is stored as a kind that is not built in"))
            })?,
        };
        let conversion = stored.map_or(Conversion::Same, |stored| Conversion::Kind(Arc::new(stored)));
        let list_kind = format!("{}List", resource.kind);
        let deprecation = kind.deprecation().map(str::to_owned);
        let version = Version { kind: Arc::clone(kind), conversion, list_kind, deprecation };
        let names = storage.resource();
        let prefix = prefix(&names.group, &names.plural);
        let mut versions = match table.entry(&resource.group, &resource.plural) {
            Some(entry) => entry.versions.clone(),
            None => Vec::new(),
        };
        versions.push(version);
        versions.sort_by_key(|v| std::cmp::Reverse(crate::discovery::priority(&v.kind.resource().version)));
        let entry = Entry {
            storage: Arc::clone(storage),
            versions,
            cache: hub.add(Arc::clone(storage), Arc::clone(&prefix)).await?,
            prefix,
            custom: false,
            terminating: false,
            generation: 0,
            uid: String::new(),
        };
        table.insert(&resource.group, &resource.plural, Arc::new(entry));
    }
    Ok(ArcSwap::from_pointee(table))
}
