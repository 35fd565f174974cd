//! The node authorizer: a node reads what the pods on it refer to, and writes what is its own
//! (`plugin/pkg/auth/authorizer/node`, KEP-279, KEP-4601).

use std::sync::Arc;

use gantry_api::rbac::PolicyRule;
use gantry_client::{InformerSet, Transport};

use super::node_graph::{Graph, What};
use super::{Asked, Attributes, Authorizer, Decision, Rules, rules};
use crate::identify::User;

const LEASES: &str = "kube-node-lease";

/// The name of the node that a user is: `None` for other users, empty for a node without a name.
pub fn node_of(user: &User) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|_| user.is_in("system:nodes"))
}

/// Decides for nodes.
pub struct NodeAuthorizer {
    graph: Graph,
    rules: Vec<PolicyRule>,
}

/// What is known at once.
enum Known {
    Yes,
    No(String),
    /// Only if the node has a pod that refers to this.
    IfRelated(What),
    /// Only if the object's `spec.nodeName` is the node.
    IfNamed,
}

fn no(why: impl Into<String>) -> Known {
    Known::No(why.into())
}

impl NodeAuthorizer {
    /// Follows pods and volumes; `rules` are those that hold for all nodes alike.
    pub(crate) fn new(
        informers: &InformerSet,
        transport: Arc<dyn Transport>,
        rules: Vec<PolicyRule>,
    ) -> Self {
        Self { graph: Graph::new(informers, transport), rules }
    }

    /// Whether pods and volumes are known.
    pub fn has_synced(&self) -> bool {
        self.graph.has_synced()
    }

    fn known(&self, node: &str, a: &Attributes<'_>) -> Known {
        if !a.is_resource {
            return self.by_rules(a);
        }
        match (a.group, a.resource) {
            ("", "secrets") => read(a, What::Secret),
            ("", "configmaps") => read(a, What::ConfigMap),
            ("", "persistentvolumeclaims") if a.subresource == "status" => match a.verb {
                "update" | "patch" => related(a, What::Claim),
                _ => no("can only get/update/patch this type"),
            },
            ("", "persistentvolumeclaims") => get(a, What::Claim),
            ("", "persistentvolumes") => get(a, What::Volume),
            ("resource.k8s.io", "resourceclaims") => get(a, What::ResourceClaim),
            ("storage.k8s.io", "volumeattachments") => named(get(a, What::Volume)),
            ("", "serviceaccounts") => service_account(a),
            ("coordination.k8s.io", "leases") => lease(node, a),
            ("storage.k8s.io", "csinodes") => csi_node(node, a),
            ("resource.k8s.io", "resourceslices") => slice(node, a),
            ("", "nodes") => own_node(node, a),
            ("", "pods") => pod(node, a),
            ("certificates.k8s.io", "podcertificaterequests") => certificate_request(node, a),
            _ => self.by_rules(a),
        }
    }

    fn by_rules(&self, attributes: &Attributes<'_>) -> Known {
        if self.rules.iter().any(|rule| rules::allows(rule, attributes)) { Known::Yes } else { no("") }
    }
}

impl Authorizer for NodeAuthorizer {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> Asked<'a> {
        let Some(node) = node_of(attributes.user) else { return Decision::NoOpinion(String::new()).into() };
        if node.is_empty() {
            let user = gantry_api::field::quote(&attributes.user.name);
            return Decision::NoOpinion(format!("unknown node for user {user}")).into();
        }
        let yes = || Decision::Allow(String::new());
        let unrelated = move || {
            Decision::NoOpinion(format!("no relationship found between node '{node}' and this object"))
        };
        match self.known(node, attributes) {
            Known::Yes => yes().into(),
            Known::No(why) => Decision::NoOpinion(why).into(),
            Known::IfRelated(what) => {
                let (namespace, name) = (attributes.namespace, attributes.name);
                if self.graph.is_related(node, what, namespace, name) {
                    return yes().into();
                }
                // A node may know of its newest pod before this server's informer does.
                Asked::Later(Box::pin(async move {
                    match self.graph.is_related_now(node, what, namespace, name).await {
                        Ok(true) => yes(),
                        Ok(false) => unrelated(),
                        Err(error) => Decision::Failed(error.to_string()),
                    }
                }))
            }
            Known::IfNamed => Asked::Later(Box::pin(async move {
                match self.graph.node_name(attributes).await {
                    Ok(name) if name == node => yes(),
                    Ok(_) => unrelated(),
                    Err(error) => Decision::Failed(error.to_string()),
                }
            })),
        }
    }

    fn rules_for(&self, user: &User, _namespace: &str) -> Rules {
        let mut rules = Rules::default();
        if node_of(user).is_some() {
            rules.incomplete = true;
            rules.errors.push("node authorizer does not support user rule resolution".to_owned());
        }
        rules
    }
}

