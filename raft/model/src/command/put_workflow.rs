//! Store a workflow.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply};
use crate::state::{Output, State};
use crate::workflow::{Definition, Version, Workflow};
use crate::{Event, Name};

/// Versions kept of a workflow. Runs keep the definition they execute, however old.
pub const VERSIONS_KEPT_MAX: usize = 100;

/// Stores a workflow under a name: as a new version, unless the newest says the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutWorkflow {
    /// What it is called.
    pub name: Name,
    /// What it says.
    pub definition: Definition,
    /// The version that the caller believes to be the newest; 0 if the workflow must not
    /// exist; `None` to put it in any case.
    pub expected_version: Option<u32>,
}

impl PutWorkflow {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { name, definition, expected_version } = self;
        definition.validate().map_err(Rejection::BadDefinition)?;
        let current = state.workflows.get(&name).map_or(0, |found| found.latest().0);
        if let Some(expected) = expected_version.filter(|&expected| expected != current) {
            return Err(Rejection::VersionMismatch { workflow: name, expected, current });
        }

        let (version, changed) = put(state, output, name, definition);
        Ok(Reply::WorkflowPut { version, changed })
    }
}

/// Stores a valid definition; returns the newest version and whether it is new.
pub(super) fn put(
    state: &mut State,
    output: &mut Output,
    name: Name,
    definition: Definition,
) -> (u32, bool) {
    let id = definition.id();
    let latest = state.workflows.get(&name).map(Workflow::latest);
    if let Some((version, _)) = latest.filter(|(_, found)| found.definition == id) {
        return (version, false);
    }
    let number = latest.map_or(1, |(version, _)| version.saturating_add(1));
    let mark = state.mark();
    let version = Version { definition: id, created_at: mark.at, created_index: mark.index };
    state.hold_definition(id, || definition);
    let found = state
        .workflows
        .entry(name)
        .or_insert_with(|| Workflow { versions: [].into(), pause: None });
    found.versions.insert(number, version);
    let dropped = if found.versions.len() > VERSIONS_KEPT_MAX {
        found.versions.pop_first().map(|(_, version)| version.definition)
    } else {
        None
    };
    if let Some(id) = dropped {
        state.release_definition(id);
    }
    output.events.push(Event::Workflows);
    (number, true)
}
