//! The file of `--authentication-config`: an AuthenticationConfiguration (`apiserver.config.k8s.io`).

use std::path::Path as FilePath;

use gantry_api::field::{Error as Fault, Path};
use gantry_base::{Error, Result};
use http::Uri;
use serde::Deserialize;
use serde_json::Value;

use super::chain::Anonymous;
use super::oidc::Expressions;

const GROUP: &str = "apiserver.config.k8s.io";
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
/// Issuers that one file may name.
const MAX_ISSUERS: usize = 64;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Configuration {
    api_version: String,
    kind: String,
    pub(super) jwt: Vec<Jwt>,
    anonymous: Option<AnonymousSettings>,
}

/// One issuer, and how its tokens are read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Jwt {
    pub(super) issuer: Issuer,
    pub(super) claim_validation_rules: Vec<Rule>,
    pub(super) claim_mappings: Mappings,
    pub(super) user_validation_rules: Vec<UserRule>,
}

/// Who signs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Issuer {
    pub(super) url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: String,
    pub(super) certificate_authority: String,
    pub(super) audiences: Vec<String>,
    audience_match_policy: String,
    egress_selector_type: String,
}

impl Issuer {
    /// Another issuer, reached and believed as this one is.
    pub(super) fn elsewhere(&self, url: &str) -> Self {
        Self { url: url.to_owned(), discovery_url: String::new(), ..self.clone() }
    }

    /// Where the discovery document is.
    pub(super) fn discovery(&self) -> String {
        match self.discovery_url.as_str() {
            "" => format!("{}/.well-known/openid-configuration", self.url.trim_end_matches('/')),
            url => url.to_owned(),
        }
    }
}

/// What a token must claim.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Rule {
    pub(super) claim: String,
    pub(super) required_value: String,
    pub(super) expression: String,
    pub(super) message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct UserRule {
    pub(super) expression: String,
    pub(super) message: String,
}

/// What becomes of the claims.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Mappings {
    pub(super) username: Mapping,
    pub(super) groups: Mapping,
    pub(super) uid: Mapping,
    pub(super) extra: Vec<Extra>,
}

