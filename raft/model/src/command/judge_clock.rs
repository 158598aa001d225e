//! Record what was found of a worker's clock.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply};
use crate::state::{Output, State};
use crate::{Epoch, Event, Quarantine, WorkerId};

/// Puts a worker into quarantine whose clock runs too fast or too slow, or lets it out.
/// Proposed by the leader, which measures it beside its own.
///
/// A lease is a span on two clocks: if they run apart by more than was reckoned with, it ends
/// here before it ends there. What the worker runs goes on, for its lease has its margins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgeClock {
    /// Must hold a lease.
    pub worker: WorkerId,
    /// Its present registration.
    pub epoch: Epoch,
    /// By how many millionths it is too fast; negative if it is too slow.
    pub drift_ppm: i32,
    /// Whether it can be trusted with a lease.
    pub is_sound: bool,
}

impl JudgeClock {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { worker, epoch, drift_ppm, is_sound } = self;
        let found = state.live_worker(worker, epoch)?;
        if found.quarantine.is_none() == is_sound {
            return Ok(Reply::Done);
        }

        let mark = state.mark();
        if let Some(found) = state.workers.get_mut(&worker) {
            found.quarantine = (!is_sound).then_some(Quarantine { drift_ppm, mark });
            found.changed = mark;
            output.events.push(Event::Worker(worker));
        }
        Ok(Reply::Done)
    }
}
