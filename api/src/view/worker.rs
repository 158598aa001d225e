//! What a worker looks like.

use std::collections::BTreeMap;

use quorate_model::{
    Containment, Drain, LeaseEnd, Name, Quarantine, RunId, Worker, WorkerId, WorkerStatus,
};
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
    /// Whether nothing speaks against giving it work, as long as it is live.
    pub eligible: bool,
    /// What does, of several the first of these: drained by people, leaving by itself, or
    /// quarantined for its clock. For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ineligible: Option<String>,
    /// Who wants it to be given nothing more, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainView>,
    /// Since when it takes nothing more because it stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving_since: Option<Time>,
    /// What is wrong with its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<QuarantineView>,
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
    /// The entry that last changed it, but for its tasks.
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
            eligible: worker.is_eligible(),
            ineligible: ineligible(worker),
            drain: worker.drain.as_ref().map(DrainView::of),
            leaving_since: worker.leaving.map(|mark| Time(mark.at)),
            quarantine: worker.quarantine.map(QuarantineView::of),
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
            index: worker.changed.index.0,
        }
    }

    /// All there is to say.
    pub(crate) fn full(id: WorkerId, worker: &Worker) -> Self {
        let mut runs: Vec<RunId> = worker.running.iter().map(|task| task.run).collect();
        runs.dedup();
        Self { runs, ..Self::brief(id, worker) }
    }
}

/// What speaks against giving it work, for people.
fn ineligible(worker: &Worker) -> Option<String> {
    let drained = worker.drain.as_ref().map(|drain| match drain.reason.as_str() {
        "" => "drained".to_owned(),
        reason => format!("drained: {reason}"),
    });
    let leaving = || worker.leaving.map(|_| "it is stopping".to_owned());
    let quarantined = || {
        let found = worker.quarantine?;
        let percent = f64::from(found.drift_ppm) / 10_000.0;
        Some(format!("quarantined: its clock is off by {percent:+.2} %"))
    };
    drained.or_else(leaving).or_else(quarantined)
}

/// Who wants a worker to be given nothing more, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainView {
    /// In their words.
    pub reason: String,
    /// Who, as they called themselves; nobody has to prove it yet.
    pub by: String,
    /// Since when.
    pub at: Time,
}

impl DrainView {
    fn of(drain: &Drain) -> Self {
        let Drain { reason, by, mark } = drain.clone();
        Self { reason, by, at: Time(mark.at) }
    }
}

/// What is wrong with the clock of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineView {
    /// By how many millionths it was found to be too fast; negative if it is too slow.
    pub drift_ppm: i32,
    /// Since when.
    pub at: Time,
}

impl QuarantineView {
    fn of(found: Quarantine) -> Self {
        Self { drift_ppm: found.drift_ppm, at: Time(found.mark.at) }
    }
}

/// The answer to what was asked of a worker, as draining it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerAccepted {
    /// The worker.
    pub id: WorkerId,
}
