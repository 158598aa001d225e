//! Changes of the membership, made by the leader.
//!
//! A node joins as a learner, which its wish to vote outlives in [`MemberNode`]; whoever leads
//! promotes it once it has caught up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use quorate_model::command::MintNodeId;
use quorate_model::{Command, Reply, Request};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::ClusterId;
use crate::error::ProposeError;
use crate::node::{Inner, Raft};
use crate::types::{LogId, MemberNode, TypeConfig};

/// How far behind a learner may be when it becomes a voter: what it misses then delays no
/// commit for long.
const LAG_ENTRIES_MAX: u64 = 100;

/// How long to wait before a change is tried again while another is under way.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How long a change may stand halfway before another than who began it ends it: either step
/// takes a commit.
const HALFWAY_MAX: Duration = Duration::from_secs(1);

/// How long the leader's chores wait for a change.
const IN_PASSING_DEADLINE: Duration = Duration::from_secs(5);

/// What a node needs to know to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Its id, never used before and never again.
    pub node: u64,
    /// The cluster.
    pub cluster: ClusterId,
}

type Change = ChangeMembers<u64, MemberNode>;

impl Inner {
    /// Mints an id for the node at `address` and makes it a learner.
    pub(crate) async fn join_here(
        &self,
        address: &str,
        voter: bool,
        until: Instant,
    ) -> Result<Joined, ProposeError> {
        let mint = Request::from(Command::MintNodeId(MintNodeId {}));
        let minted = self.proposals.submit(&[mint], None, until).await?;
        let Some(Ok(Reply::Minted { id: node })) =
            minted.into_iter().next().map(|c| c.answer.reply)
        else {
            return Err(ProposeError::Membership("no node id was minted".into()));
        };
        // One address is one process: a learner that was there before has never got anywhere,
        // or lost its disk. A voter is removed by people only.
        let stale = self.learners_at(address);
        if !stale.is_empty() {
            self.change(&Change::RemoveNodes(stale), until).await?;
        }
        let member = MemberNode { address: address.to_owned(), wants_vote: voter };
        self.change(&Change::AddNodes(BTreeMap::from([(node, member)])), until).await?;
        tracing::info!(node, address, voter, "a node joins");
        Ok(Joined { node, cluster: self.cluster })
    }

