//! The labels and annotations by which a kubelet finds its sandboxes and containers again: upstream's.

use std::collections::HashMap;

use gantry_api::core::{Container, Pod};
use gantry_api::meta::MetaExt;

use crate::engine::observed::container_hash;
use crate::pod;

/// Label: the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label: the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label: the pod's UID.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label: the container's name in the pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation: the hash of the container's specification.
pub const HASH: &str = "io.kubernetes.container.hash";
/// Annotation: how often the container was restarted before.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation: where the container leaves its last words.
pub const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: whether its log serves as its last words.
pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: the pod's grace period in seconds.
pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// The labels of a pod's sandbox.
pub fn sandbox_labels(pod: &Pod) -> HashMap<String, String> {
    let own = pod.metadata.labels.iter().flatten().map(|(k, v)| (k.clone(), v.clone()));
    own.chain(identity(pod)).collect()
}

fn identity(pod: &Pod) -> [(String, String); 3] {
    [
        (POD_NAME.to_owned(), pod.name().to_owned()),
        (POD_NAMESPACE.to_owned(), pod.namespace().to_owned()),
        (POD_UID.to_owned(), pod.uid().to_owned()),
    ]
}

/// The annotations of a pod's sandbox: the pod's own.
pub fn sandbox_annotations(pod: &Pod) -> HashMap<String, String> {
    pod.metadata.annotations.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// The labels of a container.
pub fn container_labels(pod: &Pod, container: &Container) -> HashMap<String, String> {
    identity(pod).into_iter().chain([(CONTAINER_NAME.to_owned(), container.name.clone())]).collect()
}

/// The annotations of a container.
pub fn container_annotations(
    pod: &Pod,
    container: &Container,
    restart_count: i32,
) -> HashMap<String, String> {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let mut out = HashMap::from([
        (HASH.to_owned(), container_hash(container)),
        (RESTART_COUNT.to_owned(), restart_count.to_string()),
        (TERMINATION_PATH.to_owned(), text(&container.termination_message_path)),
        (TERMINATION_POLICY.to_owned(), text(&container.termination_message_policy)),
    ]);
    if let Some(seconds) = pod::spec(pod).termination_grace_period_seconds {
        out.insert(GRACE_PERIOD.to_owned(), seconds.to_string());
    }
    out
}
