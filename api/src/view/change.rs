//! What those hear who watch.

use quorate_model::{Name, RunId, WorkerId};
use serde::{Deserialize, Serialize};

use super::{RunView, TaskView, WorkerView};

/// Something changed: an event of the stream, or a line of it.
///
/// Carries how things stand when it is sent, which may be later than `index`: of two changes
/// at once to the same, both may look like the second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum ChangeView {
    /// A run began, changed or ended.
    #[serde(rename = "run.updated")]
    Run {
        /// The entry.
        index: u64,
        /// As in a list.
        run: Box<RunView>,
    },
    /// A task changed.
    #[serde(rename = "task.updated")]
    Task {
        /// The entry.
        index: u64,
        /// Whose task it is.
        run: RunId,
        /// All of it.
        task: Box<TaskView>,
    },
    /// A workflow was put or deleted.
    #[serde(rename = "workflow.updated")]
    Workflow {
        /// The entry.
        index: u64,
        /// Which; absent if it was deleted, or has changed again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Name>,
    },
    /// A worker came, changed or went.
    #[serde(rename = "worker.updated")]
    Worker {
        /// The entry.
        index: u64,
        /// Which.
        id: WorkerId,
        /// As in a list; absent once it is forgotten.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<Box<WorkerView>>,
    },
    /// This node has seen another leader, or none.
    #[serde(rename = "cluster.leader")]
    Leader {
        /// Who; absent while there is none.
        leader: Option<u64>,
        /// The term of this node.
        term: u64,
    },
    /// Changes were missed: look afresh at what you watch. Those after `index` follow.
    #[serde(rename = "reset")]
    Reset {
        /// The last entry applied.
        index: u64,
    },
}

impl ChangeView {
    /// The type on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Run { .. } => "run.updated",
            Self::Task { .. } => "task.updated",
            Self::Workflow { .. } => "workflow.updated",
            Self::Worker { .. } => "worker.updated",
            Self::Leader { .. } => "cluster.leader",
            Self::Reset { .. } => "reset",
        }
    }

    /// The entry it stands in; `None` for what is not in the log.
    #[must_use]
    pub fn index(&self) -> Option<u64> {
        match *self {
            Self::Run { index, .. }
            | Self::Task { index, .. }
            | Self::Workflow { index, .. }
            | Self::Worker { index, .. }
            | Self::Reset { index } => Some(index),
            Self::Leader { .. } => None,
        }
    }
}
