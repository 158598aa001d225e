//! Which finished runs the history is to forget.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::{DurationMs, Name, RunId, UnixMs};

/// Runs pruned by one entry: few enough that the history deletes them between two entries.
pub const PRUNE_MAX: usize = 1_000;

/// How much history is kept, for each workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Finished runs; the oldest go first. 10,000 by default.
    pub keep_count: usize,
    /// How long a run is kept after it ended. 30 days by default.
    pub keep_age: DurationMs,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep_count: 10_000, keep_age: DurationMs(30 * 24 * 3_600_000) }
    }
}

/// A finished run, as far as retention looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its id.
    pub run: RunId,
    /// What it executed.
    pub workflow: Name,
    /// When it ended.
    pub ended_at: UnixMs,
}

/// The runs to prune, those that ended first in front; at most [`PRUNE_MAX`]. What is left
/// is for the next time.
#[must_use]
pub fn prunable(finished: &[Finished], policy: Retention, now: UnixMs) -> Vec<RunId> {
    let mut by_workflow: BTreeMap<&Name, Vec<&Finished>> = BTreeMap::new();
    for run in finished {
        by_workflow.entry(&run.workflow).or_default().push(run);
    }
    let mut doomed = Vec::new();
    for mut runs in by_workflow.into_values() {
        runs.sort_unstable_by_key(|run| Reverse((run.ended_at, run.run)));
        let is_surplus = |&(at, run): &(usize, &Finished)| {
            at >= policy.keep_count || now.since(run.ended_at) > policy.keep_age
        };
        doomed.extend(runs.into_iter().enumerate().filter(is_surplus).map(|(_, run)| run));
    }
    doomed.sort_unstable_by_key(|run| (run.ended_at, run.run));
    doomed.into_iter().take(PRUNE_MAX).map(|run| run.run).collect()
}
