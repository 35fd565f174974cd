use http::Method;

use super::*;
use crate::identify::User;
use crate::query::Query;
use crate::route::resolve;

fn level(policy: &Policy, user: &User, method: &str, url: &str) -> Level {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let info = resolve(&method, path, &Query::parse(query));
    policy.evaluate(&info.attributes(user)).level
}

fn with_rule(rule: &str) -> Policy {
    let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- {{level: Request, {rule}}}\n");
    Policy::parse(&text).expect(rule)
}

#[test]
fn rules_match_as_upstream() {
    let core = "resources: [{group: \"\", resources: [RESOURCE]}]";
    let of = |resource: &str| core.replace("RESOURCE", resource);
    let ann = User::new("ann", ["dev", "ops"]);
    for (rule, method, url, matched) in [
        ("users: [ann]", "GET", "/x", true),
        ("users: [bob]", "GET", "/x", false),
        ("userGroups: [ops]", "GET", "/x", true),
        ("userGroups: [qa]", "GET", "/x", false),
        ("verbs: [list]", "GET", "/api/v1/pods", true),
        ("verbs: [list]", "GET", "/api/v1/pods?watch=1", false),
        ("verbs: [get], users: [ann]", "GET", "/healthz", true),
        (&*of("pods"), "GET", "/api/v1/namespaces/a/pods/p", true),
        (&*of("pods"), "GET", "/api/v1/namespaces/a/pods/p/log", false),
        (&*of("pods/log"), "GET", "/api/v1/namespaces/a/pods/p/log", true),
        (&*of("pods/*"), "GET", "/api/v1/namespaces/a/pods/p/log", true),
        (&*of("pods/*"), "GET", "/api/v1/namespaces/a/pods/p", true),
        (&*of("'*/log'"), "GET", "/api/v1/namespaces/a/pods/p/log", true),
        (&*of("'*/log'"), "GET", "/api/v1/namespaces/a/pods/p", false),
        (&*of("'*'"), "GET", "/api/v1/namespaces/a/pods/p/log", true),
        (&*of("'*'"), "GET", "/apis/apps/v1/deployments", false),
        (&*of("pods"), "GET", "/healthz", false),
        ("resources: [{group: '*', resources: [deployments]}]", "GET", "/apis/apps/v1/deployments", true),
        ("resources: [{group: apps}]", "GET", "/apis/apps/v1/deployments", true),
        ("resources: [{group: apps}]", "GET", "/api/v1/pods", false),
        ("resources: [{resources: [pods], resourceNames: [p]}]", "GET", "/api/v1/namespaces/a/pods/p", true),
        ("resources: [{resources: [pods], resourceNames: [q]}]", "GET", "/api/v1/namespaces/a/pods/p", false),
        ("namespaces: [a]", "GET", "/api/v1/namespaces/a/pods", true),
        ("namespaces: [b]", "GET", "/api/v1/namespaces/a/pods", false),
        ("namespaces: ['']", "GET", "/api/v1/nodes", true),
        ("namespaces: ['']", "GET", "/healthz", false),
        ("nonResourceURLs: ['/healthz*']", "GET", "/healthz/ping", true),
        ("nonResourceURLs: ['/healthz']", "GET", "/healthz/ping", false),
        ("nonResourceURLs: ['*']", "GET", "/x", true),
        ("nonResourceURLs: ['*']", "GET", "/api/v1/pods", false),
    ] {
        let found = level(&with_rule(rule), &ann, method, url);
        let expected = if matched { Level::Request } else { Level::None };
        assert_eq!(found, expected, "{rule} {method} {url}");
    }
}

#[test]
fn the_first_rule_wins_and_omissions_add_up() {
    let policy = Policy::parse(
        r#"{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [Panic], omitManagedFields: true, unheardOf: 1,
        rules: [
          {level: Metadata, verbs: [list], omitStages: [RequestReceived], omitManagedFields: false},
          {level: RequestResponse, namespaces: [a]},
          {level: Request, users: [nobody]}]}"#,
    )
    .expect("a policy");
    let user = User::new("ann", []);
    let plan = |url: &str| policy.evaluate(&resolve(&Method::GET, url, &Query::parse("")).attributes(&user));
    let list = plan("/api/v1/namespaces/a/pods");
    assert_eq!((list.level, list.omit_managed_fields), (Level::Metadata, false));
    assert!(list.omit.has(Stage::Panic) && list.omit.has(Stage::RequestReceived));
    let get = plan("/api/v1/namespaces/a/pods/p");
    assert_eq!((get.level, get.omit_managed_fields), (Level::RequestResponse, true));
    assert!(get.omit.has(Stage::Panic) && !get.omit.has(Stage::RequestReceived));
    let rest = plan("/version");
    assert_eq!((rest.level, rest.omit.has(Stage::Panic)), (Level::None, true));
}

