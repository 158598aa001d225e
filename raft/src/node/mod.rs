//! A member of the cluster: the handle that the rest of Quorate holds.

mod inner;

use std::sync::Arc;
use std::time::Duration;

use quorate_model::{Event, LogIndex, Request, State, UnixMs, mutant};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::ClusterId;
use crate::error::{JoinError, OpenError, ProposeError};
use crate::forward::{Forwarder, Told, What};
use crate::history::History;
use crate::leadership::Leadership;
use crate::membership::Joined;
use crate::options::Options;
use crate::proposals::Committed;
use crate::state_machine::{Effects, StateMachine};
use crate::status::Status;

pub(crate) use inner::Inner;

pub(crate) type Raft = crate::types::Raft<StateMachine>;

/// How long to wait for a change before a leader is looked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// How long a node that goes down waits for another to take over.
const HAND_OVER_DEADLINE: Duration = Duration::from_secs(1);

/// A member of the cluster. A cheap handle: clones are the same node, which goes down with
/// [`shutdown`](Self::shutdown), or hard with the last handle.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

impl Node {
    /// Opens the node in a data directory, and lets it take part in the cluster.
    ///
    /// # Errors
    ///
    /// If the directory cannot be trusted, or holds no or another node than asked for.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        crate::open::open(options).await
    }

    /// Its id: never used before it, and never after.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// Its cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.inner.cluster
    }

    /// Commits a request, wherever the leader is, and answers once it is applied there and
    /// here. While there is no leader, waits for one; a request with an idempotency key is
    /// repeated when its outcome is unknown, as long as `deadline` allows.
    ///
    /// If it is committed but this node does not catch up with it in time, the answer comes
    /// all the same.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]; only after [`ProposeError::Unknown`] may it still happen.
    pub async fn propose(
        &self,
        request: Request,
        deadline: Duration,
    ) -> Result<Committed, ProposeError> {
        let until = Instant::now() + deadline;
        let told = self.ask_leader(&What::Propose(Box::new(request)), until).await?;
        let Told::Committed(committed) = told else { return Err(unexpected(&told)) };
        // Late or not, this is the answer.
        let _ = self.inner.wait_applied(committed.index, until).await;
        Ok(committed)
    }

    /// Commits requests in one entry, if this node leads in exactly `term`. For the leader's
    /// own loops: passes when others are refused for overload.
    ///
    /// # Errors
    ///
    /// [`ProposeError::NoLeader`] once the term is over.
    pub async fn propose_as(
        &self,
        term: u64,
        requests: Vec<Request>,
        deadline: Duration,
    ) -> Result<Vec<Committed>, ProposeError> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        self.inner.admit(&requests)?;
        self.inner.proposals.submit(&requests, Some(term), Instant::now() + deadline).await
    }

    /// Waits until this node has applied everything that was committed when this was called,
    /// as confirmed by a quorum; answers up to where that is.
    ///
    /// # Errors
    ///
    /// [`ProposeError::NoLeader`] if no leader could confirm in time, or this node did not
    /// catch up; [`ProposeError::DiskFull`] if it did not because it has no room for what is
    /// new. Then it can still answer with what it has.
    pub async fn catch_up(&self, deadline: Duration) -> Result<LogIndex, ProposeError> {
        if mutant::is("M20") {
            return Ok(*self.inner.replica.applied.borrow());
        }
        let until = Instant::now() + deadline;
        let index = match self.ask_leader(&What::ReadIndex, until).await {
            Ok(Told::Index(index)) => index,
            Ok(other) => return Err(unexpected(&other)),
            // A read leaves nothing behind that could be unknown.
            Err(ProposeError::Unknown) => return Err(ProposeError::NoLeader { leader: None }),
            Err(error) => return Err(error),
        };
        if self.inner.wait_applied(index, until).await {
            Ok(index)
        } else if !self.inner.has_room() {
            Err(self.inner.disk_full())
        } else {
            Err(ProposeError::NoLeader { leader: self.leader_address() })
        }
    }

    /// Has a quorum confirm that this node leads in `term`, now or later than this is called,
    /// and waits until it has applied everything that was committed before: what the state
    /// says from then on is not older than the call.
    ///
    /// # Errors
    ///
    /// [`ProposeError::NoLeader`] if it does not, no quorum answers in time, or applying takes
    /// too long.
    pub async fn confirm_leadership(
        &self,
        term: u64,
        deadline: Duration,
    ) -> Result<(), ProposeError> {
        let until = Instant::now() + deadline;
        let point = self.inner.reads.point(until).await?;
        if point.term == term && self.inner.wait_applied(point.index, until).await {
            Ok(())
        } else {
            Err(ProposeError::NoLeader { leader: self.leader_address() })
        }
    }

    /// Shows the state as this node has applied it. Holds up apply: be quick, and wait for
    /// nothing.
    pub fn with_state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.inner.replica.with_state(look)
    }

    /// Finished runs that left the live state, as this node has applied it.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.inner.replica.history
    }

    /// What this node would stamp on an entry now: its wall clock, or later if the log is.
    #[must_use]
    pub fn log_time(&self) -> UnixMs {
        self.inner.replica.log_time()
    }

    /// The last entry that this node has applied.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<LogIndex> {
        self.inner.replica.applied.subscribe()
    }

    /// Waits until more than `index` is applied here, at most for `wait`; answers what is.
    pub async fn applied_after(&self, index: LogIndex, wait: Duration) -> LogIndex {
        let mut applied = self.applied();
        // Late or stopped: what is applied is the answer all the same.
        let _ = tokio::time::timeout(wait, applied.wait_for(|&applied| applied > index)).await;
        *self.inner.replica.applied.borrow()
    }

    /// Who leads, as far as this node knows.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.subscribe()
    }

    /// What the leader is to carry out, from now on. A receiver that lags is told, and starts
    /// over from [`State::outstanding`].
    #[must_use]
    pub fn effects(&self) -> broadcast::Receiver<Arc<Effects>> {
        self.inner.replica.effects.subscribe()
    }

    /// Every change from now on. A receiver that lags is told.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<(LogIndex, Event)> {
        self.inner.replica.events.subscribe()
    }

    /// The node and its cluster, as this node sees them.
    #[must_use]
    pub fn status(&self) -> Status {
        self.inner.status()
    }

    /// Waits until the node has stopped, by itself or by [`shutdown`](Self::shutdown), and
    /// says why.
    pub async fn stopped(&self) -> String {
        let mut stopped = self.inner.stopped.subscribe();
        let reason = stopped.wait_for(Option::is_some).await.map(|reason| reason.clone());
        reason.ok().flatten().unwrap_or_default()
    }

    /// Has the node at `address` join: mints its id, makes it a learner, and a voter, if it is
    /// to be one, as soon as it has caught up.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]. If it is unknown, try again: an id more does no harm, and a
    /// learner that never came is replaced by the next at its address.
    pub async fn join(
        &self,
        address: &str,
        voter: bool,
        deadline: Duration,
    ) -> Result<Joined, ProposeError> {
        let what = What::Join { address: address.to_owned(), voter };
        let told = self.ask_leader(&what, Instant::now() + deadline).await?;
        let Told::Joined(joined) = told else { return Err(unexpected(&told)) };
        Ok(joined)
    }

    /// Removes a node for good, dead or alive. To replace a dead node, remove it and have the
    /// new one join.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`].
    pub async fn remove(&self, node: u64, deadline: Duration) -> Result<(), ProposeError> {
        let told = self.ask_leader(&What::Remove { node }, Instant::now() + deadline).await?;
        done(&told)
    }

    /// Hands leadership to another voter; to the one with most of the log if `None`.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`].
    pub async fn transfer_leadership(
        &self,
        to: Option<u64>,
        deadline: Duration,
    ) -> Result<(), ProposeError> {
        let told = self.ask_leader(&What::Transfer { to }, Instant::now() + deadline).await?;
        done(&told)
    }

    /// Hands leadership over if it has it, and stops. Nothing that was acknowledged is lost
    /// if this is left out.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        if inner.raft.is_leader() {
            let until = Instant::now() + HAND_OVER_DEADLINE;
            if let Err(error) = inner.transfer_here(None, until).await {
                tracing::info!(%error, "leadership was not handed over");
            }
        }
        inner.stop("it was shut down".to_owned()).await;
    }

    /// Has the leader answer, be it this node or another; looks for one until `until`.
    pub(crate) async fn ask_leader(
        &self,
        what: &What,
        until: Instant,
    ) -> Result<Told, ProposeError> {
        let mut leadership = self.leadership();
        let mut in_doubt = false;
        loop {
            if self.inner.stopping.is_cancelled() {
                return Err(if in_doubt { ProposeError::Unknown } else { ProposeError::Stopping });
            }
            let error = match self.ask_once(what, until).await {
                Ok(told) => return Ok(told),
                Err(error) => error,
            };
            let unknown = error == ProposeError::Unknown;
            in_doubt |= unknown;
            let again = error.is_no_leader() || (unknown && what.may_be_repeated());
            if !again || Instant::now() + RETRY_PAUSE >= until {
                return Err(self.final_error(error, in_doubt));
            }
            // Either a new leader turns up, or the same may take it after all.
            let _ = tokio::time::timeout(RETRY_PAUSE, leadership.changed()).await;
        }
    }

    async fn ask_once(&self, what: &What, until: Instant) -> Result<Told, ProposeError> {
        let leader = self.inner.leadership.borrow().leader.clone();
        match leader {
            Some((id, _)) if id == self.inner.id => self.inner.answer(what, until).await,
            Some((_, address)) => {
                self.inner.forwarder.ask(self.inner.cluster, &address, what, until).await
            }
            None => Err(ProposeError::NoLeader { leader: None }),
        }
    }

    /// What to say at last: an earlier try may have been proposed, whatever became of the last.
    fn final_error(&self, error: ProposeError, in_doubt: bool) -> ProposeError {
        if in_doubt {
            return ProposeError::Unknown;
        }
        if error == (ProposeError::NoLeader { leader: None }) {
            return ProposeError::NoLeader { leader: self.leader_address() };
        }
        error
    }

    fn leader_address(&self) -> Option<String> {
        self.inner.leadership.borrow().leader.as_ref().map(|(_, address)| address.clone())
    }
}

