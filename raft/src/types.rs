//! What openraft is told about Quorate: the only file that names its generics.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// The types that openraft is built over.
    pub TypeConfig:
        D = LogEntry,
        R = Vec<quorate_model::Answer>,
        NodeId = u64,
        Node = MemberNode,
        AsyncRuntime = crate::runtime::Runtime,
);

/// A position in the log and the leader that wrote it.
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// Whom a node has voted for, and whether a quorum agreed.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// The leader that a committed vote or an entry names.
pub type LeaderId = openraft::alias::LeaderIdOf<TypeConfig>;
/// One entry as openraft hands it about.
pub type RaftEntry = openraft::alias::EntryOf<TypeConfig>;
/// What an entry carries: nothing, requests, or a new membership.
pub type Payload = openraft::EntryPayload<LogEntry, u64, MemberNode>;
/// The voters and learners of the cluster.
pub type Membership = openraft::Membership<u64, MemberNode>;
/// A membership and the entry that made it so.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// To be told when entries are durable.
pub type Flushed = openraft::storage::IOFlushed<TypeConfig>;
/// A handle to the running Raft node; `SM` is the state machine.
pub type Raft<SM> = openraft::Raft<TypeConfig, SM>;

/// A [`quorate_model::Entry`], encoded.
///
/// The proposer encodes an entry once (`codec` owns the format); from then on these same bytes
/// go to the write-ahead log, to every follower and into each retry, and cloning them counts a
/// reference. Apply decodes them, once per node. Were this the entry itself, each follower and
/// the log would serialise it anew, and memory would hold it in its larger form.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry(pub Bytes);

impl fmt::Debug for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What the membership says about a node besides its id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberNode {
    /// Where its peers reach it: `host:port`.
    pub address: String,
    /// Whether a learner is to become a voter once it has caught up. Here, so that the wish
    /// outlives the leader to which it was told.
    pub wants_vote: bool,
}

impl fmt::Display for MemberNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}
