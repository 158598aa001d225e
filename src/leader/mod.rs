//! What a node does while it leads: let timers fire, hand out ready tasks, talk to workers.
//!
//! A few loops that begin with a term and end with it. None keeps anything that the state
//! does not: what they lose when they end, the next leader's find in its own copy. Knows
//! nothing of how workers work; the words between them are in [`protocol`](crate::protocol).

mod clock;
mod drift;
mod leases;
mod planner;
mod retention;
mod sessions;

use std::sync::Arc;

use quorate_raft::Node;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

pub(crate) use sessions::Sessions;

/// Does the leader's duties whenever this node leads, until it is told to stop.
pub(crate) async fn run(node: Node, sessions: Arc<Sessions>, stop: CancellationToken) {
    let mut leadership = node.leadership();
    loop {
        let seen = leadership.borrow_and_update().clone();
        if seen.leads {
            let term = stop.child_token();
            let duties = begin(&node, &sessions, seen.term, &term);
            info!(term = seen.term, "leading");
            let in_term = |now: &quorate_raft::Leadership| now.leads && now.term == seen.term;
            tokio::select! {
                () = stop.cancelled() => {}
                changed = leadership.wait_for(|now| !in_term(now)) => drop(changed),
            }
            term.cancel();
            sessions.end_term();
            duties.wait().await;
            info!(term = seen.term, "no longer leading");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = leadership.wait_for(|now| now.leads) => if changed.is_err() { return },
        }
    }
}

fn begin(
    node: &Node,
    sessions: &Arc<Sessions>,
    term: u64,
    stop: &CancellationToken,
) -> TaskTracker {
    let duties = TaskTracker::new();
    // Before anything else: from here on every effect is seen, or found outstanding.
    let effects = node.effects();
    sessions.begin_term(term, stop.clone());
    duties.spawn(clock::run(node.clone(), term, stop.clone()));
    duties.spawn(planner::run(node.clone(), Arc::clone(sessions), term, stop.clone()));
    duties.spawn(retention::run(node.clone(), term, stop.clone()));
    duties.spawn(Arc::clone(sessions).carry_out(effects, stop.clone()));
    duties.spawn(Arc::clone(sessions).watch_leases(term, stop.clone()));
    duties.close();
    duties
}
