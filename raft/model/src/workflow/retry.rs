//! What happens after an attempt failed.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::{DurationMs, Outcome, TaskEnd, TaskId};

/// What happens after an attempt failed or timed out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Retry {
    /// Attempts after the first. 0 means one attempt.
    pub limit: u32,
    /// Before the first retry.
    pub delay: DurationMs,
    /// What the delay is multiplied by after each, in thousandths.
    pub backoff_permille: u32,
    /// The delay never exceeds this.
    pub max_delay: DurationMs,
    /// The delay is up to this much shorter or longer, in thousandths; at most 1,000. Tasks
    /// that failed together do not come back together.
    pub jitter_permille: u32,
    /// The failures that are tried again; all of them if it is empty.
    pub on: Vec<RetryCause>,
}

/// A failure that may be worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryCause {
    /// Its process ended with this code.
    ExitCode(i32),
    /// Its process ended with any code but zero.
    Exit,
    /// Its process was ended by a signal.
    Signal,
    /// It took too long.
    Timeout,
    /// Its worker was lost. Always tried again, unless [`OnLost`](super::OnLost) says otherwise.
    WorkerLost,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            limit: 0,
            delay: DurationMs(1_000),
            backoff_permille: 1_000,
            max_delay: DurationMs(3_600_000),
            jitter_permille: 0,
            on: Vec::new(),
        }
    }
}

impl Retry {
    /// How long to wait after the `failures`-th failure, from 1.
    #[must_use]
    pub fn delay_after(&self, failures: u32) -> DurationMs {
        let mut delay = self.delay.0.min(self.max_delay.0);
        for _ in 1..failures {
            let next = u128::from(delay) * u128::from(self.backoff_permille) / 1_000;
            let next = u64::try_from(next).unwrap_or(u64::MAX).min(self.max_delay.0);
            if next == delay {
                break;
            }
            delay = next;
        }
        DurationMs(delay)
    }

    /// How long one task waits after its `failures`-th failure, jitter included.
    ///
    /// The jitter comes from a hash of what identifies the failure, so that every node comes
    /// to the same: nothing is drawn.
    pub(crate) fn wait(&self, task: TaskId, failures: u32) -> DurationMs {
        let delay = u128::from(self.delay_after(failures).0);
        let mut seed = task.run.0.as_bytes().to_vec();
        seed.extend_from_slice(&task.index.to_le_bytes());
        seed.extend_from_slice(&failures.to_le_bytes());
        let spread = delay * u128::from(self.jitter_permille.min(1_000)) / 1_000;
        let shift = spread * u128::from(xxh3_64(&seed) % 2_001) / 1_000;
        DurationMs(u64::try_from(delay - spread + shift).unwrap_or(u64::MAX))
    }

    /// Whether a failure is one that is tried again.
    pub(crate) fn covers(&self, end: TaskEnd, outcome: Option<&Outcome>) -> bool {
        let is_timeout = end == TaskEnd::TimedOut;
        let is_it = |cause: &RetryCause| match (cause, outcome) {
            (RetryCause::Timeout, _) => is_timeout,
            (RetryCause::ExitCode(wanted), Some(Outcome::Exited { code })) => {
                !is_timeout && wanted == code
            }
            (RetryCause::Exit, Some(Outcome::Exited { .. }))
            | (RetryCause::Signal, Some(Outcome::Signalled { .. })) => !is_timeout,
            (
                RetryCause::ExitCode(_)
                | RetryCause::Exit
                | RetryCause::Signal
                | RetryCause::WorkerLost,
                _,
            ) => false,
        };
        self.on.is_empty() || self.on.iter().any(is_it)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::RunId;

    fn retry(delay: u64, backoff_permille: u32, max_delay: u64) -> Retry {
        let (delay, max_delay) = (DurationMs(delay), DurationMs(max_delay));
        Retry { limit: 9, delay, backoff_permille, max_delay, ..Retry::default() }
    }

    fn delays(retry: &Retry) -> Vec<u64> {
        (1..=5).map(|failures| retry.delay_after(failures).0).collect()
    }

    #[test]
    fn delay_grows_by_the_backoff_up_to_the_longest() {
        assert_eq!(delays(&retry(100, 2_000, 500)), [100, 200, 400, 500, 500]);
        assert_eq!(delays(&retry(100, 1_500, 10_000)), [100, 150, 225, 337, 505]);
        assert_eq!(delays(&retry(100, 1_000, 10_000)), [100; 5]);
        assert_eq!(delays(&retry(900, 2_000, 500)), [500; 5]);
    }

    #[test]
    fn delay_can_shrink_and_be_nothing() {
        assert_eq!(delays(&retry(100, 500, 10_000)), [100, 50, 25, 12, 6]);
        assert_eq!(delays(&retry(100, 0, 10_000)), [100, 0, 0, 0, 0]);
        assert_eq!(delays(&retry(0, 2_000, 10_000)), [0; 5]);
    }

    #[test]
    fn delay_ends_at_the_end_of_time() {
        assert_eq!(delays(&retry(u64::MAX, u32::MAX, u64::MAX)), [u64::MAX; 5]);
        assert_eq!(retry(1, 2_000, u64::MAX).delay_after(u32::MAX).0, u64::MAX);
        assert_eq!(retry(7, 2_000, u64::MAX).delay_after(0).0, 7);
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_differs_from_task_to_task() {
        let retry = Retry { jitter_permille: 200, ..retry(1_000, 1_000, 10_000) };
        let waits: Vec<u64> = (0..200)
            .map(|index| retry.wait(TaskId { run: RunId(Uuid::from_u128(7)), index }, 1).0)
            .collect();
        assert!(waits.iter().all(|wait| (800..=1_200).contains(wait)), "{waits:?}");
        let (shorter, longer) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*shorter < 850 && *longer > 1_150, "{shorter} to {longer}");
        let task = TaskId { run: RunId(Uuid::from_u128(7)), index: 3 };
        // Written down, for all nodes must agree on it for ever.
        assert_eq!(retry.wait(task, 1), retry.wait(task, 1));
        assert_ne!(retry.wait(task, 1), retry.wait(task, 2));
    }

    #[test]
    fn only_the_failures_that_are_named_are_tried_again() {
        let exited = |code| Outcome::Exited { code };
        let covers = |on: &[RetryCause], end, outcome: &Outcome| {
            Retry { on: on.to_vec(), ..Retry::default() }.covers(end, Some(outcome))
        };
        let failed = TaskEnd::Failed;
        assert!(covers(&[], failed, &exited(1)));
        assert!(covers(&[RetryCause::ExitCode(75)], failed, &exited(75)));
        assert!(!covers(&[RetryCause::ExitCode(75)], failed, &exited(1)));
        assert!(covers(&[RetryCause::Exit], failed, &exited(1)));
        assert!(covers(&[RetryCause::Signal], failed, &Outcome::Signalled { signal: 9 }));
        assert!(!covers(&[RetryCause::Exit], failed, &Outcome::Signalled { signal: 9 }));
        // Who is killed for taking too long may exit with a code of its own.
        assert!(covers(&[RetryCause::Timeout], TaskEnd::TimedOut, &exited(75)));
        assert!(!covers(&[RetryCause::ExitCode(75)], TaskEnd::TimedOut, &exited(75)));
        assert!(!covers(&[RetryCause::WorkerLost], failed, &exited(1)));
    }
}
