//! Ask a person.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply, cut};
use crate::state::{Output, State, Timer};
use crate::workflow::Action;
use crate::{Event, TaskId, TaskStatus};

/// Asks a person: the task waits for an answer from here on. Proposed by the planner, who
/// evaluated the question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskPerson {
    /// Must wait for a decision, and be an approval.
    pub task: TaskId,
    /// The question. Cut at [`REASON_BYTES_MAX`](super::REASON_BYTES_MAX).
    pub question: String,
}

impl AskPerson {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { task, question } = self;
        let Action::Approval(approval) = &state.deciding_task(task)?.action else {
            return Err(Rejection::NoSuchBranch { task });
        };
        let until = approval.timeout.map(|timeout| state.now().after(timeout));

        state.unmark_ready(task);
        if let Some(at) = until {
            state.set_timer(at, Timer::Answer(task));
        }
        let found = state.task_mut(task);
        found.status = TaskStatus::Asking { until };
        found.question = Some(cut(question));
        output.events.push(Event::Task(task));
        Ok(Reply::Done)
    }
}
