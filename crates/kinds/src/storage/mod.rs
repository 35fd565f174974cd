//! The storage.k8s.io group.

pub mod csi_driver;
pub mod csi_node;
pub mod csi_storage_capacity;
pub mod parameters;
pub mod storage_class;
pub mod volume_attachment;
pub mod volume_attributes_class;
