//! Levels, versions and the labels that choose them: `pod-security.kubernetes.io/{enforce,audit,warn}[-version]`.

use std::fmt;

use gantry_api::field::{Error, Path};
use gantry_api::selector::Labels;

/// The beginning of the labels, and of the audit annotations.
pub(super) const PREFIX: &str = "pod-security.kubernetes.io/";

/// How strict a policy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    /// # Errors
    /// The text is no level.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "privileged" => Ok(Self::Privileged),
            "baseline" => Ok(Self::Baseline),
            "restricted" => Ok(Self::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        })
    }
}

/// The Kubernetes version whose policy is meant: a minor version of 1, or the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version(u32);

impl Version {
    pub(super) const LATEST: Self = Self(u32::MAX);

    /// # Errors
    /// The text is no version.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "latest" {
            return Ok(Self::LATEST);
        }
        let minor = text.strip_prefix("v1.").filter(|minor| {
            !minor.is_empty()
                && minor.bytes().all(|b| b.is_ascii_digit())
                && (minor.len() == 1 || !minor.starts_with('0'))
        });
        let minor = minor.and_then(|minor| minor.parse().ok()).filter(|minor| *minor != u32::MAX);
        minor.map(Self).ok_or(r#"must be "latest" or "v1.x""#)
    }

    /// The minor version; the latest is larger than all.
    pub(super) fn minor(self) -> u32 {
        self.0
    }
}

impl Default for Version {
    fn default() -> Self {
        Self::LATEST
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::LATEST { f.write_str("latest") } else { write!(f, "v1.{}", self.0) }
    }
}

/// A level as of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LevelVersion {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

impl LevelVersion {
    fn is_equivalent_to(self, other: Self) -> bool {
        self == other || (self.level == Level::Privileged && other.level == Level::Privileged)
    }
}

/// What holds in a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Policy {
    /// Pods that violate it are refused.
    pub(super) enforce: LevelVersion,
    /// What violates it is noted in the audit log.
    pub(super) audit: LevelVersion,
    /// What violates it is warned about.
    pub(super) warn: LevelVersion,
}

impl Policy {
    /// Whether it allows and says everything.
    pub(super) fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|p| p.level == Level::Privileged)
    }

    pub(super) fn is_equivalent_to(&self, other: &Self) -> bool {
        self.enforce.is_equivalent_to(other.enforce)
            && self.audit.is_equivalent_to(other.audit)
            && self.warn.is_equivalent_to(other.warn)
    }

    /// What the labels of a namespace ask for, `defaults` where they say nothing, and what is wrong with them. A
    /// wrong level enforces the strictest policy and neither audits nor warns.
    pub(super) fn of(labels: &Labels, defaults: &Self) -> (Self, Vec<Error>) {
        let mut policy = *defaults;
        if labels.is_empty() {
            return (policy, Vec::new());
        }
        let mut read = Reader { labels, errors: Vec::new() };
        let enforce = read.level("enforce");
        read.apply(&mut policy.enforce, "enforce", enforce, Level::Restricted);
        let audit = read.level("audit");
        read.apply(&mut policy.audit, "audit", audit, Level::Privileged);
        let warn = read.level("warn");
        let warn_version = read.apply(&mut policy.warn, "warn", warn, Level::Privileged);
        // Whoever enforces something stricter is warned of it as well.
        if warn.is_none()
            && let Some(Ok(level)) = enforce
            && level > policy.warn.level
        {
            policy.warn.level = level;
            if !warn_version {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, read.errors)
    }
}

struct Reader<'a> {
    labels: &'a Labels,
    errors: Vec<Error>,
}

impl Reader<'_> {
    fn wrong(&mut self, label: &str, value: &str, why: &str) {
        let path = Path::new("metadata").child("labels").key(label);
        self.errors.push(Error::invalid(&path, value, why));
    }

    fn level(&mut self, mode: &str) -> Option<Result<Level, ()>> {
        let label = format!("{PREFIX}{mode}");
        let value = self.labels.get(&label)?;
        Some(Level::parse(value).map_err(|why| self.wrong(&label, value, why)))
    }

    /// Sets level and version; whether a version was given.
    fn apply(
        &mut self,
        target: &mut LevelVersion,
        mode: &str,
        level: Option<Result<Level, ()>>,
        fallback: Level,
    ) -> bool {
        if let Some(level) = level {
            target.level = level.unwrap_or(fallback);
        }
        let label = format!("{PREFIX}{mode}-version");
        let Some(value) = self.labels.get(&label) else { return false };
        target.version = Version::parse(value).unwrap_or_else(|why| {
            self.wrong(&label, value, why);
            Version::LATEST
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(labels: &[(&str, &str)]) -> (String, Vec<String>) {
        let labels = labels.iter().map(|(k, v)| (format!("{PREFIX}{k}"), (*v).to_owned())).collect();
        let (policy, errors) = Policy::of(&labels, &Policy::default());
        let text = format!("{} {} {}", policy.enforce, policy.audit, policy.warn);
        (text, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn labels_choose_level_and_version() {
        for (labels, policy, error) in [
            (&[][..], "privileged:latest privileged:latest privileged:latest", ""),
            (&[("enforce", "baseline")], "baseline:latest privileged:latest baseline:latest", ""),
            (
                &[("enforce", "restricted"), ("enforce-version", "v1.24"), ("warn", "baseline")],
                "restricted:v1.24 privileged:latest baseline:latest",
                "",
            ),
            (
                &[("enforce", "restricted"), ("enforce-version", "v1.24")],
                "restricted:v1.24 privileged:latest restricted:v1.24",
                "",
            ),
            (
                &[("enforce", "strict")],
                "restricted:latest privileged:latest privileged:latest",
                r#"metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged, baseline, restricted"#,
            ),
            (
                &[("audit", "x"), ("warn-version", "v1.01")],
                "privileged:latest privileged:latest privileged:latest",
                r#"metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: "v1.01": must be "latest" or "v1.x""#,
            ),
        ] {
            let (read, errors) = read(labels);
            assert_eq!(read, policy, "{labels:?}");
            assert_eq!(errors.last().map_or("", String::as_str), error, "{labels:?}");
        }
    }
}
