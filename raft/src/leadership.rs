//! Who leads, and whether this node does so with everything applied.

use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use tokio::sync::watch;

use crate::node::Raft;
use crate::state_machine::Replica;
use crate::types::{LeaderId, TypeConfig, Vote};

/// Who leads, as far as this node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term of this node.
    pub term: u64,
    /// The leader of that term and its address, if this node knows it.
    pub leader: Option<(u64, String)>,
    /// Whether this node is the leader and has applied everything that was committed before
    /// its term. It may have been deposed without knowing: what must not happen then needs
    /// [`Node::confirm_leadership`](crate::Node::confirm_leadership) or a proposal in the term.
    pub leads: bool,
}

/// Keeps `leadership` up to date until the node stops.
pub(crate) async fn watch_leadership(
    raft: Raft,
    replica: Arc<Replica>,
    leadership: watch::Sender<Leadership>,
) {
    let mut server = raft.server_metrics();
    let mut applied_leader = replica.applied_leader.subscribe();
    loop {
        let now = {
            let applied_leader = *applied_leader.borrow_and_update();
            observe(&raft, &server.borrow_and_update(), applied_leader)
        };
        leadership.send_if_modified(|known| {
            let changed = *known != now;
            if changed {
                log_change(known, &now);
                *known = now;
            }
            changed
        });
        tokio::select! {
            changed = server.changed() => if changed.is_err() { break },
            // Its sender lives as long as the replica, which is held here.
            _ = applied_leader.changed() => {}
        }
    }
    leadership.send_modify(|known| known.leads = false);
}

fn observe(
    raft: &Raft,
    server: &RaftServerMetrics<TypeConfig>,
    applied: Option<LeaderId>,
) -> Leadership {
    let term = server.vote.leader_id().term;
    let leader = server.current_leader.map(|id| {
        let node = server.membership_config.membership().get_node(&id);
        (id, node.map(|node| node.address.clone()).unwrap_or_default())
    });
    let leads = server.state.is_leader()
        && server.current_leader == Some(*raft.node_id())
        && has_caught_up(*raft.node_id(), &server.vote, applied);
    Leadership { term, leader, leads }
}

/// Whether a node with this vote was elected and has applied an entry of its own, and so all
/// before it.
fn has_caught_up(node_id: u64, vote: &Vote, applied: Option<LeaderId>) -> bool {
    // Not by the term alone: one before this in the same term may have written entries.
    let own = LeaderId { term: vote.leader_id().term, node_id };
    vote.is_committed() && applied == Some(own)
}

fn log_change(before: &Leadership, now: &Leadership) {
    let leader = now.leader.as_ref().map(|(id, _)| *id);
    if now.leads != before.leads {
        let what = if now.leads { "this node leads" } else { "this node no longer leads" };
        tracing::info!(term = now.term, leader, "{what}");
    } else if leader != before.leader.as_ref().map(|(id, _)| *id) {
        tracing::info!(term = now.term, leader, "the leader changed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seed 179 of an early simulation met two leaders in one term.
    #[test]
    fn a_leader_has_caught_up_by_an_entry_of_its_own_only() {
        let by = |term, node_id| Some(LeaderId { term, node_id });
        let elected = Vote::new_committed(4, 3);
        assert!(has_caught_up(3, &elected, by(4, 3)));
        assert!(!has_caught_up(3, &elected, by(4, 2)), "another one led in this term");
        assert!(!has_caught_up(3, &elected, by(3, 3)), "an entry of its last time");
        assert!(!has_caught_up(3, &elected, None));
        assert!(!has_caught_up(3, &Vote::new(4, 3), by(4, 3)), "not elected yet");
    }
}
