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
    /// How long a run is kept after it was created. 30 days by default.
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
    /// When it was created.
    pub created_at: UnixMs,
}

/// The runs to prune, those that were created first in front; at most [`PRUNE_MAX`]. What is left
/// is for the next time.
#[must_use]
pub fn prunable(finished: &[Finished], policy: Retention, now: UnixMs) -> Vec<RunId> {
    let mut by_workflow: BTreeMap<&Name, Vec<&Finished>> = BTreeMap::new();
    for run in finished {
        by_workflow.entry(&run.workflow).or_default().push(run);
    }
    let mut doomed = Vec::new();
    for mut runs in by_workflow.into_values() {
        runs.sort_unstable_by_key(|run| Reverse((run.created_at, run.run)));
        let is_surplus = |&(at, run): &(usize, &Finished)| {
            at >= policy.keep_count || now.since(run.created_at) > policy.keep_age
        };
        doomed.extend(runs.into_iter().enumerate().filter(is_surplus).map(|(_, run)| run));
    }
    doomed.sort_unstable_by_key(|run| (run.created_at, run.run));
    doomed.into_iter().take(PRUNE_MAX).map(|run| run.run).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn finished(number: u128, workflow: &str, created_at: u64) -> Finished {
        let run = RunId(Uuid::from_u128(number));
        Finished { run, workflow: workflow.parse().unwrap(), created_at: UnixMs(created_at) }
    }

    fn pruned(finished: &[Finished], keep_count: usize, keep_age: u64, now: u64) -> Vec<u128> {
        let policy = Retention { keep_count, keep_age: DurationMs(keep_age) };
        prunable(finished, policy, UnixMs(now)).iter().map(|run| run.0.as_u128()).collect()
    }

    #[test]
    fn keeps_the_latest_of_each_workflow() {
        let runs =
            [finished(1, "a", 10), finished(2, "a", 30), finished(3, "a", 20), finished(4, "b", 5)];
        assert_eq!(pruned(&runs, 3, 1_000, 100), [0; 0]);
        assert_eq!(pruned(&runs, 2, 1_000, 100), [1]);
        assert_eq!(pruned(&runs, 1, 1_000, 100), [1, 3]);
        assert_eq!(pruned(&runs, 0, 1_000, 100), [4, 1, 3, 2]);
    }

    #[test]
    fn keeps_a_run_up_to_its_age_and_no_longer() {
        let runs = [finished(1, "a", 10), finished(2, "a", 11)];
        assert_eq!(pruned(&runs, 10, 90, 100), [0; 0]);
        assert_eq!(pruned(&runs, 10, 89, 100), [1]);
        assert_eq!(pruned(&runs, 10, 0, 5), [0; 0], "a clock that is behind prunes nothing");
    }

    #[test]
    fn prunes_a_bounded_number_oldest_first() {
        let runs: Vec<Finished> =
            (0..2_500).map(|at| finished(at, "a", 5_000 - u64::try_from(at).unwrap())).collect();
        let first = pruned(&runs, 0, 1_000, 5_000);
        assert_eq!(first.len(), PRUNE_MAX);
        assert_eq!(first[..2], [2_499, 2_498]);
    }

    #[test]
    fn runs_of_one_instant_go_in_the_order_of_their_ids() {
        let runs = [finished(2, "a", 10), finished(1, "a", 10), finished(3, "a", 10)];
        assert_eq!(pruned(&runs, 1, 1_000, 10), [1, 2]);
    }
}
