//! Resume a workflow.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply};
use crate::state::{Output, State};
use crate::{Event, Name, PauseScope, RunId, settle};

/// Has the runs of a workflow go on that were paused with it. A run that was paused by itself
/// stays so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeWorkflow {
    /// Must exist.
    pub workflow: Name,
}

impl ResumeWorkflow {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { workflow } = self;
        let Some(found) = state.workflows.get_mut(&workflow) else {
            return Err(Rejection::NoSuchWorkflow { workflow });
        };
        if found.pause.take().is_none() {
            return Ok(Reply::Done);
        }

        output.events.push(Event::Workflows);
        let live = state.runs.iter().filter(|(_, run)| run.workflow == workflow);
        let with_it = live.filter(|(_, run)| {
            run.pause.as_ref().is_some_and(|pause| pause.scope == PauseScope::Workflow)
        });
        for run in with_it.map(|(&id, _)| id).collect::<Vec<RunId>>() {
            settle::resume_run(state, output, run);
        }
        Ok(Reply::Done)
    }
}
