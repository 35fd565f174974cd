//! The other plugins, each through the server's door.

use std::sync::Arc;

use gantry_api::core::{Container, Namespace, Node, PersistentVolumeClaim, Pod, PodSpec, ServiceAccount};
use gantry_api::rbac::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use gantry_api::{ObjectKey, core};
use gantry_apiserver::identify::{AUTHENTICATED, User};
use gantry_client::{DeleteOptions, PatchKind};
use serde_json::json;

use crate::{Cluster, named};

fn pod(name: &str) -> Pod {
    let container = Container { name: "main".into(), image: Some("busybox".into()), ..Container::default() };
    let spec = PodSpec { containers: vec![container], ..PodSpec::default() };
    Pod { metadata: named("shop", name), spec: Some(spec), ..Pod::default() }
}

#[tokio::test]
async fn a_pod_runs_as_its_service_account_with_a_token() {
    let cluster = Cluster::new().await;
    cluster.namespace("shop").await;
    let mut account = ServiceAccount { metadata: named("shop", "default"), ..ServiceAccount::default() };
    account.image_pull_secrets = Some(vec![core::LocalObjectReference { name: "registry".into() }]);
    cluster.api().create(&account).await.expect("an account");
    let made = cluster.api::<Pod>().create(&pod("web")).await.expect("a pod");
    let spec = made.spec.as_ref().expect("a spec");
    assert_eq!(spec.service_account_name.as_deref(), Some("default"));
    assert_eq!(spec.image_pull_secrets.as_ref().map(|s| s[0].name.as_str()), Some("registry"));
    let volume = &spec.volumes.as_ref().expect("volumes")[0];
    assert!(volume.name.starts_with("kube-api-access-") && volume.name.len() == "kube-api-access-".len() + 5);
    let sources = volume.projected.as_ref().and_then(|p| p.sources.as_ref()).expect("sources");
    let token = sources[0].service_account_token.as_ref().expect("a token");
    assert_eq!((token.path.as_str(), token.expiration_seconds), ("token", Some(3607)));
    let mount = &spec.containers[0].volume_mounts.as_ref().expect("mounts")[0];
    assert_eq!(mount.mount_path, "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!((spec.priority, spec.preemption_policy.as_deref()), (Some(0), Some("PreemptLowerPriority")));
    let tolerations = spec.tolerations.as_ref().expect("tolerations");
    assert!(tolerations.iter().all(|t| t.toleration_seconds == Some(300)) && tolerations.len() == 2);

    let mut quiet = pod("quiet");
    quiet.spec.as_mut().expect("a spec").automount_service_account_token = Some(false);
    let quiet = cluster.api::<Pod>().create(&quiet).await.expect("a pod");
    assert!(quiet.spec.as_ref().is_some_and(|s| s.volumes.as_ref().is_none_or(Vec::is_empty)));

    let mut lost = pod("lost");
    lost.spec.as_mut().expect("a spec").service_account_name = Some("nobody".into());
    let error = cluster.api::<Pod>().create(&lost).await.expect_err("no such account");
    assert_eq!(
        error.message(),
        r#"pods "lost" is forbidden: error looking up service account shop/nobody: serviceaccount "nobody" not found"#
    );
    let mut vip = pod("vip");
    vip.spec.as_mut().expect("a spec").priority_class_name = Some("gold".into());
    let error = cluster.api::<Pod>().create(&vip).await.expect_err("no such class");
    assert_eq!(error.message(), r#"pods "vip" is forbidden: no PriorityClass with name gold was found"#);
    cluster.end().await;
}

#[tokio::test]
async fn nothing_is_created_where_there_is_no_namespace_or_it_is_going_away() {
    let cluster = Cluster::new().await;
    let map =
        |namespace: &str| core::ConfigMap { metadata: named(namespace, "a"), ..core::ConfigMap::default() };
    let error = cluster.api().create(&map("nowhere")).await.expect_err("no namespace");
    assert_eq!((error.code(), error.message()), (404, r#"namespaces "nowhere" not found"#));
    cluster.namespace("old").await;
    cluster.api().create(&map("old")).await.expect("the namespace is there");
    let old = ObjectKey::cluster("old");
    cluster.api::<Namespace>().delete(&old, &DeleteOptions::default()).await.expect("on its way");
    let mut late = map("old");
    late.metadata.name = Some("b".into());
    let error = cluster.api().create(&late).await.expect_err("too late");
    assert_eq!(
        error.message(),
        r#"configmaps "b" is forbidden: unable to create new content in namespace old because it is being terminated"#
    );
    let causes = error.status().details.as_ref().and_then(|d| d.causes.clone()).expect("a cause");
    assert_eq!(causes[0].reason.as_deref(), Some("NamespaceTerminating"));
    cluster.namespace("default").await;
    let default = ObjectKey::cluster("default");
    let error =
        cluster.api::<Namespace>().delete(&default, &DeleteOptions::default()).await.expect_err("it stays");
    assert_eq!(error.message(), r#"namespaces "default" is forbidden: this namespace may not be deleted"#);
    cluster.end().await;
}

fn rule(verb: &str, resource: &str) -> PolicyRule {
    PolicyRule {
        verbs: vec![verb.into()],
        api_groups: Some(vec![String::new()]),
        resources: Some(vec![resource.into()]),
        ..PolicyRule::default()
    }
}

#[tokio::test]
async fn nobody_gives_away_what_they_do_not_have() {
    let cluster = Cluster::new().await;
    cluster.namespace("shop").await;
    let role =
        |name: &str, rules: Vec<PolicyRule>| Role { metadata: named("shop", name), rules: Some(rules) };
    let mut manage = rule("create", "roles");
    manage.api_groups = Some(vec!["rbac.authorization.k8s.io".into()]);
    cluster.api().create(&role("manager", vec![manage, rule("get", "pods")])).await.expect("a role");
    let jane = Subject {
        kind: "User".into(),
        name: "jane".into(),
        api_group: Some("rbac.authorization.k8s.io".into()),
        namespace: None,
    };
    let binding = RoleBinding {
        metadata: named("shop", "jane"),
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".into()),
            kind: "Role".into(),
            name: "manager".into(),
        },
        subjects: Some(vec![jane]),
    };
    cluster.api().create(&binding).await.expect("a binding");
    let janes = cluster.api_as::<Role>(User::new("jane", [AUTHENTICATED]));
    // The informers of the authorizer may be a moment behind.
    let first = loop {
        match janes.create(&role("fine", vec![rule("get", "pods")])).await {
            Err(error) if error.message().contains("cannot create resource") => {
                tokio::task::yield_now().await
            }
            other => break other,
        }
    };
    first.expect("she has that herself");
    let error = janes.create(&role("greedy", vec![rule("get", "secrets")])).await.expect_err("she has not");
    assert_eq!(
        error.message(),
        "roles.rbac.authorization.k8s.io \"greedy\" is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"
    );
    let error =
        cluster.api_as::<Pod>(User::new("jane", [AUTHENTICATED])).create(&pod("x")).await.expect_err("no");
    assert_eq!(
        error.message(),
        r#"pods is forbidden: User "jane" cannot create resource "pods" in API group "" in the namespace "shop""#
    );
    cluster.end().await;
}

#[tokio::test]
async fn a_node_touches_only_itself() {
    let cluster = Cluster::new().await;
    // Both groups: what is tested is admission, not authorization.
    let node = User::new("system:node:a", ["system:nodes", "system:masters"]);
    let api = cluster.api_as::<Node>(node.clone());
    let made = api.create(&Node { metadata: named("", "a"), ..Node::default() }).await.expect("itself");
    let taints = made.spec.as_ref().and_then(|s| s.taints.as_ref()).expect("taints");
    assert_eq!(taints[0].key, "node.kubernetes.io/not-ready");
    let error = api.create(&Node { metadata: named("", "b"), ..Node::default() }).await.expect_err("another");
    assert_eq!(error.message(), r#"nodes "b" is forbidden: node "a" is not allowed to modify node "b""#);
    let a = ObjectKey::cluster("a");
    let label = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
    let error = api.patch(&a, "", PatchKind::Merge, &label).await.expect_err("not a label of its own");
    assert!(
        error.message().contains("is not allowed to modify labels: node-role.kubernetes.io/control-plane"),
        "{error}"
    );
    let label = json!({"metadata": {"labels": {"kubernetes.io/os": "linux", "mine": "x"}}});
    api.patch(&a, "", PatchKind::Merge, &label).await.expect("labels of its own");
    cluster.namespace("shop").await;
    cluster.account("shop", "default").await;
    let error = cluster.api_as::<Pod>(node).create(&pod("x")).await.expect_err("no mirror pod");
    assert!(error.message().contains(r#"node "a" can only create mirror pods"#), "{error}");
    cluster.end().await;
}

#[tokio::test]
async fn claims_are_protected_and_get_the_default_class() {
    let cluster = Cluster::new().await;
    cluster.namespace("shop").await;
    let class: gantry_api::storage::StorageClass = serde_json::from_value(json!({
        "metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "x",
    }))
    .expect("a class");
    cluster.api().create(&class).await.expect("a class");
    let claim = |name: &str| -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }))
        .expect("a claim")
    };
    // The plugin's informer may be a moment behind.
    let mut made: Arc<PersistentVolumeClaim> = cluster.api().create(&claim("c0")).await.expect("a claim");
    let mut n = 0;
    while made.spec.as_ref().is_some_and(|s| s.storage_class_name.is_none()) {
        n += 1;
        tokio::task::yield_now().await;
        made = cluster.api().create(&claim(&format!("c{n}"))).await.expect("a claim");
    }
    assert_eq!(made.spec.as_ref().and_then(|s| s.storage_class_name.as_deref()), Some("fast"));
    assert_eq!(made.metadata.finalizers, Some(vec!["kubernetes.io/pvc-protection".to_owned()]));
    let more = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let key = ObjectKey::of(&made.metadata);
    let error = cluster
        .api::<PersistentVolumeClaim>()
        .patch(&key, "", PatchKind::Merge, &more)
        .await
        .expect_err("it is not bound");
    assert!(
        error.message().contains("Only bound persistent volume claims can be expanded")
            || error.code() == 422,
        "{error}"
    );
    cluster.end().await;
}
