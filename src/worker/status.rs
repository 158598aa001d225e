//! What a worker can tell about itself.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use quorate_model::{Epoch, WorkerId};

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

    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    pub(super) fn started_total(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }
}

/// A worker at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkerStatus {
    /// Who it is, under which registration, and how much is left of its lease.
    pub(crate) registered: Option<(WorkerId, Epoch, Duration)>,
    /// How many attempts it runs at most.
    pub(crate) slots: u32,
    /// How many it runs.
    pub(crate) running: usize,
    /// How many it has started since it began.
    pub(crate) started_total: u64,
    /// Reports that are not recorded yet.
    pub(crate) reports_pending: usize,
}
