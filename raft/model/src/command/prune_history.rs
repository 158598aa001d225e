//! Forget finished runs.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply};
use crate::RunId;
use crate::state::Output;

/// Forgets finished runs for good. Which, retention decides on the leader; those that are
/// not in the history, or no longer, are passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneHistory {
    /// Finished runs.
    pub runs: Vec<RunId>,
}

impl PruneHistory {
    pub(super) fn apply(self, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { runs } = self;
        output.pruned.extend(runs);
        Ok(Reply::Done)
    }
}
