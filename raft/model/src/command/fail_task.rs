//! Fail a task that cannot be started.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply, cut};
use crate::state::{Output, State};
use crate::{TaskEnd, TaskId, TaskStatus, settle};

/// Fails a task that cannot be started at all: a template or a condition of it does not
/// evaluate.
/// Proposed by the planner. Retrying would not help, so there is no retry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailTask {
    /// Must be ready, or wait for a decision.
    pub task: TaskId,
    /// For people. Cut at [`REASON_BYTES_MAX`](super::REASON_BYTES_MAX).
    pub reason: String,
}

impl FailTask {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { task, reason } = self;
        let found = state.task(task)?;
        if !matches!(found.status, TaskStatus::Ready | TaskStatus::Deciding) {
            return Err(Rejection::NotReady { task, status: found.status.to_string() });
        }
        if state.is_paused(task.run) {
            return Err(Rejection::RunPaused { run: task.run });
        }

        state.unmark_ready(task);
        state.task_mut(task).note = Some(cut(reason));
        settle::end_task(state, output, task, TaskEnd::Failed);
        Ok(Reply::Done)
    }
}
