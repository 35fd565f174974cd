//! ImageLocality: a node that has the images already is better.

use super::{Change, MAX_SCORE, Plugin};
use crate::engine::snapshot::NodeState;
use crate::pod::PodClass;

/// Images below this many bytes in all count for nothing.
const MIN_BYTES: i64 = 23 << 20;
/// Above this many bytes for each container nothing more is gained.
const MAX_BYTES: i64 = 1000 << 20;

pub struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn scores(&self, pod: &PodClass) -> bool {
        !pod.images.is_empty()
    }

    fn score(&self, pod: &PodClass, node: &NodeState) -> i64 {
        let present =
            |image: &str| node.view.images.iter().find(|(name, _)| **name == *image).map_or(0, |i| i.1);
        let sum: i64 = pod.images.iter().map(|image| present(image)).sum();
        let most = MAX_BYTES * i64::try_from(pod.images.len()).unwrap_or(1);
        (sum.clamp(MIN_BYTES, most) - MIN_BYTES) * MAX_SCORE / (most - MIN_BYTES)
    }

    fn is_woken_by(&self, change: Change) -> bool {
        change == Change::Node
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{class, node};
    use super::*;
    use serde_json::json;

    #[test]
    fn a_large_image_that_is_there_counts() {
        let pod = class(json!({"containers": [{"name": "a", "image": "big:1"}]}));
        let image = json!({"names": ["big:1"], "sizeBytes": 800 << 20});
        let has = node(json!({"metadata": {"name": "a"}, "status": {"images": [image]}}));
        assert!(ImageLocality.score(&pod, &has) > 50);
        assert_eq!(ImageLocality.score(&pod, &node(json!({"metadata": {"name": "b"}}))), 0);
    }
}
