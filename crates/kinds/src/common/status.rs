//! What an update of the status leaves alone.

use gantry_api::metav1::ObjectMeta;

/// Takes back what an update of the status may not say of the metadata (`ResetObjectMetaForStatus` upstream).
pub fn keep_metadata(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    new.generation = old.generation;
    new.self_link.clone_from(&old.self_link);
    new.labels.clone_from(&old.labels);
    new.annotations.clone_from(&old.annotations);
    new.finalizers.clone_from(&old.finalizers);
    new.owner_references.clone_from(&old.owner_references);
}
