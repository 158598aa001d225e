//! What a worker can tell about itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::outbox::Outbox;
use super::standing::Standing;
use super::sys;

/// Counted by the agent, for metrics.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    running: AtomicUsize,
    started: AtomicU64,
}

impl Counters {
    /// One more attempt has started; so many run now.
    pub(super) fn started(&self, running: usize) {
        self.started.fetch_add(1, Ordering::Relaxed);
        self.running.store(running, Ordering::Relaxed);
    }

    /// An attempt has ended; so many run now.
    pub(super) fn ended(&self, running: usize) {
        self.running.store(running, Ordering::Relaxed);
    }

    fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    fn started_total(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }
}

/// Looks at a worker that runs elsewhere in this process.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(super) standing: Arc<Standing>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) counters: Arc<Counters>,
    pub(super) slots: u32,
    pub(super) full: watch::Receiver<bool>,
}

impl Probe {
    /// What can be told about it now.
    pub(crate) fn read(&self) -> WorkerStatus {
        let now = sys::boottime();
        WorkerStatus {
            lease_left: self.standing.held(now).map(|held| held.deadline.since(now)),
            slots: self.slots,
            running: self.counters.running(),
            started_total: self.counters.started_total(),
            reports_pending: self.outbox.len(),
            is_disk_full: *self.full.borrow(),
        }
    }
}

/// A worker at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkerStatus {
    /// How much is left of its lease, if it holds one.
    pub(crate) lease_left: Option<Duration>,
    /// How many attempts it runs at most.
    pub(crate) slots: u32,
    /// How many it runs.
    pub(crate) running: usize,
    /// How many it has started since it began.
    pub(crate) started_total: u64,
    /// Reports that are not recorded yet.
    pub(crate) reports_pending: usize,
    /// Whether its disk is full, so that it begins nothing.
    pub(crate) is_disk_full: bool,
}