impl What {
    /// Whether doing it twice is doing it once.
    fn may_be_repeated(&self) -> bool {
        match self {
            Self::Propose(request) => request.key.is_some(),
            Self::ReadIndex | Self::History { .. } | Self::Room | Self::Digest { .. } => true,
            Self::Join { .. } | Self::Remove { .. } | Self::Transfer { .. } => false,
        }
    }
}

/// Asks a member of a cluster, any, for an id and to be taken in.
///
/// # Errors
///
/// See [`JoinError`].
pub async fn ask_to_join(
    seed: &str,
    advertise_address: &str,
    voter: bool,
    deadline: Duration,
) -> Result<Joined, JoinError> {
    let what = What::Join { address: advertise_address.to_owned(), voter };
    let until = Instant::now() + deadline;
    let told = Forwarder::default().ask(ClusterId::NONE, seed, &what, until).await;
    match told {
        Ok(Told::Joined(joined)) => Ok(joined),
        Ok(other) => Err(JoinError::Failed(unexpected(&other))),
        Err(ProposeError::Unknown) => Err(JoinError::Late { seed: seed.to_owned(), deadline }),
        Err(error) => Err(JoinError::Failed(error)),
    }
}

fn done(told: &Told) -> Result<(), ProposeError> {
    if matches!(told, Told::Done) { Ok(()) } else { Err(unexpected(told)) }
}

