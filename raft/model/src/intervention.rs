//! What people do to runs and workflows, and what is remembered of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Mark;

/// Interventions remembered with a run; the oldest is dropped. A person does few by hand, and
/// a program that does many tells nothing new with each.
pub const INTERVENTIONS_KEPT_MAX: usize = 32;

/// Something that somebody did to a run, for those who look later.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Intervention {
    /// What.
    pub act: Act,
    /// Who, as they called themselves; may be empty.
    pub by: String,
    /// In their words; may be empty.
    pub reason: String,
    /// When, and by which entry.
    pub mark: Mark,
}

/// What somebody did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Had nothing more of the run start.
    Pause,
    /// Had it go on.
    Resume,
    /// Had it stop for good.
    Cancel,
}

/// Why nothing more starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pause {
    /// What was paused.
    pub scope: PauseScope,
    /// Who did it, as they called themselves; may be empty.
    pub by: String,
    /// In their words; may be empty.
    pub reason: String,
    /// Since when, and by which entry.
    pub mark: Mark,
}

/// What was paused, and is to be resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseScope {
    /// This run. Goes on when it is resumed itself.
    Run,
    /// Its workflow. Goes on when that is resumed, or the run itself.
    Workflow,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
        })
    }
}
