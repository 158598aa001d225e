//! Resume a run.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply, cut};
use crate::state::{Output, State};
use crate::{Act, Intervention, RunId, RunStatus, settle};

/// Has a paused run go on, also where it was paused with its workflow, which stays paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeRun {
    /// Must not have ended, nor be stopping.
    pub run: RunId,
    /// Who asks, as they call themselves; may be empty. Cut at
    /// [`REASON_BYTES_MAX`](super::REASON_BYTES_MAX).
    pub by: String,
    /// In their words; may be empty. Cut likewise.
    pub reason: String,
}

impl ResumeRun {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { run, by, reason } = self;
        let found = state.runs.get(&run).ok_or(Rejection::NoSuchRun { run })?;
        match found.status {
            RunStatus::Ended { .. } => return Err(Rejection::RunEnded { run }),
            RunStatus::Stopping(_) | RunStatus::Ending { .. } => {
                return Err(Rejection::RunStopping { run });
            }
            RunStatus::Running => {}
        }
        if found.pause.is_none() {
            return Ok(Reply::Done);
        }

        let (by, reason, mark) = (cut(by), cut(reason), state.mark());
        state.run_mut(run).note(Intervention { act: Act::Resume, by, reason, mark });
        settle::resume_run(state, output, run);
        Ok(Reply::Done)
    }
}
