//! Say whether a worker is to be given work.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply, cut};
use crate::state::{Output, State};
use crate::{Drain, Event, WorkerId};

/// Has a worker be given nothing more, or takes that back. Asked for by a person.
///
/// What it runs goes on. Holds over restarts of the worker, until it is forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetEligibility {
    /// Must be known; need not hold a lease.
    pub worker: WorkerId,
    /// Whether it may be given work.
    pub is_eligible: bool,
    /// Why not; may be empty. Cut at [`REASON_BYTES_MAX`](super::REASON_BYTES_MAX).
    pub reason: String,
    /// Who asks, as they call themselves; may be empty. Cut likewise.
    pub by: String,
}

impl SetEligibility {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { worker, is_eligible, reason, by } = self;
        let mark = state.mark();
        let found = state.workers.get_mut(&worker).ok_or(Rejection::NoSuchWorker { worker })?;

        found.drain = (!is_eligible).then(|| Drain { reason: cut(reason), by: cut(by), mark });
        found.changed = mark;
        output.events.push(Event::Worker(worker));
        Ok(Reply::Done)
    }
}
