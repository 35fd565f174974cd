//! The decision: where one pod goes. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::snapshot::{NodeState, Snapshot};
use crate::plugins::volume_binding::VolumeNeeds;
use crate::plugins::{Plugin, Refusal};
use crate::pod::PodClass;

/// Classes whose verdicts are remembered.
const MAX_CLASSES: usize = 256;

/// Why a pod does not fit anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misfit {
    /// In upstream's words: `0/3 nodes are available: …`
    pub message: String,
    /// The names of the plugins that refused a node.
    pub plugins: Vec<&'static str>,
}

#[derive(Clone)]
struct Verdict {
    generation: u64,
    /// `Err`: index of the plugin that refused, and what it said.
    outcome: Result<Vec<i64>, (usize, Refusal)>,
}

/// Decides with a profile of plugins, remembering verdicts of equal pods on unchanged nodes.
pub struct Decider {
    profile: Vec<Box<dyn Plugin>>,
    classes: HashMap<Arc<PodClass>, Vec<Option<Verdict>>>,
    turn: usize,
}

impl Decider {
    /// A decider with these plugins.
    pub fn new(profile: Vec<Box<dyn Plugin>>) -> Self {
        Self { profile, classes: HashMap::new(), turn: 0 }
    }

    /// The plugins.
    pub fn profile(&self) -> &[Box<dyn Plugin>] {
        &self.profile
    }

