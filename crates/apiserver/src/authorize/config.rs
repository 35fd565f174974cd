//! Which authorizers are asked: by flags, or by the file of `--authorization-config`, an AuthorizationConfiguration
//! (`apiserver.config.k8s.io`).

use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use gantry_api::field::{Error as Fault, Path};
use gantry_base::{Error, Result};
use serde::Deserialize;

use super::webhook::{Conditions, Settings};

const GROUP: &str = "apiserver.config.k8s.io";
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
const MODES: [&str; 5] = ["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];

/// What flags say of what users may do. The names are upstream's.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--authorization-mode`; none: `Node,RBAC`.
    pub modes: Vec<String>,
    /// `--authorization-config`, in place of all others.
    pub config_file: Option<PathBuf>,
    /// `--authorization-policy-file`, for the mode ABAC.
    pub policy_file: Option<PathBuf>,
    /// `--authorization-webhook-config-file`
    pub webhook_file: Option<PathBuf>,
    /// `--authorization-webhook-version`; none: `v1`.
    pub webhook_version: Option<String>,
    /// `--authorization-webhook-cache-authorized-ttl`; none: five minutes.
    pub authorized: Option<Duration>,
    /// `--authorization-webhook-cache-unauthorized-ttl`; none: 30 seconds.
    pub unauthorized: Option<Duration>,
}

/// One authorizer that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    AlwaysAllow,
    AlwaysDeny,
    Abac(PathBuf),
    Node,
    Rbac,
    Webhook(Box<WebhookMode>),
}

/// A webhook: where, how, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WebhookMode {
    pub(super) place: HookPlace,
    pub(super) settings: Settings,
    pub(super) conditions: Vec<String>,
}

/// Where a webhook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HookPlace {
    /// A file in kubeconfig's format says it.
    Kubeconfig(PathBuf),
    /// The API server of the cluster that this server is a pod of.
    InCluster,
}

impl Options {
    /// The authorizers, in order.
    ///
    /// # Errors
    /// A flag or the file that cannot be understood; names it.
    pub(super) fn modes(&self) -> Result<Vec<Mode>> {
        if let Some(path) = &self.config_file {
            if !self.modes.is_empty() || self.webhook_file.is_some() || self.policy_file.is_some() {
                return Err(Error::invalid(
                    "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined",
                ));
            }
            return Configuration::read(path);
        }
        let usual = ["Node".to_owned(), "RBAC".to_owned()];
        let names = if self.modes.is_empty() { &usual[..] } else { &self.modes };
        let mut modes = Vec::new();
        for (i, name) in names.iter().enumerate() {
            if names[..i].contains(name) {
                return Err(Error::invalid(format!(
                    "authorization-mode {name:?} has mode specified more than once"
                )));
            }
            modes.push(match name.as_str() {
                "AlwaysAllow" => Mode::AlwaysAllow,
                "AlwaysDeny" => Mode::AlwaysDeny,
                "ABAC" => Mode::Abac(self.policy_file.clone().ok_or_else(|| {
                    Error::invalid("authorization-mode ABAC's authorization policy file not passed")
                })?),
                "Node" => Mode::Node,
                "RBAC" => Mode::Rbac,
                "Webhook" => Mode::Webhook(Box::new(self.webhook()?)),
                other => {
                    return Err(Error::invalid(format!("authorization-mode {other:?} is not a valid mode")));
                }
            });
        }
        if self.policy_file.is_some() && !names.iter().any(|n| n == "ABAC") {
            return Err(Error::invalid("cannot specify --authorization-policy-file without mode ABAC"));
        }
        if self.webhook_file.is_some() && !names.iter().any(|n| n == "Webhook") {
            return Err(Error::invalid(
                "cannot specify --authorization-webhook-config-file without mode Webhook",
            ));
        }
        Ok(modes)
    }

