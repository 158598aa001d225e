//! Replaying what a node that is stopped has on its disk, to prove it or to refute it.
//!
//! What is looked at is what the log did to the state, not how: after each entry the runs that
//! it touched are compared with what they were before. So a fault in a command is found by
//! rules that do not share its code. Works on a copy of the data directory, for opening a log
//! repairs what a crash left half written.

mod replay;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use quorate_model::{LogIndex, Run, Task};
use serde::Serialize;

use crate::error::OpenError;
use crate::history::{History, HistoryQuery, LIST_RUNS_MAX};
use crate::identity::Identity;
use crate::log_store::LogStore;
use crate::snapshot::{SnapshotReader, SnapshotStore};
use crate::wal::WalOptions;
use replay::{Base, Replay};

/// Faults that are told. Beyond it one more says nothing new.
const FAULTS_MAX: usize = 100;

/// What was looked at, and what speaks against it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// The node whose directory it is.
    pub node: u64,
    /// Its cluster.
    pub cluster: String,
    /// The entry behind which the replay began: that of a snapshot, or 0.
    pub base: u64,
    /// The last entry that was replayed, and known to be committed.
    pub last: u64,
    /// Entries behind `--from`, each of which follows the one before in index and term.
    pub entries: u64,
    /// Requests in them.
    pub requests: u64,
    /// Of them, those refused or answered from memory.
    pub without_effect: u64,
    /// Assignments, each under a token of its own while nothing else was in flight.
    pub assignments: u64,
    /// Ends of attempts, each recorded once.
    pub ends: u64,
    /// Changes of tasks, each of which follows the life cycle.
    pub changes: u64,
    /// Runs that ended meanwhile.
    pub runs_ended: u64,
    /// Snapshots that say the same as the replay at their entry.
    pub snapshots: u64,
    /// Finished runs in the history whose records are sound.
    pub history_runs: u64,
    /// The digest of the state after `last`, as `GET /v1/cluster?hash=true` has it.
    pub hash: String,
    /// What was found wrong. Empty for a proof.
    pub faults: Vec<String>,
}

impl Audit {
    fn fault(&mut self, what: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(what);
        }
    }
}

/// Audits a copy of a data directory: entries behind `from`, or as many as can be replayed.
/// Blocks.
///
/// # Errors
///
/// If there is no node in it, its files are refused as they would be at a start, or the log
/// does not reach back to `from`.
pub fn audit(copy: &Path, from: Option<u64>) -> Result<Audit, OpenError> {
    let refused = |error: &dyn std::error::Error| OpenError::Refused(error.to_string());
    let identity = Identity::open(copy).map_err(|error| refused(&error))?;
    let identity = identity
        .ok_or_else(|| OpenError::Refused(format!("no node lives in {}", copy.display())))?;
    let log = LogStore::open_as(&identity, WalOptions::default());
    let log = log.map_err(|error| refused(&error))?;
    let storage = |error: io::Error| OpenError::Storage(error.to_string());
    let bases = bases(copy).map_err(storage)?;
    let chosen = choose(&bases, log.purged(), from)?;
    let mut replay = Replay::new(chosen, from.unwrap_or(0));
    replay.audit.node = identity.node();
    replay.audit.cluster = identity.cluster().to_string();
    let newest = bases.iter().map(|base| base.index).max().unwrap_or(0);
    let end = log.committed().unwrap_or(0).max(newest);
    replay.entries(&log, end, &bases).map_err(storage)?;
    let (mut audit, pruned) = replay.finish();
    let history = History::open(&copy.join("history"));
    let history = history.map_err(|error| OpenError::Storage(error.to_string()))?;
    check_history(&history, &pruned, &mut audit)
        .map_err(|error| OpenError::Storage(error.to_string()))?;
    Ok(audit)
}

/// What a replay can begin with or be compared to: the snapshots that can be read, newest
/// first, and nothing at all.
fn bases(dir: &Path) -> io::Result<Vec<Base>> {
    let mut bases = Vec::new();
    for (index, file) in SnapshotStore::open(&dir.join("snapshots"))?.list()? {
        let mut reader = SnapshotReader::open(&file)?;
        let state = reader.state()?;
        reader.end()?;
        bases.push(Base { index: index.0, state });
    }
    bases.push(Base::default());
    Ok(bases)
}

