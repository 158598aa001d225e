//! End the lease of a worker.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply};
use crate::state::{Output, State, Timer};
use crate::{Epoch, Event, LeaseEnd, WorkerId, WorkerStatus, settle};

/// Ends the lease of a worker. What it was running is lost, and may start elsewhere.
///
/// Proposed by a leader that has not heard the worker for the lease and its margins, or for
/// a worker that says it runs nothing any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndLease {
    /// Must hold a lease.
    pub worker: WorkerId,
    /// Its present registration.
    pub epoch: Epoch,
    /// Why.
    pub cause: LeaseEnd,
}

impl EndLease {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { worker, epoch, cause } = self;
        state.live_worker(worker, epoch)?;

        settle::lose_attempts(state, output, worker);
        let mark = state.mark();
        if let Some(found) = state.workers.get_mut(&worker) {
            found.status = WorkerStatus::Gone { mark, cause };
            found.changed = mark;
            if let Some(at) = found.forgotten_at() {
                state.set_timer(at, Timer::ForgetWorker(worker, epoch));
            }
        }
        output.events.push(Event::Worker(worker));
        Ok(Reply::Done)
    }
}