    fn webhook(&self) -> Result<WebhookMode> {
        let kubeconfig = self.webhook_file.clone().ok_or_else(|| {
            Error::invalid("authorization-mode Webhook's authorization config file not passed")
        })?;
        let version = self.webhook_version.clone().unwrap_or_else(|| "v1".to_owned());
        if !["v1", "v1beta1"].contains(&version.as_str()) {
            let why = format!("--authorization-webhook-version {version:?}: it is either v1 or v1beta1");
            return Err(Error::invalid(why));
        }
        let settings = Settings {
            version,
            timeout: Duration::from_secs(30),
            authorized: self.authorized.unwrap_or(Duration::from_secs(300)),
            unauthorized: self.unauthorized.unwrap_or(Duration::from_secs(30)),
            deny_on_failure: false,
            name: "default".to_owned(),
        };
        Ok(WebhookMode { place: HookPlace::Kubeconfig(kubeconfig), settings, conditions: Vec::new() })
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Configuration {
    api_version: String,
    kind: String,
    authorizers: Vec<Entry>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    webhook: Option<WebhookEntry>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WebhookEntry {
    #[serde(rename = "authorizedTTL")]
    authorized: Option<String>,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized: Option<String>,
    cache_authorized_requests: Option<bool>,
    cache_unauthorized_requests: Option<bool>,
    timeout: Option<String>,
    subject_access_review_version: String,
    match_condition_subject_access_review_version: String,
    failure_policy: String,
    connection_info: Connection,
    match_conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Connection {
    #[serde(rename = "type")]
    kind: String,
    kube_config_file: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Condition {
    expression: String,
}

/// Reads an AuthorizationConfiguration and returns how many authorizers it names: for fuzz targets.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn count_authorizers(text: &str) -> Result<usize> {
    Configuration::parse(text).map(|modes| modes.len())
}

impl Configuration {
    fn read(path: &FilePath) -> Result<Vec<Mode>> {
        let doing = || format!("--authorization-config {}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| Error::from(e).while_doing(doing()))?;
        Self::parse(&text).map_err(|e| e.while_doing(doing()))
    }

    fn parse(text: &str) -> Result<Vec<Mode>> {
        let read: Self = serde_saphyr::from_str(text).map_err(|e| Error::invalid(e.to_string()))?;
        let known = read.api_version.strip_prefix(GROUP).and_then(|v| v.strip_prefix('/'));
        if !known.is_some_and(|v| VERSIONS.contains(&v)) || read.kind != "AuthorizationConfiguration" {
            return Err(Error::invalid(format!(
                "no kind {:?} is registered for version {:?}",
                read.kind, read.api_version
            )));
        }
        let mut faults = Vec::new();
        let modes = read.modes(&mut faults);
        let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
        match texts.as_slice() {
            [] => Ok(modes),
            [one] => Err(Error::invalid(one.clone())),
            several => Err(Error::invalid(format!("[{}]", several.join(", ")))),
        }
    }

    fn modes(self, faults: &mut Vec<Fault>) -> Vec<Mode> {
        let root = Path::new("authorizers");
        if self.authorizers.is_empty() {
            faults.push(Fault::required(&root, "at least one authorization mode must be defined"));
        }
        let mut modes = Vec::new();
        let (mut kinds, mut names) = (Vec::new(), Vec::new());
        for (i, entry) in self.authorizers.into_iter().enumerate() {
            let path = root.index(i);
            let at = path.child("type");
            match entry.kind.as_str() {
                "" => faults.push(Fault::required(&at, "")),
                kind if !MODES.contains(&kind) => faults.push(Fault::not_supported(&at, kind, &MODES)),
                kind if kind != "Webhook" && kinds.iter().any(|k| k == kind) => {
                    faults.push(Fault::duplicate(&at, kind));
                }
                kind => {
                    kinds.push(kind.to_owned());
                    check_name(&entry.name, &names, &path.child("name"), faults);
                    names.push(entry.name.clone());
                    modes.extend(entry.mode(&path, faults));
                }
            }
        }
        modes
    }
}

fn check_name(name: &str, before: &[String], path: &Path, faults: &mut Vec<Fault>) {
    if name.is_empty() {
        faults.push(Fault::required(path, ""));
    } else if before.iter().any(|n| n == name) {
        faults.push(Fault::duplicate(path, name));
    } else if let Err(why) = gantry_api::names::dns1123_subdomain(name) {
        faults.push(Fault::invalid(path, name, format!("authorizer name is invalid: {why}")));
    }
}

impl Entry {
    fn mode(self, path: &Path, faults: &mut Vec<Fault>) -> Option<Mode> {
        let mode = match self.kind.as_str() {
            "AlwaysAllow" => Mode::AlwaysAllow,
            "AlwaysDeny" => Mode::AlwaysDeny,
            "Node" => Mode::Node,
            "RBAC" => Mode::Rbac,
            _ => {
                let Some(webhook) = self.webhook else {
                    faults.push(Fault::required(&path.child("webhook"), "required when type=Webhook"));
                    return None;
                };
                return webhook.mode(self.name, path, faults).map(|mode| Mode::Webhook(Box::new(mode)));
            }
        };
        if self.webhook.is_some() {
            let why = "may only be specified when type=Webhook";
            faults.push(Fault::invalid(&path.child("webhook"), "non-null", why));
        }
        Some(mode)
    }
}

impl WebhookEntry {
    fn mode(self, name: String, path: &Path, faults: &mut Vec<Fault>) -> Option<WebhookMode> {
        let before = faults.len();
        let longest = Duration::from_secs(30);
        let timeout = duration(&path.child("timeout"), self.timeout.as_deref(), None, faults);
        if timeout > longest {
            let why = "must be > 0s and <= 30s";
            faults.push(Fault::invalid(&path.child("timeout"), self.timeout.as_deref().unwrap_or(""), why));
        }
        let (five, half) = (Duration::from_secs(300), Duration::from_secs(30));
        let ttl = path.child("authorizedTTL");
        let mut authorized = duration(&ttl, self.authorized.as_deref(), Some(five), faults);
        let ttl = path.child("unauthorizedTTL");
        let mut unauthorized = duration(&ttl, self.unauthorized.as_deref(), Some(half), faults);
        if self.cache_authorized_requests == Some(false) {
            authorized = Duration::ZERO;
        }
        if self.cache_unauthorized_requests == Some(false) {
            unauthorized = Duration::ZERO;
        }
        let version = &self.subject_access_review_version;
        choice(&path.child("subjectAccessReviewVersion"), version, &["v1", "v1beta1"], faults);
        let at = path.child("matchConditionSubjectAccessReviewVersion");
        match self.match_condition_subject_access_review_version.as_str() {
            "" if self.match_conditions.is_empty() => {}
            "" => faults.push(Fault::required(&at, "required if match conditions are specified")),
            version => choice(&at, version, &["v1"], faults),
        }
        choice(&path.child("failurePolicy"), &self.failure_policy, &["NoOpinion", "Deny"], faults);
        let place = self.connection_info.place(&path.child("connectionInfo"), faults);
        let conditions: Vec<String> = self.match_conditions.into_iter().map(|c| c.expression).collect();
        Conditions::compile(&conditions, path, faults);
        if faults.len() > before {
            return None;
        }
        let settings = Settings {
            version: self.subject_access_review_version,
            timeout,
            authorized,
            unauthorized,
            deny_on_failure: self.failure_policy == "Deny",
            name,
        };
        Some(WebhookMode { place: place?, settings, conditions })
    }
}

impl Connection {
    fn place(self, path: &Path, faults: &mut Vec<Fault>) -> Option<HookPlace> {
        let at = path.child("kubeConfigFile");
        match (self.kind.as_str(), self.kube_config_file) {
            ("", _) => faults.push(Fault::required(&path.child("type"), "")),
            ("KubeConfigFile", Some(file)) if !file.as_os_str().is_empty() => {
                let shown = file.display().to_string();
                if !file.is_absolute() {
                    faults.push(Fault::invalid(&at, shown, "must be an absolute path"));
                } else if let Err(error) = std::fs::metadata(&file) {
                    faults.push(Fault::invalid(&at, shown, format!("error loading file: {error}")));
                } else if !file.is_file() {
                    faults.push(Fault::invalid(&at, shown, "must be a regular file"));
                } else {
                    return Some(HookPlace::Kubeconfig(file));
                }
            }
            ("KubeConfigFile", _) => faults.push(Fault::required(&at, "")),
            ("InClusterConfig", None) => return Some(HookPlace::InCluster),
            ("InClusterConfig", Some(file)) => {
                let why = "can only be set when type=KubeConfigFile";
                faults.push(Fault::invalid(&at, file.display().to_string(), why));
            }
            (other, _) => {
                let known = ["InClusterConfig", "KubeConfigFile"];
                faults.push(Fault::not_supported(&path.child("type"), other, &known));
            }
        }
        None
    }
}

fn choice(path: &Path, value: &str, choices: &[&str], faults: &mut Vec<Fault>) {
    if value.is_empty() {
        faults.push(Fault::required(path, ""));
    } else if !choices.contains(&value) {
        faults.push(Fault::not_supported(path, value, choices));
    }
}

/// A positive duration as Go writes it.
fn duration(path: &Path, text: Option<&str>, default: Option<Duration>, faults: &mut Vec<Fault>) -> Duration {
    let Some(text) = text.filter(|t| !t.is_empty()) else {
        return default.unwrap_or_else(|| {
            faults.push(Fault::required(path, ""));
            Duration::ZERO
        });
    };
    match parse_duration(text) {
        Some(read) if !read.is_zero() => read,
        _ => {
            faults.push(Fault::invalid(path, text, "must be > 0s"));
            Duration::ZERO
        }
    }
}

/// Reads `300ms`, `90s`, `1h30m`; `None` if it is none of that.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let seconds = match &rest[digits..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(file: &FilePath) -> String {
        format!(
            "
apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- type: Webhook
  name: hook
  webhook:
    timeout: 3s
    unauthorizedTTL: 10s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: Deny
    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {}}}
    matchConditions: [{{expression: has(request.resourceAttributes)}}]
- {{type: Node, name: node}}
- {{type: RBAC, name: rbac}}
",
            file.display()
        )
    }

    #[test]
    fn a_file_says_who_is_asked() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let good = good(file.path());
        let modes = Configuration::parse(&good).expect("valid");
        let Mode::Webhook(hook) = &modes[0] else { panic!("{modes:?}") };
        assert_eq!((hook.settings.authorized.as_secs(), hook.settings.unauthorized.as_secs()), (300, 10));
        assert!(hook.settings.deny_on_failure && modes[1..] == [Mode::Node, Mode::Rbac]);
        let rows = [
            (
                "timeout: 3s",
                "timeout: 31s",
                "authorizers[0].timeout: Invalid value: \"31s\": must be > 0s and <= 30s",
            ),
            (
                "failurePolicy: Deny",
                "failurePolicy: Maybe",
                "authorizers[0].failurePolicy: Unsupported value: \"Maybe\": supported values: \"NoOpinion\", \"Deny\"",
            ),
            ("name: node", "name: hook", "authorizers[1].name: Duplicate value: \"hook\""),
            ("type: RBAC", "type: Node", "authorizers[2].type: Duplicate value: \"Node\""),
            (
                "has(request.resourceAttributes)",
                "1 + 1",
                "authorizers[0].matchConditions[0].expression: Invalid value: \"1 + 1\": must evaluate to bool but got int",
            ),
            (
                "type: KubeConfigFile,",
                "type: InClusterConfig,",
                "authorizers[0].connectionInfo.kubeConfigFile: Invalid value: \"/dev/null\": can only be set when type=KubeConfigFile",
            ),
            (
                "type: KubeConfigFile,",
                "type: Else,",
                "authorizers[0].connectionInfo.type: Unsupported value: \"Else\": supported values: \"InClusterConfig\", \"KubeConfigFile\"",
            ),
        ];
        let inside = good.replace(
            &format!("KubeConfigFile, kubeConfigFile: {}", file.path().display()),
            "InClusterConfig",
        );
        let modes = Configuration::parse(&inside).expect("valid");
        let Mode::Webhook(hook) = &modes[0] else { panic!("{modes:?}") };
        assert_eq!(hook.place, HookPlace::InCluster);
        for (from, to, wanted) in rows {
            let wanted = &wanted.replace("/dev/null", &file.path().display().to_string());
            let error = Configuration::parse(&good.replace(from, to)).expect_err(wanted);
            assert_eq!(error.to_string(), *wanted);
        }
    }

    #[test]
    fn flags_say_it_too() {
        let of = |modes: &[&str]| Options {
            modes: modes.iter().map(|m| (*m).to_owned()).collect(),
            ..Options::default()
        };
        assert_eq!(of(&[]).modes().expect("valid"), [Mode::Node, Mode::Rbac]);
        assert_eq!(of(&["AlwaysAllow"]).modes().expect("valid"), [Mode::AlwaysAllow]);
        let fault = |options: Options| options.modes().expect_err("a fault").to_string();
        assert_eq!(fault(of(&["ABC"])), "authorization-mode \"ABC\" is not a valid mode");
        assert_eq!(
            fault(of(&["Node", "Node"])),
            "authorization-mode \"Node\" has mode specified more than once"
        );
        assert_eq!(
            fault(of(&["Webhook"])),
            "authorization-mode Webhook's authorization config file not passed"
        );
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let read = |text: &str| parse_duration(text).map(|d| d.as_millis());
        assert_eq!(
            [read("90s"), read("1h30m"), read("1.5s"), read("300ms")],
            [Some(90_000), Some(5_400_000), Some(1500), Some(300)]
        );
        assert_eq!([read(""), read("5"), read("5d"), read("h")], [None; 4]);
    }
}
