//! Pod specs: of pods and of templates. Defaults, validation, warnings.
//!
//! As `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation/validation.go` and `pkg/api/pod/warnings.go`.

mod affinity;
pub mod annotations;
mod containers;
mod defaults;
mod env;
mod options;
mod probes;
mod projected;
mod resources;
mod scheduling;
mod security;
mod sources;
mod spec;
mod template;
mod volumes;
mod warn_paths;
mod warnings;
mod windows;

pub use affinity::{check_node_selector, has_invalid_value};
pub use annotations::check_annotations;
pub use containers::{as_container, check_only_in_pods};
pub use defaults::{claim_defaults, defaults, pod_defaults};
pub use options::Options;
pub use probes::check_port;
pub use resources::check_overhead;
pub use scheduling::{check_taint_effect, check_tolerations};
pub use sources::*;
pub use spec::validate_spec;
pub use template::check_template;
pub use volumes::check_host_path;
pub use volumes::check_projected_tokens;
pub use warnings::{pod_warnings, template_warnings, warn_fraction, warn_node_term};

use gantry_api::core::{Container, PodSpec};

use super::at::{At, items};

/// Calls `visit` for each container: init, ordinary, ephemeral, with its path.
pub fn visit_containers(spec: &PodSpec, at: &At<'_>, mut visit: impl FnMut(&Container, &At<'_>)) {
    let list = at.child("initContainers");
    for (i, container) in items(&spec.init_containers).iter().enumerate() {
        visit(container, &list.index(i));
    }
    let list = at.child("containers");
    for (i, container) in spec.containers.iter().enumerate() {
        visit(container, &list.index(i));
    }
    let list = at.child("ephemeralContainers");
    for (i, container) in items(&spec.ephemeral_containers).iter().enumerate() {
        visit(&as_container(container), &list.index(i));
    }
}

/// Whether this container, among the init containers, runs as long as the pod.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}
