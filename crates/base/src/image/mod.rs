//! Names of container images, and the rules that say which of them may run and where they are pulled from.

mod policy;
mod reference;

pub use policy::ImagePolicy;
pub use reference::{normalize, repository};
