//! What a worker looks like.

use std::collections::BTreeMap;

use quorate_model::{Containment, LeaseEnd, Name, RunId, Worker, WorkerId, WorkerStatus};
use serde::{Deserialize, Serialize};

use crate::time::{Span, Time};

/// A node that executes tasks, as the log has it: whether it answers just now, the leader
/// alone knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Never used again.
    pub id: WorkerId,
    /// For people; not unique.
    pub name: Name,
    /// Matched against the `runs_on` of tasks.
    pub labels: BTreeMap<Name, String>,
    /// Whether it may be given work.
    pub state: WorkerState,
    /// Why its lease ended, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<LeaseEnd>,
    /// How many tasks it runs at once.
    pub slots: u32,
    /// How many more it can take.
    pub slots_free: usize,
    /// How many it has.
    pub running: usize,
    /// Their runs. Not in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunId>,
    /// How it holds the processes of a task together. That two attempts of a task never
    /// overlap is promised for `pidns` and `cgroup` only.
    pub containment: Containment,
    /// How long it may go unheard.
    pub lease: String,
    /// The same in milliseconds.
    pub lease_ms: u64,
    /// Its present registration.
    pub epoch: u64,
    /// When it last registered.
    pub registered_at: Time,
    /// When its lease ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Time>,
    /// The entry that last registered it or ended its lease.
    pub index: u64,
}

/// Whether a worker may be given work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// It holds a lease.
    Live,
    /// Its lease ended.
    Gone,
}

impl WorkerView {
    /// For lists and streams.
    pub(crate) fn brief(id: WorkerId, worker: &Worker) -> Self {
        let (state, mark, cause) = match worker.status {
            WorkerStatus::Live => (WorkerState::Live, None, None),
            WorkerStatus::Gone { mark, cause } => (WorkerState::Gone, Some(mark), Some(cause)),
        };
        Self {
            id,
            name: worker.name.clone(),
            labels: worker.labels.clone(),
            state,
            cause,
            slots: worker.slots,
            slots_free: worker.slots_free(),
            running: worker.running.len(),
            runs: Vec::new(),
            containment: worker.containment,
            lease: Span(worker.lease).to_string(),
            lease_ms: worker.lease.0,
            epoch: worker.epoch.0,
            registered_at: Time(worker.registered.at),
            gone_at: mark.map(|mark| Time(mark.at)),
            index: mark.unwrap_or(worker.registered).index.0,
        }
    }

    /// All there is to say.
    pub(crate) fn full(id: WorkerId, worker: &Worker) -> Self {
        let mut runs: Vec<RunId> = worker.running.iter().map(|task| task.run).collect();
        runs.dedup();
        Self { runs, ..Self::brief(id, worker) }
    }
}