/// In place of the graph: what the object itself says.
fn named(known: Known) -> Known {
    match known {
        Known::IfRelated(_) => Known::IfNamed,
        other => other,
    }
}

fn related(a: &Attributes<'_>, what: What) -> Known {
    if a.name.is_empty() { no("No Object name found") } else { Known::IfRelated(what) }
}

fn get(a: &Attributes<'_>, what: What) -> Known {
    match (a.verb, a.subresource) {
        ("get", "") => related(a, what),
        ("get", _) => no("cannot get subresource"),
        _ => no("can only get individual resources of this type"),
    }
}

fn read(a: &Attributes<'_>, what: What) -> Known {
    if !matches!(a.verb, "get" | "list" | "watch") {
        return no("can only read resources of this type");
    }
    if !a.subresource.is_empty() {
        return no("cannot read subresource");
    }
    if a.namespace.is_empty() {
        return no("can only read namespaced object of this type");
    }
    related(a, what)
}

fn service_account(a: &Attributes<'_>) -> Known {
    if a.verb == "get" && a.subresource.is_empty() {
        return read(a, What::ServiceAccount);
    }
    if a.verb != "create" || a.name.is_empty() {
        return no("can only create tokens for individual service accounts");
    }
    if a.subresource != "token" {
        return no("can only create token subresource of serviceaccount");
    }
    Known::IfRelated(What::ServiceAccount)
}

/// Whether the verb is one of those on an object that has the node's name.
fn is_on_one(verb: &str) -> bool {
    matches!(verb, "get" | "create" | "update" | "patch" | "delete")
}

