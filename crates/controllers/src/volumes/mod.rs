//! Persistent volumes: claims and volumes find each other, node-local volumes are made, and none goes while it is used.
//!
//! Behaviour: `pkg/controller/volume`. [`claims`] binds claims and provisions for them, [`pvs`] gives each volume its
//! phase and reclaims it, [`protection`] holds the finalizers, [`ephemeral`] makes the claims of pods.

pub mod claims;
pub mod ephemeral;
mod matching;
pub mod protection;
pub mod pvs;
#[cfg(test)]
mod tests;

/// The provisioner of node-local volumes.
pub const LOCAL_PATH: &str = "gantry.io/local-path";
/// A claim's binding is complete.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The controller, not a person, bound the object.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Who made a volume.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The node that the scheduler chose for the first pod of a claim.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Who is to make a claim's volume.
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
