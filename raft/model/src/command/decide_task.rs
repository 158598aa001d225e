//! Say what is to become of a task that is held.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply, cut};
use crate::state::{Output, State};
use crate::{Decision, Json, OUTPUT_BYTES_MAX, TaskEnd, TaskId, TaskStatus, Verdict, settle};

/// Decides what becomes of a task that is held, because nobody knows how its last attempt
/// ended. Asked for by a person, who has looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecideTask {
    /// Must be held.
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
        if found.status != TaskStatus::Held {
            return Err(Rejection::NotHeld { task, status: found.status.to_string() });
        }
        let bytes = outputs.as_ref().map_or(0, |outputs| outputs.as_str().len());
        if bytes > OUTPUT_BYTES_MAX {
            let (bytes, bytes_max) = (bytes as u64, OUTPUT_BYTES_MAX as u64);
            return Err(Rejection::OutputsTooLarge { bytes, bytes_max });
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
