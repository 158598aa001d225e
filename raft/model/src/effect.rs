//! What the leader does to the world after an entry is applied, and what everyone may tell.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Attempt, Epoch, FencingToken, Flight, RunId, StopReason, TaskId, WorkerId};

/// A side effect. Emitted on every node, carried out by the leader alone.
///
/// Effects are hints, not state: a new leader rebuilds those still outstanding with
/// [`State::outstanding`](crate::State::outstanding). Losing one must therefore be
/// harmless, and so must carrying one out twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Effect {
    /// Have a worker start an attempt. What to start is in the state.
    Start(Dispatch),
    /// Have a worker kill an attempt, or never begin it.
    Stop(Dispatch, StopReason),
}

/// An attempt at a task, where it runs and by whose authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dispatch {
    /// Of which task.
    pub task: TaskId,
    /// Lets the worker ignore a repeat, and the log refuse a stale report.
    pub attempt: Attempt,
    /// Lets the worker, and any system a task writes to, refuse an older one.
    pub token: FencingToken,
    /// Who runs it.
    pub worker: WorkerId,
    /// Its registration. Under any other it refuses.
    pub epoch: Epoch,
}

impl Dispatch {
    /// The attempt at `task` that is in flight.
    pub(crate) fn of(task: TaskId, flight: &Flight) -> Self {
        let Flight { attempt, worker, epoch, token, .. } = *flight;
        Self { task, attempt, token, worker, epoch }
    }
}

/// A fact for those who watch. Lossless watching is a matter of indexes, not of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// A run began, changed or ended.
    Run(RunId),
    /// A task changed.
    Task(TaskId),
    /// A workflow changed; which, the index tells.
    Workflows,
    /// A worker came, changed or went.
    Worker(WorkerId),
}

impl fmt::Display for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, attempt, token, worker, epoch } = self;
        write!(f, "{task}{attempt} {token} on {worker}/{epoch}")
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(dispatch) => write!(f, "start {dispatch}"),
            Self::Stop(dispatch, StopReason::Cancelled) => write!(f, "stop {dispatch}: cancelled"),
            Self::Stop(dispatch, StopReason::TimedOut) => write!(f, "stop {dispatch}: timed out"),
        }
    }
}
