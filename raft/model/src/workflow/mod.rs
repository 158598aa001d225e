//! What a workflow is: its definition, as stored, and its versions.
//!
//! Knows nothing of files: `quorate-api` turns YAML into a [`Definition`], and points at
//! lines when it can't. What a task kind does with its `params` is the worker's business.

mod action;
mod graph;
mod retry;
pub mod validate;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use action::{Action, Approval, Arm, OnTimeout, Switch};
pub use graph::Graph;
pub use retry::{Retry, RetryCause};

use crate::{DurationMs, Json, LogIndex, Name, Pause, RunEnd, UnixMs};

/// Identifies a definition by its content: the first 128 bits of its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DefinitionId(pub u128);

/// A workflow under its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Workflow {
    /// Every version kept, by number. Never empty.
    pub versions: BTreeMap<u32, Version>,
    /// Its runs start nothing until it is resumed.
    pub pause: Option<Pause>,
}

impl Workflow {
    /// The newest version.
    ///
    /// # Panics
    ///
    /// If there is none, which no command leaves behind.
    #[must_use]
    pub fn latest(&self) -> (u32, &Version) {
        let (&number, version) = self.versions.last_key_value().expect("a workflow has a version");
        (number, version)
    }
}

/// One version of a workflow.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// What it says.
    pub definition: DefinitionId,
    /// When it was put.
    pub created_at: UnixMs,
    /// The entry that put it.
    pub created_index: LogIndex,
}

/// What a workflow does, checked and with its references resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Definition {
    /// For people.
    pub description: String,
    /// For filters.
    pub labels: BTreeMap<Name, String>,
    /// What a run may be given.
    pub params: BTreeMap<Name, Param>,
    /// For every task. Values may be templates.
    pub env: BTreeMap<String, String>,
    /// Where its days begin: an IANA name, checked by whoever made this. `None` is UTC.
    pub timezone: Option<String>,
    /// How long a run may take before it is killed.
    pub timeout: Option<DurationMs>,
    /// How long a run may take before it is said to be late. Nothing is killed then.
    pub deadline: Option<DurationMs>,
    /// What a failure means for the tasks that it does not concern.
    pub on_failure: OnFailure,
    /// The DAG. Its edges are [`TaskDefinition::needs`].
    pub tasks: Vec<TaskDefinition>,
    /// The outputs of a run: templates over the outputs of its tasks.
    pub outputs: BTreeMap<Name, String>,
    /// The document as it was submitted.
    pub source: String,
}

impl Definition {
    /// Identifies what this says, its source text included.
    ///
    /// # Panics
    ///
    /// Not for any value of this type: all its keys are text.
    #[must_use]
    pub fn id(&self) -> DefinitionId {
        // JSON: the one encoding that is self-describing, ordered and here to stay.
        let text = serde_json::to_vec(self).expect("a definition has string keys only");
        let digest = Sha256::digest(&text);
        let mut head = [0; 16];
        head.copy_from_slice(&digest[..16]);
        DefinitionId(u128::from_be_bytes(head))
    }

    /// The position of the task with this id.
    #[must_use]
    pub fn position(&self, id: &str) -> Option<usize> {
        self.tasks.iter().position(|task| task.id.as_str() == id)
    }
}

/// A parameter that a run may be given.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Param {
    /// What values it takes.
    pub kind: ParamKind,
    /// Its value where the run gives none. Without one, a run must.
    /// Strings in it may be templates over the run and other parameters.
    pub default: Option<Json>,
    /// What a value must keep besides. Checked before the log, like the type.
    pub rules: Rules,
    /// For people.
    pub description: String,
}

/// What the values of a parameter must keep besides their type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rules {
    /// The values that it takes; any, if empty.
    pub choices: Vec<Json>,
    /// A regular expression that a whole text must match.
    pub pattern: Option<String>,
    /// The least number, or the earliest time.
    pub min: Option<Json>,
    /// The greatest number, or the latest time.
    pub max: Option<Json>,
    /// The least number of characters, items or entries.
    pub length_min: Option<u32>,
    /// The greatest number of characters, items or entries.
    pub length_max: Option<u32>,
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamKind {
    /// Text.
    String,
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// `true` or `false`.
    Bool,
    /// A day, as `2026-02-28`.
    Date,
    /// A point in time, as `2026-02-28T02:30:00+01:00`.
    Datetime,
    /// A list of anything.
    List,
    /// A mapping of names to anything.
    Map,
}