/// A claim, with what is put before it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Mapping {
    pub(super) claim: String,
    pub(super) prefix: Option<String>,
    pub(super) expression: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Extra {
    pub(super) key: String,
    pub(super) value_expression: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct AnonymousSettings {
    enabled: bool,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Condition {
    path: String,
}

impl Configuration {
    /// Reads the file. `own` are the issuers of this server's own tokens, which nobody else may be.
    ///
    /// # Errors
    /// It cannot be read or is not valid; says what is wrong.
    pub(super) fn read(path: &FilePath, own: &[String]) -> Result<Self> {
        let doing = || format!("--authentication-config {}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| Error::from(e).while_doing(doing()))?;
        Self::parse(&text, own).map_err(|e| e.while_doing(doing()))
    }

    pub(super) fn parse(text: &str, own: &[String]) -> Result<Self> {
        let read: Self = serde_saphyr::from_str(text).map_err(|e| Error::invalid(e.to_string()))?;
        let known = read.api_version.strip_prefix(GROUP).and_then(|v| v.strip_prefix('/'));
        if !known.is_some_and(|v| VERSIONS.contains(&v)) || read.kind != "AuthenticationConfiguration" {
            return Err(Error::invalid(format!(
                "no kind {:?} is registered for version {:?}",
                read.kind, read.api_version
            )));
        }
        let faults = read.faults(own);
        if faults.is_empty() {
            return Ok(read);
        }
        let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Err(Error::invalid(match texts.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        }))
    }

    /// Who may come without credentials, if the file says so.
    pub(super) fn anonymous(&self) -> Option<Anonymous> {
        let settings = self.anonymous.as_ref()?;
        let paths = settings.conditions.iter().map(|c| c.path.clone()).collect();
        Some(Anonymous { enabled: settings.enabled, paths })
    }

    fn faults(&self, own: &[String]) -> Vec<Fault> {
        let root = Path::new("jwt");
        let mut faults = Vec::new();
        if self.jwt.len() > MAX_ISSUERS {
            return vec![Fault::too_many(&root, self.jwt.len(), MAX_ISSUERS)];
        }
        for (i, jwt) in self.jwt.iter().enumerate() {
            let path = root.index(i);
            jwt.faults(&path, own, &mut faults);
            let before = &self.jwt[..i];
            let issuer = path.child("issuer");
            if before.iter().any(|b| b.issuer.url == jwt.issuer.url) {
                faults.push(Fault::duplicate(&issuer.child("url"), jwt.issuer.url.as_str()));
            }
            let discovery = &jwt.issuer.discovery_url;
            if !discovery.is_empty() && before.iter().any(|b| b.issuer.discovery_url == *discovery) {
                faults.push(Fault::duplicate(&issuer.child("discoveryURL"), discovery.as_str()));
            }
        }
        if self.anonymous.as_ref().is_some_and(|a| !a.enabled && !a.conditions.is_empty()) {
            let path = Path::new("anonymous").child("conditions");
            let why = "enabled should be set to true when conditions are defined";
            faults.push(Fault::invalid(&path, Value::Null, why));
        }
        faults
    }
}

impl Jwt {
    fn faults(&self, path: &Path, own: &[String], faults: &mut Vec<Fault>) {
        self.issuer.faults(&path.child("issuer"), own, faults);
        for (i, rule) in self.claim_validation_rules.iter().enumerate() {
            let path = path.child("claimValidationRules").index(i);
            rule.faults(&path, &self.claim_validation_rules[..i], faults);
        }
        self.claim_mappings.faults(&path.child("claimMappings"), faults);
        for (i, rule) in self.user_validation_rules.iter().enumerate() {
            let path = path.child("userValidationRules").index(i).child("expression");
            if rule.expression.is_empty() {
                faults.push(Fault::required(&path, ""));
            } else if self.user_validation_rules[..i].iter().any(|b| b.expression == rule.expression) {
                faults.push(Fault::duplicate(&path, rule.expression.as_str()));
            }
        }
        Expressions::compile(self, path, faults);
    }
}

impl Issuer {
    fn faults(&self, path: &Path, own: &[String], faults: &mut Vec<Fault>) {
        let at = path.child("url");
        if self.url.is_empty() {
            faults.push(Fault::required(&at, ""));
        } else {
            if own.contains(&self.url) {
                let why = format!("URL must not overlap with disallowed issuers: [{}]", own.join(" "));
                faults.push(Fault::invalid(&at, self.url.as_str(), why));
            }
            check_url(&at, &self.url, faults);
        }
        if !self.discovery_url.is_empty() {
            let at = path.child("discoveryURL");
            if self.url.trim_end_matches('/') == self.discovery_url.trim_end_matches('/') {
                let why = "discoveryURL must be different from URL";
                faults.push(Fault::invalid(&at, self.discovery_url.as_str(), why));
            }
            check_url(&at, &self.discovery_url, faults);
        }
        self.audience_faults(path, faults);
        if !self.egress_selector_type.is_empty() {
            let at = path.child("egressSelectorType");
            let why = "egress selectors are not supported by this server";
            faults.push(Fault::invalid(&at, self.egress_selector_type.as_str(), why));
        }
    }

    fn audience_faults(&self, path: &Path, faults: &mut Vec<Fault>) {
        let at = path.child("audiences");
        if self.audiences.is_empty() {
            faults.push(Fault::required(&at, format!("at least one {at} is required")));
            return;
        }
        for (i, audience) in self.audiences.iter().enumerate() {
            if audience.is_empty() {
                faults.push(Fault::required(&at.index(i), ""));
            }
            if self.audiences[..i].contains(audience) {
                faults.push(Fault::duplicate(&at.index(i), audience.as_str()));
            }
        }
        let policy = self.audience_match_policy.as_str();
        let at = path.child("audienceMatchPolicy");
        if self.audiences.len() > 1 && policy != "MatchAny" {
            let why = "audienceMatchPolicy must be MatchAny for multiple audiences";
            faults.push(Fault::invalid(&at, policy, why));
        }
        if self.audiences.len() == 1 && !["", "MatchAny"].contains(&policy) {
            let why = "audienceMatchPolicy must be empty or MatchAny for single audience";
            faults.push(Fault::invalid(&at, policy, why));
        }
    }
}

fn check_url(path: &Path, url: &str, faults: &mut Vec<Fault>) {
    let (bare, fragment) = url.split_once('#').unwrap_or((url, ""));
    let parsed: Uri = match bare.parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            faults.push(Fault::invalid(path, url, error.to_string()));
            return;
        }
    };
    let mut complain = |why: &str| faults.push(Fault::invalid(path, url, why));
    if parsed.scheme_str() != Some("https") {
        complain("URL scheme must be https");
    }
    if parsed.authority().is_some_and(|a| a.as_str().contains('@')) {
        complain("URL must not contain a username or password");
    }
    if parsed.query().is_some_and(|q| !q.is_empty()) {
        complain("URL must not contain a query");
    }
    if !fragment.is_empty() {
        complain("URL must not contain a fragment");
    }
}

impl Rule {
    fn faults(&self, path: &Path, before: &[Self], faults: &mut Vec<Fault>) {
        match (self.claim.as_str(), self.expression.as_str()) {
            ("", "") => faults.push(Fault::required(path, "claim or expression is required")),
            (claim, "") => {
                if !self.message.is_empty() {
                    let why = "may not be specified when claim is set";
                    faults.push(Fault::invalid(&path.child("message"), self.message.as_str(), why));
                }
                if before.iter().any(|b| b.claim == claim) {
                    faults.push(Fault::duplicate(&path.child("claim"), claim));
                }
            }
            ("", expression) => {
                if !self.required_value.is_empty() {
                    let why = "may not be specified when expression is set";
                    let value = self.required_value.as_str();
                    faults.push(Fault::invalid(&path.child("requiredValue"), value, why));
                }
                if before.iter().any(|b| b.expression == expression) {
                    faults.push(Fault::duplicate(&path.child("expression"), expression));
                }
            }
            (claim, _) => {
                faults.push(Fault::invalid(path, claim, "claim and expression can't both be set"));
            }
        }
    }
}

