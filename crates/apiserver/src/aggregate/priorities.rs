//! In which order discovery shows groups and versions.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::discovery::priority;
use crate::resources::Table;

/// A group, its priority, and its versions with theirs.
type Group = (&'static str, i32, &'static [(&'static str, i32)]);

/// Group and version priorities of the groups that are built in; upstream's tables.
const LOCAL: &[Group] = &[
    ("", 18_000, &[("v1", 1)]),
    ("apps", 17_800, &[("v1", 15)]),
    ("events.k8s.io", 17_750, &[("v1", 15), ("v1beta1", 5)]),
    ("authentication.k8s.io", 17_700, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("authorization.k8s.io", 17_600, &[("v1", 15)]),
    ("autoscaling", 17_500, &[("v2", 30), ("v1", 15)]),
    ("batch", 17_400, &[("v1", 15), ("v1beta1", 9)]),
    ("certificates.k8s.io", 17_300, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("networking.k8s.io", 17_200, &[("v1", 15), ("v1beta1", 9)]),
    ("policy", 17_100, &[("v1", 15)]),
    ("rbac.authorization.k8s.io", 17_000, &[("v1", 15)]),
    ("storage.k8s.io", 16_800, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("admissionregistration.k8s.io", 16_700, &[("v1", 15), ("v1beta1", 12), ("v1alpha1", 9)]),
    ("apiextensions.k8s.io", 16_700, &[("v1", 15)]),
    ("scheduling.k8s.io", 16_600, &[("v1", 15), ("v1alpha2", 2)]),
    ("coordination.k8s.io", 16_500, &[("v1", 15), ("v1beta1", 13), ("v1alpha2", 12)]),
    ("node.k8s.io", 16_300, &[("v1", 15)]),
    ("discovery.k8s.io", 16_200, &[("v1", 15), ("v1beta1", 12)]),
    ("resource.k8s.io", 16_200, &[("v1", 21), ("v1beta2", 15), ("v1beta1", 9), ("v1alpha3", 1)]),
    ("flowcontrol.apiserver.k8s.io", 16_100, &[("v1", 21)]),
    ("internal.apiserver.k8s.io", 16_000, &[("v1alpha1", 9)]),
    ("storagemigration.k8s.io", 15_800, &[("v1beta1", 9)]),
];
/// Served by the aggregator itself, in front of everything.
const AGGREGATOR: &str = "apiregistration.k8s.io";
/// Built-in groups that the tables do not know.
const OTHER: (i32, i32) = (2_000, 15);
/// Custom resources.
const CUSTOM: (i32, i32) = (1_000, 100);

/// The priorities of a group and version of this server; `custom` if it comes from a custom resource definition.
pub(crate) fn local(group: &str, version: &str, custom: bool) -> (i32, i32) {
    if custom {
        return CUSTOM;
    }
    let Some((_, by_group, versions)) = LOCAL.iter().find(|(name, ..)| *name == group) else { return OTHER };
    let by_version = versions.iter().find(|(name, _)| *name == version).map_or(OTHER.1, |(_, p)| *p);
    (*by_group, by_version)
}

/// The groups other than the core one, each with its versions, the preferred ones first.
pub(crate) fn group_versions(table: &Table) -> Vec<(String, Vec<String>)> {
    let mut all: BTreeMap<(String, String), (i32, i32)> = BTreeMap::new();
    for entry in table.entries() {
        for version in &entry.versions {
            let names = version.kind.resource();
            let key = (names.group.to_string(), names.version.to_string());
            all.entry(key).or_insert_with(|| local(&names.group, &names.version, entry.custom));
        }
    }
    for names in table.virtuals.iter().map(|v| v.resource()) {
        let key = (names.group.to_string(), names.version.to_string());
        all.entry(key).or_insert_with(|| local(&names.group, &names.version, false));
    }
    for (key, remote) in &table.remotes {
        all.insert(key.clone(), (remote.group_priority, remote.version_priority));
    }
    let mut groups: BTreeMap<String, (i32, Vec<(i32, String)>)> = BTreeMap::new();
    for ((group, version), (by_group, by_version)) in all {
        if group.is_empty() {
            continue;
        }
        let by_group = if group == AGGREGATOR { i32::MAX } else { by_group };
        let (highest, versions) = groups.entry(group).or_default();
        *highest = (*highest).max(by_group);
        versions.push((by_version, version));
    }
    let mut sorted: Vec<_> = groups.into_iter().collect();
    sorted.sort_by_key(|(_, (highest, _))| Reverse(*highest));
    sorted
        .into_iter()
        .map(|(group, (_, mut versions))| {
            versions.sort_by_key(|(by_version, name)| Reverse((*by_version, priority(name))));
            (group, versions.into_iter().map(|(_, name)| name).collect())
        })
        .collect()
}
