//! The leader's clock: sleeps until something falls due in the state, then says so.

use std::time::Duration;

use quorate_model::command::AdvanceClock;
use quorate_model::{Command, UnixMs};
use quorate_raft::Node;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Sleeps are cut to this, so that a wall clock that is set right is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(5);

/// Between two proposals that did not help: the leader may have lost its quorum.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// How long a proposal may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Proposes [`AdvanceClock`] whenever a timer is due, until the term ends.
pub(super) async fn run(node: Node, term: u64, stop: CancellationToken) {
    let mut applied = node.applied();
    loop {
        applied.borrow_and_update();
        let next = node.with_state(|state| state.next_deadline());
        let wait = next.map_or(SLEEP_MAX, |at| wait_until(at, node.log_time()));
        if wait.is_zero() {
            let request = Command::AdvanceClock(AdvanceClock {}).into();
            let outcome = node.propose_as(term, vec![request], DEADLINE).await;
            if let Err(error) = outcome {
                debug!(%error, "the clock could not advance");
                tokio::time::sleep(RETRY_AFTER).await;
            }
            if stop.is_cancelled() {
                return;
            }
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait.min(SLEEP_MAX)) => {}
            changed = applied.changed() => if changed.is_err() { return },
        }
    }
}

fn wait_until(at: UnixMs, now: UnixMs) -> Duration {
    Duration::from_millis(at.since(now).0)
}
