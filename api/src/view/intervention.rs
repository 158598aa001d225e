//! What people did to runs and workflows.

use quorate_model::{Act, Intervention, Pause, PauseScope};
use serde::{Deserialize, Serialize};

use crate::time::Time;

/// Why nothing more starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseView {
    /// What was paused: the `run`, or its `workflow`.
    pub scope: PauseScope,
    /// Who did it, as they called themselves; nobody has to prove it yet.
    pub by: String,
    /// In their words.
    pub reason: String,
    /// Since when.
    pub at: Time,
    /// The entry.
    pub index: u64,
}

impl PauseView {
    pub(crate) fn of(pause: &Pause) -> Self {
        let Pause { scope, by, reason, mark } = pause.clone();
        Self { scope, by, reason, at: Time(mark.at), index: mark.index.0 }
    }
}

/// Something that somebody did to a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterventionView {
    /// What: `pause`, `resume` or `cancel`.
    pub act: Act,
    /// Who, as they called themselves; nobody has to prove it yet.
    pub by: String,
    /// In their words.
    pub reason: String,
    /// When.
    pub at: Time,
    /// The entry.
    pub index: u64,
}

impl InterventionView {
    pub(crate) fn of(made: &Intervention) -> Self {
        let Intervention { act, by, reason, mark } = made.clone();
        Self { act, by, reason, at: Time(mark.at), index: mark.index.0 }
    }
}
