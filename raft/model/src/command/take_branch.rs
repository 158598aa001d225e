//! Take an arm of a switch.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply};
use crate::state::{Output, State};
use crate::{TaskEnd, TaskId, settle};

/// Takes an arm of a switch, which has succeeded with that. Proposed by the planner, who looked
/// at the conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeBranch {
    /// Must wait for a decision, and be a switch.
    pub task: TaskId,
    /// The first whose condition holds; the number of arms if none does.
    pub arm: u32,
}

impl TakeBranch {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { task, arm } = self;
        let switch = state.deciding_task(task)?.action.switch();
        if switch.is_none_or(|switch| arm as usize > switch.arms.len()) {
            return Err(Rejection::NoSuchBranch { task });
        }

        state.unmark_ready(task);
        state.task_mut(task).branch = Some(arm);
        settle::end_task(state, output, task, TaskEnd::Succeeded);
        Ok(Reply::Done)
    }
}
