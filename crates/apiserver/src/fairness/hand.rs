//! Shuffle sharding: each flow is dealt a few of a level's queues, so that two flows seldom share all of theirs.

use sha2::{Digest, Sha256};

/// The number that stands for a flow.
pub(super) fn hash(schema: &str, distinguisher: &str) -> u64 {
    let digest = Sha256::new().chain_update(schema).chain_update([0]).chain_update(distinguisher).finalize();
    digest.iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// `size` different ones of `queues`, determined by `hash`. All of them if there are not more.
pub(super) fn deal(mut hash: u64, queues: u32, size: u32) -> Vec<u32> {
    let mut dealt: Vec<u32> = Vec::new();
    let mut sorted: Vec<u32> = Vec::new();
    for left in (1..=queues).rev().take(size as usize) {
        let mut card = u32::try_from(hash % u64::from(left)).unwrap_or(0);
        hash /= u64::from(left);
        // Counted among those that are not dealt yet.
        let before = sorted
            .iter()
            .take_while(|taken| {
                let behind = card >= **taken;
                card += u32::from(behind);
                behind
            })
            .count();
        sorted.insert(before, card);
        dealt.push(card);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_have_different_cards_and_depend_on_the_flow() {
        for user in ["alice", "bob", "carol"] {
            let hand = deal(hash("global-default", user), 128, 6);
            let mut sorted = hand.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), 6, "{hand:?}");
            assert!(sorted.iter().all(|card| *card < 128), "{hand:?}");
        }
        assert_ne!(deal(hash("a", "alice"), 128, 6), deal(hash("a", "bob"), 128, 6));
        let mut all = deal(hash("a", "alice"), 4, 9);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
    }
}
