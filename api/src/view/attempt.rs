//! What one try at a task looks like.

use std::fmt;

use quorate_model::{
    AttemptRecord, DurationMs, Flight, Mark, Outcome, StopReason, Task, Usage, WorkerId,
};
use serde::{Deserialize, Serialize};

use crate::time::{Span, Time};

/// How far an attempt has come, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// A worker has it.
    Running,
    /// It did its work.
    Succeeded,
    /// Its process failed, or could not be started.
    Failed,
    /// The worker stopped it as told.
    Stopped,
    /// Its worker never began it, and handed it back.
    Returned,
    /// Its worker was lost.
    Lost,
}

impl AttemptState {
    /// The state on the wire.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Returned => "returned",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for AttemptState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

/// One try at a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptView {
    /// From 1.
    pub attempt: u32,
    /// How far it has come.
    pub state: AttemptState,
    /// Why it was told to stop while it runs: `cancelled` or `timed_out`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopReason>,
    /// Who has it or had it.
    pub worker: WorkerId,
    /// Its fencing token: the entry that assigned it. Rises with every attempt.
    pub token: u64,
    /// When it was assigned.
    pub assigned_at: Time,
    /// When its end was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// The entry that recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_index: Option<u64>,
    /// Whether its worker said how it ended only after it had been taken for lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// With what its process ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// By what its process was ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why it could not be started, or its result not used. For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it used, where the worker could say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageView>,
}

impl AttemptView {
    /// Those remembered, and the one in flight.
    pub(crate) fn all(task: &Task) -> Vec<Self> {
        let ended = task.attempts.iter().map(Self::ended);
        ended.chain(task.flight().map(Self::in_flight)).collect()
    }

    fn in_flight(flight: &Flight) -> Self {
        Self {
            attempt: flight.attempt.0,
            state: AttemptState::Running,
            stop: flight.stop,
            worker: flight.worker,
            token: flight.token.0,
            assigned_at: Time(flight.assigned_at),
            ended_at: None,
            ended_index: None,
            late: false,
            exit_code: None,
            signal: None,
            reason: None,
            usage: None,
        }
    }

    pub(super) fn ended(record: &AttemptRecord) -> Self {
        let Mark { index, at } = record.ended;
        let (state, exit_code, signal, reason) = match &record.outcome {
            Outcome::Succeeded { .. } => (AttemptState::Succeeded, Some(0), None, None),
            Outcome::Exited { code } => (AttemptState::Failed, Some(*code), None, None),
            Outcome::Signalled { signal } => (AttemptState::Failed, None, Some(*signal), None),
            Outcome::Broken { reason } => (AttemptState::Failed, None, None, Some(reason.clone())),
            Outcome::Stopped => (AttemptState::Stopped, None, None, None),
            Outcome::Returned => (AttemptState::Returned, None, None, None),
            Outcome::Lost => (AttemptState::Lost, None, None, None),
        };
        let usage = (record.usage != Usage::default()).then(|| UsageView::from(record.usage));
        Self {
            attempt: record.attempt.0,
            state,
            stop: None,
            worker: record.worker,
            token: record.token.0,
            assigned_at: Time(record.assigned_at),
            ended_at: Some(Time(at)),
            ended_index: Some(index.0),
            late: record.late,
            exit_code,
            signal,
            reason,
            usage,
        }
    }
}

/// What an attempt used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageView {
    /// From start to exit.
    pub wall: String,
    /// The same in milliseconds.
    pub wall_ms: u64,
    /// User CPU time in microseconds.
    pub user_us: u64,
    /// System CPU time in microseconds.
    pub system_us: u64,
    /// Greatest resident set in KiB.
    pub memory_kib_max: u64,
}

impl From<Usage> for UsageView {
    fn from(usage: Usage) -> Self {
        let Usage { wall: DurationMs(wall_ms), user_us, system_us, memory_kib_max } = usage;
        let wall = Span(usage.wall).to_string();
        Self { wall, wall_ms, user_us, system_us, memory_kib_max }
    }
}
