//! What one RBAC rule allows, and whether some rules allow all that others do.

use std::collections::BTreeMap;

use gantry_api::field::quote;
use gantry_api::rbac::PolicyRule;

use super::Attributes;

/// Whether the rule allows this.
pub fn allows(rule: &PolicyRule, a: &Attributes<'_>) -> bool {
    if !any_or(&rule.verbs, a.verb) {
        return false;
    }
    if !a.is_resource {
        return list(&rule.non_resource_urls).iter().any(|url| url_covers(url, a.path));
    }
    any_or(list(&rule.api_groups), a.group)
        && list(&rule.resources).iter().any(|r| resource_matches(r, a.resource, a.subresource))
        && (list(&rule.resource_names).is_empty() || list(&rule.resource_names).iter().any(|n| n == a.name))
}

fn list(list: &Option<Vec<String>>) -> &[String] {
    list.as_deref().unwrap_or_default()
}

fn any_or(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    match rule.split_once('/') {
        Some((left, right)) => right == subresource && (left == "*" || left == resource),
        None => false,
    }
}

fn url_covers(rule: &str, path: &str) -> bool {
    rule == path || (rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*')))
}

/// The parts of `wanted` (one verb, one resource, one name each) that no rule of `owned` allows.
pub fn uncovered(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted.iter().flat_map(parts).filter(|part| !owned.iter().any(|rule| covers(rule, part))).collect()
}

fn one(text: &str) -> Option<Vec<String>> {
    Some(vec![text.to_owned()])
}

fn parts(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut parts = Vec::new();
    for group in list(&rule.api_groups) {
        for resource in list(&rule.resources) {
            for verb in &rule.verbs {
                let part = PolicyRule {
                    api_groups: one(group),
                    resources: one(resource),
                    verbs: vec![verb.clone()],
                    ..PolicyRule::default()
                };
                match list(&rule.resource_names) {
                    [] => parts.push(part),
                    names => {
                        parts.extend(
                            names.iter().map(|n| PolicyRule { resource_names: one(n), ..part.clone() }),
                        );
                    }
                }
            }
        }
    }
    for url in list(&rule.non_resource_urls) {
        let part = |verb: &String| PolicyRule {
            non_resource_urls: one(url),
            verbs: vec![verb.clone()],
            ..PolicyRule::default()
        };
        parts.extend(rule.verbs.iter().map(part));
    }
    parts
}

fn covers(owner: &PolicyRule, part: &PolicyRule) -> bool {
    let has = |owned: &[String], wanted: &[String]| {
        owned.iter().any(|o| o == "*") || wanted.iter().all(|w| owned.contains(w))
    };
    let resource = |wanted: &String| match wanted.split_once('/') {
        Some((_, sub)) => list(&owner.resources).contains(&format!("*/{sub}")),
        None => false,
    };
    let names = list(&owner.resource_names);
    has(&owner.verbs, &part.verbs)
        && has(list(&owner.api_groups), list(&part.api_groups))
        && (has(list(&owner.resources), list(&part.resources)) || list(&part.resources).iter().all(resource))
        && list(&part.non_resource_urls)
            .iter()
            .all(|p| list(&owner.non_resource_urls).iter().any(|o| url_covers(o, p)))
        && (names.is_empty()
            || (!list(&part.resource_names).is_empty()
                && list(&part.resource_names).iter().all(|n| names.contains(n))))
}

/// Rules as upstream's refusals list them: one line each, verbs on the same resource together, sorted.
pub fn describe(rules: &[PolicyRule]) -> String {
    /// Groups, resources, names.
    type What = (Vec<String>, Vec<String>, Vec<String>);
    let mut together: BTreeMap<What, Vec<String>> = BTreeMap::new();
    let mut lines = Vec::new();
    for rule in rules {
        if rule.non_resource_urls.is_some() {
            lines.push(line(rule));
            continue;
        }
        let key = (
            list(&rule.api_groups).to_vec(),
            list(&rule.resources).to_vec(),
            list(&rule.resource_names).to_vec(),
        );
        together.entry(key).or_default().extend(rule.verbs.iter().cloned());
    }
    for ((groups, resources, names), verbs) in together {
        lines.push(line(&PolicyRule {
            api_groups: Some(groups),
            resources: Some(resources),
            resource_names: Some(names),
            verbs,
            non_resource_urls: None,
        }));
    }
    lines.sort();
    lines.dedup();
    lines.join("\n")
}

fn line(rule: &PolicyRule) -> String {
    let fields = [
        ("APIGroups", list(&rule.api_groups)),
        ("Resources", list(&rule.resources)),
        ("NonResourceURLs", list(&rule.non_resource_urls)),
        ("ResourceNames", list(&rule.resource_names)),
        ("Verbs", rule.verbs.as_slice()),
    ];
    let texts = fields
        .iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name}:{}", go_list(list)));
    format!("{{{}}}", texts.collect::<Vec<_>>().join(", "))
}

