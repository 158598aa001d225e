//! The life of one task of a run.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Attempt, DurationMs, Edge, Epoch, FencingToken, Json, LogIndex, UnixMs, WorkerId};
use std::collections::BTreeMap;

/// Ended attempts remembered per task. The oldest is dropped: retries are bounded by the
/// definition, but losses of workers are not.
pub const ATTEMPTS_KEPT_MAX: usize = 32;

/// How often a task may lose its worker before it counts as lost itself: a task that
/// brings its workers down must not take the whole cluster along, one after another.
pub const LOSSES_MAX: u32 = 8;

/// A task of a run, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Task {
    /// Where it stands.
    pub status: TaskStatus,
    /// When it last became ready, and by which entry.
    pub ready: Option<Mark>,
    /// When it ended for good, and by which entry.
    pub ended: Option<Mark>,
    /// The tries that have ended, oldest first.
    pub attempts: Vec<AttemptRecord>,
    /// Tries so far, one in flight included.
    pub attempts_begun: Attempt,
    /// Tries that failed or timed out; compared with the retry limit.
    pub failures: u32,
    /// Tries whose worker was lost; not counted against the retry limit.
    pub losses: u32,
    /// When the deadline of an attempt first passed, and by which entry.
    pub late: Option<Mark>,
    /// When it was last held, and by which entry.
    pub held: Option<Mark>,
    /// What a person is asked, or was.
    pub question: Option<String>,
    /// What a person decided of it when it was held, the last time, or answered.
    pub decision: Option<Decision>,
    /// The arm that it took, if it is a switch: one beyond the last where no condition held.
    pub branch: Option<u32>,
    /// Why it ended as it did, where no attempt tells. For people.
    pub note: Option<String>,
    /// What the successful attempt put out: a JSON object.
    pub outputs: Option<Json>,
}

impl Task {
    /// A task whose predecessors have yet to end.
    #[must_use]
    pub fn waiting() -> Self {
        Self {
            status: TaskStatus::Waiting(Tally::default()),
            ready: None,
            ended: None,
            attempts: Vec::new(),
            attempts_begun: Attempt(0),
            failures: 0,
            losses: 0,
            late: None,
            held: None,
            question: None,
            decision: None,
            branch: None,
            note: None,
            outputs: None,
        }
    }

    /// The attempt in flight.
    #[must_use]
    pub fn flight(&self) -> Option<&Flight> {
        match &self.status {
            TaskStatus::Running(flight) => Some(flight),
            TaskStatus::Waiting(_)
            | TaskStatus::Deciding
            | TaskStatus::Delayed { .. }
            | TaskStatus::Asking { .. }
            | TaskStatus::Ready
            | TaskStatus::Retrying { .. }
            | TaskStatus::Held
            | TaskStatus::Ended(_) => None,
        }
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<TaskEnd> {
        match self.status {
            TaskStatus::Ended(end) => Some(end),
            TaskStatus::Waiting(_)
            | TaskStatus::Deciding
            | TaskStatus::Delayed { .. }
            | TaskStatus::Asking { .. }
            | TaskStatus::Ready
            | TaskStatus::Running(_)
            | TaskStatus::Retrying { .. }
            | TaskStatus::Held => None,
        }
    }
}

/// A point in the log and in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// The entry.
    pub index: LogIndex,
    /// When it was proposed.
    pub at: UnixMs,
}

/// Where a task stands.
///
/// ```text
/// Waiting ──rule met──► Ready ──assign──► Running ──succeeded──► Ended(Succeeded)
///    │                 ▲ ▲ ▲                │
///    │                 │ │ └─ worker lost, ─┤
///    │                 │ │    or handed back│
///    │                 │ └─ timer ─ Retrying┼─ failed, retries left
///    │                 └─ a person ─── Held ┼─ worker lost, to be held ──► a person: Ended(Succeeded | Failed)
///    └─ rule cannot be met ─► Ended(Skipped └─ failed, none left ──► Ended(Failed | TimedOut | Lost)
///                             | UpstreamFailed)   cancel, from anywhere ──► Ended(Cancelled)
/// ```
/// A task with a delay is Delayed first.
/// A task with a condition is Deciding before it is Ready: its rule is met, and the leader looks
/// at the condition. From there it goes on, or ends as skipped. What does nothing ends at once.
/// What is held ends, too, with the word of the worker itself, should that come late.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TaskStatus {
    /// Some predecessors have not ended.
    Waiting(Tally),
    /// Its turn has come, and the leader decides whether it begins, or what it chooses.
    Deciding,
    /// May start; waits for a worker.
    Ready,
    /// Assigned to a worker.
    Running(Flight),
    /// Its turn has come, but not yet its time.
    Delayed {
        /// When it has.
        at: UnixMs,
    },
    /// Waits for the answer of a person to [`Task::question`].
    Asking {
        /// When it is too late for one.
        until: Option<UnixMs>,
    },
    /// Failed; will be ready again.
    Retrying {
        /// When.
        at: UnixMs,
    },
    /// Nobody knows how its last attempt ended, and it is not to be tried again on a guess:
    /// it waits for a person.
    Held,
    /// Over. Final.
    Ended(TaskEnd),
}

/// What a person said of a task that was held, or answered to its question.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Decision {
    /// What became of it.
    pub verdict: Verdict,
    /// Who, as they called themselves; may be empty.
    pub by: String,
    /// In their words; may be empty.
    pub comment: String,
    /// When, and by which entry.
    pub mark: Mark,
}

