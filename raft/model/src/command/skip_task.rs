//! Skip a task whose condition does not hold.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply, cut};
use crate::state::{Output, State};
use crate::{TaskEnd, TaskId, settle};

/// Skips a task whose condition does not hold. Proposed by the planner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkipTask {
    /// Must wait for a decision.
    pub task: TaskId,
    /// For people. Cut at [`REASON_BYTES_MAX`](super::REASON_BYTES_MAX).
    pub because: String,
}

impl SkipTask {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { task, because } = self;
        state.deciding_task(task)?;

        state.unmark_ready(task);
        state.task_mut(task).note = Some(cut(because));
        settle::end_task(state, output, task, TaskEnd::Skipped);
        Ok(Reply::Done)
    }
}