/// A node of the DAG.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskDefinition {
    /// Unique within the workflow.
    pub id: Name,
    /// For people; the id where it is empty.
    pub title: String,
    /// At which moment of the run it comes, if it is no part of the DAG.
    pub hook: Option<Hook>,
    /// The positions of its predecessors, ascending.
    pub needs: Vec<u32>,
    /// What its predecessors must have come to.
    pub trigger_rule: TriggerRule,
    /// What it does.
    pub action: Action,
    /// A condition, asked once, when it is its turn: if it does not hold, the task is skipped.
    pub when: Option<String>,
    /// The predecessors whose state its conditions look at, ascending: their failure is what
    /// it may be there for.
    pub judges: Vec<u32>,
    /// Whether it is left out. What comes after it goes on as if it had succeeded.
    pub disabled: bool,
    /// Whether its own failure counts as a success for what comes after it, and for the run.
    pub continue_on_failure: bool,
    /// Added to the workflow's `env`. Values may be templates.
    pub env: BTreeMap<String, String>,
    /// How long it waits once its turn has come.
    pub delay: DurationMs,
    /// What happens after a failure.
    pub retry: Retry,
    /// What happens when nobody knows how an attempt ended.
    pub on_lost: OnLost,
    /// How long one attempt may take before it is killed.
    pub timeout: Option<DurationMs>,
    /// How long one attempt may take before the task is said to be late. Nothing is killed then.
    pub deadline: Option<DurationMs>,
    /// Labels that the worker must have.
    pub runs_on: BTreeMap<Name, String>,
    /// Files in its working directory that are kept with the run.
    pub artifacts: Vec<String>,
}

impl TaskDefinition {
    /// A task that needs nothing and asks for nothing special.
    #[must_use]
    pub fn new(id: Name, action: Action) -> Self {
        Self {
            id,
            title: String::new(),
            hook: None,
            needs: Vec::new(),
            trigger_rule: TriggerRule::default(),
            action,
            when: None,
            judges: Vec::new(),
            disabled: false,
            continue_on_failure: false,
            env: BTreeMap::new(),
            delay: DurationMs(0),
            retry: Retry::default(),
            on_lost: OnLost::default(),
            timeout: None,
            deadline: None,
            runs_on: BTreeMap::new(),
            artifacts: Vec::new(),
        }
    }

    /// Whether the leader has something to decide before it can begin.
    pub(crate) fn is_conditional(&self) -> bool {
        let decides = matches!(self.action, Action::Switch(_) | Action::Approval(_));
        self.when.is_some() || decides
    }
}

/// When a task becomes ready, in terms of how its predecessors ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriggerRule {
    /// All ended, and all succeeded.
    #[default]
    AllSuccess,
    /// All ended, however.
    AllDone,
    /// One succeeded. Does not wait for the others.
    OneSuccess,
    /// One failed. Does not wait for the others.
    OneFailed,
    /// All failed.
    AllFailed,
    /// All ended, and none failed; skipped ones do not count as failed.
    NoneFailed,
    /// As [`NoneFailed`](Self::NoneFailed), and one succeeded: for a join behind a switch.
    NoneFailedMinOneSuccess,
    /// At once: predecessors are not waited for.
    Always,
}

/// A moment of a run at which a task comes that is no part of the DAG. What becomes of it
/// changes nothing of what the run comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// With the first tasks. Nothing waits for it but the end of the run.
    Start,
    /// When the run has succeeded.
    Success,
    /// When it has failed, or ran out of time.
    Failure,
    /// When it was cancelled.
    Cancel,
    /// However it came out.
    Finally,
}

impl Hook {
    /// Every one, in the order in which they come.
    pub const ALL: [Self; 5] =
        [Self::Start, Self::Success, Self::Failure, Self::Cancel, Self::Finally];

    /// Whether it comes when a run has come to this.
    pub(crate) fn is_for(self, end: RunEnd) -> bool {
        match self {
            Self::Start => false,
            Self::Success => end == RunEnd::Succeeded,
            Self::Failure => matches!(end, RunEnd::Failed | RunEnd::TimedOut),
            Self::Cancel => end == RunEnd::Cancelled,
            Self::Finally => true,
        }
    }
}

/// What a failure that is not handled means for the other tasks of its run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// They go on as far as they can.
    #[default]
    Continue,
    /// What runs is killed, nothing else begins, and the run has failed.
    Stop,
}

/// What happens when an attempt was interrupted together with its worker, so that nobody
/// knows how far it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLost {
    /// It is tried again: the task begins at least once.
    #[default]
    Retry,
    /// The task ends as lost, which counts as a failure: it begins at most once.
    Fail,
    /// The task waits until a person says what is to become of it: it begins at most once
    /// unless they say so.
    Hold,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_depends_on_everything_it_says() {
        let mut definition = Definition::default();
        // Written down, for nodes of different versions must agree on it for ever.
        let id = DefinitionId(ID_OF_NOTHING);
        assert_eq!(definition.id(), id);
        definition.source.push('#');
        assert_ne!(definition.id(), id);
    }

    const ID_OF_NOTHING: u128 = 94_263_993_159_092_170_544_894_860_855_365_792_328;
}
