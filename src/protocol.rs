//! What a worker and the leader say to each other, each in frames of one connection.
//!
//! The worker opens it, so that it needs no port of its own. The same on a single node and
//! across machines: leader and worker know nothing of each other but this.

use std::collections::BTreeMap;

use quorate_model::command::ReportTask;
use quorate_model::{
    Attempt, Dispatch, DurationMs, Epoch, Json, Name, StopReason, TaskId, WorkerId,
};
use serde::{Deserialize, Serialize};

/// Bytes of a log or an artifact in one answer.
pub const READ_BYTES_MAX: u32 = 256 * 1024;

/// How long a read may wait for more to be written.
pub const READ_WAIT_MAX: DurationMs = DurationMs(10_000);

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// Asks for a registration. Nothing that it was assigned before runs any more.
    Register {
        /// Its id, if it has one.
        worker: Option<WorkerId>,
        /// For people.
        name: Name,
        /// Matched against the `runs_on` of tasks.
        labels: BTreeMap<Name, String>,
        /// How many tasks it runs at once.
        slots: u32,
    },
    /// Goes on under a registration whose lease has not ended, with another leader or on
    /// another connection.
    Resume {
        /// Who.
        worker: WorkerId,
        /// Under which registration.
        epoch: Epoch,
    },
    /// Asks for the lease to be extended.
    Renew {
        /// When this was sent, by the worker's clock; comes back unchanged.
        sent_at: u64,
    },
    /// How an attempt ended. Repeated, on any connection, until it is recorded.
    Report {
        /// Names the report in the answer.
        sequence: u64,
        /// To be proposed.
        report: ReportTask,
    },
    /// It stops, and nothing runs any more: the lease may end at once.
    Release,
    /// Answers [`ToWorker::Read`].
    ReadDone {
        /// Of which request.
        request: u64,
        /// What was found.
        result: ReadResult,
    },
}

/// What the leader says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// This node does not lead. The connection ends here.
    NotLeader {
        /// Where to go instead, if known.
        leader: Option<String>,
    },
    /// Answers [`FromWorker::Register`] and [`FromWorker::Resume`].
    Registered {
        /// Its id from now on.
        worker: WorkerId,
        /// Its registration.
        epoch: Epoch,
        /// How long each renewal holds, counted from when it was sent.
        lease: DurationMs,
    },
    /// The registration is void, or cannot be had. The worker kills what it runs and
    /// registers anew. The connection ends here.
    Refused {
        /// For people.
        reason: String,
        /// The id itself is unknown: register without one.
        forget_id: bool,
    },
    /// The lease is extended.
    Renewed {
        /// As it was sent.
        sent_at: u64,
    },
    /// Start an attempt, unless it was started before.
    Start(Box<StartTask>),
    /// Kill an attempt, or never begin it; then report.
    Stop {
        /// Which.
        dispatch: Dispatch,
        /// Why.
        reason: StopReason,
    },
    /// The report is in the log, or will never count. Forget it.
    Recorded {
        /// As it was sent.
        sequence: u64,
    },
    /// Asks for bytes of an attempt.
    Read {
        /// Names the request in the answer.
        request: u64,
        /// What to read.
        read: Read,
    },
}

/// All that a worker needs to know of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartTask {
    /// What, and by whose authority.
    pub dispatch: Dispatch,
    /// The workflow's name.
    pub workflow: Name,
    /// The id of the task in the workflow.
    pub id: Name,
    /// The task kind.
    pub kind: Name,
    /// What the kind is told; templates evaluated.
    pub params: Json,
    /// Templates evaluated.
    pub env: BTreeMap<String, String>,
    /// Files to keep.
    pub artifacts: Vec<String>,
}

/// A range of something that an attempt wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// Of which task.
    pub task: TaskId,
    /// Of which attempt.
    pub attempt: Attempt,
    /// What of it.
    pub file: File,
    /// From where.
    pub from: ReadFrom,
    /// At most this many bytes, and never more than [`READ_BYTES_MAX`].
    pub bytes_max: u32,
    /// How long to wait for the first byte if the attempt still runs; at most
    /// [`READ_WAIT_MAX`].
    pub wait: DurationMs,
}

/// Something that an attempt wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum File {
    /// Its output: lines of `TIME stdout|stderr F|P TEXT`, time in RFC 3339 UTC; `P` marks a
    /// piece of a line that goes on in the next.
    Log,
    /// A file it was told to keep, by the path that its definition gives.
    Artifact(String),
}

/// Where a read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadFrom {
    /// At this byte.
    Offset(u64),
    /// At the beginning of the last so many lines.
    Tail(u64),
}

/// What a read found.
pub type ReadResult = Result<Chunk, ReadError>;

/// Some bytes of a file.
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
    /// The task has no such attempt, or it has not begun.
    #[error("there is no such attempt")]
    NoSuchAttempt,
    /// The attempt wrote no such file, or was not told to keep it.
    #[error("the attempt kept no such file")]
    NoSuchFile,
    /// The worker that has the bytes cannot be reached.
    #[error("worker {worker} has them and is not connected")]
    WorkerAway {
        /// Which.
        worker: WorkerId,
    },
    /// The worker could not read them.
    #[error("the worker could not read them: {0}")]
    Failed(String),
    /// No leader could be asked.
    #[error("no leader is known")]
    NoLeader,
}
