//! What the cluster looks like.

use serde::{Deserialize, Serialize};

use crate::backend::{Agreement, Cluster, Member, Storage};

/// The cluster as the node sees it that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The same for all nodes of a cluster.
    pub id: String,
    /// The node that answers.
    pub node: u64,
    /// The leader, if this node knows one.
    pub leader: Option<u64>,
    /// The term of this node.
    pub term: u64,
    /// Whether a quorum answers, as far as this node can tell.
    pub quorate: bool,
    /// The last entry in this node's log.
    pub last_index: u64,
    /// The last entry known to be committed.
    pub committed_index: u64,
    /// The last entry applied.
    pub applied_index: u64,
    /// The last entry that the newest snapshot covers.
    pub snapshot_index: u64,
    /// How long ago this node heard the leader, or as leader its quorum.
    pub last_contact_ms: Option<u64>,
    /// Every node, by id.
    pub members: Vec<MemberView>,
    /// How the disk of the node is doing that answers.
    #[serde(default)]
    pub storage: Storage,
    /// Whether the other voters have the state of that node.
    #[serde(default)]
    pub agreement: Agreement,
    /// Runs in the live state.
    pub runs_live: usize,
    /// Tasks that wait for a worker.
    pub tasks_queued: usize,
    /// Workers that hold a lease.
    pub workers_live: usize,
    /// A digest of the state at `applied_index`, for `?hash=true`: the same on every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_hash: Option<String>,
}

impl ClusterView {
    /// What the backend says, and nothing of the state yet.
    pub(crate) fn of(cluster: Cluster) -> Self {
        let leader = cluster.leader;
        let members = cluster.members.into_iter().map(|m| MemberView::of(m, leader)).collect();
        Self {
            id: cluster.id,
            node: cluster.node,
            leader,
            term: cluster.term,
            quorate: cluster.quorate,
            last_index: cluster.last_index,
            committed_index: cluster.committed_index,
            applied_index: cluster.applied_index,
            snapshot_index: cluster.snapshot_index,
            last_contact_ms: cluster.last_contact_ms,
            members,
            storage: cluster.storage,
            agreement: cluster.agreement,
            runs_live: 0,
            tasks_queued: 0,
            workers_live: 0,
            state_hash: None,
        }
    }
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Never used again once it is removed.
    pub id: u64,
    /// Where it listens, for clients and nodes alike.
    pub address: String,
    /// Whether it has a vote.
    pub voter: bool,
    /// Whether it leads.
    pub leader: bool,
    /// The last entry it is known to have; known to the leader only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched_index: Option<u64>,
}

impl MemberView {
    fn of(member: Member, leader: Option<u64>) -> Self {
        let Member { id, address, voter, matched_index } = member;
        Self { id, address, voter, leader: leader == Some(id), matched_index }
    }
}

/// What a node needs to know to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinedView {
    /// Its id.
    pub node: u64,
    /// The cluster's id.
    pub cluster: String,
}

/// What answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionView {
    /// `quorate`.
    pub name: String,
    /// Of the program.
    pub version: String,
    /// Of the interface: `v1`.
    pub api: String,
}
