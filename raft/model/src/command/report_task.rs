//! Record how an attempt ended.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply, cut};
use crate::state::{Output, State};
use crate::{
    Attempt, Epoch, FencingToken, OUTPUT_BYTES_MAX, Outcome, TaskId, Usage, WorkerId, settle,
};

/// Records how an attempt ended. Proposed for the worker that ran it.
///
/// A report of any attempt but the one in flight is refused, so a worker that
/// lost its lease cannot finish the task twice. A refusal is as final an answer as
/// acceptance: the worker need not report again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportTask {
    /// The task that was tried.
    pub task: TaskId,
    /// Must be the one in flight.
    pub attempt: Attempt,
    /// Must be the one it was started with.
    pub token: FencingToken,
    /// Who ran it.
    pub worker: WorkerId,
    /// The registration under which it ran.
    pub epoch: Epoch,
    /// How it ended.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
}

impl ReportTask {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { task, attempt, token, worker, epoch, outcome, usage } = self;
        let found = state.task(task)?;
        let current = found.attempts_begun;
        let is_current = found.flight().is_some_and(|flight| {
            (flight.attempt, flight.token, flight.worker, flight.epoch)
                == (attempt, token, worker, epoch)
        });
        if !is_current {
            return Err(Rejection::StaleAttempt { task, attempt, current });
        }

        settle::end_attempt(state, output, task, bounded(outcome), usage);
        Ok(Reply::Done)
    }
}

/// An outcome that fits into the state. One that does not is not refused, for the worker
/// would take that for an answer and the task would wait for ever.
fn bounded(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Succeeded { outputs: Some(outputs) }
            if outputs.as_str().len() > OUTPUT_BYTES_MAX =>
        {
            let bytes = outputs.as_str().len();
            let reason = format!("the outputs take {bytes} bytes; {OUTPUT_BYTES_MAX} is the most");
            Outcome::Broken { reason }
        }
        Outcome::Broken { reason } => Outcome::Broken { reason: cut(reason) },
        Outcome::Succeeded { .. }
        | Outcome::Exited { .. }
        | Outcome::Signalled { .. }
        | Outcome::Stopped
        | Outcome::Lost => outcome,
    }
}