/// What may become of a task that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is tried again.
    Retry,
    /// It did its work.
    Succeeded,
    /// It did not do its work. It is not tried again.
    Failed,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskEnd {
    /// It did its work.
    Succeeded,
    /// Its last attempt failed, or it could not be started at all.
    Failed,
    /// Its last attempt took too long.
    TimedOut,
    /// Its trigger rule or its condition did not ask for it.
    Skipped,
    /// It was its turn, but it is disabled.
    Disabled,
    /// A predecessor that it needs failed.
    UpstreamFailed,
    /// The run was cancelled, or ran out of time.
    Cancelled,
    /// Its worker was lost: once where that is to fail it, else [`LOSSES_MAX`] times.
    Lost,
}

impl TaskEnd {
    /// Whether this counts as a failure for successors and for the run.
    #[must_use]
    pub fn is_failure(self) -> bool {
        match self {
            Self::Failed | Self::TimedOut | Self::UpstreamFailed | Self::Lost => true,
            Self::Succeeded | Self::Skipped | Self::Disabled | Self::Cancelled => false,
        }
    }
}

/// How the predecessors of a waiting task have ended so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tally {
    /// Of them, those that succeeded, or count as if they had.
    pub succeeded: u32,
    /// Of them, those that failed.
    pub failed: u32,
    /// Of them, those that were skipped, and switches that chose others.
    pub skipped: u32,
    /// Of those skipped, the switches.
    pub untaken: u32,
}

impl Tally {
    /// Counts one more predecessor.
    pub fn count(&mut self, edge: Edge) {
        let counter = match edge {
            Edge::Succeeded => &mut self.succeeded,
            Edge::Failed => &mut self.failed,
            Edge::Skipped | Edge::Untaken => &mut self.skipped,
        };
        *counter = counter.saturating_add(1);
        if edge == Edge::Untaken {
            self.untaken = self.untaken.saturating_add(1);
        }
    }

    /// How many have ended.
    #[must_use]
    pub fn ended(&self) -> u32 {
        self.succeeded.saturating_add(self.failed).saturating_add(self.skipped)
    }
}

/// An attempt in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flight {
    /// Which try it is.
    pub attempt: Attempt,
    /// The worker that has it.
    pub worker: WorkerId,
    /// The registration under which it has it.
    pub epoch: Epoch,
    /// The index of the assignment.
    pub token: FencingToken,
    /// When it was assigned.
    pub assigned_at: UnixMs,
    /// What the worker is told, where that differs from the definition.
    pub rendered: Option<Rendered>,
    /// Set once the worker has been told to stop it.
    pub stop: Option<StopReason>,
}

impl Flight {
    /// When it is late if it has not ended by then.
    pub(crate) fn late_at(&self, deadline: Option<DurationMs>) -> Option<UnixMs> {
        deadline.map(|deadline| self.assigned_at.after(deadline))
    }

    /// When it is stopped if it has not ended by then.
    pub(crate) fn overdue_at(&self, timeout: Option<DurationMs>) -> Option<UnixMs> {
        timeout.map(|timeout| self.assigned_at.after(timeout))
    }
}

/// The instructions of an attempt, after templates were evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rendered {
    /// In place of the definition's params.
    pub params: Json,
    /// In place of the definition's environment, the workflow's included.
    pub env: BTreeMap<String, String>,
}

/// Why a running attempt is to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Its run was cancelled or ran out of time.
    Cancelled,
    /// It took longer than the task's timeout.
    TimedOut,
}

/// An attempt that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Which try it was.
    pub attempt: Attempt,
    /// The worker that had it.
    pub worker: WorkerId,
    /// The index of its assignment.
    pub token: FencingToken,
    /// When it was assigned.
    pub assigned_at: UnixMs,
    /// When its end was recorded, and by which entry.
    pub ended: Mark,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether the worker said so only after the attempt had been taken for lost.
    pub late: bool,
    /// What it used, where the worker could say.
    pub usage: Usage,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// It did its work.
    Succeeded {
        /// A JSON object; at most [`OUTPUT_BYTES_MAX`] bytes. In the record of an attempt
        /// always `None`: they are kept once, as [`Task::outputs`].
        outputs: Option<Json>,
    },
    /// Its process ended with this code, not zero.
    Exited {
        /// As the process gave it.
        code: i32,
    },
    /// Its process was ended by a signal that the worker did not send.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// It could not be started, or its result could not be used.
    Broken {
        /// Why, for people.
        reason: String,
    },
    /// The worker stopped it as told, or never began it.
    Stopped,
    /// The worker never began it and takes nothing more: it hands it back.
    Returned,
    /// Its worker was lost, or restarted without it.
    Lost,
}

/// Outputs larger than this make an attempt [`Broken`](Outcome::Broken): they travel through
/// the log and stay in memory.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// What an attempt used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Usage {
    /// From start to exit, by the worker's monotonic clock.
    pub wall: DurationMs,
    /// User CPU time in microseconds.
    pub user_us: u64,
    /// System CPU time in microseconds.
    pub system_us: u64,
    /// Greatest resident set in KiB.
    pub memory_kib_max: u64,
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting(_) => f.write_str("waiting"),
            Self::Deciding => f.write_str("deciding"),
            Self::Ready => f.write_str("ready"),
            Self::Running(flight) => write!(f, "running {} on {}", flight.attempt, flight.worker),
            Self::Delayed { at } => write!(f, "delayed until {at}"),
            Self::Asking { .. } => f.write_str("asking"),
            Self::Retrying { at } => write!(f, "retrying at {at}"),
            Self::Held => f.write_str("held"),
            Self::Ended(end) => end.fmt(f),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retry => "retry",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        })
    }
}

impl fmt::Display for TaskEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Skipped => "skipped",
            Self::Disabled => "disabled",
            Self::UpstreamFailed => "upstream_failed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        })
    }
}
