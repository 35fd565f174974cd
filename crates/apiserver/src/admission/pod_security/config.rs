//! `PodSecurityConfiguration`: the policy of namespaces without labels, and who is exempt.

use std::collections::BTreeSet;

use gantry_api::selector::Labels;
use gantry_base::{Error, Result};
use serde::Deserialize;

use super::super::AdmissionOptions;
use super::levels::{Level, LevelVersion, PREFIX, Policy, Version};

/// Decided.
#[derive(Debug, Default)]
pub(super) struct Config {
    pub(super) defaults: Policy,
    namespaces: BTreeSet<String>,
    users: BTreeSet<String>,
    runtime_classes: BTreeSet<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    defaults: Defaults,
    exemptions: Exemptions,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct Defaults {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Exemptions {
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

impl Config {
    /// # Errors
    /// A level, version or name that is none.
    pub(super) fn read(options: &AdmissionOptions) -> Result<Self> {
        let document: Document = options.configuration_of("PodSecurity")?;
        let (d, e) = (document.defaults, document.exemptions);
        Ok(Self {
            defaults: Policy {
                enforce: level("enforce", &d.enforce, &d.enforce_version)?,
                audit: level("audit", &d.audit, &d.audit_version)?,
                warn: level("warn", &d.warn, &d.warn_version)?,
            },
            namespaces: set("namespaces", e.namespaces)?,
            users: set("usernames", e.usernames)?,
            runtime_classes: set("runtimeClasses", e.runtime_classes)?,
        })
    }

    pub(super) fn exempts_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }

    pub(super) fn exempts_user(&self, name: &str) -> bool {
        self.users.contains(name)
    }

    pub(super) fn exempts_runtime_class(&self, name: Option<&str>) -> bool {
        name.is_some_and(|name| self.runtime_classes.contains(name))
    }

    /// What is said to whoever labels an exempt namespace.
    pub(super) fn exemption_warning(&self, name: &str, policy: &Policy, labels: &Labels) -> Option<String> {
        if policy.is_privileged() || policy.is_equivalent_to(&self.defaults) {
            return None;
        }
        let modes = [("enforce", policy.enforce), ("audit", policy.audit), ("warn", policy.warn)];
        let is_set = |mode: &str| {
            labels.contains_key(&format!("{PREFIX}{mode}"))
                || labels.contains_key(&format!("{PREFIX}{mode}-version"))
        };
        let told = modes.iter().filter(|(mode, p)| p.level != Level::Privileged && is_set(mode));
        let told: Vec<String> = told.map(|(mode, policy)| format!("{mode}={policy}")).collect();
        Some(format!(
            "namespace {name:?} is exempt from Pod Security, and the policy ({}) will be ignored",
            told.join(", ")
        ))
    }
}

fn level(mode: &str, level: &str, version: &str) -> Result<LevelVersion> {
    let wrong = |field: String, value: &str, why: &str| {
        Error::invalid(format!(
            "PodSecurity's configuration: defaults.{field}: Invalid value: {value:?}: {why}"
        ))
    };
    let level = match level {
        "" => Level::Privileged,
        text => Level::parse(text).map_err(|why| wrong(mode.to_owned(), text, why))?,
    };
    let version = match version {
        "" => Version::LATEST,
        text => Version::parse(text).map_err(|why| wrong(format!("{mode}-version"), text, why))?,
    };
    Ok(LevelVersion { level, version })
}

fn set(field: &str, names: Vec<String>) -> Result<BTreeSet<String>> {
    let mut set = BTreeSet::new();
    for (i, name) in names.into_iter().enumerate() {
        let wrong = |why: &str| {
            Error::invalid(format!("PodSecurity's configuration: exemptions.{field}[{i}]: {why}: {name:?}"))
        };
        let checked = match field {
            "namespaces" => gantry_api::names::dns1123_label(&name),
            "runtimeClasses" => gantry_api::names::dns1123_subdomain(&name),
            _ => Ok(()),
        };
        if name.is_empty() || checked.is_err() {
            return Err(wrong("Invalid value"));
        }
        if set.contains(&name) {
            return Err(wrong("Duplicate value"));
        }
        set.insert(name);
    }
    Ok(set)
}
