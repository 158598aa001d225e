//! What a run looks like.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use quorate_model::plan::render_outputs;
use quorate_model::workflow::Definition;
use quorate_model::{
    Name, Retired, Run, RunEnd, RunId, RunStatus, RunStop, Task, TaskEnd, TaskStatus,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::intervention::{InterventionView, PauseView};
use super::task::{TaskState, first_assigned_at};
use crate::error::Fault;
use crate::time::Time;

/// Failed tasks named with a run; who wants all lists its tasks.
const FAILED_TASKS_MAX: usize = 10;

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Some tasks have not ended.
    Running,
    /// Nothing more of it starts until it is resumed; what runs goes on.
    Paused,
    /// No task failed.
    Succeeded,
    /// A task failed.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// It took longer than it may.
    TimedOut,
}

impl RunState {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 6] = [
        Self::Running,
        Self::Paused,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
    ];

    /// The state on the wire.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
        }
    }

    /// Whether nothing follows.
    #[must_use]
    pub fn is_final(self) -> bool {
        self.end().is_some()
    }

    /// The end that it is, if it is one.
    pub(crate) fn end(self) -> Option<RunEnd> {
        match self {
            Self::Running | Self::Paused => None,
            Self::Succeeded => Some(RunEnd::Succeeded),
            Self::Failed => Some(RunEnd::Failed),
            Self::Cancelled => Some(RunEnd::Cancelled),
            Self::TimedOut => Some(RunEnd::TimedOut),
        }
    }
}

impl From<&Run> for RunState {
    fn from(run: &Run) -> Self {
        match run.status {
            RunStatus::Running | RunStatus::Ending { .. } if run.pause.is_some() => Self::Paused,
            RunStatus::Running | RunStatus::Stopping(_) | RunStatus::Ending { .. } => Self::Running,
            RunStatus::Ended { end, .. } => Self::from(end),
        }
    }
}

impl From<RunEnd> for RunState {
    fn from(end: RunEnd) -> Self {
        match end {
            RunEnd::Succeeded => Self::Succeeded,
            RunEnd::Failed => Self::Failed,
            RunEnd::Cancelled => Self::Cancelled,
            RunEnd::TimedOut => Self::TimedOut,
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

/// Why a text is no [`RunState`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no run is ever {0:?}; say running, paused, succeeded, failed, cancelled or timed_out")]
pub struct RunStateError(String);

impl FromStr for RunState {
    type Err = RunStateError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|state| state.text() == text);
        found.ok_or_else(|| RunStateError(text.to_owned()))
    }
}

/// How many tasks of a run stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "each but the last counts the state of its name")]
pub struct TaskCounts {
    pub total: u32,
    pub waiting: u32,
    pub queued: u32,
    pub asking: u32,
    pub running: u32,
    pub retrying: u32,
    pub succeeded: u32,
    pub failed: u32,
    pub timed_out: u32,
    pub skipped: u32,
    pub upstream_failed: u32,
    pub cancelled: u32,
    pub lost: u32,
    /// Of the lost, those that wait for a person.
    pub held: u32,
}

impl TaskCounts {
    fn of(tasks: &[Task]) -> Self {
        let mut counts = Self::default();
        for task in tasks {
            counts.total += 1;
            *counts.counter(TaskState::from(&task.status)) += 1;
            counts.held += u32::from(task.status == TaskStatus::Held);
        }
        counts
    }

    fn counter(&mut self, state: TaskState) -> &mut u32 {
        match state {
            TaskState::Waiting => &mut self.waiting,
            TaskState::Queued => &mut self.queued,
            TaskState::Asking => &mut self.asking,
            TaskState::Running => &mut self.running,
            TaskState::Retrying => &mut self.retrying,
            TaskState::Succeeded => &mut self.succeeded,
            TaskState::Failed => &mut self.failed,
            TaskState::TimedOut => &mut self.timed_out,
            TaskState::Skipped => &mut self.skipped,
            TaskState::UpstreamFailed => &mut self.upstream_failed,
            TaskState::Cancelled => &mut self.cancelled,
            TaskState::Lost => &mut self.lost,
        }
    }

