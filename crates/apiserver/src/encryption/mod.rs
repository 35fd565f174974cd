//! Encryption at rest: what the disk holds of Secrets is sealed, what the API serves is not.
//!
//! [`EncryptedStore`] stands between the API server and its store and seals the values of the configured resources
//! (Secrets by default) with AES-256-GCM, bound to their key. The configuration is upstream's
//! `EncryptionConfiguration` (with `aescbc`, `secretbox` and `kms` v2, too), and so is the prefix of sealed values
//! (`k8s:enc:aesgcm:v1:<key name>:`).

mod config;
mod kms;
pub mod metrics;
mod rotate;
mod sealer;
mod secret;
mod store;
mod watch;

pub use config::{EncryptionConfig, Key};
pub use rotate::{Rotated, reseal};
pub use sealer::Sealer;
pub use store::EncryptedStore;
