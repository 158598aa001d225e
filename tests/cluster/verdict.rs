//! How tests end: with a verdict.

use crate::harness::Cluster;
use crate::judge::{Coverage, Verdict, judge};

/// Something that must have been seen so often.
pub(crate) fn seen(what: &str, seen: usize, needed: usize) -> Coverage {
    Coverage { what: what.to_owned(), seen, needed }
}

/// Judges all that is known of a cluster's runs, which must have ended. Unknown is no pass.
#[track_caller]
pub(crate) fn assert_right(cluster: &Cluster, coverage: Vec<Coverage>) {
    assert_right_with_losses(cluster, coverage, 0);
}

/// The same, where so many attempts at least must have been lost with their workers.
#[track_caller]
pub(crate) fn assert_right_with_losses(cluster: &Cluster, coverage: Vec<Coverage>, needed: usize) {
    let mut history = cluster.history();
    history.coverage = coverage;
    history.coverage.push(seen("attempts lost with their workers", history.losses(), needed));
    let verdict = judge(&history);
    assert_eq!(verdict, Verdict::Pass, "{verdict}");
}
