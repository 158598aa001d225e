//! What a task of a run looks like.

use std::fmt;

use quorate_model::workflow::{Definition, Hook, OnLost, TaskDefinition, TriggerRule};
use quorate_model::{
    Decision, Json, Name, Pause, PauseScope, Retired, Run, RunEnd, Task, TaskEnd, TaskStatus,
    UnixMs, Verdict, WorkerId,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::attempt::AttemptView;
use crate::time::Time;

/// Predecessors named with a task that waits for them.
const WAITS_FOR_MAX: usize = 3;

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Some predecessors have not ended.
    Waiting,
    /// May start; waits for a worker.
    Queued,
    /// Waits for the answer of a person.
    Asking,
    /// A worker has it.
    Running,
    /// Failed, and will be queued again.
    Retrying,
    /// It did its work.
    Succeeded,
    /// Its last attempt failed, or it could not be started.
    Failed,
    /// Its last attempt took too long.
    TimedOut,
    /// Its trigger rule or its condition did not ask for it, or it is disabled.
    Skipped,
    /// A predecessor that it needs failed.
    UpstreamFailed,
    /// The run was cancelled, or ran out of time.
    Cancelled,
    /// Its worker was lost, and nobody knows what came of it. Over, unless the task is held.
    Lost,
}

impl TaskState {
    /// The state on the wire.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Asking => "asking",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Skipped => "skipped",
            Self::UpstreamFailed => "upstream_failed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }

    /// Whether nothing follows, unless the task is held.
    #[must_use]
    pub fn is_final(self) -> bool {
        let open = [Self::Waiting, Self::Queued, Self::Asking, Self::Running, Self::Retrying];
        !open.contains(&self)
    }
}

impl From<&TaskStatus> for TaskState {
    fn from(status: &TaskStatus) -> Self {
        match status {
            TaskStatus::Waiting(_) | TaskStatus::Delayed { .. } => Self::Waiting,
            TaskStatus::Deciding | TaskStatus::Ready => Self::Queued,
            TaskStatus::Asking { .. } => Self::Asking,
            TaskStatus::Running(_) => Self::Running,
            TaskStatus::Retrying { .. } => Self::Retrying,
            TaskStatus::Held => Self::Lost,
            TaskStatus::Ended(end) => Self::from(*end),
        }
    }
}

