//! What a workflow looks like.

use std::collections::BTreeMap;

use quorate_expression::ZONE_DEFAULT;
use quorate_model::workflow::{
    Action, Definition, DefinitionId, Hook, OnLost, Param, ParamKind, Retry, RetryCause, Switch,
    TaskDefinition, TriggerRule, Version, Workflow,
};
use quorate_model::{Json, LogIndex, Name, UnixMs};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::both;
use super::intervention::PauseView;
use crate::error::Fault;
use crate::spec::Parsed;
use crate::time::{Span, Time};

/// A workflow in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowSummary {
    /// Unique.
    pub name: Name,
    /// The newest.
    pub version: u32,
    /// For people.
    pub description: String,
    /// For filters.
    pub labels: BTreeMap<Name, String>,
    /// How many it has.
    pub tasks: usize,
    /// Its runs start nothing until it is resumed: who paused it, when and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<PauseView>,
    /// When the newest version was put.
    pub updated_at: Time,
    /// The entry that put it.
    pub index: u64,
}

impl WorkflowSummary {
    pub(crate) fn of(name: &Name, workflow: &Workflow, said: &Definition) -> Self {
        let (number, version) = workflow.latest();
        Self {
            name: name.clone(),
            version: number,
            pause: workflow.pause.as_ref().map(PauseView::of),
            description: said.description.clone(),
            labels: said.labels.clone(),
            tasks: said.tasks.len(),
            updated_at: Time(version.created_at),
            index: version.created_index.0,
        }
    }
}

/// A version in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionSummary {
    /// From 1.
    pub version: u32,
    /// When it was put.
    pub created_at: Time,
    /// The entry that put it.
    pub index: u64,
    /// How many tasks it has.
    pub tasks: usize,
}

/// A version of a workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowView {
    /// Unique.
    pub name: Name,
    /// Which version this is.
    pub version: u32,
    /// For people.
    pub description: String,
    /// For filters.
    pub labels: BTreeMap<Name, String>,
    /// What a run may be given.
    pub params: BTreeMap<Name, ParamView>,
    /// For every task.
    pub env: BTreeMap<String, String>,
    /// Where the days of its runs begin: an IANA name.
    pub timezone: String,
    /// How long a run may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// The same in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The DAG.
    pub tasks: Vec<TaskDefinitionView>,
    /// Templates of what a run puts out.
    pub outputs: BTreeMap<Name, String>,
    /// Its runs start nothing until it is resumed: who paused it, when and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<PauseView>,
    /// When this version was put.
    pub created_at: Time,
    /// The entry that put it.
    pub index: u64,
    /// The document as it was submitted.
    pub source: String,
}

impl WorkflowView {
    /// What a file says that is in no cluster: version 0 of a workflow.
    #[must_use]
    pub fn draft(parsed: &Parsed) -> Self {
        let Parsed { name, definition, warnings: _ } = parsed;
        let version = Version {
            definition: DefinitionId(0),
            created_at: UnixMs(0),
            created_index: LogIndex(0),
        };
        let workflow = Workflow { versions: BTreeMap::new(), pause: None };
        Self::of(name.clone(), &workflow, (0, &version), definition)
    }

    pub(crate) fn of(
        name: Name,
        workflow: &Workflow,
        (number, version): (u32, &Version),
        said: &Definition,
    ) -> Self {
        let (timeout, timeout_ms) = both(said.timeout);
        let params = said.params.iter().map(|(name, param)| (name.clone(), param.into()));
        Self {
            name,
            version: number,
            description: said.description.clone(),
            labels: said.labels.clone(),
            params: params.collect(),
            env: said.env.clone(),
            timezone: said.timezone.as_deref().unwrap_or(ZONE_DEFAULT).to_owned(),
            timeout,
            timeout_ms,
            tasks: said.tasks.iter().map(|task| TaskDefinitionView::of(task, said)).collect(),
            outputs: said.outputs.clone(),
            pause: workflow.pause.as_ref().map(PauseView::of),
            created_at: Time(version.created_at),
            index: version.created_index.0,
            source: said.source.clone(),
        }
    }
}

/// The answer to what is done to a workflow, as pausing it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowAccepted {
    /// The workflow.
    pub name: Name,
}

/// A parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamView {
    /// What values it takes.
    #[serde(rename = "type")]
    pub kind: ParamKind,
    /// Its value where a run gives none; without one, a run must.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// The values that it takes, where it takes only some.
    #[serde(default, rename = "enum", skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Value>,
    /// A regular expression that a whole text must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The least number, or the earliest time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Value>,
    /// The greatest number, or the latest time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Value>,
    /// The least number of characters, items or entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_length: Option<u32>,
    /// The greatest number of characters, items or entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u32>,
    /// For people.
    pub description: String,
}

impl From<&Param> for ParamView {
    fn from(param: &Param) -> Self {
        let Param { kind, default, rules, description } = param;
        let value = |json: &Option<Json>| json.as_ref().map(Json::value);
        Self {
            kind: *kind,
            default: value(default),
            choices: rules.choices.iter().map(Json::value).collect(),
            pattern: rules.pattern.clone(),
            min: value(&rules.min),
            max: value(&rules.max),
            min_length: rules.length_min,
            max_length: rules.length_max,
            description: description.clone(),
        }
    }
}

