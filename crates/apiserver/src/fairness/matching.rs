//! Which requests a flow schema means, as `apiserver/pkg/util/flowcontrol/rule.go`.

use gantry_api::flowcontrol::{NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject};

use crate::identify::{User, service_account_of};
use crate::route::RequestInfo;

pub(super) fn matches(rules: &PolicyRulesWithSubjects, user: &User, info: &RequestInfo) -> bool {
    if !rules.subjects.iter().any(|subject| is(subject, user)) {
        return false;
    }
    if info.is_resource {
        rules.resource_rules.iter().flatten().any(|rule| means_resource(rule, info))
    } else {
        rules.non_resource_rules.iter().flatten().any(|rule| means_path(rule, info))
    }
}

fn is(subject: &Subject, user: &User) -> bool {
    match subject.kind.as_str() {
        "User" => subject.user.as_ref().is_some_and(|s| s.name == "*" || *s.name == *user.name),
        "Group" => subject.group.as_ref().is_some_and(|s| s.name == "*" || user.is_in(&s.name)),
        "ServiceAccount" => subject.service_account.as_ref().is_some_and(|s| {
            if s.name == "*" {
                let rest = user.name.strip_prefix("system:serviceaccount:");
                return rest.and_then(|r| r.strip_prefix(&*s.namespace)).is_some_and(|r| r.starts_with(':'));
            }
            service_account_of(&user.name) == Some((&*s.namespace, &*s.name))
        }),
        _ => false,
    }
}

fn means_resource(rule: &ResourcePolicyRule, info: &RequestInfo) -> bool {
    has(&rule.verbs, info.verb)
        && has_resource(&rule.resources, info)
        && has(&rule.api_groups, &info.group)
        && match info.namespace.as_str() {
            "" => rule.cluster_scope == Some(true),
            namespace => rule.namespaces.as_ref().is_some_and(|list| has(list, namespace)),
        }
}

fn has_resource(list: &[String], info: &RequestInfo) -> bool {
    let named = |name: &String| match info.subresource.as_str() {
        "" => *name == info.resource,
        sub => name.strip_prefix(&*info.resource).and_then(|n| n.strip_prefix('/')) == Some(sub),
    };
    matches!(list, [one] if one == "*") || list.iter().any(named)
}

fn means_path(rule: &NonResourcePolicyRule, info: &RequestInfo) -> bool {
    let path = info.path.as_str();
    let below = |prefix: &str| {
        let prefix = prefix.strip_suffix('*').unwrap_or(prefix);
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
    };
    let fits = |url: &String| url == "*" || url == path || below(url);
    has(&rule.verbs, info.verb) && rule.non_resource_urls.iter().any(fits)
}

/// A star counts only if it stands alone.
fn has(list: &[String], text: &str) -> bool {
    matches!(list, [one] if one == "*") || list.iter().any(|item| item == text)
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::query::Query;
    use crate::route::resolve;

    fn fits(subject: Value, rule: Value, user: &str, url: &str) -> bool {
        let key = if rule.get("resources").is_some() { "resourceRules" } else { "nonResourceRules" };
        let rules = json!({"subjects": [subject], key: [rule]});
        let rules: PolicyRulesWithSubjects = serde_json::from_value(rules).expect("rules");
        let info = resolve(&Method::GET, url, &Query::parse(""));
        matches(&rules, &User::new(user, ["g"]), &info)
    }

    #[test]
    fn subjects_and_rules_match_as_upstream() {
        let any = json!({"kind": "Group", "group": {"name": "*"}});
        let account = |namespace: &str, name: &str| {
            let account = json!({"namespace": namespace, "name": name});
            json!({"kind": "ServiceAccount", "serviceAccount": account})
        };
        let paths = |url: &str| json!({"verbs": ["get"], "nonResourceURLs": [url]});
        let pods = |namespaces: Value, cluster: bool| {
            json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods", "pods/log"],
                "namespaces": namespaces, "clusterScope": cluster})
        };
        let robot = "system:serviceaccount:shop:robot";
        for (subject, rule, user, url, fit) in [
            (any.clone(), paths("/healthz"), "u", "/healthz", true),
            (any.clone(), paths("/healthz"), "u", "/healthz/ping", true),
            (any.clone(), paths("/healthz"), "u", "/healthzz", false),
            (any.clone(), paths("/a/*"), "u", "/a/b", true),
            (any.clone(), paths("*"), "u", "/x", true),
            (account("shop", "*"), paths("*"), robot, "/x", true),
            (account("sho", "*"), paths("*"), robot, "/x", false),
            (account("shop", "robot"), paths("*"), robot, "/x", true),
            (account("shop", "other"), paths("*"), robot, "/x", false),
            (json!({"kind": "User", "user": {"name": "v"}}), paths("*"), "u", "/x", false),
            (json!({"kind": "Group", "group": {"name": "g"}}), paths("*"), "u", "/x", true),
            (any.clone(), pods(json!(["*"]), false), "u", "/api/v1/namespaces/a/pods", true),
            (any.clone(), pods(json!(["*"]), false), "u", "/api/v1/pods", false),
            (any.clone(), pods(json!([]), true), "u", "/api/v1/pods", true),
            (any.clone(), pods(json!(["b"]), true), "u", "/api/v1/namespaces/a/pods", false),
            (any.clone(), pods(json!(["a"]), false), "u", "/api/v1/namespaces/a/pods/p/log", true),
            (any.clone(), pods(json!(["a"]), false), "u", "/api/v1/namespaces/a/pods/p/status", false),
            (any, pods(json!(["a"]), false), "u", "/apis/apps/v1/namespaces/a/pods", false),
        ] {
            assert_eq!(fits(subject.clone(), rule.clone(), user, url), fit, "{subject} {rule} {user} {url}");
        }
    }
}
