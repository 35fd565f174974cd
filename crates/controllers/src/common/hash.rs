//! Short stable hashes of templates, in the alphabet that `apimachinery/pkg/util/rand` calls safe: no vowels, so
//! that no words come of it.
//!
//! Upstream hashes Go's dump of the object, which nobody else can reproduce; ours are FNV-1a of its JSON.

use gantry_api::Object;
use gantry_api::core::{Pod, PodTemplateSpec};

const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash of a pod template and of the number of collisions so far.
pub fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut hash = fnv1a(&template_json(template), 0x811c_9dc5);
    if let Some(collisions) = collisions {
        hash = fnv1a(&i64::from(collisions).to_le_bytes(), hash);
    }
    safe(&hash.to_string())
}

/// The hash of any text and of the number of collisions so far.
pub fn text_hash(text: &str, collisions: Option<i32>) -> String {
    let mut hash = fnv1a(text.as_bytes(), 0x811c_9dc5);
    if let Some(collisions) = collisions {
        hash = fnv1a(collisions.to_string().as_bytes(), hash);
    }
    safe(&hash.to_string())
}

/// A pod template as bytes: those of a pod that is made of it.
pub fn template_json(template: &PodTemplateSpec) -> Vec<u8> {
    let pod = Pod {
        metadata: template.metadata.clone().unwrap_or_default(),
        spec: template.spec.clone(),
        status: None,
    };
    pod.encode()
}

/// Each byte as a letter of the safe alphabet.
pub fn safe(text: &str) -> String {
    text.bytes().map(|b| char::from(SAFE[usize::from(b) % SAFE.len()])).collect()
}

fn fnv1a(bytes: &[u8], basis: u32) -> u32 {
    bytes.iter().fold(basis, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_stable_safe_and_differ_by_collision() {
        let template = PodTemplateSpec::default();
        let plain = template_hash(&template, None);
        assert_eq!(plain, template_hash(&template, None));
        assert_ne!(plain, template_hash(&template, Some(1)));
        assert!(plain.bytes().all(|b| SAFE.contains(&b)) && plain.len() <= 10);
    }
}
