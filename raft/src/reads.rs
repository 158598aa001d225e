//! Read points: what a quorum confirms that this node may answer from.
//!
//! All who ask while a round is under way share the next one, so a thousand readers cost as
//! many messages as one. A round that began earlier is no use to them: it may have been
//! confirmed before what they must see was committed.

use std::time::Duration;

use openraft::ReadPolicy;
use quorate_model::LogIndex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::error::ProposeError;
use crate::node::Raft;

/// Readers that may wait for a round.
const READERS_MAX: usize = 10_000;

/// How long a round may take. A quorum that is there answers in a millisecond.
const ROUND_DEADLINE: Duration = Duration::from_secs(1);

/// What a round confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadPoint {
    /// Everything committed before the round is at or below this.
    pub(crate) index: LogIndex,
    /// The term in which this node led throughout.
    pub(crate) term: u64,
}

type Outcome = Result<ReadPoint, ProposeError>;

/// Where readers wait.
#[derive(Debug)]
pub(crate) struct Reads {
    readers: mpsc::Sender<oneshot::Sender<Outcome>>,
}

impl Reads {
    /// Starts the rounds, which end when this is dropped.
    pub(crate) fn start(raft: Raft) -> Self {
        let (readers, waiting) = mpsc::channel(READERS_MAX);
        tokio::spawn(run_rounds(raft, waiting));
        Self { readers }
    }

    /// Waits until `until` for a round that begins now or later.
    pub(crate) async fn point(&self, until: Instant) -> Outcome {
        let (tell, told) = oneshot::channel();
        self.readers.try_send(tell).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ProposeError::Stopping,
        })?;
        match tokio::time::timeout_at(until, told).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(ProposeError::Stopping),
            Err(_) => Err(ProposeError::NoLeader { leader: None }),
        }
    }
}

async fn run_rounds(raft: Raft, mut waiting: mpsc::Receiver<oneshot::Sender<Outcome>>) {
    let mut readers = Vec::new();
    while waiting.recv_many(&mut readers, READERS_MAX).await > 0 {
        let outcome = round(&raft).await;
        for reader in readers.drain(..) {
            // Whoever waited may be gone.
            let _ = reader.send(outcome.clone());
        }
    }
}

/// Asks a quorum whether this node leads.
async fn round(raft: &Raft) -> Outcome {
    let no_leader = |leader| ProposeError::NoLeader { leader };
    let asked = raft.get_read_linearizer(ReadPolicy::ReadIndex);
    match tokio::time::timeout(ROUND_DEADLINE, asked).await {
        Ok(Ok(confirmed)) => {
            let point = confirmed.read_log_id().log_id();
            Ok(ReadPoint { index: LogIndex(point.index), term: point.leader_id.term })
        }
        Ok(Err(error)) => {
            let elsewhere = error.forward_to_leader().and_then(|to| to.leader_node.clone());
            Err(no_leader(elsewhere.map(|node| node.address)))
        }
        Err(_) => Err(no_leader(None)),
    }
}