#[test]
fn faults_read_as_upstreams() {
    let policy = |rest: &str| format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, {rest}}}");
    let rule = |rest: &str| policy(&format!("rules: [{{{rest}}}]"));
    let stages = "allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic";
    for (text, fault) in [
        (policy("rules: []"), "loaded illegal policy with 0 rules".to_owned()),
        (rule("users: [a]"), "rules[0].level: Required value".to_owned()),
        (
            rule("level: All"),
            r#"rules[0].level: Unsupported value: "All": supported values: "None", "Metadata", "Request", "RequestResponse""#
                .to_owned(),
        ),
        (
            rule("level: None, omitStages: [x]"),
            format!(r#"rules[0].omitStages[0]: Invalid value: "x": {stages}"#),
        ),
        (
            policy("omitStages: [late], rules: [{level: None}]"),
            format!(r#"omitStages[0]: Invalid value: "late": {stages}"#),
        ),
        (
            rule("level: None, nonResourceURLs: [logs]"),
            r#"rules[0].nonResourceURLs[0]: Invalid value: "logs": non-resource URL rules must begin with a '/' character"#
                .to_owned(),
        ),
        (
            rule("level: None, nonResourceURLs: ['/a*b']"),
            r#"rules[0].nonResourceURLs[0]: Invalid value: "/a*b": non-resource URL wildcards '*' must be the final character of the rule"#
                .to_owned(),
        ),
        (
            rule("level: None, nonResourceURLs: ['/a'], namespaces: [b]"),
            r#"rules[0].nonResourceURLs: Invalid value: ["/a"]: rules cannot apply to both regular resources and non-resource URLs"#
                .to_owned(),
        ),
        (
            rule("level: None, resources: [{resourceNames: [leader]}]"),
            r#"rules[0].resources.resourceNames: Invalid value: ["leader"]: using resourceNames requires at least one resource"#
                .to_owned(),
        ),
    ] {
        assert_eq!(Policy::parse(&text).expect_err(&text), fault);
    }
    let group = Policy::parse(&rule("level: None, resources: [{group: rbac.authorization.k8s.io/v1beta1}]"));
    let group = group.expect_err("a group with a version");
    assert!(group.starts_with("rules[0].resources.group: Invalid value: "), "{group}");
    let kind = Policy::parse("{apiVersion: audit.k8s.io/v1beta1, kind: Policy, rules: [{level: None}]}");
    assert!(kind.expect_err("an old version").contains("no kind \"Policy\" is registered for version"));
    let none = Policy::parse("rules: [{level: None}]").expect_err("no kind");
    assert!(none.starts_with("failed decoding: Object 'Kind' is missing in"), "{none}");
}

#[test]
fn the_usual_policy_shows_what_people_do_and_not_the_systems_noise() {
    let policy = Policy::usual().expect("a policy");
    let ann = User::new("ann", ["system:authenticated"]);
    let node = User::new("system:node:a", ["system:nodes", "system:authenticated"]);
    let manager = User::new("system:kube-controller-manager", ["system:authenticated"]);
    let controller = User::new(
        "system:serviceaccount:kube-system:job-controller",
        ["system:serviceaccounts", "system:serviceaccounts:kube-system"],
    );
    const PODS: &str = "/api/v1/namespaces/a/pods";
    const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a";
    for (user, method, url, level_of_it) in [
        (&ann, "GET", "/healthz", Level::None),
        (&ann, "GET", "/readyz/ping?verbose", Level::None),
        (&ann, "GET", "/apis/apps/v1", Level::None),
        (&ann, "GET", "/openapi/v3/api/v1", Level::None),
        (&ann, "GET", "/debug/api_priority_and_fairness/dump_queues", Level::Metadata),
        (&ann, "GET", PODS, Level::Metadata),
        (&ann, "GET", "/api/v1/namespaces/a/secrets/s", Level::Metadata),
        (&ann, "POST", PODS, Level::Metadata),
        (&ann, "POST", "/api/v1/namespaces/a/events", Level::None),
        (&ann, "PUT", LEASE, Level::Metadata),
        (&ann, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", Level::Metadata),
        (&node, "GET", PODS, Level::None),
        (&node, "GET", "/api/v1/secrets?watch=1", Level::None),
        (&node, "PUT", LEASE, Level::None),
        (&node, "PATCH", "/api/v1/namespaces/a/pods/p/status", Level::None),
        (&node, "DELETE", "/api/v1/namespaces/a/pods/p", Level::Metadata),
        (&node, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", Level::None),
        (&node, "POST", "/api/v1/namespaces/a/serviceaccounts/default/token", Level::Metadata),
        (&manager, "GET", PODS, Level::None),
        (&manager, "POST", PODS, Level::Metadata),
        (&controller, "PUT", "/apis/batch/v1/namespaces/a/jobs/j/status", Level::None),
        (&controller, "POST", PODS, Level::Metadata),
    ] {
        assert_eq!(level(&policy, user, method, url), level_of_it, "{} {method} {url}", user.name);
    }
}
