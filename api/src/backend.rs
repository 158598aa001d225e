//! The ports that the edge needs. Owned here, implemented by the server, and by a bare state
//! in tests.

use async_trait::async_trait;
use quorate_model::{
    Answer, Attempt, DurationMs, Event, LogIndex, Request, Retired, RunEnd, RunId, State, TaskId,
    UnixMs,
};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// What answers the edge's questions. Cheap to share; every method may be called at once.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Commits a request, wherever the leader is, and answers once it is applied there and here.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]; after [`ProposeError::Unknown`] it may or may not happen yet.
    async fn propose(&self, request: Request) -> Result<Committed, ProposeError>;

    /// Waits until [`with_state`](Self::with_state) shows everything that was committed when
    /// this was called.
    ///
    /// # Errors
    ///
    /// If no leader could confirm in time, or this node has no room for what it misses.
    async fn catch_up(&self) -> Result<LogIndex, ProposeError>;

    /// Shows the state as this node has applied it. Holds up apply: be quick, one page at most.
    fn with_state(&self, look: &mut dyn FnMut(&State));

    /// Every change from now on, in order, as `(entry, event)`. A receiver that lags is told.
    /// A change is told only once [`with_state`](Self::with_state) shows it, and this does not
    /// fall behind what it shows by more than a moment: whoever waits is woken by it.
    fn events(&self) -> broadcast::Receiver<(LogIndex, Event)>;

    /// A finished run that left the live state. Must be here by the time that
    /// [`with_state`](Self::with_state) no longer shows it: a run is in both rather than in
    /// neither.
    ///
    /// # Errors
    ///
    /// If the history cannot be read.
    fn finished_run(&self, run: RunId) -> Result<Option<Retired>, StoreError>;

    /// Finished runs that left the live state, newest first by `(created at, id)`. Fewer than
    /// the limit means that there are no more.
    ///
    /// # Errors
    ///
    /// If the history cannot be read.
    fn finished_runs(&self, query: &FinishedQuery) -> Result<Vec<Retired>, StoreError>;

    /// The cluster as this node sees it.
    fn cluster(&self) -> Cluster;

    /// Has a node join: first as a learner, and as a voter once it has caught up.
    async fn add_member(&self, join: Join) -> Result<Joined, ProposeError>;

    /// Removes a node for good. Its id is never used again.
    async fn remove_member(&self, node: u64) -> Result<(), ProposeError>;

    /// Hands leadership to another voter; to any if `None`.
    async fn transfer_leadership(&self, to: Option<u64>) -> Result<(), ProposeError>;

    /// Bytes that an attempt wrote, from whichever worker has them.
    async fn read(&self, read: Read) -> Result<Chunk, ReadError>;

    /// All metrics in the OpenMetrics text format.
    fn metrics(&self) -> String;
}

/// The answer to a request, and the entry it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The entry.
    pub index: LogIndex,
    /// The state machine's answer.
    pub answer: Answer,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// No leader is known, or it lost its quorum before the request was proposed. Nothing
    /// happened; try again.
    #[error("no leader: the cluster is not quorate, or elects one just now")]
    NoLeader,
    /// The request was proposed, and whether it is committed is not known.
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
        /// The limit.
        bytes_max: u64,
    },
    /// A change of the membership that cannot be made as things stand.
    #[error("{0}")]
    Membership(String),
    /// This node is going down.
    #[error("this node is stopping")]
    Stopping,
    /// The disk that it would need has no room; it says which, and the way out. Nothing happened.
    /// A read can be answered by the leader.
    #[error("{0}")]
    DiskFull(String),
}

/// The history could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the history could not be read: {0}")]
pub struct StoreError(pub String);

/// Which finished runs to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FinishedQuery {
    /// Only those created before this one: `(created at, id)`, as the order is by both.
    pub before: Option<(UnixMs, RunId)>,
    /// Only those of these workflows; empty for all.
    pub workflows: Vec<String>,
    /// Only those that ended so; empty for all.
    pub ends: Vec<RunEnd>,
    /// At most this many.
    pub limit: usize,
}

/// The cluster as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The same for all nodes of a cluster.
    pub id: String,
    /// The node that answers.
    pub node: u64,
    /// The leader, if this node knows one.
    pub leader: Option<u64>,
    /// The term of this node.
    pub term: u64,
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
    /// Whether a quorum answers, as far as this node can tell.
    pub quorate: bool,
    /// Every node, by id.
    pub members: Vec<Member>,
    /// How the disk of this node is doing.
    pub storage: Storage,
    /// Whether the other voters have the state of this node.
    pub agreement: Agreement,
}

/// Whether the voters have made one state of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// The last entry after which a quorum of them had the state of this node; 0 if none yet.
    pub index: u64,
    /// Those that had another when states were last compared.
    pub different: Vec<u64>,
    /// The entry after which they did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub different_at: Option<u64>,
}

/// How the disk of a node is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// `ok`, `low` (no new work is taken), `full` (nothing new is stored), or `failed` (the
    /// node stops).
    pub state: String,
    /// The size of the file system, as far as the node may use it.
    pub bytes_total: u64,
    /// What is left of it.
    pub bytes_free: u64,
    /// The longest sync of the log in the last minute or two, in milliseconds.
    pub sync_max_ms: u64,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Never used again once it is removed.
    pub id: u64,
    /// Where it listens, for clients and nodes alike.
    pub address: String,
    /// Whether it has a vote.
    pub voter: bool,
    /// The last entry it is known to have; known to the leader only.
    pub matched_index: Option<u64>,
}

/// A node that asks to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Where it can be reached.
    pub address: String,
    /// Whether it is to become a voter.
    pub voter: bool,
}

/// What a node needs to know to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its id.
    pub node: u64,
    /// The cluster's id.
    pub cluster: String,
}

/// Bytes of a log or an artifact in one answer: a page, and a frame of moderate size.
pub const READ_BYTES_MAX: u32 = 256 * 1024;

/// How long a read may wait for more to be written: well under the timeouts of proxies.
pub const READ_WAIT_MAX: DurationMs = DurationMs(10_000);

/// A range of something that an attempt wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// Of which task.
    pub task: TaskId,
    /// Of which attempt.
    pub attempt: Attempt,
    /// An artifact by its path, or the log.
    pub artifact: Option<String>,
    /// From where.
    pub from: ReadFrom,
    /// At most this many bytes, and never more than [`READ_BYTES_MAX`].
    pub bytes_max: u32,
    /// How long to wait for the first byte if the attempt still runs; never longer than
    /// [`READ_WAIT_MAX`].
    pub wait: DurationMs,
}

/// Where a read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadFrom {
    /// At this byte.
    Offset(u64),
    /// At the beginning of the last so many lines.
    Tail(u64),
}

/// Some bytes of a file. Those of a log are lines of `TIME stdout|stderr F|P TEXT`: time in
/// RFC 3339 UTC, and `P` for a piece of a line that goes on in the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Where they begin.
    pub offset: u64,
    /// May be empty: at the end, or if nothing came in time.
    pub bytes: Vec<u8>,
    /// The size of the whole file as of now.
    pub size: u64,
    /// Nothing will be added to it.
    pub complete: bool,
}

/// Why there is nothing to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ReadError {
    /// There is no such attempt or file.
    #[error("{0}")]
    NotFound(String),
    /// The worker that has it, or the leader that knows the way, cannot be reached.
    #[error("{0}")]
    Unavailable(String),
}
