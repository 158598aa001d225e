//! The life of one run of a workflow.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::intervention::INTERVENTIONS_KEPT_MAX;
use crate::workflow::DefinitionId;
use crate::{DurationMs, Intervention, Json, Mark, Name, Pause, Task, UnixMs};

/// How long a finished run stays in the live state: long enough for whoever waits for it
/// to see it there.
const RETIRE_AFTER: DurationMs = DurationMs(10_000);

/// One execution of a workflow.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Run {
    /// The name of what it executes.
    pub workflow: Name,
    /// The version of it.
    pub version: u32,
    /// What that version says.
    pub definition: DefinitionId,
    /// The value of every parameter: a JSON object.
    pub params: Json,
    /// For filters.
    pub labels: BTreeMap<Name, String>,
    /// What started it.
    pub trigger: Trigger,
    /// The point in time that it is about: what its expressions take for now. That of its
    /// submission, unless whoever submitted it said otherwise.
    pub logical_time: UnixMs,
    /// When it was submitted, and by which entry.
    pub created: Mark,
    /// The entry that last changed it or a task of it.
    pub changed: Mark,
    /// When its deadline passed, and by which entry, if it had not ended by then.
    pub late: Option<Mark>,
    /// Where it stands.
    pub status: RunStatus,
    /// Nothing more of it starts until it is resumed.
    pub pause: Option<Pause>,
    /// From when its timeout counts: when it began, put off by the time it was paused.
    pub timed_from: UnixMs,
    /// What people did to it, oldest first: the last [`INTERVENTIONS_KEPT_MAX`].
    pub interventions: Vec<Intervention>,
    /// Its tasks, in the order of the definition.
    pub tasks: Vec<Task>,
    /// Tasks that have not ended. The run ends with the last of them.
    pub tasks_open: u32,
}

/// Where a run stands.
///
/// ```text
/// Running ──all tasks ended──────────────────► Ended(Succeeded | Failed)
///    └──cancel, timeout, failure──► Stopping ──ditto──► Ended(Cancelled | TimedOut | Failed)
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RunStatus {
    /// Some tasks have not ended.
    Running,
    /// No further task starts; the running ones are being killed.
    Stopping(RunStop),
    /// All tasks of the DAG have ended; the hooks for that run.
    Ending {
        /// How it will have ended.
        end: RunEnd,
        /// Why it was stopped, if it was.
        stop: Option<RunStop>,
    },
    /// Over. Final.
    Ended {
        /// How.
        end: RunEnd,
        /// When, and by which entry.
        mark: Mark,
        /// Why it was stopped, if it was.
        stop: Option<RunStop>,
    },
}

/// Why a run is stopped before its tasks are through.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RunStop {
    /// Somebody asked for it.
    Cancelled {
        /// In their words; may be empty.
        reason: String,
    },
    /// It took longer than its workflow's timeout.
    TimedOut,
    /// A task failed, and the workflow is to stop then.
    Failed {
        /// The task.
        task: Name,
    },
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunEnd {
    /// No task failed.
    Succeeded,
    /// A task failed.
    Failed,
    /// It was cancelled, and every process of it is gone.
    Cancelled,
    /// It ran out of time, and every process of it is gone.
    TimedOut,
}

/// What started a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Trigger {
    /// A request by a person or a program.
    Manual,
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manual => "manual",
        })
    }
}

impl Run {
    /// Whether nothing about it changes any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.status, RunStatus::Ended { .. })
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<RunEnd> {
        match self.status {
            RunStatus::Ended { end, .. } => Some(end),
            RunStatus::Running | RunStatus::Stopping(_) | RunStatus::Ending { .. } => None,
        }
    }

    /// When it ended, if it has.
    #[must_use]
    pub fn ended_at(&self) -> Option<UnixMs> {
        match self.status {
            RunStatus::Ended { mark, .. } => Some(mark.at),
            RunStatus::Running | RunStatus::Stopping(_) | RunStatus::Ending { .. } => None,
        }
    }
}

impl Run {
    /// Whether its ready tasks may start: it runs, or its hooks do, and it is not paused.
    #[must_use]
    pub fn is_going(&self) -> bool {
        let has_begun = matches!(self.status, RunStatus::Running | RunStatus::Ending { .. });
        has_begun && self.pause.is_none()
    }

    /// When it is stopped if its tasks are not through by then. While it is paused its
    /// timeout stands still.
    pub(crate) fn overdue_at(&self, timeout: Option<DurationMs>) -> Option<UnixMs> {
        let is_timed = self.status == RunStatus::Running && self.pause.is_none();
        timeout.filter(|_| is_timed).map(|timeout| self.timed_from.after(timeout))
    }

    /// Writes down what somebody did to it.
    pub(crate) fn note(&mut self, intervention: Intervention) {
        if self.interventions.len() >= INTERVENTIONS_KEPT_MAX {
            self.interventions.remove(0);
        }
        self.interventions.push(intervention);
    }

    /// When it is late if it has not ended by then.
    pub(crate) fn late_at(&self, deadline: Option<DurationMs>) -> Option<UnixMs> {
        deadline.map(|deadline| self.created.at.after(deadline))
    }

    /// When it leaves the live state, if it has ended.
    pub(crate) fn retires_at(&self) -> Option<UnixMs> {
        self.ended_at().map(|at| at.after(RETIRE_AFTER))
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Stopping(_) => f.write_str("stopping"),
            Self::Ending { end, .. } => write!(f, "ending {end}"),
            Self::Ended { end, .. } => end.fmt(f),
        }
    }
}

impl fmt::Display for RunEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
        })
    }
}
