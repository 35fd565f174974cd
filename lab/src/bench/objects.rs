//! Objects that rows write.

use bytes::Bytes;
use serde_json::json;

/// Nodes that the hollow pods are on, so that no controller takes the pods for orphans.
pub(super) const NODES: usize = 100;

/// Where config maps are created.
pub(super) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Where pods are created.
pub(super) const PODS: &str = "/api/v1/namespaces/default/pods";

/// A config map with so many bytes of data.
pub(super) fn config_map(name: &str, size: usize) -> Bytes {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"payload": "x".repeat(size)},
    });
    map.to_string().into()
}

/// A node that nobody runs.
pub(super) fn node(index: usize) -> Bytes {
    let resources = json!({"cpu": "64", "memory": "256Gi", "pods": "1000"});
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("hollow-{index}")},
        "status": {
            "capacity": resources, "allocatable": resources,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Hollow", "message": ""}],
        },
    });
    node.to_string().into()
}

/// A pod bound to a hollow node, stored as about 2.5 KB; a hundredth of all pods share a `slot`.
pub(super) fn pod(index: usize) -> Bytes {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("hollow-{index:06}"),
            "labels": {"app": "hollow", "slot": (index % 100).to_string()},
        },
        "spec": {
            "nodeName": format!("hollow-{}", index % NODES),
            "containers": [{
                "name": "main",
                "image": "registry.example.com/hollow:1",
                "command": ["/bin/hollow", "--index", index.to_string()],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
            }],
        },
    });
    pod.to_string().into()
}

/// Where deployments are.
pub(super) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// A deployment as people write them, of no pods.
pub(super) fn deployment(name: &str) -> Bytes {
    let probe = json!({"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 5});
    let container = json!({
        "name": "web",
        "image": "registry.example.com/web:1.2.3",
        "args": ["--listen", ":8080", "--log-format", "json"],
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}],
        "env": [
            {"name": "REGION", "value": "north"},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"},
        },
        "livenessProbe": probe,
        "readinessProbe": probe,
        "volumeMounts": [{"name": "config", "mountPath": "/etc/web"}],
    });
    let labels = json!({"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "shop"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [container],
                    "volumes": [{"name": "config", "configMap": {"name": "web"}}],
                },
            },
        },
    });
    deployment.to_string().into()
}

/// Where definitions of custom resources are.
pub(super) const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// The definition of a custom resource with a schema of some fifty fields, as operators bring them.
pub(super) fn crd(index: usize) -> Bytes {
    let text = json!({"type": "string", "description": "What this is for, in a sentence of usual length."});
    let number = json!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 65_535});
    let part = json!({
        "type": "object",
        "description": "One of the parts of the thing.",
        "properties": {
            "name": text, "image": text, "port": number, "weight": number,
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "mode": {"type": "string", "enum": ["Always", "Never", "OnFailure"], "default": "Always"},
        },
        "required": ["name"],
    });
    let conditions = json!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "properties": {
                "type": text, "status": text, "reason": text, "message": text,
                "lastTransitionTime": {"type": "string", "format": "date-time"},
            },
            "required": ["type", "status"],
        },
    });
    let schema = json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "replicas": number, "schedule": text, "paused": {"type": "boolean"}, "main": part,
                    "sidecar": part, "extras": {"type": "array", "items": part},
                },
            },
            "status": {
                "type": "object",
                "properties": {"phase": text, "observed": number, "conditions": conditions},
            },
        },
    });
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("things{index}.bench{}.example.com", index % 25)},
        "spec": {
            "group": format!("bench{}.example.com", index % 25),
            "scope": "Namespaced",
            "names": {
                "plural": format!("things{index}"), "singular": format!("thing{index}"),
                "kind": format!("Thing{index}"), "listKind": format!("Thing{index}List"),
            },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Phase", "type": "string", "jsonPath": ".status.phase"}],
            }],
        },
    });
    crd.to_string().into()
}
