//! The leader's broom: has the history forget runs beyond what is kept.

use std::time::Duration;

use quorate_model::command::PruneHistory;
use quorate_model::plan::{PRUNE_MAX, Retention, prunable};
use quorate_model::{Command, RunId, State};
use quorate_raft::{Node, machine};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Between two looks. History grows by what fits on a disk many times over in that time.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How long a proposal may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Prunes the history now and then, until the term ends.
pub(super) async fn run(node: Node, term: u64, stop: CancellationToken) {
    let policy = Retention::default();
    let mut wait = LOOK_EVERY;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let runs = look(&node, policy).await;
        // More than one entry may hold: go on at once.
        wait = if runs.len() >= PRUNE_MAX { Duration::ZERO } else { LOOK_EVERY };
        if runs.is_empty() {
            continue;
        }
        info!(runs = runs.len(), "pruning the history");
        let request = Command::PruneHistory(PruneHistory { runs }).into();
        if let Err(error) = node.propose_as(term, vec![request], DEADLINE).await {
            debug!(%error, "the history was not pruned");
            wait = LOOK_EVERY;
        }
    }
}

async fn look(node: &Node, policy: Retention) -> Vec<RunId> {
    let node = node.clone();
    let looked = machine::blocking(move || {
        let finished = node.history().finished()?;
        Ok::<_, quorate_raft::HistoryError>(prunable(
            &finished,
            policy,
            node.with_state(State::now),
        ))
    });
    match looked.await {
        Ok(Ok(runs)) => runs,
        Ok(Err(error)) => {
            warn!(%error, "retention could not look at the history");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}
