//! Say what is to become of a task that is held.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply, cut};
use crate::state::{Output, State, Timer};
use crate::{Decision, Json, OUTPUT_BYTES_MAX, TaskEnd, TaskId, TaskStatus, Verdict, settle};

/// Decides what becomes of a task that is held, because nobody knows how its last attempt
/// ended, or answers the question of one that asks. Asked for by a person, who has looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecideTask {
    /// Must be held, or ask a person. What asks is not tried again.
    pub task: TaskId,
    /// What becomes of it.
    pub verdict: Verdict,
    /// With [`Verdict::Succeeded`], what it put out: a JSON object of at most
    /// [`OUTPUT_BYTES_MAX`] bytes. Otherwise without meaning.
    pub outputs: Option<Json>,
    /// Who decides, as they call themselves; may be empty. Cut at
    /// [`REASON_BYTES_MAX`](super::REASON_BYTES_MAX).
    pub by: String,
    /// In their words; may be empty. Cut likewise.
    pub comment: String,
}

impl DecideTask {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { task, verdict, outputs, by, comment } = self;
        let found = state.task(task)?;
        let until = match &found.status {
            TaskStatus::Held => None,
            TaskStatus::Asking { until } if verdict != Verdict::Retry => *until,
            TaskStatus::Waiting(_)
            | TaskStatus::Deciding
            | TaskStatus::Delayed { .. }
            | TaskStatus::Asking { .. }
            | TaskStatus::Ready
            | TaskStatus::Running(_)
            | TaskStatus::Retrying { .. }
            | TaskStatus::Ended(_) => {
                return Err(Rejection::NotHeld { task, status: found.status.to_string() });
            }
        };
        let bytes = outputs.as_ref().map_or(0, |outputs| outputs.as_str().len());
        if bytes > OUTPUT_BYTES_MAX {
            let (bytes, bytes_max) = (bytes as u64, OUTPUT_BYTES_MAX as u64);
            return Err(Rejection::OutputsTooLarge { bytes, bytes_max });
        }

        if let Some(at) = until {
            state.unset_timer(at, Timer::Answer(task));
        }
        let mark = state.mark();
        let found = state.task_mut(task);
        found.decision = Some(Decision { verdict, by: cut(by), comment: cut(comment), mark });
        match verdict {
            Verdict::Retry => settle::make_ready(state, output, task),
            Verdict::Succeeded => {
                found.outputs = outputs;
                settle::end_task(state, output, task, TaskEnd::Succeeded);
            }
            Verdict::Failed => settle::end_task(state, output, task, TaskEnd::Failed),
        }
        Ok(Reply::Done)
    }
}
