//! How much of the machine tests take at once.
//!
//! The test runner starts as many tests as there are cores. Each of these is several processes
//! with timeouts of a few hundred milliseconds, which a machine that is overrun would miss.

use std::sync::{Condvar, Mutex, PoisonError};

/// Clusters that may run at once.
const CLUSTERS_MAX: usize = 2;

static FREE: Mutex<usize> = Mutex::new(CLUSTERS_MAX);
static FREED: Condvar = Condvar::new();

/// Leave to use a part of the machine, until it is dropped.
#[derive(Debug)]
pub(crate) struct Gate {
    taken: usize,
}

impl Gate {
    /// Waits until one more cluster may run.
    pub(crate) fn one() -> Self {
        Self::take(1)
    }

    /// Waits until nothing else runs.
    pub(crate) fn alone() -> Self {
        Self::take(CLUSTERS_MAX)
    }

    fn take(wanted: usize) -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        while *free < wanted {
            free = FREED.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= wanted;
        Self { taken: wanted }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        *FREE.lock().unwrap_or_else(PoisonError::into_inner) += self.taken;
        FREED.notify_all();
    }
}
