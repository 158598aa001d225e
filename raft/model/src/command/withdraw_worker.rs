//! Note that a worker takes nothing more, because it stops.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply};
use crate::state::{Output, State};
use crate::{Epoch, Event, WorkerId};

/// Has a worker be given nothing more, since it says that it stops. Proposed by the leader on
/// the worker's word.
///
/// What it runs goes on for as long as the worker lets it. Ends with its registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawWorker {
    /// Must hold a lease.
    pub worker: WorkerId,
    /// Its present registration.
    pub epoch: Epoch,
}

impl WithdrawWorker {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { worker, epoch } = self;
        state.live_worker(worker, epoch)?;

        let mark = state.mark();
        if let Some(found) = state.workers.get_mut(&worker).filter(|found| found.leaving.is_none())
        {
            found.leaving = Some(mark);
            found.changed = mark;
            output.events.push(Event::Worker(worker));
        }
        Ok(Reply::Done)
    }
}
