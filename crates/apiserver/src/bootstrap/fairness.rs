//! The flow schemas and priority levels of API priority and fairness that every cluster has.
//!
//! Names and values as `apiserver/pkg/apis/flowcontrol/bootstrap`; who may change what as
//! `pkg/registry/flowcontrol/ensurer`.

use gantry_api::Object;
use gantry_api::flowcontrol::{
    FlowDistinguisherMethod, FlowSchema, FlowSchemaSpec, GroupSubject, LimitResponse,
    LimitedPriorityLevelConfiguration, NonResourcePolicyRule, PolicyRulesWithSubjects,
    PriorityLevelConfiguration, PriorityLevelConfigurationReference, PriorityLevelConfigurationSpec,
    QueuingConfiguration, ResourcePolicyRule, ServiceAccountSubject, Subject, UserSubject,
};
use gantry_api::metav1::ObjectMeta;
use gantry_api::status::Result;
use gantry_kinds::rules::mandatory_flow_control::{self as mandatory, CATCH_ALL, EXEMPT};

use super::named;
use super::write::Writer;

/// Says whether the server keeps an object's spec at its own value.
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

pub(super) async fn run(writer: &Writer) -> Result<()> {
    writer
        .reconcile(levels(), |new, old| revised(new, old, |o| &o.spec, |o| (&mut o.spec, &mut o.metadata)))
        .await?;
    writer
        .reconcile(schemas(), |new, old| revised(new, old, |o| &o.spec, |o| (&mut o.spec, &mut o.metadata)))
        .await
}

/// What is to become of an object that exists: the mandatory ones always have the server's spec, the others as long
/// as nobody has said or done otherwise.
fn revised<K: Object, S: Clone + PartialEq>(
    new: &K,
    old: &K,
    spec: impl Fn(&K) -> &Option<S>,
    parts: impl Fn(&mut K) -> (&mut Option<S>, &mut ObjectMeta),
) -> Option<K> {
    let meta = old.metadata();
    let noted = meta.annotations.as_ref().and_then(|a| a.get(AUTO_UPDATE)).and_then(|v| go_bool(v));
    let fixed = meta.name.as_deref().is_some_and(|name| name == EXEMPT || name == CATCH_ALL);
    let follow = fixed || noted.unwrap_or(meta.generation == Some(1));
    let differs = follow && spec(old) != spec(new);
    if !differs && noted == Some(follow) {
        return None;
    }
    let mut revised = old.clone();
    let (to, meta) = parts(&mut revised);
    if differs {
        to.clone_from(spec(new));
    }
    if noted != Some(follow) {
        meta.annotations.get_or_insert_default().insert(AUTO_UPDATE.to_owned(), follow.to_string());
    }
    Some(revised)
}

/// As Go's `strconv.ParseBool`.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn metadata(name: &str) -> ObjectMeta {
    let annotations = Some([(AUTO_UPDATE.to_owned(), "true".to_owned())].into());
    ObjectMeta { annotations, ..named("", name) }
}

fn levels() -> Vec<PriorityLevelConfiguration> {
    // Name, shares, lendable percent, queues, hand size.
    const SUGGESTED: [(&str, i32, i32, i32, i32); 6] = [
        ("system", 30, 33, 64, 6),
        ("node-high", 40, 25, 64, 6),
        ("leader-election", 10, 0, 16, 4),
        ("workload-high", 40, 50, 128, 6),
        ("workload-low", 100, 90, 128, 6),
        ("global-default", 20, 50, 128, 6),
    ];
    const QUEUE_LENGTH: i32 = 50;
    let suggested = SUGGESTED.map(|(name, shares, lendable, queues, hand)| {
        let queuing = QueuingConfiguration {
            hand_size: Some(hand),
            queue_length_limit: Some(QUEUE_LENGTH),
            queues: Some(queues),
        };
        let limited = LimitedPriorityLevelConfiguration {
            borrowing_limit_percent: None,
            lendable_percent: Some(lendable),
            limit_response: Some(LimitResponse { queuing: Some(queuing), type_: "Queue".to_owned() }),
            nominal_concurrency_shares: Some(shares),
        };
        let spec = PriorityLevelConfigurationSpec {
            exempt: None,
            limited: Some(limited),
            type_: "Limited".to_owned(),
        };
        (name, Some(spec))
    });
    let mandatory = [CATCH_ALL, EXEMPT].map(|name| (name, mandatory::priority_level(name)));
    let all = mandatory.into_iter().chain(suggested);
    all.map(|(name, spec)| PriorityLevelConfiguration { metadata: metadata(name), spec, status: None })
        .collect()
}

