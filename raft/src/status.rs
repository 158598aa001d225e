//! The node and its cluster, as this node sees them.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;

use crate::ClusterId;
use crate::agreement::Agreement;
use crate::node::Inner;
use crate::proposals::ProposalCounts;
use crate::storage::StorageStatus;

/// The node and its cluster, as this node sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub node: u64,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its term.
    pub term: u64,
    /// The leader, if this node knows one.
    pub leader: Option<u64>,
    /// Whether this node leads; see [`Leadership::leads`](crate::Leadership::leads).
    pub leads: bool,
    /// The last entry in its log.
    pub last_index: u64,
    /// The last entry that it knows to be committed.
    pub committed_index: u64,
    /// The last entry that it has applied.
    pub applied_index: u64,
    /// The last entry that its newest snapshot covers.
    pub snapshot_index: u64,
    /// The last entry that is purged from its log.
    pub purged_index: u64,
    /// How long ago it heard the leader, or as leader its quorum.
    pub last_contact: Option<Duration>,
    /// Whether a quorum answers, as far as it can tell.
    pub quorate: bool,
    /// Every node of the cluster, by id.
    pub members: Vec<Member>,
    /// Whether a change of the membership is under way: then both the voters before and those
    /// after must have their quorum.
    pub members_changing: bool,
    /// What became of the proposals made through this node as leader.
    pub proposals: ProposalCounts,
    /// How the disk of this node is doing.
    pub storage: StorageStatus,
    /// Whether the other voters have the same state.
    pub agreement: Agreement,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Never used again once it is removed.
    pub id: u64,
    /// Where it listens.
    pub address: String,
    /// Whether it has a vote, for certain: in a committed membership, and not only in one of
    /// the two that count while it changes.
    pub voter: bool,
    /// Whether it is to get a vote once it has caught up, or has one by that.
    pub wants_vote: bool,
    /// The last entry that it is known to have; known to the leader only.
    pub matched_index: Option<u64>,
}

impl Inner {
    /// What this node knows.
    pub(crate) fn status(&self) -> Status {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let index = |id: &Option<crate::types::LogId>| id.as_ref().map_or(0, |id| id.index);
        let leads = self.leadership.borrow().leads;
        // While the membership changes, a vote counts only where both the old and the new
        // voters have it. Who waits for all to vote must not be told so too early: as long as
        // the old voters are needed, fewer can be spared than it seems.
        let memberships = [&metrics.membership_config, &metrics.committed_membership_config];
        let configs = memberships.map(|stored| stored.membership().get_joint_config());
        let votes = |id: &u64| configs.iter().all(|all| all.iter().all(|one| one.contains(id)));
        let alone_in = |config: &BTreeSet<u64>| config.len() == 1 && config.contains(&self.id);
        let acked = metrics.last_quorum_acked.as_ref().map(|acked| acked.elapsed());
        let alone = configs.iter().all(|all| all.iter().all(alone_in));
        let last_contact = match metrics.state.is_leader() {
            true if alone => Some(Duration::ZERO),
            true => acked,
            false => self.contact.age(),
        };
        let fresh = last_contact.is_some_and(|age| age <= 2 * self.election_max);
        let members = metrics.membership_config.membership().nodes().map(|(&id, node)| {
            let matched = metrics.replication.as_ref().and_then(|all| all.get(&id));
            Member {
                id,
                address: node.address.clone(),
                voter: votes(&id),
                wants_vote: node.wants_vote,
                matched_index: matched.and_then(|matched| matched.as_ref().map(|id| id.index)),
            }
        });
        Status {
            node: self.id,
            cluster: self.cluster,
            term: metrics.current_term,
            leader: metrics.current_leader,
            leads,
            last_index: metrics.last_log_index.unwrap_or(0),
            committed_index: index(&metrics.local_committed),
            applied_index: self.replica.applied.borrow().0,
            snapshot_index: index(&metrics.snapshot),
            purged_index: index(&metrics.purged),
            last_contact,
            quorate: metrics.running_state.is_ok()
                && metrics.current_leader.is_some()
                && (fresh || (alone && leads)),
            members: members.collect(),
            members_changing: metrics.membership_config != metrics.committed_membership_config
                || metrics.membership_config.membership().get_joint_config().len() > 1,
            proposals: self.proposals.counts(),
            storage: self.storage.status(),
            agreement: self.agreement.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// When the leader was last heard.
#[derive(Debug)]
pub(crate) struct Contact {
    start: Instant,
    /// Milliseconds after the start, plus one; 0 for never.
    last: std::sync::atomic::AtomicU64,
}

impl Contact {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), last: std::sync::atomic::AtomicU64::new(0) }
    }

    /// Notes that the leader is heard now.
    pub(crate) fn note(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.last.store(now + 1, std::sync::atomic::Ordering::Relaxed);
    }

    fn age(&self) -> Option<Duration> {
        let last = self.last.load(std::sync::atomic::Ordering::Relaxed).checked_sub(1)?;
        Some(self.start.elapsed().saturating_sub(Duration::from_millis(last)))
    }
}