/// The oldest base that the log reaches back to; the newest before `from`, if that is asked for.
fn choose(bases: &[Base], purged: Option<u64>, from: Option<u64>) -> Result<&Base, OpenError> {
    let reached = |base: &&Base| base.index >= purged.unwrap_or(0);
    let oldest = bases.iter().rfind(reached).ok_or_else(|| {
        OpenError::Refused("no snapshot can be read that reaches where the log begins".into())
    })?;
    let Some(from) = from else { return Ok(oldest) };
    bases.iter().filter(reached).find(|base| base.index <= from).ok_or_else(|| {
        OpenError::Refused(format!(
            "the log reaches back to entry {}; say --from {0}",
            oldest.index
        ))
    })
}

/// Every run in the history has a record that could have come about, and those that the replay
/// saw leave are there.
fn check_history(
    history: &History,
    pruned: &BTreeSet<quorate_model::RunId>,
    audit: &mut Audit,
) -> Result<(), crate::error::HistoryError> {
    let mut before = None;
    loop {
        let query = HistoryQuery { before, limit: LIST_RUNS_MAX, ..HistoryQuery::default() };
        let page = history.list(&query)?;
        let Some(last) = page.last() else { return Ok(()) };
        before = Some((last.run.created.at, last.id));
        for retired in &page {
            audit.history_runs += 1;
            if pruned.contains(&retired.id) {
                audit.fault(format!("run {} was pruned, and is in the history", retired.id));
            }
            let faults = run_faults(&retired.run, true);
            faults.for_each(|what| audit.fault(format!("run {}: {what}", retired.id)));
        }
    }
}

/// What is wrong with the record of a run by itself.
fn run_faults(run: &Run, over: bool) -> impl Iterator<Item = String> + '_ {
    let open = over && run.end().is_none();
    let tasks = run.tasks.iter().enumerate();
    let faults = tasks.flat_map(move |(position, task)| {
        let faults = task_faults(task, over).into_iter();
        faults.map(move |what| format!("task {position}: {what}"))
    });
    open.then(|| "it has left the live state and not ended".to_owned()).into_iter().chain(faults)
}

/// What is wrong with the record of a task by itself: attempts do not overlap, each has one
/// outcome, and one at most succeeded.
fn task_faults(task: &Task, over: bool) -> Vec<String> {
    let mut faults = Vec::new();
    if over && task.end().is_none() {
        faults.push("its run is over, and it is not".to_owned());
    }
    for record in &task.attempts {
        if record.ended.index.0 <= record.token.0 {
            faults.push(format!(
                "{} ended by entry {} and was assigned by {}",
                record.attempt, record.ended.index, record.token
            ));
        }
    }
    for (one, next) in task.attempts.iter().zip(task.attempts.iter().skip(1)) {
        if next.token.0 < one.ended.index.0 || next.attempt <= one.attempt {
            faults.push(format!(
                "{} was assigned by entry {} before {} ended by {}",
                next.attempt, next.token, one.attempt, one.ended.index
            ));
        }
    }
    if let (Some(last), Some(flight)) = (task.attempts.last(), task.flight())
        && (flight.token.0 < last.ended.index.0 || flight.attempt <= last.attempt)
    {
        faults.push(format!("{} is in flight, and {} ended later", flight.attempt, last.attempt));
    }
    let succeeded = task
        .attempts
        .iter()
        .filter(|record| matches!(record.outcome, quorate_model::Outcome::Succeeded { .. }))
        .count();
    let said = task.end() == Some(quorate_model::TaskEnd::Succeeded);
    if succeeded > usize::from(said) {
        faults.push(format!("{succeeded} attempts succeeded, and it is {}", task.status));
    }
    faults
}

/// The entry, for messages.
fn at(index: LogIndex, what: &str) -> String {
    format!("entry {index}: {what}")
}
