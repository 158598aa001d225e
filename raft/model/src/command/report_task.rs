//! Record how an attempt ended.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply, cut};
use crate::state::{Output, State};
use crate::{
    Attempt, Epoch, FencingToken, OUTPUT_BYTES_MAX, Outcome, TaskId, TaskStatus, Usage, WorkerId,
    mutant, settle,
};

/// Records how an attempt ended. Proposed for the worker that ran it.
///
/// A report of any attempt but the one in flight is refused, so a worker that
/// lost its lease cannot finish the task twice. A refusal is as final an answer as
/// acceptance: the worker need not report again.
///
/// One exception: while a task is held because nobody knows how its last attempt ended, the
/// word of the worker that had it is the best there is, however late. There is no other
/// attempt, and none begins by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportTask {
    /// The task that was tried.
    pub task: TaskId,
    /// Must be the one in flight, or the last of a task that is held.
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
            let in_flight = (flight.attempt, flight.token, flight.worker, flight.epoch);
            in_flight == (attempt, token, worker, epoch) || mutant::is("M14")
        });
        if is_current {
            settle::end_attempt(state, output, task, bounded(outcome), usage);
            return Ok(Reply::Done);
        }
        let is_awaited = found.status == TaskStatus::Held
            && found.attempts.last().is_some_and(|last| {
                (last.attempt, last.token, last.worker) == (attempt, token, worker)
            });
        if is_awaited && settle::end_late(state, output, task, bounded(outcome), usage) {
            return Ok(Reply::Done);
        }
        Err(Rejection::StaleAttempt { task, attempt, current })
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
        | Outcome::Returned
        | Outcome::Lost => outcome,
    }
}
