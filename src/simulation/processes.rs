//! What runs where: the table of all processes of tasks, of all machines, seen at once.
//!
//! No real cluster can be looked at like this. Two attempts of a task that overlap by a
//! millisecond are found, and so is one that runs without a right to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_model::Dispatch;
use tokio::sync::oneshot;

/// How a process ended that did not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Killed {
    /// Its worker was told to stop it.
    Stopped,
    /// The lease was over.
    LeaseOver,
}

/// The table. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Processes(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    alive: BTreeMap<u64, Process>,
    next: u64,
    begun: u64,
    violations: Vec<String>,
}

#[derive(Debug)]
struct Process {
    host: String,
    dispatch: Dispatch,
    kill: Option<oneshot::Sender<Killed>>,
    /// The clock of its machine may be wrong beyond what is allowed: nothing is promised.
    is_excused: bool,
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
    pub(crate) fn begin(
        &self,
        host: &str,
        dispatch: Dispatch,
        is_excused: bool,
    ) -> (Running, oneshot::Receiver<Killed>) {
        let mut inner = self.lock();
        let others = inner.alive.values().filter(|other| other.dispatch.task == dispatch.task);
        let others: Vec<String> = others
            .filter(|other| !is_excused && !other.is_excused)
            .map(|other| {
                format!(
                    "{dispatch} begins on {host} while {} runs on {}",
                    other.dispatch, other.host
                )
            })
            .collect();
        inner.violations.extend(others);
        inner.next += 1;
        inner.begun += 1;
        let number = inner.next;
        let (kill, killed) = oneshot::channel();
        let host = host.to_owned();
        inner.alive.insert(number, Process { host, dispatch, kill: Some(kill), is_excused });
        (Running { table: self.clone(), number }, killed)
    }

    /// Kills the processes of a machine that `which` picks.
    pub(crate) fn kill(&self, host: &str, cause: Killed, which: impl Fn(&Dispatch) -> bool) {
        let mut inner = self.lock();
        for process in inner.alive.values_mut() {
            if process.host == host
                && which(&process.dispatch)
                && let Some(kill) = process.kill.take()
            {
                // It may be ending by itself.
                let _ = kill.send(cause);
            }
        }
    }

    /// Ends everything on a machine at once.
    pub(crate) fn forget(&self, host: &str) {
        self.lock().alive.retain(|_, process| process.host != host);
    }

    /// What runs, but for what is excused.
    pub(crate) fn alive(&self) -> Vec<(String, Dispatch)> {
        let inner = self.lock();
        let promised = inner.alive.values().filter(|process| !process.is_excused);
        promised.map(|process| (process.host.clone(), process.dispatch)).collect()
    }

    /// How many have begun.
    pub(crate) fn begun(&self) -> u64 {
        self.lock().begun
    }

    /// What should never have happened.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