    /// The node for a pod of `class` whose volumes need `volumes`.
    ///
    /// Of several nodes that score the same, each gets its turn.
    ///
    /// # Errors
    /// Why there is none.
    pub fn decide(
        &mut self,
        class: &Arc<PodClass>,
        volumes: &VolumeNeeds,
        snapshot: &Snapshot,
    ) -> Result<Arc<str>, Misfit> {
        let nodes = snapshot.nodes();
        if self.classes.len() >= MAX_CLASSES && !self.classes.contains_key(class) {
            self.classes.clear();
        }
        let profile = &self.profile;
        let verdicts = self.classes.entry(class.clone()).or_default();
        verdicts.resize(nodes.len(), None);
        for (node, slot) in nodes.iter().zip(verdicts.iter_mut()) {
            if slot.as_ref().is_none_or(|v| v.generation != node.generation) {
                *slot = Some(judge(profile, class, node));
            }
        }
        let mut refusals: Vec<(&'static str, Refusal)> = Vec::new();
        let mut feasible: Vec<(usize, &[i64])> = Vec::new();
        for (at, (node, slot)) in nodes.iter().zip(verdicts.iter()).enumerate() {
            let Some(verdict) = slot else { continue };
            match &verdict.outcome {
                Err((plugin, refusal)) => refusals.push((profile[*plugin].name(), refusal.clone())),
                Ok(scores) => match volumes.filter(node) {
                    Err(refusal) => refusals.push(("VolumeBinding", refusal)),
                    Ok(()) => feasible.push((at, scores)),
                },
            }
        }
        if feasible.is_empty() {
            return Err(misfit(nodes.len(), &refusals));
        }
        let totals = totals(profile, class, &feasible);
        let best = totals.iter().copied().max().unwrap_or(0);
        let winners: Vec<usize> = feasible
            .iter()
            .zip(&totals)
            .filter(|(_, total)| **total == best)
            .map(|((at, _), _)| *at)
            .collect();
        self.turn = self.turn.wrapping_add(1);
        Ok(nodes[winners[self.turn % winners.len()]].view.name.clone())
    }
}

fn judge(profile: &[Box<dyn Plugin>], class: &PodClass, node: &NodeState) -> Verdict {
    let mut refused = profile.iter().enumerate().filter_map(|(i, p)| Some((i, p.filter(class, node).err()?)));
    let outcome = match refused.next() {
        Some(refusal) => Err(refusal),
        None => Ok(profile.iter().map(|p| if p.scores(class) { p.score(class, node) } else { 0 }).collect()),
    };
    Verdict { generation: node.generation, outcome }
}

fn totals(profile: &[Box<dyn Plugin>], class: &PodClass, feasible: &[(usize, &[i64])]) -> Vec<i64> {
    let mut totals = vec![0; feasible.len()];
    for (i, plugin) in profile.iter().enumerate() {
        if !plugin.scores(class) {
            continue;
        }
        let largest =
            if plugin.normalizes() { feasible.iter().map(|(_, s)| s[i]).max().unwrap_or(0) } else { 0 };
        for (total, (_, scores)) in totals.iter_mut().zip(feasible) {
            let score = if plugin.normalizes() { plugin.normalize(scores[i], largest) } else { scores[i] };
            *total += score * plugin.weight();
        }
    }
    totals
}

/// `0/5 nodes are available: 2 Insufficient cpu, 3 node(s) had untolerated taint(s). preemption: …`
fn misfit(count: usize, refusals: &[(&'static str, Refusal)]) -> Misfit {
    if count == 0 {
        return Misfit { message: "no nodes available to schedule pods".into(), plugins: Vec::new() };
    }
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, refusal) in refusals {
        for reason in &refusal.reasons {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    // Sorted as texts, count first, as upstream does.
    let mut texts: Vec<String> = reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    texts.sort();
    let mut plugins: Vec<&'static str> = refusals.iter().map(|(plugin, _)| *plugin).collect();
    plugins.sort_unstable();
    plugins.dedup();
    Misfit { message: format!("0/{count} nodes are available: {}.", texts.join(", ")), plugins }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::{default_profile, testing};
    use proptest::prelude::*;
    use serde_json::json;

    fn snapshot(cpus: &[u32]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (i, cpu) in cpus.iter().enumerate() {
            let allocatable = json!({"cpu": cpu.to_string(), "memory": "8Gi", "pods": "110"});
            let node = json!({"metadata": {"name": format!("n{i}")}, "status": {"allocatable": allocatable}});
            snapshot.set_node(testing::node(node).view);
        }
        snapshot
    }

    fn asks(milli: u32) -> Arc<PodClass> {
        let requests = json!({"requests": {"cpu": format!("{milli}m")}});
        testing::class(json!({"containers": [{"name": "a", "resources": requests}]})).shared()
    }

    #[test]
    fn the_message_counts_reasons_as_upstream_does() {
        let mut snapshot = snapshot(&[1, 1]);
        let tainted =
            json!({"metadata": {"name": "t"}, "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
        snapshot.set_node(testing::node(tainted).view);
        let misfit = Decider::new(default_profile())
            .decide(&asks(2000), &VolumeNeeds::default(), &snapshot)
            .expect_err("too large");
        assert_eq!(
            misfit.message,
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu."
        );
        assert_eq!(misfit.plugins, ["NodeResourcesFit", "TaintToleration"]);
    }

    #[test]
    fn no_nodes_is_a_message_of_its_own() {
        let misfit = Decider::new(default_profile())
            .decide(&asks(1), &VolumeNeeds::default(), &Snapshot::default())
            .expect_err("nowhere");
        assert_eq!(misfit.message, "no nodes available to schedule pods");
    }

    #[test]
    fn equal_nodes_take_turns() {
        let snapshot = snapshot(&[4, 4, 4]);
        let mut decider = Decider::new(default_profile());
        let mut seen: Vec<Arc<str>> = (0..3)
            .map(|_| decider.decide(&asks(0), &VolumeNeeds::default(), &snapshot).expect("a node"))
            .collect();
        seen.sort();
        assert_eq!(seen.iter().map(|n| &**n).collect::<Vec<_>>(), ["n0", "n1", "n2"]);
    }

    proptest! {
        /// What is remembered never differs from a decision made from scratch.
        #[test]
        fn remembered_verdicts_equal_a_full_scan(
            cpus in prop::collection::vec(1u32..4, 1..6),
            pods in prop::collection::vec(1u32..20, 1..40),
        ) {
            let mut snapshot = snapshot(&cpus);
            let mut remembering = Decider::new(default_profile());
            for (i, size) in pods.into_iter().enumerate() {
                let class = asks(size * 100);
                let mut fresh = Decider::new(default_profile());
                fresh.turn = remembering.turn;
                let expected = fresh.decide(&class, &VolumeNeeds::default(), &snapshot);
                let actual = remembering.decide(&class, &VolumeNeeds::default(), &snapshot);
                prop_assert_eq!(&actual, &expected);
                if let Ok(node) = actual {
                    snapshot.place(&format!("p{i}").into(), &node, &class);
                }
            }
        }
    }
}
