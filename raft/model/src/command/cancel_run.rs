//! Cancel a run.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply, cut};
use crate::state::{Output, State};
use crate::{Act, Intervention, RunId, RunStatus, RunStop, settle};

/// Cancels a run: nothing of it starts any more, and what runs is killed.
///
/// The run is cancelled only once every process of it is gone. Until then it is stopping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRun {
    /// Must not have ended.
    pub run: RunId,
    /// In the words of whoever asked; may be empty. Cut at
    /// [`REASON_BYTES_MAX`](super::REASON_BYTES_MAX).
    pub reason: String,
    /// Who asks, as they call themselves; may be empty. Cut likewise.
    pub by: String,
}

impl CancelRun {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { run, reason, by } = self;
        let found = state.runs.get(&run).ok_or(Rejection::NoSuchRun { run })?;
        match found.status {
            RunStatus::Ended { .. } => Err(Rejection::RunEnded { run }),
            RunStatus::Stopping(_) => Ok(Reply::Done),
            RunStatus::Running | RunStatus::Ending { .. } => {
                let (by, reason, mark) = (cut(by), cut(reason), state.mark());
                let stop = RunStop::Cancelled { reason: reason.clone() };
                state.run_mut(run).note(Intervention { act: Act::Cancel, by, reason, mark });
                settle::stop_run(state, output, run, stop);
                Ok(Reply::Done)
            }
        }
    }
}
