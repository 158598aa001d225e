//! What a worker and the leader say to each other, each in frames of one connection.
//!
//! The worker opens it, so that it needs no port of its own. The same on a single node and
//! across machines: leader and worker know nothing of each other but this.

use std::collections::BTreeMap;

use quorate_api::backend::{Chunk, Read, ReadError};
use quorate_model::command::ReportTask;
use quorate_model::{
    Containment, Dispatch, DurationMs, Epoch, Json, Name, Registration, StopReason, WorkerId,
};
use serde::{Deserialize, Serialize};

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// Asks for a registration. Nothing that it was assigned before runs any more.
    Register {
        /// The registration that it held last, if any.
        last: Option<Registration>,
        /// For people.
        name: Name,
        /// Matched against the `runs_on` of tasks.
        labels: BTreeMap<Name, String>,
        /// How many tasks it runs at once.
        slots: u32,
        /// How it holds the processes of a task together.
        containment: Containment,
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
        /// The last answer that came, if one came since the last renewal.
        heard: Option<Heard>,
    },
    /// How an attempt ended. Repeated, on any connection, until it is recorded.
    Report {
        /// Names the report in the answer.
        sequence: u64,
        /// To be proposed.
        report: ReportTask,
    },
    /// It stops: it finishes what it has and takes nothing more. A `Start` that crosses this
    /// comes back as [`Returned`](quorate_model::Outcome::Returned). Said in every session.
    Leaving,
    /// It stops, and nothing runs any more: the lease may end at once.
    Release,
    /// Whether its disk is full, whenever that changes and at the beginning of a session if it
    /// is: then it is to be given nothing.
    DiskFull(bool),
    /// Answers [`ToWorker::Read`].
    ReadDone {
        /// Of which request.
        request: u64,
        /// What was found.
        result: Result<Chunk, ReadError>,
    },
}

/// That an answer to a renewal came. With it the leader compares the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heard {
    /// When that renewal was sent, by the worker's clock.
    pub(crate) sent_at: u64,
    /// When the answer came, by the same clock.
    pub(crate) at: u64,
}

/// What the leader says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToWorker {
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
pub(crate) struct StartTask {
    /// What, and by whose authority.
    pub(crate) dispatch: Dispatch,
    /// The workflow's name.
    pub(crate) workflow: Name,
    /// The id of the task in the workflow.
    pub(crate) id: Name,
    /// The task kind.
    pub(crate) kind: Name,
    /// What the kind is told; templates evaluated.
    pub(crate) params: Json,
    /// Templates evaluated.
    pub(crate) env: BTreeMap<String, String>,
    /// Files to keep.
    pub(crate) artifacts: Vec<String>,
}
