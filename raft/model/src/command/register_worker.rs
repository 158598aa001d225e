//! Register a worker.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply};
use crate::state::{Output, State, Timer};
use crate::{
    Containment, DurationMs, Epoch, Event, Name, Registration, Worker, WorkerId, WorkerStatus,
    settle,
};

/// More slots than any machine can use; keeps a typing error from taking all work.
pub const SLOTS_MAX: u32 = 10_000;

/// Registers a worker and gives it a new epoch.
///
/// A worker that was registered before says by this that nothing it was assigned under that
/// registration runs any more, so those attempts are lost with this entry and need not wait
/// for the lease. It names the registration that it speaks of: should it have a newer one
/// when the entry is applied, the words came late, and would declare lost what it runs by now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterWorker {
    /// The registration that it held last, if any. Must be the last that it was given.
    pub last: Option<Registration>,
    /// For people.
    pub name: Name,
    /// Matched against the `runs_on` of tasks.
    pub labels: BTreeMap<Name, String>,
    /// How many tasks it runs at once; 1 to [`SLOTS_MAX`].
    pub slots: u32,
    /// How it holds the processes of a task together.
    pub containment: Containment,
    /// How long it may go unheard. In the log, so that every leader reckons with the same.
    pub lease: DurationMs,
}

impl RegisterWorker {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { last, name, labels, slots, containment, lease } = self;
        if slots == 0 || slots > SLOTS_MAX {
            return Err(Rejection::BadSlots { slots });
        }
        if let Some(Registration { worker, epoch }) = last {
            let found = state.workers.get(&worker).ok_or(Rejection::NoSuchWorker { worker })?;
            if found.epoch != epoch {
                return Err(Rejection::StaleEpoch { worker, epoch });
            }
        }

        let worker = last.map(|last| last.worker);
        let known = worker.and_then(|worker| state.workers.get(&worker));
        // What others decided of it, a restart does not undo.
        let drain = known.and_then(|known| known.drain.clone());
        let quarantine = known.and_then(|known| known.quarantine);
        if let Some(worker) = worker {
            settle::lose_attempts(state, output, worker);
            keep_worker(state, worker);
        }
        let minted = state.mint();
        let (worker, epoch) = (worker.unwrap_or(WorkerId(minted)), Epoch(minted));
        let (registered, status, running) = (state.mark(), WorkerStatus::Live, BTreeSet::new());
        #[rustfmt::skip]
        let new = Worker {
            name, labels, slots, containment, lease, epoch, registered, status, running,
            drain, leaving: None, quarantine, changed: registered,
        };
        state.workers.insert(worker, new);
        output.events.push(Event::Worker(worker));
        Ok(Reply::Registered { worker, epoch })
    }
}

/// Takes back that a worker is to be forgotten.
fn keep_worker(state: &mut State, worker: WorkerId) {
    let gone = state.workers.get(&worker).and_then(|old| Some((old.forgotten_at()?, old.epoch)));
    if let Some((at, epoch)) = gone {
        state.unset_timer(at, Timer::ForgetWorker(worker, epoch));
    }
}