fn lease(node: &str, a: &Attributes<'_>) -> Known {
    if !is_on_one(a.verb) {
        return no("can only get, create, update, patch, or delete a node lease");
    }
    if a.namespace != LEASES {
        return no(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    // The name of a new one is looked at by admission.
    if a.verb != "create" && a.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    Known::Yes
}

fn csi_node(node: &str, a: &Attributes<'_>) -> Known {
    if !is_on_one(a.verb) {
        return no("can only get, create, update, patch, or delete a CSINode");
    }
    if !a.subresource.is_empty() {
        return no("cannot authorize CSINode subresources");
    }
    if a.verb != "create" && a.name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    Known::Yes
}

fn selects(a: &Attributes<'_>, field: &str, node: &str) -> bool {
    a.fields.is_some_and(|f| f.terms().iter().any(|t| t.equal && t.field == field && t.value == node))
}

fn slice(node: &str, a: &Attributes<'_>) -> Known {
    if !a.subresource.is_empty() {
        return no("cannot authorize ResourceSlice subresources");
    }
    match a.verb {
        "create" => Known::Yes,
        "get" | "update" | "patch" | "delete" => named(related(a, What::Volume)),
        "watch" | "list" | "deletecollection" if selects(a, "spec.nodeName", node) => Known::Yes,
        "watch" | "list" | "deletecollection" => {
            no("can only list/watch/deletecollection resourceslices with nodeName field selector")
        }
        _ => no(
            "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
        ),
    }
}

fn own_node(node: &str, a: &Attributes<'_>) -> Known {
    match (a.subresource, a.verb, a.name) {
        ("", "create" | "update" | "patch", _) | ("status", "update" | "patch", _) => Known::Yes,
        ("", "get" | "list" | "watch", name) if name == node => Known::Yes,
        ("", "get" | "list" | "watch", "") => {
            no(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch", name) => {
            no(format!("node '{node}' cannot read '{name}', only its own Node object"))
        }
        _ => no(""),
    }
}

fn pod(node: &str, a: &Attributes<'_>) -> Known {
    match (a.subresource, a.verb) {
        ("", "get") => get(a, What::Pod),
        ("", "list" | "watch") if selects(a, "spec.nodeName", node) => Known::Yes,
        ("", "list" | "watch") if !a.name.is_empty() => related(a, What::Pod),
        ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
        // Which pods is the business of admission.
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Known::Yes,
        _ => no(""),
    }
}

fn certificate_request(node: &str, a: &Attributes<'_>) -> Known {
    if !a.subresource.is_empty() {
        return no("nodes may not access the status subresource of PodCertificateRequests");
    }
    match a.verb {
        "create" => Known::Yes,
        "get" => named(related(a, What::Pod)),
        "list" | "watch" if selects(a, "spec.nodeName", node) => Known::Yes,
        "list" | "watch" => no("can only list/watch podcertificaterequests with nodeName field selector"),
        verb => no(format!("nodes may not {verb} podcertificaterequests")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::FieldSelector;

    fn verdict(node: &str, a: &Attributes<'_>) -> String {
        let authorizer = NodeAuthorizer { graph: Graph::detached(), rules: Vec::new() };
        match authorizer.known(node, a) {
            Known::Yes => "yes".to_owned(),
            Known::No(why) => format!("no: {why}"),
            Known::IfRelated(what) => format!("if {what:?}"),
            Known::IfNamed => "if named".to_owned(),
        }
    }

    #[test]
    fn what_depends_on_pods_and_what_does_not() {
        let user = User::new("system:node:n", ["system:nodes"]);
        // VERB GROUP RESOURCE[/SUB] NAMESPACE NAME
        let rows = [
            ("get - secrets a s", "if Secret"),
            ("list - secrets a -", "no: No Object name found"),
            ("watch - configmaps a c", "if ConfigMap"),
            ("list - secrets - -", "no: can only read namespaced object of this type"),
            ("update - secrets a s", "no: can only read resources of this type"),
            ("get - persistentvolumes - v", "if Volume"),
            ("list - persistentvolumes - -", "no: can only get individual resources of this type"),
            ("patch - persistentvolumeclaims/status a c", "if Claim"),
            ("get storage.k8s.io volumeattachments - v", "if named"),
            ("create - serviceaccounts/token a b", "if ServiceAccount"),
            ("create - serviceaccounts a -", "no: can only create tokens for individual service accounts"),
            ("update coordination.k8s.io leases kube-node-lease n", "yes"),
            (
                "update coordination.k8s.io leases kube-node-lease m",
                "no: can only access node lease with the same name as the requesting node",
            ),
            (
                "get coordination.k8s.io leases default n",
                "no: can only access leases in the \"kube-node-lease\" system namespace",
            ),
            ("get storage.k8s.io csinodes - n", "yes"),
            ("get - nodes - n", "yes"),
            ("get - nodes - m", "no: node 'n' cannot read 'm', only its own Node object"),
            ("list - nodes - -", "no: node 'n' cannot read all nodes, only its own Node object"),
            ("delete - nodes - n", "no: "),
            ("list - pods - -", "no: can only list/watch pods with spec.nodeName field selector"),
            ("get - pods a p", "if Pod"),
            ("create - pods/eviction a p", "yes"),
            ("update - pods a p", "no: "),
            ("create resource.k8s.io resourceslices - -", "yes"),
            ("delete resource.k8s.io resourceslices - s", "if named"),
            (
                "delete certificates.k8s.io podcertificaterequests a p",
                "no: nodes may not delete podcertificaterequests",
            ),
            ("list apps deployments - -", "no: "),
        ];
        for (row, wanted) in rows {
            let words: Vec<&str> = row.split(' ').map(|w| if w == "-" { "" } else { w }).collect();
            let (resource, subresource) = words[2].split_once('/').unwrap_or((words[2], ""));
            let attributes = Attributes {
                subresource,
                namespace: words[3],
                name: words[4],
                ..Attributes::on_resource(&user, words[0], words[1], resource)
            };
            assert_eq!(verdict("n", &attributes), wanted, "{row}");
        }
        let own = FieldSelector::equals("spec.nodeName", "n");
        let pods = Attributes { fields: Some(&own), ..Attributes::on_resource(&user, "watch", "", "pods") };
        assert_eq!(verdict("n", &pods), "yes");
        assert_ne!(verdict("m", &pods), "yes");
    }

    #[test]
    fn nodes_are_known_by_name_and_group() {
        assert_eq!(node_of(&User::new("system:node:a", ["system:nodes"])), Some("a"));
        assert_eq!(node_of(&User::new("system:node:a", ["x"])), None);
        assert_eq!(node_of(&User::new("jane", ["system:nodes"])), None);
    }
}
