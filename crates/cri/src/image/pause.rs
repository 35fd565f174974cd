//! The sandbox image that Gantry carries.

use gantry_base::error::Context;
use gantry_base::{Class, Result};

use super::{ImageSource, Layer, OciConfig};

/// The name of the sandbox image: upstream's, so that whatever excludes it by name still does.
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10.2";

/// The program, built by `build.rs` from `pause/main.rs`.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// The user and group that the program runs as: upstream's.
const USER: &str = "65535:65535";

/// The sandbox image, in memory.
///
/// # Errors
/// [`Class::Bug`] only.
pub fn pause_image() -> Result<ImageSource> {
    let mut layer = Layer::default();
    let tar = layer.file("pause", 0o755, PROGRAM).and_then(|()| layer.finish());
    let config = OciConfig {
        user: USER.to_owned(),
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
        entrypoint: vec!["/pause".to_owned()],
        working_dir: "/".to_owned(),
        ..OciConfig::default()
    };
    ImageSource::new(PAUSE_IMAGE, &config, vec![tar.context(Class::Bug, "lay out the sandbox image")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_image_is_small_and_always_the_same() {
        assert!(PROGRAM.len() < 10_000, "{} bytes", PROGRAM.len());
        let (one, two) = (pause_image().expect("built"), pause_image().expect("built"));
        assert_eq!(one.digest(), two.digest());
        assert_eq!(one.name, PAUSE_IMAGE);
    }
}
