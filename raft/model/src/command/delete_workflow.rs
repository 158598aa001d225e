//! Delete a workflow.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply};
use crate::state::{Output, State};
use crate::{Event, Name};

/// Deletes a workflow and all its versions. Its runs go on, and stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteWorkflow {
    /// Must exist.
    pub name: Name,
}

impl DeleteWorkflow {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { name } = self;
        let Some(workflow) = state.workflows.remove(&name) else {
            return Err(Rejection::NoSuchWorkflow { workflow: name });
        };

        for version in workflow.versions.values() {
            state.release_definition(version.definition);
        }
        output.events.push(Event::Workflows);
        Ok(Reply::Done)
    }
}