    /// Those of which nothing follows.
    #[must_use]
    pub fn ended(&self) -> u32 {
        let open = self.waiting + self.queued + self.asking + self.running + self.retrying;
        self.total - open - self.held
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// Sorts by time.
    pub id: RunId,
    /// The name of what it executes.
    pub workflow: Name,
    /// The version of it.
    pub version: u32,
    /// Where it stands.
    pub state: RunState,
    /// Still running, but only until what runs is killed.
    pub stopping: bool,
    /// Who paused it, when and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<PauseView>,
    /// What people did to it, oldest first. Not in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interventions: Vec<InterventionView>,
    /// What it has come to, while its hooks run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<RunState>,
    /// Why it was stopped: what was said when it was cancelled, or which task failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What started it: `manual`.
    pub trigger: String,
    /// For filters.
    pub labels: BTreeMap<Name, String>,
    /// The point in time that it is about.
    pub logical_time: Time,
    /// When it was submitted.
    pub created_at: Time,
    /// When its first attempt was assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When its deadline passed, if it had not ended by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// From submission to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// The same in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// How many of its tasks stand where.
    pub tasks: TaskCounts,
    /// The first few tasks that failed by themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_tasks: Vec<Name>,
    /// The entry that created it.
    pub created_index: u64,
    /// The entry that last changed it or a task of it.
    pub index: u64,
    /// The value of every parameter. Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Value>,
    /// What it put out, once it has ended. Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Value>,
}

impl RunView {
    /// For lists and streams.
    pub(crate) fn brief(found: &Retired) -> Self {
        let Retired { id, run, definition } = found;
        let (stopping, reason) = stop(&run.status);
        let ended_at = run.ended_at().map(Time);
        let span = ended_at.map(|ended| ended.since(Time(run.created.at)));
        Self {
            id: *id,
            workflow: run.workflow.clone(),
            version: run.version,
            state: RunState::from(&**run),
            stopping,
            pause: run.pause.as_ref().map(PauseView::of),
            interventions: Vec::new(),
            ending: ending(&run.status),
            reason,
            trigger: run.trigger.to_string(),
            labels: run.labels.clone(),
            logical_time: Time(run.logical_time),
            created_at: Time(run.created.at),
            started_at: run.tasks.iter().filter_map(first_assigned_at).min().map(Time),
            late_at: run.late.map(|mark| Time(mark.at)),
            ended_at,
            duration: span.map(|span| span.to_string()),
            duration_ms: span.map(|span| span.0.0),
            tasks: TaskCounts::of(&run.tasks),
            failed_tasks: failed_tasks(run, definition),
            created_index: run.created.index.0,
            index: run.changed.index.0,
            params: None,
            outputs: None,
        }
    }

    /// All there is to say.
    pub(crate) fn full(found: &Retired) -> Self {
        let Retired { id, run, definition } = found;
        let outputs = || render_outputs(definition, *id, run).value();
        Self {
            interventions: run.interventions.iter().map(InterventionView::of).collect(),
            params: Some(run.params.value()),
            outputs: run.has_ended().then(outputs),
            ..Self::brief(found)
        }
    }
}

fn stop(status: &RunStatus) -> (bool, Option<String>) {
    let (stopping, stop) = match status {
        RunStatus::Running => (false, None),
        RunStatus::Stopping(stop) => (true, Some(stop)),
        RunStatus::Ending { stop, .. } | RunStatus::Ended { stop, .. } => (false, stop.as_ref()),
    };
    let reason = stop.and_then(|stop| match stop {
        RunStop::Cancelled { reason } => Some(reason.clone()).filter(|reason| !reason.is_empty()),
        RunStop::TimedOut => None,
        RunStop::Failed { task } => Some(format!("task {task} failed")),
    });
    (stopping, reason)
}

fn ending(status: &RunStatus) -> Option<RunState> {
    match status {
        RunStatus::Ending { end, .. } => Some(RunState::from(*end)),
        RunStatus::Running | RunStatus::Stopping(_) | RunStatus::Ended { .. } => None,
    }
}

fn failed_tasks(run: &Run, definition: &Definition) -> Vec<Name> {
    let by_itself = |task: &Task| match task.end() {
        Some(TaskEnd::Failed | TaskEnd::TimedOut | TaskEnd::Lost) => true,
        Some(
            TaskEnd::Succeeded
            | TaskEnd::Skipped
            | TaskEnd::Disabled
            | TaskEnd::UpstreamFailed
            | TaskEnd::Cancelled,
        )
        | None => false,
    };
    let tasks = run.tasks.iter().zip(&definition.tasks);
    let failed = tasks.filter(|(task, _)| by_itself(task)).map(|(_, said)| said.id.clone());
    failed.take(FAILED_TASKS_MAX).collect()
}

/// The answer to starting a run. The same to every repeat of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its id.
    pub id: RunId,
    /// What it executes.
    pub workflow: Name,
    /// The version of it.
    pub version: u32,
    /// What in an inline workflow is odd, though not wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Fault>,
}

/// The answer to what is only under way with it, as cancelling a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The run.
    pub id: RunId,
}
