//! What a task does once its turn has come.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Param;
use crate::{DurationMs, Json, Name};

/// What a task does. All that is carried out by a worker is [`Work`](Self::Work): a new kind
/// of work changes nothing here, and nothing in the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A worker carries it out.
    Work {
        /// The task kind, as registered by the workers.
        kind: Name,
        /// What the kind is told. Strings in it may be templates.
        params: Json,
    },
    /// Nothing: it is there for its edges.
    Noop,
    /// Chooses among the tasks that come after it.
    Switch(Switch),
    /// Asks a person.
    Approval(Approval),
}

impl Action {
    /// The word for it, as in the file: `run` for a script.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Work { kind, .. } => kind.as_str(),
            Self::Noop => "noop",
            Self::Switch(_) => "switch",
            Self::Approval(_) => "approval",
        }
    }

    /// The choice, if it is one.
    #[must_use]
    pub fn switch(&self) -> Option<&Switch> {
        match self {
            Self::Switch(switch) => Some(switch),
            Self::Work { .. } | Self::Noop | Self::Approval(_) => None,
        }
    }
}

/// A question to a person, on which the run waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Approval {
    /// The question. May be a template.
    pub message: String,
    /// Who is asked, in words; anybody may answer as long as there are no accounts.
    pub approvers: Vec<String>,
    /// What the answer tells besides, and what type that has: the outputs of the task.
    pub inputs: BTreeMap<Name, Param>,
    /// How long the answer may take.
    pub timeout: Option<DurationMs>,
    /// What no answer means.
    pub on_timeout: OnTimeout,
}

impl Approval {
    /// What the inputs come to where nobody gives them.
    pub(crate) fn defaults(&self) -> Json {
        let given = self.inputs.iter();
        let given = given.filter_map(|(name, param)| Some((name, param.default.as_ref()?)));
        Json::new(&given.map(|(name, value)| (name.to_string(), value.value())).collect())
    }
}

/// What it means that nobody answered in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// No: the task has timed out, which is a failure.
    #[default]
    Reject,
    /// Yes, with the defaults of the inputs.
    Approve,
}

/// Conditions, and the tasks that each of them lets begin. The first that holds is taken.
///
/// A task that is named in it needs the switch. What else needs the switch is no target of
/// it, and does not care what it takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Switch {
    /// Looked at in order.
    pub arms: Vec<Arm>,
    /// The targets where no condition holds: positions, ascending. May be none.
    pub otherwise: Vec<u32>,
}

/// A condition of a switch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Arm {
    /// An expression.
    pub when: String,
    /// The targets: positions, ascending. May be none.
    pub then: Vec<u32>,
}

impl Switch {
    /// The targets of one arm. One beyond the arms stands for those where none holds.
    #[must_use]
    pub fn targets(&self, arm: u32) -> &[u32] {
        self.arms.get(arm as usize).map_or(&self.otherwise, |arm| &arm.then)
    }

    /// Every list of targets, in order.
    pub fn all_targets(&self) -> impl Iterator<Item = &[u32]> {
        self.arms.iter().map(|arm| arm.then.as_slice()).chain([self.otherwise.as_slice()])
    }

    /// Whether a task is a target, but not of this arm.
    pub(crate) fn leaves_out(&self, arm: u32, task: u32) -> bool {
        let names = |targets: &[u32]| targets.binary_search(&task).is_ok();
        !names(self.targets(arm)) && self.all_targets().any(names)
    }
}
