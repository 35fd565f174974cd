//! TaintToleration: taints keep pods away, hard (`NoSchedule`, `NoExecute`) or soft (`PreferNoSchedule`).

use super::{Change, MAX_SCORE, Plugin, Refusal};
use crate::engine::snapshot::NodeState;
use crate::pod::PodClass;

pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter(&self, pod: &PodClass, node: &NodeState) -> Result<(), Refusal> {
        let hard = node.view.taints.iter().filter(|t| matches!(&*t.effect, "NoSchedule" | "NoExecute"));
        let mut untolerated =
            hard.filter(|t| !pod.tolerations.iter().any(|own| own.covers(&t.key, &t.value, &t.effect)));
        match untolerated.next() {
            Some(_) => Err(Refusal::final_for_now("node(s) had untolerated taint(s)")),
            None => Ok(()),
        }
    }

    fn scores(&self, _pod: &PodClass) -> bool {
        true
    }

    /// The number of soft taints that the pod does not tolerate.
    fn score(&self, pod: &PodClass, node: &NodeState) -> i64 {
        let soft = node.view.taints.iter().filter(|t| &*t.effect == "PreferNoSchedule");
        let count = soft
            .filter(|t| !pod.tolerations.iter().any(|own| own.covers(&t.key, &t.value, &t.effect)))
            .count();
        i64::try_from(count).unwrap_or(i64::MAX)
    }

    fn normalizes(&self) -> bool {
        true
    }

    /// The fewer the better.
    fn normalize(&self, raw: i64, largest: i64) -> i64 {
        if largest == 0 { MAX_SCORE } else { MAX_SCORE - MAX_SCORE * raw / largest }
    }

    fn weight(&self) -> i64 {
        3
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
    fn hard_taints_refuse_and_soft_ones_cost() {
        let tainted = |effect: &str| {
            node(
                json!({"metadata": {"name": "a"}, "spec": {"taints": [{"key": "k", "value": "v", "effect": effect}]}}),
            )
        };
        let plain = class(json!({}));
        let refusal = TaintToleration.filter(&plain, &tainted("NoSchedule")).expect_err("tainted");
        assert_eq!(refusal.reasons, ["node(s) had untolerated taint(s)"]);
        assert_eq!(TaintToleration.filter(&plain, &tainted("PreferNoSchedule")), Ok(()));
        assert_eq!(TaintToleration.score(&plain, &tainted("PreferNoSchedule")), 1);
        let tolerant = class(json!({"tolerations": [{"key": "k", "operator": "Exists"}]}));
        assert_eq!(TaintToleration.filter(&tolerant, &tainted("NoExecute")), Ok(()));
    }
}
