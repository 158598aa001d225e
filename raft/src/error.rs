//! What can go wrong, for callers to branch on. Nothing here names the library beneath.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why there is no answer to a proposal, a read or a change of the membership.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ProposeError {
    /// No leader took it. Nothing happened, nor will it; try again.
    #[error("no leader: the cluster is not quorate, or elects one just now")]
    NoLeader {
        /// Where the leader is thought to be, if anywhere.
        leader: Option<String>,
    },
    /// It was proposed, and whether it is committed is not known.
    #[error("the outcome is unknown: repeat the request with the same idempotency key")]
    Unknown,
    /// Too many requests wait. Nothing happened; try again later.
    #[error("too many requests are waiting; try again in a moment")]
    Overloaded,
    /// The request is larger than an entry may be.
    #[error("the request takes {bytes} bytes; {bytes_max} is the most")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// [`REQUEST_BYTES_MAX`](crate::REQUEST_BYTES_MAX).
        bytes_max: u64,
    },
    /// A change of the membership that cannot be made as things stand.
    #[error("{0}")]
    Membership(String),
    /// This node is going down, or has stopped for good.
    #[error("this node is stopping")]
    Stopping,
    /// The disk of a node has no room for it. Nothing happened; try again once there is.
    #[error(
        "the disk of node {node} is almost full: what begins work is refused until there is \
         room; free some there, or hand leadership to a node that has more"
    )]
    DiskFull {
        /// The leader of those who write, and whoever was asked of those who read.
        node: u64,
    },
}

impl ProposeError {
    /// Whether the same may be tried again without a word to the caller: nothing happened, and
    /// a leader may turn up.
    pub(crate) fn is_no_leader(&self) -> bool {
        matches!(self, Self::NoLeader { .. })
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error("the data directory {dir} cannot be used")]
    Directory {
        /// Which.
        dir: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What the directory holds cannot be trusted, or is not what was asked for. The message
    /// says what to do.
    #[error("{0}")]
    Refused(String),
    /// The directory is in use, or holds no node: nothing is wrong with what it holds.
    #[error("{0}")]
    NotHere(String),
    /// The storage is damaged or does not work.
    #[error("the storage cannot be opened: {0}")]
    Storage(String),
    /// The Raft group could not be entered.
    #[error("the node cannot start: {0}")]
    Raft(String),
}

impl OpenError {
    /// Whether what lies on the disk is the reason: to start again is no way out.
    #[must_use]
    pub fn is_of_storage(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Storage(_) => true,
            Self::Directory { .. } | Self::NotHere(_) | Self::Raft(_) => false,
        }
    }
}

/// Why a node got no id.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The node that was asked cannot be reached, or refuses us.
    #[error("cannot join through {seed}: {reason}")]
    Unreachable {
        /// Whom we asked.
        seed: String,
        /// What happened.
        reason: String,
    },
    /// The cluster cannot take us now.
    #[error("the cluster cannot take this node now: {0}")]
    Failed(ProposeError),
    /// No answer. An id may have been minted in vain, which does no harm.
    #[error("{seed} did not answer within {deadline:?}")]
    Late {
        /// Whom we asked.
        seed: String,
        /// How long we waited.
        deadline: Duration,
    },
}

/// The history could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the history could not be read: {0}")]
pub struct HistoryError(pub String);

impl From<sled::Error> for HistoryError {
    fn from(error: sled::Error) -> Self {
        Self(error.to_string())
    }
}
