//! The authorization webhook: another server is asked, by a SubjectAccessReview.

mod conditions;

pub(super) use conditions::Conditions;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_api::selector::Operator;
use gantry_base::Clock;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{Asked, Attributes, Authorizer, Decision, Rules};
use crate::callout::Caller;
use crate::identify::{Answers, User, persistently};

/// Answers that are remembered at one time.
const CAPACITY: usize = 8192;
/// Attributes of more bytes than this are not worth remembering.
const CACHEABLE: usize = 10_000;

/// How the other server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// `v1` or `v1beta1`.
    pub(super) version: String,
    /// How long it may take.
    pub(super) timeout: Duration,
    /// How long a yes holds.
    pub(super) authorized: Duration,
    /// How long a no holds.
    pub(super) unauthorized: Duration,
    /// Whether no answer is a no (else no opinion).
    pub(super) deny_on_failure: bool,
    /// What metrics call it.
    pub(super) name: String,
}

/// Asks another server.
pub(super) struct Webhook {
    pub(super) caller: Caller,
    pub(super) settings: Settings,
    pub(super) conditions: Conditions,
    pub(super) known: Answers<Decision>,
}

impl Webhook {
    pub(super) fn new(
        caller: Caller,
        settings: Settings,
        conditions: Conditions,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { caller, settings, conditions, known: Answers::new(CAPACITY, clock) }
    }

    fn failed(&self, why: String) -> Decision {
        if self.settings.deny_on_failure { Decision::DenyFailed(why) } else { Decision::Failed(why) }
    }

    async fn ask(&self, spec: Value) -> Result<(Decision, bool), String> {
        let review = json!({
            "kind": "SubjectAccessReview",
            "apiVersion": format!("authorization.k8s.io/{}", self.settings.version),
            "metadata": {"creationTimestamp": null},
            "spec": spec,
            "status": {"allowed": false},
        });
        let body = Bytes::from(review.to_string());
        let answer = persistently(|| self.caller.post_json(body.clone(), self.settings.timeout));
        let answer = answer.await.map_err(|e| e.to_string())?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|e| e.to_string())?;
        let status = &answer["status"];
        let reason = status["reason"].as_str().unwrap_or("").to_owned();
        let allowed = status["allowed"].as_bool().ok_or("the answer has no status.allowed")?;
        let denied = status["denied"].as_bool().unwrap_or(false);
        let decision = match (allowed, denied) {
            (true, true) => Decision::DenyFailed(
                "webhook subject access review returned both allow and deny response".to_owned(),
            ),
            (_, true) => Decision::Deny(reason),
            (true, false) => Decision::Allow(reason),
            (false, false) => Decision::NoOpinion(reason),
        };
        Ok((decision, allowed))
    }
}

impl Authorizer for Webhook {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> Asked<'a> {
        let spec = spec(attributes, &self.settings.version);
        match self.conditions.hold(&spec) {
            Ok(true) => {}
            Ok(false) => return Decision::NoOpinion(String::new()).into(),
            Err(why) => return self.failed(why).into(),
        }
        let text = spec.to_string();
        let key: [u8; 32] = Sha256::digest(&text).into();
        if let Some(known) = self.known.get(&key) {
            return known.into();
        }
        Asked::Later(Box::pin(async move {
            let since = self.known.clock().monotonic();
            let asked = self.ask(spec).await;
            let result = match &asked {
                Ok(_) => "success",
                Err(why) if why.contains("deadline exceeded") => "timeout",
                Err(_) => "error",
            };
            let took = self.known.clock().monotonic().saturating_sub(since);
            let fails_open = asked.is_err() && !self.settings.deny_on_failure;
            super::metrics::webhook(&self.settings.name, result, fails_open, took);
            match asked {
                Ok((decision, allowed)) => {
                    let life = if allowed { self.settings.authorized } else { self.settings.unauthorized };
                    if text.len() < CACHEABLE {
                        self.known.put(key, decision.clone(), life);
                    }
                    decision
                }
                Err(why) => {
                    tracing::error!(why, "Failed to make webhook authorizer request");
                    self.failed(why)
                }
            }
        }))
    }

    fn rules_for(&self, _user: &User, _namespace: &str) -> Rules {
        Rules {
            incomplete: true,
            errors: vec!["webhook authorizer does not support user rule resolution".to_owned()],
            ..Rules::default()
        }
    }
}

