//! What others have acknowledged to this node while it leads, to tell when one has forgotten it.
//!
//! A data directory put back whole from an old copy fits together, so its node cannot know
//! that it has forgotten something. The leader that has its acknowledgement can.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::types::Vote;

/// The last entry that each node has acknowledged to a leader, by the leader's vote.
///
/// Under one vote nobody takes an entry back: whoever says that an acknowledged one is not in
/// its log has lost it.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged(Mutex<BTreeMap<u64, (Vote, u64)>>);

impl Acknowledged {
    /// Takes note that a node has everything up to `index`.
    pub(crate) fn note(&self, node: u64, leader: Vote, index: u64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = known.entry(node).or_insert((leader, index));
        if entry.0 == leader {
            entry.1 = entry.1.max(index);
        } else {
            *entry = (leader, index);
        }
    }

    /// The last entry that a node has acknowledged, if the one at `missing` is among them.
    pub(crate) fn includes(&self, node: u64, leader: Vote, missing: u64) -> Option<u64> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let &(vote, index) = known.get(&node)?;
        (vote == leader && missing <= index).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_misses_what_it_acknowledged_is_found_out() {
        let (acknowledged, leader) = (Acknowledged::default(), Vote::new(1, 1));
        acknowledged.note(2, leader, 79);
        acknowledged.note(2, leader, 70);
        assert_eq!(acknowledged.includes(2, leader, 79), Some(79));
        assert_eq!(acknowledged.includes(2, leader, 80), None);
        assert_eq!(acknowledged.includes(3, leader, 1), None);
    }

    #[test]
    fn another_leader_may_take_entries_back() {
        let (acknowledged, leader) = (Acknowledged::default(), Vote::new(1, 1));
        acknowledged.note(2, leader, 79);
        assert_eq!(acknowledged.includes(2, Vote::new(2, 3), 79), None);
        acknowledged.note(2, Vote::new(2, 3), 60);
        assert_eq!(acknowledged.includes(2, Vote::new(2, 3), 70), None);
    }
}
