//! The node behind its handles: its parts, its tasks and its end.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::Raft;
use crate::ClusterId;
use crate::agreement::Agreement;
use crate::forward::Forwarder;
use crate::leadership::Leadership;
use crate::machine;
use crate::proposals::Proposals;
use crate::reads::Reads;
use crate::state_machine::Replica;
use crate::status::Contact;
use crate::storage::Storage;

/// A node, shared by its handles.
pub(crate) struct Inner {
    pub(crate) id: u64,
    pub(crate) cluster: ClusterId,
    pub(crate) election_max: Duration,
    pub(crate) raft: Raft,
    pub(crate) replica: Arc<Replica>,
    pub(crate) storage: Storage,
    pub(crate) proposals: Arc<Proposals>,
    pub(crate) reads: Reads,
    pub(crate) forwarder: Forwarder,
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) contact: Contact,
    pub(crate) agreement: Mutex<Agreement>,
    /// Set while another node is to take over because this one has no room.
    pub(crate) is_handing_over: AtomicBool,
    /// Why the node stopped, once it has.
    pub(crate) stopped: watch::Sender<Option<String>>,
    /// Cancelled when the node stops: connections end.
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: Mutex<Vec<AbortHandle>>,
    numbers: AtomicU64,
    is_stopping: AtomicBool,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.id).field("cluster", &self.cluster).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.abort_tasks();
        self.stopping.cancel();
    }
}

impl Inner {
    pub(crate) fn new(
        (id, cluster): (u64, ClusterId),
        election_max: Duration,
        raft: Raft,
        replica: Arc<Replica>,
    ) -> Self {
        Self {
            id,
            cluster,
            election_max,
            reads: Reads::start(raft.clone()),
            raft,
            storage: replica.storage.clone(),
            replica,
            proposals: Arc::default(),
            forwarder: Forwarder::default(),
            leadership: watch::Sender::default(),
            contact: Contact::new(),
            agreement: Mutex::default(),
            is_handing_over: AtomicBool::new(false),
            stopped: watch::Sender::default(),
            stopping: CancellationToken::new(),
            tasks: Mutex::default(),
            numbers: AtomicU64::new(0),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// Runs a task that ends with the node.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let handle = tokio::spawn(task).abort_handle();
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }

    fn abort_tasks(&self) {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(AbortHandle::abort);
    }

    /// A number that no other caller of this got.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Stops for good: no more votes, acknowledgements or answers. Waits until that is so.
    pub(crate) async fn stop(self: &Arc<Self>, reason: String) {
        if !self.is_stopping.swap(true, Ordering::AcqRel) {
            // By a task of its own: whoever waits may give up.
            let inner = Arc::clone(self);
            tokio::spawn(async move {
                inner.end().await;
                inner.stopped.send_replace(Some(reason));
                inner.abort_tasks();
            });
        }
        // The sender is in our hands.
        let _ = self.stopped.subscribe().wait_for(Option::is_some).await;
    }

    async fn end(&self) {
        self.stopping.cancel();
        self.proposals.close();
        self.storage.close();
        if self.raft.shutdown().await.is_err() {
            tracing::warn!("the Raft core ended badly");
        }
        self.leadership.send_modify(|known| known.leads = false);
        let replica = Arc::clone(&self.replica);
        // Saves replaying what the log has of it, and lets go of sled's files.
        let closed = machine::blocking(move || {
            let index = *replica.applied.borrow();
            // What has failed is not tried again: it might seem to succeed.
            let has_failed = replica.storage.has_failed();
            let checkpoint = if has_failed { Ok(()) } else { replica.history.checkpoint(index) };
            replica.history.close();
            checkpoint
        });
        if let Ok(Err(error)) = closed.await {
            tracing::warn!(%error, "the history was not made durable; the log will repair it");
        }
    }
}