/// The `spec` of a review; what is empty is left out, as upstream's JSON does.
fn spec(a: &Attributes<'_>, version: &str) -> Value {
    let texts = |pairs: &[(&str, &str)]| {
        let filled = pairs.iter().filter(|(_, value)| !value.is_empty());
        filled.map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect::<Map<_, _>>()
    };
    let mut spec = texts(&[("user", &a.user.name), ("uid", &a.user.uid)]);
    if a.is_resource {
        let mut resource = texts(&[
            ("namespace", a.namespace),
            ("verb", a.verb),
            ("group", a.group),
            ("version", a.version),
            ("resource", a.resource),
            ("subresource", a.subresource),
            ("name", a.name),
        ]);
        if let Some(fields) = a.fields {
            let requirement = |t: &gantry_api::selector::FieldTerm| {
                let operator = if t.equal { "In" } else { "NotIn" };
                json!({"key": t.field, "operator": operator, "values": [t.value]})
            };
            let list: Vec<Value> = fields.terms().iter().map(requirement).collect();
            resource.insert("fieldSelector".to_owned(), json!({"requirements": list}));
        }
        if let Some(labels) = a.labels {
            let list: Vec<Value> = labels.requirements().iter().filter_map(label_requirement).collect();
            if !list.is_empty() {
                resource.insert("labelSelector".to_owned(), json!({"requirements": list}));
            }
        }
        spec.insert("resourceAttributes".to_owned(), resource.into());
    } else {
        let path = texts(&[("path", a.path), ("verb", a.verb)]);
        spec.insert("nonResourceAttributes".to_owned(), path.into());
    }
    let groups: Vec<&str> = a.user.groups.iter().map(|g| &**g).collect();
    if !groups.is_empty() {
        // The older version has another name for it.
        let key = if version == "v1beta1" { "group" } else { "groups" };
        spec.insert(key.to_owned(), json!(groups));
    }
    if !a.user.extra.is_empty() {
        spec.insert("extra".to_owned(), json!(*a.user.extra));
    }
    spec.into()
}

fn label_requirement(requirement: &gantry_api::selector::Requirement) -> Option<Value> {
    let operator = match requirement.operator {
        Operator::In => "In",
        Operator::NotIn => "NotIn",
        Operator::Exists => "Exists",
        Operator::DoesNotExist => "DoesNotExist",
        // Numbers are compared by nobody who is asked.
        _ => return None,
    };
    let mut value = json!({"key": requirement.key, "operator": operator});
    if !requirement.values.is_empty() {
        value["values"] = json!(requirement.values);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::{FieldSelector, LabelSelector};

    #[test]
    fn a_question_says_all_that_is_known() {
        let mut user = User::new("jane", ["devs"]);
        user.uid = "7".into();
        let fields = FieldSelector::equals("spec.nodeName", "n");
        let labels = LabelSelector::parse("a=b,c").expect("a selector");
        let attributes = Attributes {
            namespace: "shop",
            fields: Some(&fields),
            labels: Some(&labels),
            ..Attributes::on_resource(&user, "list", "apps", "deployments")
        };
        let wanted = json!({
            "user": "jane", "uid": "7", "groups": ["devs"],
            "resourceAttributes": {
                "namespace": "shop", "verb": "list", "group": "apps", "version": "v1", "resource": "deployments",
                "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n"]}]},
                "labelSelector": {"requirements": [
                    {"key": "a", "operator": "In", "values": ["b"]}, {"key": "c", "operator": "Exists"},
                ]},
            },
        });
        assert_eq!(spec(&attributes, "v1"), wanted);
        let path = spec(&Attributes::on_path(&user, "get", "/metrics"), "v1beta1");
        assert_eq!(path["nonResourceAttributes"], json!({"path": "/metrics", "verb": "get"}));
        assert_eq!(path["group"], json!(["devs"]));
    }
}
