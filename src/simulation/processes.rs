//! What runs where: the table of all processes of tasks, of all machines, seen at once.
//!
//! No real cluster can be looked at like this. Two attempts of a task that overlap by a
//! millisecond are found, and so is one that runs without a right to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_model::Dispatch;

/// The table. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Processes(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// By number: the machine, and by whose authority it runs.
    alive: BTreeMap<u64, (String, Dispatch)>,
    begun: u64,
    violations: Vec<String>,
}

/// A process. It is dead when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    table: Processes,
    number: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.table.lock().alive.remove(&self.number);
    }
}

impl Processes {
    /// Starts a process.
    pub(crate) fn begin(&self, host: &str, dispatch: Dispatch) -> Running {
        let mut inner = self.lock();
        let Inner { alive, begun, violations } = &mut *inner;
        for (elsewhere, other) in alive.values().filter(|(_, other)| other.task == dispatch.task) {
            violations.push(format!("{dispatch} begins on {host}, {other} runs on {elsewhere}"));
        }
        *begun += 1;
        let number = *begun;
        alive.insert(number, (host.to_owned(), dispatch));
        Running { table: self.clone(), number }
    }

    /// What runs, and where.
    pub(super) fn alive(&self) -> Vec<(String, Dispatch)> {
        self.lock().alive.values().cloned().collect()
    }

    /// How many have begun.
    pub(super) fn begun(&self) -> u64 {
        self.lock().begun
    }

    /// What should never have happened.
    pub(super) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
