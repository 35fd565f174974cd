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