fn schemas() -> Vec<FlowSchema> {
    let mandatory = [EXEMPT, CATCH_ALL].map(|name| (name, mandatory::flow_schema(name)));
    let all = mandatory.into_iter().chain(suggested().map(|(name, spec)| (name, Some(spec))));
    all.map(|(name, spec)| FlowSchema { metadata: metadata(name), spec, status: None }).collect()
}

fn suggested() -> [(&'static str, FlowSchemaSpec); 9] {
    let everybody = || vec![group("system:unauthenticated"), group("system:authenticated")];
    let controller_manager = || user("system:kube-controller-manager");
    let scheduler = || user("system:kube-scheduler");
    let nodes = || vec![group("system:nodes")];
    let probes = PolicyRulesWithSubjects {
        non_resource_rules: Some(vec![NonResourcePolicyRule {
            non_resource_urls: texts(&["/healthz", "/readyz", "/livez"]),
            verbs: texts(&["get"]),
        }]),
        resource_rules: None,
        subjects: everybody(),
    };
    let leases = |verbs: &[&str]| resources(verbs, "coordination.k8s.io", &["leases"], false);
    let election = PolicyRulesWithSubjects {
        non_resource_rules: None,
        resource_rules: Some(vec![leases(&["get", "create", "update"])]),
        subjects: vec![controller_manager(), scheduler(), system_accounts()],
    };
    let health = PolicyRulesWithSubjects {
        non_resource_rules: None,
        resource_rules: Some(vec![resources(&["*"], "", &["nodes", "nodes/status"], true), leases(&["*"])]),
        subjects: nodes(),
    };
    [
        ("system-nodes", schema("system", 500, "ByUser", all_of(nodes()))),
        ("system-node-high", schema("node-high", 400, "ByUser", health)),
        ("probes", schema(EXEMPT, 2, "", probes)),
        ("system-leader-election", schema("leader-election", 100, "ByUser", election)),
        (
            "kube-controller-manager",
            schema("workload-high", 800, "ByNamespace", all_of(vec![controller_manager()])),
        ),
        ("kube-scheduler", schema("workload-high", 800, "ByNamespace", all_of(vec![scheduler()]))),
        (
            "kube-system-service-accounts",
            schema("workload-high", 900, "ByNamespace", all_of(vec![system_accounts()])),
        ),
        (
            "service-accounts",
            schema("workload-low", 9_000, "ByUser", all_of(vec![group("system:serviceaccounts")])),
        ),
        ("global-default", schema("global-default", 9_900, "ByUser", all_of(everybody()))),
    ]
}

fn schema(
    level: &str,
    precedence: i32,
    distinguisher: &str,
    rules: PolicyRulesWithSubjects,
) -> FlowSchemaSpec {
    FlowSchemaSpec {
        distinguisher_method: (!distinguisher.is_empty())
            .then(|| FlowDistinguisherMethod { type_: distinguisher.to_owned() }),
        matching_precedence: Some(precedence),
        priority_level_configuration: PriorityLevelConfigurationReference { name: level.to_owned() },
        rules: Some(vec![rules]),
    }
}

/// Whatever they ask for.
fn all_of(subjects: Vec<Subject>) -> PolicyRulesWithSubjects {
    let all = || texts(&["*"]);
    PolicyRulesWithSubjects {
        non_resource_rules: Some(vec![NonResourcePolicyRule { non_resource_urls: all(), verbs: all() }]),
        resource_rules: Some(vec![resources(&["*"], "*", &["*"], true)]),
        subjects,
    }
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> ResourcePolicyRule {
    ResourcePolicyRule {
        api_groups: texts(&[group]),
        cluster_scope: cluster.then_some(true),
        namespaces: Some(texts(&["*"])),
        resources: texts(resources),
        verbs: texts(verbs),
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn group(name: &str) -> Subject {
    let group = Some(GroupSubject { name: name.to_owned() });
    Subject { kind: "Group".to_owned(), group, ..Subject::default() }
}

fn user(name: &str) -> Subject {
    let user = Some(UserSubject { name: name.to_owned() });
    Subject { kind: "User".to_owned(), user, ..Subject::default() }
}

/// Every service account of the namespace of the system.
fn system_accounts() -> Subject {
    let service_account =
        Some(ServiceAccountSubject { name: "*".to_owned(), namespace: "kube-system".to_owned() });
    Subject { kind: "ServiceAccount".to_owned(), service_account, ..Subject::default() }
}
