//! What a workflow is: its definition, as stored, and its versions.
//!
//! Knows nothing of files: `quorate-api` turns YAML into a [`Definition`], and points at
//! lines when it can't. What a task kind does with its `params` is the worker's business.

mod action;
mod graph;
pub mod validate;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use action::Action;
pub use graph::Graph;

use crate::{DurationMs, Json, LogIndex, Name, UnixMs};

/// Identifies a definition by its content: the first 128 bits of its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DefinitionId(pub u128);

/// A workflow under its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Workflow {
    /// Every version kept, by number. Never empty.
    pub versions: BTreeMap<u32, Version>,
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
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Definition {
    /// For people.
    pub description: String,
    /// For filters.
    pub labels: BTreeMap<Name, String>,
    /// What a run may be given.
    pub params: BTreeMap<Name, Param>,
    /// For every task. Values may be templates.
    pub env: BTreeMap<String, String>,
    /// How long a run may take before it is killed.
    pub timeout: Option<DurationMs>,
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
    pub default: Option<Json>,
    /// For people.
    pub description: String,
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
    /// The positions of its predecessors, ascending.
    pub needs: Vec<u32>,
    /// What its predecessors must have come to.
    pub trigger_rule: TriggerRule,
    /// What it does.
    pub action: Action,
    /// Added to the workflow's `env`. Values may be templates.
    pub env: BTreeMap<String, String>,
    /// What happens after a failure.
    pub retry: Retry,
    /// What happens when nobody knows how an attempt ended.
    pub on_lost: OnLost,
    /// How long one attempt may take before it is killed.
    pub timeout: Option<DurationMs>,
    /// Labels that the worker must have.
    pub runs_on: BTreeMap<Name, String>,
    /// Files in its working directory that are kept with the run.
    pub artifacts: Vec<String>,
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
    /// All ended, and none failed; skipped ones do not count as failed.
    NoneFailed,
    /// At once: predecessors are not waited for.
    Always,
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

/// What happens after an attempt failed or timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Retry {
    /// Attempts after the first. 0 means one attempt.
    pub limit: u32,
    /// Before the first retry.
    pub delay: DurationMs,
    /// What the delay is multiplied by after each, in thousandths.
    pub backoff_permille: u32,
    /// The delay never exceeds this.
    pub max_delay: DurationMs,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            limit: 0,
            delay: DurationMs(1_000),
            backoff_permille: 1_000,
            max_delay: DurationMs(3_600_000),
        }
    }
}

impl Retry {
    /// How long to wait after the `failures`-th failure, from 1.
    #[must_use]
    pub fn delay_after(&self, failures: u32) -> DurationMs {
        let mut delay = self.delay.0.min(self.max_delay.0);
        for _ in 1..failures {
            let next = u128::from(delay) * u128::from(self.backoff_permille) / 1_000;
            let next = u64::try_from(next).unwrap_or(u64::MAX).min(self.max_delay.0);
            if next == delay {
                break;
            }
            delay = next;
        }
        DurationMs(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(delay: u64, backoff_permille: u32, max_delay: u64) -> Retry {
        let (delay, max_delay) = (DurationMs(delay), DurationMs(max_delay));
        Retry { limit: 9, delay, backoff_permille, max_delay }
    }

    fn delays(retry: Retry) -> Vec<u64> {
        (1..=5).map(|failures| retry.delay_after(failures).0).collect()
    }

    #[test]
    fn delay_grows_by_the_backoff_up_to_the_longest() {
        assert_eq!(delays(retry(100, 2_000, 500)), [100, 200, 400, 500, 500]);
        assert_eq!(delays(retry(100, 1_500, 10_000)), [100, 150, 225, 337, 505]);
        assert_eq!(delays(retry(100, 1_000, 10_000)), [100; 5]);
        assert_eq!(delays(retry(900, 2_000, 500)), [500; 5]);
    }

    #[test]
    fn delay_can_shrink_and_be_nothing() {
        assert_eq!(delays(retry(100, 500, 10_000)), [100, 50, 25, 12, 6]);
        assert_eq!(delays(retry(100, 0, 10_000)), [100, 0, 0, 0, 0]);
        assert_eq!(delays(retry(0, 2_000, 10_000)), [0; 5]);
    }

    #[test]
    fn delay_ends_at_the_end_of_time() {
        assert_eq!(delays(retry(u64::MAX, u32::MAX, u64::MAX)), [u64::MAX; 5]);
        assert_eq!(retry(1, 2_000, u64::MAX).delay_after(u32::MAX).0, u64::MAX);
        assert_eq!(retry(7, 2_000, u64::MAX).delay_after(0).0, 7);
    }

    #[test]
    fn id_depends_on_everything_it_says() {
        let mut definition = Definition {
            description: String::new(),
            labels: BTreeMap::new(),
            params: BTreeMap::new(),
            env: BTreeMap::new(),
            timeout: None,
            tasks: Vec::new(),
            outputs: BTreeMap::new(),
            source: String::new(),
        };
        // Written down, for nodes of different versions must agree on it for ever.
        let id = DefinitionId(ID_OF_NOTHING);
        assert_eq!(definition.id(), id);
        definition.source.push('#');
        assert_ne!(definition.id(), id);
    }

    const ID_OF_NOTHING: u128 = 250_063_595_265_837_709_824_447_815_562_368_831_261;
}
