//! Pause a run.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply, cut};
use crate::state::{Output, State};
use crate::{Act, Intervention, Pause, PauseScope, RunId, RunStatus, settle};

/// Has nothing more of a run start. What runs goes on to its end, and its outcome counts; a
/// retry that falls due waits, and the timeout of the run stands still.
///
/// A run that is paused with its workflow is then paused by itself, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseRun {
    /// Must not have ended, nor be stopping.
    pub run: RunId,
    /// Who asks, as they call themselves; may be empty. Cut at
    /// [`REASON_BYTES_MAX`](super::REASON_BYTES_MAX).
    pub by: String,
    /// In their words; may be empty. Cut likewise.
    pub reason: String,
}

impl PauseRun {
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
        if found.pause.as_ref().is_some_and(|pause| pause.scope == PauseScope::Run) {
            return Ok(Reply::Done);
        }

        let (by, reason, mark) = (cut(by), cut(reason), state.mark());
        let pause = Pause { scope: PauseScope::Run, by: by.clone(), reason: reason.clone(), mark };
        settle::pause_run(state, output, run, pause);
        state.run_mut(run).note(Intervention { act: Act::Pause, by, reason, mark });
        Ok(Reply::Done)
    }
}
