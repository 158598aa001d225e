//! What a task does once its turn has come.

use serde::{Deserialize, Serialize};

use crate::{Json, Name};

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
}

impl Action {
    /// The word for it, as in the file: `run` for a script.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Work { kind, .. } => kind.as_str(),
        }
    }
}
