//! What the authorizer keeps of roles and bindings, found by the hash of their subjects.

use std::sync::Arc;

use gantry_api::meta::MetaExt;
use gantry_api::rbac::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use gantry_api::{Object, ObjectKey};
use gantry_client::{Index, Projection};

/// The index of bindings by subject.
pub(super) const SUBJECT: &str = "subject";

/// The rules of a role; `K` tells roles from cluster roles.
pub(super) struct RoleView<K> {
    key: ObjectKey,
    revision: u64,
    pub(super) rules: Arc<[PolicyRule]>,
    kind: std::marker::PhantomData<fn() -> K>,
}

/// A kind that holds rules.
pub(super) trait HasRules: Object {
    fn rules(&self) -> Option<&Vec<PolicyRule>>;
}

impl HasRules for Role {
    fn rules(&self) -> Option<&Vec<PolicyRule>> {
        self.rules.as_ref()
    }
}

impl HasRules for ClusterRole {
    fn rules(&self) -> Option<&Vec<PolicyRule>> {
        self.rules.as_ref()
    }
}

impl<K: HasRules> Projection for RoleView<K> {
    type Object = K;

    fn project(role: Arc<K>) -> Arc<Self> {
        Arc::new(Self {
            key: role.key(),
            revision: MetaExt::revision(&*role),
            rules: role.rules().map(Vec::as_slice).unwrap_or_default().into(),
            kind: std::marker::PhantomData,
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }
}

/// Who is bound to which role; `K` tells the two kinds of bindings apart.
pub(super) struct BindingView<K> {
    pub(super) key: ObjectKey,
    revision: u64,
    pub(super) role: RoleRef,
    /// The subjects as the index knows them, each with its description.
    pub(super) subjects: Vec<(Arc<str>, String)>,
    kind: std::marker::PhantomData<fn() -> K>,
}

/// A kind that binds subjects to a role.
pub(super) trait Binds: Object {
    fn role(&self) -> &RoleRef;
    fn subjects(&self) -> Option<&Vec<Subject>>;
}

impl Binds for RoleBinding {
    fn role(&self) -> &RoleRef {
        &self.role_ref
    }
    fn subjects(&self) -> Option<&Vec<Subject>> {
        self.subjects.as_ref()
    }
}

impl Binds for ClusterRoleBinding {
    fn role(&self) -> &RoleRef {
        &self.role_ref
    }
    fn subjects(&self) -> Option<&Vec<Subject>> {
        self.subjects.as_ref()
    }
}

impl<K: Binds> Projection for BindingView<K> {
    type Object = K;

    fn project(binding: Arc<K>) -> Arc<Self> {
        let namespace = binding.namespace();
        let subjects = binding.subjects().into_iter().flatten();
        Arc::new(Self {
            key: binding.key(),
            revision: MetaExt::revision(&*binding),
            role: binding.role().clone(),
            subjects: subjects
                .filter_map(|s| Some((subject_key(s, namespace)?, describe(s, namespace))))
                .collect(),
            kind: std::marker::PhantomData,
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }

    fn indexes() -> &'static [Index<Self>] {
        &[Index {
            name: SUBJECT,
            values: |binding| binding.subjects.iter().map(|(key, _)| key.clone()).collect(),
        }]
    }
}

/// A service account is found as the user that it is.
fn subject_key(subject: &Subject, namespace: &str) -> Option<Arc<str>> {
    match subject.kind.as_str() {
        "User" => Some(user_key(namespace, &subject.name)),
        "Group" => Some(group_key(namespace, &subject.name)),
        "ServiceAccount" => {
            let of = subject.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(namespace);
            let user = format!("system:serviceaccount:{of}:{}", subject.name);
            (!of.is_empty()).then(|| user_key(namespace, &user))
        }
        _ => None,
    }
}

/// The index value of a user, in a namespace or (empty) the cluster.
pub(super) fn user_key(namespace: &str, name: &str) -> Arc<str> {
    format!("{namespace}/u/{name}").into()
}

/// The index value of a group, in a namespace or (empty) the cluster.
pub(super) fn group_key(namespace: &str, name: &str) -> Arc<str> {
    format!("{namespace}/g/{name}").into()
}

fn describe(subject: &Subject, namespace: &str) -> String {
    if subject.kind != "ServiceAccount" {
        return format!("{} {:?}", subject.kind, subject.name);
    }
    let of = subject.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(namespace);
    format!("{} \"{}/{of}\"", subject.kind, subject.name)
}
