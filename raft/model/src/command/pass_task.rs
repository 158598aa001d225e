//! Let a task go on whose condition holds.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply};
use crate::state::{Output, State};
use crate::workflow::Action;
use crate::{TaskId, settle};

/// Lets a task go on whose condition holds: it waits for a worker from here on, or has ended
/// if it does nothing. Proposed by the planner. It is not asked again before a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassTask {
    /// Must wait for a decision, and be neither a switch nor an approval.
    pub task: TaskId,
}

impl PassTask {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { task } = self;
        let action = &state.deciding_task(task)?.action;
        if matches!(action, Action::Switch(_) | Action::Approval(_)) {
            return Err(Rejection::NoSuchBranch { task });
        }

        state.unmark_ready(task);
        settle::pass(state, output, task);
        Ok(Reply::Done)
    }
}