    /// Removes a node for good, dead or alive.
    pub(crate) async fn remove_here(&self, node: u64, until: Instant) -> Result<(), ProposeError> {
        let refused = |reason: String| Err(ProposeError::Membership(reason));
        let (voters, is_member) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            let voters: BTreeSet<u64> = membership.voter_ids().collect();
            (voters, membership.get_node(&node).is_some())
        };
        if !is_member {
            return refused(format!("there is no node {node}"));
        }
        if voters == BTreeSet::from([node]) {
            return refused(format!("node {node} is the only voter: it cannot be removed"));
        }
        let id = BTreeSet::from([node]);
        let change =
            if voters.contains(&node) { Change::RemoveVoters(id) } else { Change::RemoveNodes(id) };
        self.change(&change, until).await?;
        tracing::info!(node, "a node is removed");
        Ok(())
    }

    /// Hands leadership to another voter: to the one that has most of the log, if `None`.
    pub(crate) async fn transfer_here(
        &self,
        to: Option<u64>,
        until: Instant,
    ) -> Result<(), ProposeError> {
        let me = self.id;
        let to = match to {
            Some(to) if to == me => return Ok(()),
            Some(to) if self.other_voters().any(|(voter, _)| voter == to) => to,
            Some(to) => {
                return Err(ProposeError::Membership(format!("node {to} is not a voter")));
            }
            None => {
                let best = self.other_voters().max_by_key(|&(_, matched)| matched);
                let none = || ProposeError::Membership("there is no other voter".into());
                best.ok_or_else(none)?.0
            }
        };
        tracing::info!(to, "handing over leadership");
        let triggered = self.raft.trigger().transfer_leader(to).await;
        triggered.map_err(|_| ProposeError::Stopping)?;
        let mut leadership = self.leadership.subscribe();
        let elsewhere = leadership
            .wait_for(|known| known.leader.as_ref().is_some_and(|&(leader, _)| leader != me));
        match tokio::time::timeout_at(until, elsewhere).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ProposeError::Stopping),
            Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// The other voters and their addresses, those with most of the log first.
    pub(crate) fn voters_to_follow(&self) -> Vec<(u64, String)> {
        let mut voters: Vec<_> = self.other_voters().collect();
        voters.sort_by_key(|&(_, matched)| std::cmp::Reverse(matched));
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let address = |(id, _)| Some((id, membership.get_node(&id)?.address.clone()));
        voters.into_iter().filter_map(address).collect()
    }

    /// The other voters, each with the last entry that it is known to have.
    fn other_voters(&self) -> impl Iterator<Item = (u64, Option<u64>)> + use<> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let matched = metrics.replication.unwrap_or_default();
        let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
        let me = self.id;
        let others = voters.into_iter().filter(move |&voter| voter != me);
        others.map(move |voter| {
            let last = matched.get(&voter).and_then(|last| last.as_ref().map(|id| id.index));
            (voter, last)
        })
    }

    fn learners_at(&self, address: &str) -> BTreeSet<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let learners: BTreeSet<u64> = membership.learner_ids().collect();
        let nodes = membership.nodes().filter(|(_, node)| node.address == address);
        nodes.map(|(&id, _)| id).filter(|id| learners.contains(id)).collect()
    }

    /// Changes the membership; waits while another change is under way.
    async fn change(&self, change: &Change, until: Instant) -> Result<(), ProposeError> {
        loop {
            let changed = self.raft.change_membership(change.clone(), false);
            let changed = tokio::time::timeout_at(until, changed).await;
            let error = match changed {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => judge(error),
                Err(_) => return Err(ProposeError::Unknown),
            };
            match error {
                Some(error) => return Err(error),
                None if Instant::now() + RETRY_PAUSE < until => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                None => {
                    let reason = "another change of the membership is under way; try again";
                    return Err(ProposeError::Membership(reason.into()));
                }
            }
        }
    }

    /// Makes voters of the learners that wish it and have caught up.
    pub(crate) async fn promote_learners(&self) {
        let ready = ready_learners(&self.raft);
        if ready.is_empty() {
            return;
        }
        tracing::info!(nodes = ?ready, "learners have caught up and become voters");
        self.change_in_passing(Change::AddVoterIds(ready), true).await;
    }

    /// Ends a change that a leader began and did not live to end. Until then both the voters
    /// before and those after must have their quorum.
    pub(crate) async fn finish_change(&self, halfway: &mut Option<(LogId, Instant)>) {
        let now = change_halfway(&self.raft);
        let since = match (*halfway, now) {
            (Some((known, since)), Some(now)) if known == now => since,
            _ => Instant::now(),
        };
        *halfway = now.map(|now| (now, since));
        if now.is_some() && since.elapsed() > HALFWAY_MAX {
            tracing::info!("ending a change of the membership that was left halfway");
            self.change_in_passing(Change::AddVoterIds(BTreeSet::new()), false).await;
        }
    }

    /// Changes the membership if that can be done now.
    async fn change_in_passing(&self, change: Change, retain: bool) {
        let changed = self.raft.change_membership(change, retain);
        match tokio::time::timeout(IN_PASSING_DEADLINE, changed).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "not now"),
            Err(_) => tracing::debug!("no quorum for a change of the membership"),
        }
    }
}

/// The committed entry that has both the voters before and those after a change, if that is
/// how things stand.
fn change_halfway(raft: &Raft) -> Option<LogId> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let committed = &metrics.committed_membership_config;
    let is_halfway = committed.membership().get_joint_config().len() > 1
        && committed.log_id() == metrics.membership_config.log_id();
    committed.log_id().filter(|_| is_halfway)
}

fn ready_learners(raft: &Raft) -> BTreeSet<u64> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let Some(replication) = &metrics.replication else { return BTreeSet::new() };
    let last = metrics.last_log_index.unwrap_or(0);
    let membership = metrics.membership_config.membership();
    let wishes = |id: &u64| membership.get_node(id).is_some_and(|node| node.wants_vote);
    let has_caught_up = |id: &u64| {
        let matched = replication.get(id).and_then(|matched| matched.as_ref());
        matched.is_some_and(|matched| matched.index + LAG_ENTRIES_MAX >= last)
    };
    membership.learner_ids().filter(wishes).filter(has_caught_up).collect()
}

/// What a refused change means; `None` if it is to be tried again.
fn judge(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Option<ProposeError> {
    let error = match error {
        RaftError::APIError(error) => error,
        RaftError::Fatal(_) => return Some(ProposeError::Stopping),
    };
    match error {
        ClientWriteError::ForwardToLeader(to) => {
            let leader = to.leader_node.map(|node| node.address);
            Some(ProposeError::NoLeader { leader })
        }
        // Another change is under way, or came between the two steps of this one.
        ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
        )
        | ClientWriteError::PreconditionFailed(_) => None,
        ClientWriteError::ChangeMembershipError(error) => {
            Some(ProposeError::Membership(error.to_string()))
        }
        ClientWriteError::LogEntryDiscarded(_) => Some(ProposeError::Unknown),
    }
}
