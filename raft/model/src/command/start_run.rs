//! Start a run.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::put_workflow::put;
use super::{Rejection, Reply};
use crate::state::{Output, State};
use crate::workflow::{Definition, DefinitionId};
use crate::{Event, Json, Name, Run, RunId, RunStatus, Task, Trigger, UnixMs, settle};

/// The parameters and labels of a run may take this many bytes together: they stay in memory
/// while it lives.
pub const PARAMS_BYTES_MAX: usize = 256 * 1024;

/// Starts a run of a workflow. Its first tasks are ready with this very entry.
///
/// An id is refused while the run that has it is live. One that left for the history is not
/// known here any more: callers mint ids that never come again, and send an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRun {
    /// Minted by the caller; must be new.
    pub run: RunId,
    /// What to execute.
    pub source: WorkflowSource,
    /// The value of every parameter: a JSON object, checked against the definition and
    /// completed with its defaults by the caller.
    pub params: Json,
    /// For filters.
    pub labels: BTreeMap<Name, String>,
    /// What started it.
    pub trigger: Trigger,
    /// The point in time that it is about, as the caller's clock has it or the user wants it:
    /// parameters were completed with it.
    pub logical_time: UnixMs,
}

/// The workflow that a run executes.
#[expect(clippy::large_enum_variant, reason = "the command that holds it is boxed")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkflowSource {
    /// One that was put before.
    Stored {
        /// Its name.
        name: Name,
        /// The version; pinned by the caller, who checked the parameters against it.
        version: u32,
    },
    /// One that comes along, and is put first.
    Inline {
        /// What it is called.
        name: Name,
        /// What it says.
        definition: Definition,
    },
}

impl StartRun {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { run, source, params, labels, trigger, logical_time } = self;
        if state.runs.contains_key(&run) {
            return Err(Rejection::RunExists { run });
        }
        let of_labels = labels.iter().map(|(name, value)| name.as_str().len() + value.len());
        let bytes = params.as_str().len() + of_labels.sum::<usize>();
        if bytes > PARAMS_BYTES_MAX {
            let (bytes, bytes_max) = (bytes as u64, PARAMS_BYTES_MAX as u64);
            return Err(Rejection::ParamsTooLarge { bytes, bytes_max });
        }
        let (workflow, version, definition) = resolve(state, output, source)?;

        state.hold_definition(definition, || unreachable!("a version holds its definition"));
        let stored = state.definition(definition);
        let tasks = vec![Task::waiting(); stored.tasks.len()];
        let tasks_open = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        let created = state.mark();
        let status = RunStatus::Running;
        let pause = state.workflows.get(&workflow).and_then(|found| found.pause.clone());
        #[rustfmt::skip]
        let new = Run {
            workflow, version, definition, params, labels, trigger, logical_time, created,
            changed: created, late: None, status, pause, timed_from: created.at,
            interventions: Vec::new(), tasks, tasks_open,
        };
        state.runs.insert(run, Arc::new(new));
        settle::set_run_timeout(state, run);
        output.events.push(Event::Run(run));
        settle::open(state, output, run);
        Ok(Reply::RunStarted { run, version })
    }
}

fn resolve(
    state: &mut State,
    output: &mut Output,
    source: WorkflowSource,
) -> Result<(Name, u32, DefinitionId), Rejection> {
    match source {
        WorkflowSource::Stored { name, version } => {
            let Some(workflow) = state.workflows.get(&name) else {
                return Err(Rejection::NoSuchWorkflow { workflow: name });
            };
            let Some(found) = workflow.versions.get(&version) else {
                return Err(Rejection::NoSuchVersion { workflow: name, version });
            };
            let definition = found.definition;
            Ok((name, version, definition))
        }
        WorkflowSource::Inline { name, definition } => {
            definition.validate().map_err(Rejection::BadDefinition)?;
            let id = definition.id();
            let (version, _) = put(state, output, name.clone(), definition);
            Ok((name, version, id))
        }
    }
}