/// A node of the DAG.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDefinitionView {
    /// Unique within the workflow.
    pub id: Name,
    /// For people; the id where the workflow gives none.
    pub title: String,
    /// What carries it out, as `run`.
    pub kind: String,
    /// What the kind is told; of a switch its arms.
    pub params: Value,
    /// The condition under which it is not skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// It is left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// Its failure counts as a success.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continue_on_failure: bool,
    /// At which moment of the run it comes, if it is no part of the DAG.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<Hook>,
    /// Its predecessors.
    pub needs: Vec<Name>,
    /// What they must have come to.
    pub trigger_rule: TriggerRule,
    /// Added to the workflow's.
    pub env: BTreeMap<String, String>,
    /// How long it waits once its turn has come, in milliseconds.
    #[serde(default)]
    pub delay_ms: u64,
    /// What happens after a failure.
    pub retry: RetryView,
    /// What happens when its worker is lost: `retry`, `fail` or `hold`.
    #[serde(default)]
    pub on_lost: OnLost,
    /// How long one attempt may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// The same in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How long one attempt may take before the task is said to be late, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Labels that the worker must have.
    pub runs_on: BTreeMap<Name, String>,
    /// Files that are kept with the run.
    pub artifacts: Vec<String>,
}

impl TaskDefinitionView {
    fn of(task: &TaskDefinition, workflow: &Definition) -> Self {
        let (timeout, timeout_ms) = both(task.timeout);
        let id = |&need: &u32| workflow.tasks.get(need as usize).map(|need| need.id.clone());
        Self {
            id: task.id.clone(),
            title: if task.title.is_empty() { task.id.to_string() } else { task.title.clone() },
            kind: task.action.kind().to_owned(),
            params: params(&task.action, workflow),
            when: task.when.clone(),
            disabled: task.disabled,
            continue_on_failure: task.continue_on_failure,
            hook: task.hook,
            needs: task.needs.iter().filter_map(id).collect(),
            trigger_rule: task.trigger_rule,
            env: task.env.clone(),
            delay_ms: task.delay.0,
            retry: task.retry.clone().into(),
            on_lost: task.on_lost,
            timeout,
            timeout_ms,
            deadline_ms: task.deadline.map(|deadline| deadline.0),
            runs_on: task.runs_on.clone(),
            artifacts: task.artifacts.clone(),
        }
    }
}

/// What a task is told, as the file says it.
fn params(action: &Action, workflow: &Definition) -> Value {
    match action {
        Action::Work { params, .. } => params.value(),
        Action::Noop => json!({}),
        Action::Approval(approval) => {
            let inputs = approval.inputs.iter();
            let inputs: BTreeMap<&Name, ParamView> =
                inputs.map(|(name, param)| (name, param.into())).collect();
            json!({
                "message": approval.message,
                "approvers": approval.approvers,
                "timeout": approval.timeout.map(|timeout| Span(timeout).to_string()),
                "on_timeout": approval.on_timeout,
                "inputs": inputs,
            })
        }
        Action::Switch(Switch { arms, otherwise }) => {
            let ids = |targets: &[u32]| -> Vec<&Name> {
                let found = targets.iter().filter_map(|&at| workflow.tasks.get(at as usize));
                found.map(|task| &task.id).collect()
            };
            let arms = arms.iter().map(|arm| json!({"when": arm.when, "then": ids(&arm.then)}));
            let last = (!otherwise.is_empty()).then(|| json!({"else": ids(otherwise)}));
            json!({"switch": arms.chain(last).collect::<Vec<_>>()})
        }
    }
}

/// What happens after an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryView {
    /// Attempts after the first.
    pub limit: u32,
    /// Before the first retry.
    pub delay: String,
    /// The same in milliseconds.
    pub delay_ms: u64,
    /// What the delay is multiplied by after each, in thousandths.
    pub backoff_permille: u32,
    /// The delay never exceeds this.
    pub max_delay: String,
    /// The same in milliseconds.
    pub max_delay_ms: u64,
    /// The delay is up to this much shorter or longer, in thousandths.
    #[serde(default)]
    pub jitter_permille: u32,
    /// The failures that are tried again, as in the file; all of them if it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<String>,
}

/// A failure that is tried again, as the file says it.
fn cause(cause: RetryCause) -> String {
    match cause {
        RetryCause::ExitCode(code) => format!("exit:{code}"),
        RetryCause::Exit => "exit".to_owned(),
        RetryCause::Signal => "signal".to_owned(),
        RetryCause::Timeout => "timeout".to_owned(),
        RetryCause::WorkerLost => "worker_lost".to_owned(),
    }
}

impl From<Retry> for RetryView {
    fn from(retry: Retry) -> Self {
        let Retry { limit, delay, backoff_permille, max_delay, jitter_permille, on } = retry;
        Self {
            limit,
            delay: Span(delay).to_string(),
            delay_ms: delay.0,
            backoff_permille,
            max_delay: Span(max_delay).to_string(),
            max_delay_ms: max_delay.0,
            jitter_permille,
            on: on.into_iter().map(cause).collect(),
        }
    }
}

/// The answer to putting a workflow. The same to every repeat of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// What it is called.
    pub name: Name,
    /// Its newest version now.
    pub version: u32,
    /// Whether that version is new.
    pub changed: bool,
    /// What is odd, though not wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Fault>,
}

/// What there is to say of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validity {
    /// Whether it could be put.
    pub valid: bool,
    /// What the workflow is called, if it is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// How many tasks it has, if it is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<usize>,
    /// What is wrong.
    pub errors: Vec<Fault>,
    /// What is odd, though not wrong.
    pub warnings: Vec<Fault>,
}
