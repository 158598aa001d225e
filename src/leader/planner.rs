//! The leader's planner: decides what tasks with a condition come to, and gives ready tasks to
//! workers with free slots.

use std::sync::Arc;
use std::time::Duration;

use quorate_model::{Request, plan};
use quorate_raft::Node;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Sessions;

/// Between two proposals that did not help: the leader may have lost its quorum.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// How long a proposal may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Plans whenever an entry was applied or a worker came, until the term ends.
///
/// One plan at a time: the next is made from a state in which the last is applied, so no
/// task is given out twice. Should a plan have been overtaken, apply refuses it.
pub(super) async fn run(node: Node, sessions: Arc<Sessions>, term: u64, stop: CancellationToken) {
    let mut applied = node.applied();
    let mut arrivals = sessions.arrivals();
    loop {
        applied.borrow_and_update();
        arrivals.borrow_and_update();
        let with_room = sessions.with_room();
        let commands = node.with_state(|state| plan::decisions(state, &with_room));
        if commands.is_empty() {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = applied.changed() => if changed.is_err() { return },
                changed = arrivals.changed() => if changed.is_err() { return },
            }
            continue;
        }
        let requests: Vec<Request> = commands.into_iter().map(Request::from).collect();
        #[cfg(mutant)]
        if quorate_model::mutant::is("M7") {
            sessions.anticipate(&requests);
        }
        if let Err(error) = node.propose_as(term, requests, DEADLINE).await {
            debug!(%error, "the plan could not be committed");
            tokio::time::sleep(RETRY_AFTER).await;
        }
        if stop.is_cancelled() {
            return;
        }
    }
}