/// A list of strings as Go's `%q` writes it: `["a" "b"]`.
pub fn go_list<T: AsRef<str>>(list: &[T]) -> String {
    let quoted: Vec<String> = list.iter().map(|text| quote(text.as_ref())).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identify::User;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> PolicyRule {
        let texts = |list: &[&str]| list.iter().map(|&t| t.to_owned()).collect::<Vec<_>>();
        PolicyRule {
            verbs: texts(verbs),
            api_groups: Some(texts(groups)),
            resources: Some(texts(resources)),
            resource_names: (!names.is_empty()).then(|| texts(names)),
            non_resource_urls: None,
        }
    }

    fn asks(rule: &PolicyRule, verb: &str, group: &str, resource: &str, name: &str) -> bool {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let user = User::anonymous();
        allows(
            rule,
            &Attributes { subresource, name, ..Attributes::on_resource(&user, verb, group, resource) },
        )
    }

    #[test]
    fn a_rule_matches_verb_group_resource_and_name() {
        let pods = rule(&["get"], &[""], &["pods"], &[]);
        assert!(asks(&pods, "get", "", "pods", "a"));
        assert!(!asks(&pods, "list", "", "pods", ""));
        assert!(!asks(&pods, "get", "apps", "pods", "a"));
        assert!(!asks(&pods, "get", "", "pods/log", "a"));
        let logs = rule(&["*"], &["*"], &["*/log"], &["a"]);
        assert!(asks(&logs, "get", "", "pods/log", "a"));
        assert!(!asks(&logs, "get", "", "pods/log", "b"));
        assert!(!asks(&logs, "get", "", "pods/blog", "a"));
        assert!(asks(&rule(&["*"], &["*"], &["*"], &[]), "patch", "apps", "deployments/scale", "x"));
    }

    #[test]
    fn urls_match_by_prefix_where_a_star_ends_them() {
        let user = User::anonymous();
        let urls = |list: &[&str]| PolicyRule {
            verbs: vec!["get".into()],
            non_resource_urls: Some(list.iter().map(|&t| t.to_owned()).collect()),
            ..PolicyRule::default()
        };
        let asks = |rule: &PolicyRule, path| allows(rule, &Attributes::on_path(&user, "get", path));
        assert!(asks(&urls(&["/healthz"]), "/healthz") && !asks(&urls(&["/healthz"]), "/healthz/x"));
        assert!(asks(&urls(&["/api/*"]), "/api/v1") && asks(&urls(&["*"]), "/metrics"));
    }

    #[test]
    fn what_is_not_covered_is_named() {
        let owned = [
            rule(&["get", "list"], &[""], &["pods", "*/log"], &[]),
            rule(&["update"], &[""], &["secrets"], &["a"]),
        ];
        assert!(uncovered(&owned, &[rule(&["get"], &[""], &["pods", "pods/log"], &["x"])]).is_empty());
        let wanted = [
            rule(&["get", "delete", "watch"], &[""], &["pods"], &[]),
            rule(&["update"], &[""], &["secrets"], &[]),
        ];
        let missing = uncovered(&owned, &wanted);
        assert_eq!(
            describe(&missing),
            "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"watch\"]}\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"update\"]}"
        );
        assert!(uncovered(&[rule(&["*"], &["*"], &["*"], &[])], &wanted).is_empty());
    }
}