/// The answer to another question: no more is known than without one.
fn unexpected(told: &Told) -> ProposeError {
    tracing::error!(?told, "the leader answered another question");
    ProposeError::Unknown
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use openraft::EntryPayload;
    use openraft::async_runtime::WatchReceiver;
    use quorate_model::Command;
    use quorate_model::command::MintNodeId;

    use super::*;
    use crate::Start;
    use crate::types::{LogEntry, Membership};

    const SOON: Duration = Duration::from_secs(20);

    async fn found(dir: &std::path::Path) -> Node {
        let node = Node::open(Options::new(dir, "127.0.0.1:1", Start::Bootstrap)).await.unwrap();
        node.leadership().wait_for(|known| known.leads).await.unwrap();
        node
    }

    async fn wait_until(node: &Node, holds: impl Fn(&Status) -> bool) {
        let deadline = Instant::now() + SOON;
        while !holds(&node.status()) {
            assert!(Instant::now() < deadline, "{:?}", node.status());
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn stops_at_an_entry_that_it_cannot_read() {
        let dir = tempfile::tempdir().unwrap();
        let node = found(dir.path()).await;
        let poison = LogEntry(vec![1, 255, 255, 255].into());
        let written = node.inner.raft.client_write(poison).await;
        assert!(written.is_err(), "nobody is told that it was applied");
        let reason = tokio::time::timeout(SOON, node.stopped()).await.unwrap();
        assert!(reason.contains("upgrade this node"), "{reason}");
        let mint = Command::MintNodeId(MintNodeId {}).into();
        let refused = node.propose(mint, SOON).await;
        assert_eq!(refused, Err(ProposeError::Stopping));
        drop(node);

        // Whether the log says already that the entry is committed is a matter of timing: if
        // so, the node does not start; if not, it stops as soon as it leads and commits it.
        let options = Options::new(dir.path(), "127.0.0.1:1", Start::Resume);
        let refused = match Node::open(options).await {
            Err(error) => error.to_string(),
            Ok(node) => tokio::time::timeout(SOON, node.stopped()).await.unwrap(),
        };
        assert!(refused.contains("upgrade this node"), "{refused}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ends_a_change_of_the_membership_that_was_left_halfway() {
        let dir = tempfile::tempdir().unwrap();
        let node = found(dir.path()).await;
        let raft = &node.inner.raft;
        let voters = BTreeSet::from([1]);
        let nodes = raft.metrics().borrow_watched().membership_config.clone();
        let nodes = nodes.membership().nodes().map(|(&id, node)| (id, node.clone()));
        let nodes: std::collections::BTreeMap<_, _> = nodes.collect();
        let halfway = Membership::new(vec![voters.clone(), voters], nodes).unwrap();
        raft.append_membership(halfway, EntryPayload::Blank, []).await.unwrap();
        wait_until(&node, |status| status.members_changing).await;
        wait_until(&node, |status| !status.members_changing).await;
        assert_eq!(node.status().members.len(), 1);
        node.shutdown().await;
    }
}
