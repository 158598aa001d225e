//! Pause a workflow.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply, cut};
use crate::state::{Output, State};
use crate::{Event, Name, Pause, PauseScope, RunId, RunStatus, settle};

/// Pauses the runs of a workflow, those that it has and those that come: they are accepted,
/// and start nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseWorkflow {
    /// Must exist.
    pub workflow: Name,
    /// Who asks, as they call themselves; may be empty. Cut at
    /// [`REASON_BYTES_MAX`](super::REASON_BYTES_MAX).
    pub by: String,
    /// In their words; may be empty. Cut likewise.
    pub reason: String,
}

impl PauseWorkflow {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { workflow, by, reason } = self;
        let mark = state.mark();
        let Some(found) = state.workflows.get_mut(&workflow) else {
            return Err(Rejection::NoSuchWorkflow { workflow });
        };
        if found.pause.is_some() {
            return Ok(Reply::Done);
        }

        let (by, reason) = (cut(by), cut(reason));
        let pause = Pause { scope: PauseScope::Workflow, by, reason, mark };
        found.pause = Some(pause.clone());
        output.events.push(Event::Workflows);
        let live = state.runs.iter().filter(|(_, run)| run.workflow == workflow);
        let goes = live
            .filter(|(_, run)| run.status == RunStatus::Running && run.is_going())
            .map(|(&id, _)| id);
        for run in goes.collect::<Vec<RunId>>() {
            settle::pause_run(state, output, run, pause.clone());
        }
        Ok(Reply::Done)
    }
}