impl Mappings {
    fn faults(&self, path: &Path, faults: &mut Vec<Fault>) {
        self.username.faults(&path.child("username"), true, faults);
        self.groups.faults(&path.child("groups"), false, faults);
        if !self.uid.claim.is_empty() && !self.uid.expression.is_empty() {
            let why = "claim and expression can't both be set";
            faults.push(Fault::invalid(&path.child("uid"), "", why));
        }
        for (i, extra) in self.extra.iter().enumerate() {
            let path = path.child("extra").index(i);
            let key = path.child("key");
            let mut complain = |why: &str| faults.push(Fault::invalid(&key, extra.key.as_str(), why));
            if crate::impersonate::domain_prefixed_path(&extra.key).is_err() {
                complain("must be a domain-prefixed path (such as \"acme.io/foo\")");
            }
            if extra.key != extra.key.to_lowercase() {
                complain("must be lowercase");
            }
            let domain = extra.key.split('/').next().unwrap_or("");
            if ["kubernetes.io", "k8s.io"].iter().any(|d| domain == *d || domain.ends_with(&format!(".{d}")))
            {
                complain("k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use");
            }
            if self.extra[..i].iter().any(|b| b.key == extra.key) {
                faults.push(Fault::duplicate(&key, extra.key.as_str()));
            }
            if extra.value_expression.is_empty() {
                faults.push(Fault::required(&path.child("valueExpression"), ""));
            }
        }
    }
}

impl Mapping {
    fn faults(&self, path: &Path, required: bool, faults: &mut Vec<Fault>) {
        match (self.claim.as_str(), self.expression.as_str()) {
            ("", "") if required => {
                faults.push(Fault::required(path, "claim or expression is required"));
            }
            ("", "") => {}
            (_, "") => {
                if self.prefix.is_none() {
                    let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                    faults.push(Fault::required(&path.child("prefix"), why));
                }
            }
            ("", _) => {
                if let Some(prefix) = &self.prefix {
                    let why = "may not be specified when expression is set";
                    faults.push(Fault::invalid(&path.child("prefix"), prefix.as_str(), why));
                }
            }
            _ => faults.push(Fault::invalid(path, "", "claim and expression can't both be set")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: https://issuer.example, audiences: [a, b], audienceMatchPolicy: MatchAny}
  claimValidationRules: [{claim: hd, requiredValue: acme}]
  claimMappings: {username: {claim: sub, prefix: 'x:'}, groups: {claim: groups, prefix: ''}}
anonymous: {enabled: true, conditions: [{path: /livez}]}
";

    #[test]
    fn a_file_says_who_is_believed() {
        let read = Configuration::parse(GOOD, &[]).expect("valid");
        assert_eq!(read.jwt[0].issuer.discovery(), "https://issuer.example/.well-known/openid-configuration");
        assert_eq!(read.anonymous(), Some(Anonymous { enabled: true, paths: vec!["/livez".into()] }));
    }

    #[test]
    fn faults_are_told_in_upstreams_words() {
        let rows = [
            (
                "https://issuer.example",
                "http://issuer.example",
                "jwt[0].issuer.url: Invalid value: \"http://issuer.example\": URL scheme must be https",
            ),
            (
                "https://issuer.example",
                "https://own.example",
                "jwt[0].issuer.url: Invalid value: \"https://own.example\": URL must not overlap with disallowed issuers: [https://own.example]",
            ),
            (
                ", audienceMatchPolicy: MatchAny",
                "",
                "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny for multiple audiences",
            ),
            (
                "claim: hd, ",
                "",
                "jwt[0].claimValidationRules[0]: Required value: claim or expression is required",
            ),
            (
                ", prefix: 'x:'",
                "",
                "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing",
            ),
            (
                "claim: sub, prefix: 'x:'",
                "expression: claims.email",
                "jwt[0].claimMappings.username.expression: Invalid value: \"claims.email\": claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression",
            ),
            (
                "claim: hd, requiredValue: acme",
                "expression: claims.exp",
                "jwt[0].claimValidationRules[0].expression: Invalid value: \"claims.exp\": must evaluate to bool",
            ),
            (
                "enabled: true",
                "enabled: false",
                "anonymous.conditions: Invalid value: null: enabled should be set to true when conditions are defined",
            ),
            (
                "config.k8s.io/v1",
                "config.k8s.io/v9",
                "no kind \"AuthenticationConfiguration\" is registered for version \"apiserver.config.k8s.io/v9\"",
            ),
        ];
        for (from, to, wanted) in rows {
            let error = Configuration::parse(&GOOD.replace(from, to), &["https://own.example".to_owned()]);
            assert_eq!(error.expect_err(wanted).to_string(), wanted);
        }
        assert!(Configuration::parse(&GOOD.replace("hd", "hd, x: y"), &[]).is_err(), "unknown fields");
    }
}
