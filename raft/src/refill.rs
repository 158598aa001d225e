//! Getting back the finished runs that this node has lost, from another that has them.

use std::sync::Weak;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;

use crate::error::{HistoryError, ProposeError};
use crate::forward::{Forwarder, Told, What};
use crate::node::Inner;

/// How long to wait before the next node is asked.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// How long a node may take over one answer.
const PAGE_DEADLINE: Duration = Duration::from_secs(30);

/// Why a node did not fill the gaps.
#[derive(Debug, thiserror::Error)]
enum RefillError {
    #[error(transparent)]
    Peer(#[from] ProposeError),
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error("it answered another question")]
    Unexpected,
}

/// Asks the other nodes in turn, if anything is missing, until one has given all it has.
pub(crate) async fn refill_history(node: Weak<Inner>) {
    for turn in 0_usize.. {
        let Some(inner) = node.upgrade() else { return };
        if !inner.replica.history.is_missing_runs().unwrap_or(false) {
            return;
        }
        let peers = inner.peers();
        if let Some(peer) = turn.checked_rem(peers.len()).and_then(|at| peers.get(at)) {
            match refill_from(&inner, peer).await {
                Ok(()) => {
                    tracing::info!(peer, "the history of finished runs is whole again");
                    return;
                }
                Err(error) => {
                    tracing::warn!(peer, %error, "the history could not be refilled; going on");
                }
            }
        }
        drop(inner);
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn refill_from(inner: &Inner, peer: &str) -> Result<(), RefillError> {
    let history = &inner.replica.history;
    history.begin_refill();
    let applied = *inner.replica.applied.borrow();
    let forwarder = Forwarder::default();
    let mut after = None;
    loop {
        let what = What::History { after, applied };
        let until = Instant::now() + PAGE_DEADLINE;
        let told = forwarder.ask(inner.cluster, peer, &what, until).await?;
        let Told::Records(records) = told else { return Err(RefillError::Unexpected) };
        let Some(last) = records.last() else { break };
        after = Some(last.id());
        let live = inner.replica.live_runs();
        history.refill(records, &live)?;
    }
    Ok(history.end_refill()?)
}

impl Inner {
    /// The addresses of all other nodes.
    fn peers(&self) -> Vec<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let nodes = metrics.membership_config.membership().nodes();
        nodes.filter(|&(&id, _)| id != self.id).map(|(_, node)| node.address.clone()).collect()
    }
}