impl From<TaskEnd> for TaskState {
    fn from(end: TaskEnd) -> Self {
        match end {
            TaskEnd::Succeeded => Self::Succeeded,
            TaskEnd::Failed => Self::Failed,
            TaskEnd::TimedOut => Self::TimedOut,
            TaskEnd::Skipped | TaskEnd::Disabled => Self::Skipped,
            TaskEnd::UpstreamFailed => Self::UpstreamFailed,
            TaskEnd::Cancelled => Self::Cancelled,
            TaskEnd::Lost => Self::Lost,
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

/// A task of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    /// Unique within the run.
    pub id: Name,
    /// Its position in the workflow, from 0.
    pub position: u32,
    /// For people; the id where the workflow gives none.
    pub title: String,
    /// What carries it out, as `run`.
    pub kind: String,
    /// Where it stands.
    pub state: TaskState,
    /// Still running, but only until it is killed.
    pub stopping: bool,
    /// Lost, and waits for a person to say what is to become of it.
    #[serde(default)]
    pub held: bool,
    /// What it waits for, while it does. For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// At which moment of the run it comes, if it is no part of the DAG.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<Hook>,
    /// Its predecessors.
    pub needs: Vec<Name>,
    /// What they must have come to.
    pub trigger_rule: TriggerRule,
    /// Tries so far, one in flight included.
    pub attempts_begun: u32,
    /// Tries that failed or timed out.
    pub failures: u32,
    /// Tries whose worker was lost.
    pub losses: u32,
    /// Retries after the first try that its workflow grants.
    pub retries_max: u32,
    /// What happens when its worker is lost: `retry`, `fail` or `hold`.
    #[serde(default)]
    pub on_lost: OnLost,
    /// What a person is asked, or was, if it is an approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// What a person decided when it was held, the last time, or answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionView>,
    /// The worker that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// When it last became ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_at: Option<Time>,
    /// When its first attempt was assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the deadline of an attempt at it passed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_at: Option<Time>,
    /// When it ended for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// From its first assignment to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// The same in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// When it is queued again, while it is retrying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Time>,
    /// Why it ended as it did, where no attempt tells. For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// It failed, and its run succeeded: what comes after it, or it itself, provides for that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_handled: bool,
    /// What it put out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Value>,
    /// The tries that are remembered, oldest first; one in flight is last.
    pub attempts: Vec<AttemptView>,
}

impl TaskView {
    /// The task at a position, which must be within the run.
    pub(crate) fn of(found: &Retired, position: usize) -> Option<Self> {
        let Retired { run, definition, .. } = found;
        let (task, said) = (run.tasks.get(position)?, definition.tasks.get(position)?);
        let id = |&need: &u32| definition.tasks.get(need as usize).map(|need| need.id.clone());
        let started_at = first_assigned_at(task).map(Time);
        let ended_at = task.ended.map(|mark| Time(mark.at));
        let span = started_at.zip(ended_at).map(|(from, to)| to.since(from));
        Some(Self {
            id: said.id.clone(),
            position: u32::try_from(position).unwrap_or(u32::MAX),
            title: if said.title.is_empty() { said.id.to_string() } else { said.title.clone() },
            kind: said.action.kind().to_owned(),
            state: TaskState::from(&task.status),
            stopping: task.flight().is_some_and(|flight| flight.stop.is_some()),
            held: task.status == TaskStatus::Held,
            waits_for: waits_for(run, definition, task, said),
            hook: said.hook,
            needs: said.needs.iter().filter_map(id).collect(),
            trigger_rule: said.trigger_rule,
            attempts_begun: task.attempts_begun.0,
            failures: task.failures,
            losses: task.losses,
            retries_max: said.retry.limit,
            on_lost: said.on_lost,
            question: task.question.clone(),
            decision: task.decision.as_ref().map(DecisionView::of),
            worker: task.flight().map(|flight| flight.worker),
            queued_at: task.ready.map(|mark| Time(mark.at)),
            started_at,
            late_at: task.late.map(|mark| Time(mark.at)),
            ended_at,
            duration: span.map(|span| span.to_string()),
            duration_ms: span.map(|span| span.0.0),
            retry_at: retry_at(&task.status),
            note: task.note.clone().or_else(|| silent_end(task, said, definition)),
            is_handled: run.end() == Some(RunEnd::Succeeded)
                && task.end().is_some_and(TaskEnd::is_failure),
            outputs: task.outputs.as_ref().map(Json::value),
            attempts: AttemptView::all(task),
        })
    }
}

/// What a person decided of a task that was held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionView {
    /// What became of it.
    pub verdict: Verdict,
    /// Who, as they called themselves; nobody has to prove it yet.
    pub by: String,
    /// In their words.
    pub comment: String,
    /// When.
    pub at: Time,
    /// The entry.
    pub index: u64,
}

impl DecisionView {
    fn of(made: &Decision) -> Self {
        let Decision { verdict, by, comment, mark } = made.clone();
        Self { verdict, by, comment, at: Time(mark.at), index: mark.index.0 }
    }
}

/// What there is to say of a task that ended without an attempt and without a reason.
fn silent_end(task: &Task, said: &TaskDefinition, definition: &Definition) -> Option<String> {
    if task.end() == Some(TaskEnd::Disabled) {
        return Some("disabled".to_owned());
    }
    let (switch, arm) = said.action.switch().zip(task.branch)?;
    let targets = switch.targets(arm);
    if targets.is_empty() {
        return Some("took none".to_owned());
    }
    let shown = targets.iter().take(WAITS_FOR_MAX);
    let names = shown.filter_map(|&at| Some(definition.tasks.get(at as usize)?.id.as_str()));
    let names = names.collect::<Vec<_>>().join(", ");
    Some(match targets.len().saturating_sub(WAITS_FOR_MAX) {
        0 => format!("took {names}"),
        more => format!("took {names} and {more} more"),
    })
}

fn retry_at(status: &TaskStatus) -> Option<Time> {
    match status {
        TaskStatus::Retrying { at } => Some(Time(*at)),
        TaskStatus::Waiting(_)
        | TaskStatus::Deciding
        | TaskStatus::Delayed { .. }
        | TaskStatus::Asking { .. }
        | TaskStatus::Ready
        | TaskStatus::Running(_)
        | TaskStatus::Held
        | TaskStatus::Ended(_) => None,
    }
}

fn waits_for(
    run: &Run,
    definition: &Definition,
    task: &Task,
    said: &TaskDefinition,
) -> Option<String> {
    match &task.status {
        TaskStatus::Waiting(_) if said.hook.is_some() => Some("the run to end".to_owned()),
        TaskStatus::Waiting(_) => Some(open_needs(run, definition, said)),
        TaskStatus::Ready | TaskStatus::Deciding if run.pause.is_some() => {
            run.pause.as_ref().map(resumption)
        }
        TaskStatus::Deciding => Some("its condition to be looked at".to_owned()),
        TaskStatus::Ready if said.runs_on.is_empty() => Some("a free slot".to_owned()),
        TaskStatus::Ready => {
            let labels = said.runs_on.iter().map(|(name, value)| format!("{name}={value}"));
            Some(format!("a free slot on a worker with {}", labels.collect::<Vec<_>>().join(", ")))
        }
        TaskStatus::Delayed { at } => Some(format!("its delay to end at {}", Time(*at))),
        TaskStatus::Retrying { at } => Some(format!("its next try at {}", Time(*at))),
        TaskStatus::Asking { until } => Some(match until {
            Some(until) => format!("a person to approve or reject it until {}", Time(*until)),
            None => "a person to approve or reject it".to_owned(),
        }),
        TaskStatus::Held => Some("a person to decide what becomes of it".to_owned()),
        TaskStatus::Running(_) | TaskStatus::Ended(_) => None,
    }
}

/// What a task of a paused run waits for.
fn resumption(pause: &Pause) -> String {
    let what = match pause.scope {
        PauseScope::Run => "its run",
        PauseScope::Workflow => "its workflow",
    };
    if pause.by.is_empty() {
        format!("{what} to be resumed")
    } else {
        format!("{what} to be resumed; {} paused it", pause.by)
    }
}

fn open_needs(run: &Run, definition: &Definition, said: &TaskDefinition) -> String {
    let open = said.needs.iter().map(|&need| need as usize);
    let open = open.filter(|&need| run.tasks.get(need).is_some_and(|task| task.end().is_none()));
    let mut names: Vec<&str> =
        open.filter_map(|need| Some(definition.tasks.get(need)?.id.as_str())).collect();
    if names.len() <= WAITS_FOR_MAX {
        return names.join(", ");
    }
    let more = names.split_off(WAITS_FOR_MAX).len();
    format!("{} and {more} more", names.join(", "))
}

/// When the oldest attempt that is remembered was assigned.
pub(super) fn first_assigned_at(task: &Task) -> Option<UnixMs> {
    let ended = task.attempts.first().map(|record| record.assigned_at);
    ended.or_else(|| task.flight().map(|flight| flight.assigned_at))
}

/// A file that a task left with the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactView {
    /// Within the working directory of the task.
    pub path: String,
    /// Who made it.
    pub task: Name,
    /// In which attempt.
    pub attempt: u32,
    /// In bytes; absent if its worker cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// Where a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was written, RFC 3339 as the worker noted it; empty where it noted none.
    pub ts: String,
    /// Where to.
    pub stream: LogStream,
    /// Without its line feed.
    pub line: String,
    /// It goes on in the next line of the same stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Where the log goes on behind it: ask with `offset` to continue.
    pub next: u64,
}
