//! Opening a node: its directory, its log, its state, and the tasks that make it live.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::RaftMetrics;
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::WatchReceiver;
use openraft::storage::RaftLogStorage;
use openraft::{Config, SnapshotPolicy};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::ClusterId;
use crate::agreement::watch_agreement;
use crate::error::OpenError;
use crate::identity::{Identity, IdentityError};
use crate::leadership::watch_leadership;
use crate::log_store::LogStore;
use crate::machine;
use crate::network::Network;
use crate::node::{Inner, Node, Raft};
use crate::options::{Options, Start};
use crate::proposals::run_batcher;
use crate::refill::refill_history;
use crate::standby::watch_room;
use crate::state_machine::{Replica, StateMachine};
use crate::types::{LogId, MemberNode, TypeConfig};
use crate::wal::WalOptions;

/// The id of the node that founds a cluster; all others are minted by the log, from 2.
const FOUNDER: u64 = 1;

/// How often the node looks whether learners have caught up and the log can be shortened.
const CHORES_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) async fn open(options: Options) -> Result<Node, OpenError> {
    let (dir, start) = (options.dir.clone(), options.start);
    let identity = blocking(move || open_identity(&dir, start)).await?;
    let storage = identity.storage().clone();
    storage.room_to_start().await;
    let wal = WalOptions { segment_bytes: options.wal_segment_bytes, ..WalOptions::default() };
    let mut log = {
        let identity = identity.clone();
        blocking(move || LogStore::open_as(&identity, wal).map_err(|error| refused(&error))).await?
    };
    let log_state = log.get_log_state().await;
    let purged = log_state.map_err(|e| OpenError::Storage(e.to_string()))?.last_purged_log_id;
    let (dir, digest_every) = (options.dir.clone(), options.digest_every);
    let replica = blocking(move || Replica::open(&dir, storage, purged, digest_every)).await?;
    let replica = Arc::new(replica);

    let (id, cluster) = (identity.node(), identity.cluster());
    let raft = start_raft(&options, id, cluster, log.clone(), &replica).await?;
    if id == FOUNDER {
        found_cluster(&raft, &options.advertise_address).await?;
    }
    let inner = Arc::new(Inner::new((id, cluster), options.timing.election_max, raft, replica));
    start_tasks(&inner, &options);
    tracing::info!(node = id, %cluster, dir = %options.dir.display(), "the node is open");
    Ok(Node { inner })
}

fn open_identity(dir: &Path, start: Start) -> Result<Identity, OpenError> {
    match start {
        Start::Bootstrap => {
            let cluster = ClusterId::random().map_err(|source| OpenError::Directory {
                dir: dir.display().to_string(),
                source,
            })?;
            Identity::create(dir, cluster, FOUNDER).map_err(|error| no_identity(&error))
        }
        Start::Join { node_id, cluster_id } => {
            Identity::create(dir, cluster_id, node_id).map_err(|error| no_identity(&error))
        }
        Start::Resume => {
            let found = Identity::open(dir).map_err(|error| no_identity(&error))?;
            found.ok_or_else(|| {
                OpenError::NotHere(format!(
                    "no node lives in {}: found a cluster or join one",
                    dir.display()
                ))
            })
        }
    }
}

/// Whether a node lives in a directory, so that it is to be opened with [`Start::Resume`].
#[must_use]
pub fn holds_node(dir: &Path) -> bool {
    dir.join("identity").exists()
}

async fn start_raft(
    options: &Options,
    id: u64,
    cluster: ClusterId,
    log: LogStore,
    replica: &Arc<Replica>,
) -> Result<Raft, OpenError> {
    let raft_error = |error: &dyn std::error::Error| OpenError::Raft(error.to_string());
    let config = config(options, cluster).validate().map_err(|error| raft_error(&error))?;
    let acknowledged = Arc::default();
    let network = Network { cluster, replica: Arc::clone(replica), acknowledged };
    let machine = StateMachine(Arc::clone(replica));
    let raft = Raft::new(id, Arc::new(config), network, log, machine).await;
    raft.map_err(|error| OpenError::Storage(error.to_string()))
}

fn config(options: &Options, cluster: ClusterId) -> Config {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    // The library adds this, and a random time from the range, to the last sign of life.
    let lease = millis(options.timing.lease());
    Config {
        cluster_name: cluster.to_string(),
        heartbeat_interval: millis(options.timing.heartbeat),
        election_timeout_min: millis(options.timing.election_min / 2),
        election_timeout_max: lease,
        max_payload_entries: 1_000,
        // A follower gets a snapshot only if the log no longer has what it lacks: never because
        // it is a little behind.
        replication_lag_threshold: u64::MAX / 2,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_after_entries),
        // The log is shortened by `shorten_log` alone, which knows what the snapshots need.
        max_in_snapshot_log_to_keep: u64::MAX,
        // Progress of a transfer has deadlines of its own, in `network`.
        install_snapshot_timeout: 3_600_000,
        // A node that was away must not depose the leader by coming back.
        enable_pre_vote: Some(true),
        // A restarted leader has lost its state, so it stands for election like all others.
        enable_leader_restore: Some(false),
        quorum_loss_probe_interval: Some(2 * lease),
        // While entries go to this node's disk they are on their way to the others.
        broadcast_submitted_on_append: Some(true),
        backoff: "20ms 40ms ...400ms".to_owned(),
        ..Config::default()
    }
}

/// Makes this node the only voter of a new cluster, unless it has done so already: a founder
/// may have gone down before.
async fn found_cluster(raft: &Raft, address: &str) -> Result<(), OpenError> {
    let founded = raft.is_initialized().await.map_err(|e| OpenError::Raft(e.to_string()))?;
    if founded {
        return Ok(());
    }
    let founder = MemberNode { address: address.to_owned(), wants_vote: true };
    let members = std::collections::BTreeMap::from([(FOUNDER, founder)]);
    raft.initialize(members).await.map_err(|error| OpenError::Raft(error.to_string()))
}

fn start_tasks(inner: &Arc<Inner>, options: &Options) {
    let raft = || inner.raft.clone();
    let replica = Arc::clone(&inner.replica);
    inner.spawn(run_batcher(Arc::clone(&inner.proposals), raft(), Arc::clone(&replica)));
    inner.spawn(watch_leadership(raft(), replica, inner.leadership.clone()));
    inner.spawn(refill_history(Arc::downgrade(inner)));
    inner.spawn(watch_room(Arc::downgrade(inner)));
    inner.spawn(watch_agreement(Arc::downgrade(inner)));
    let snapshot_after_bytes = options.snapshot_after_bytes;
    let node = Arc::downgrade(inner);
    inner.spawn(async move {
        let mut seen = Seen::default();
        loop {
            tokio::time::sleep(CHORES_INTERVAL).await;
            let Some(inner) = node.upgrade() else { return };
            do_chores(&inner, snapshot_after_bytes, &mut seen).await;
        }
    });
    let node = Arc::downgrade(inner);
    let failure = failure(inner.raft.metrics(), inner.storage.failed());
    // Not one of the node's own tasks: it stops them. It holds nothing that keeps the node up.
    tokio::spawn(async move {
        let reason = failure.await;
        let Some(inner) = node.upgrade() else { return };
        if !inner.stopping.is_cancelled() {
            tracing::error!(reason, "the node stops: its storage failed");
            inner.stop(reason).await;
        }
    });
}

/// Why the node can no longer go on; waits until it cannot.
async fn failure(
    mut metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    mut storage: watch::Receiver<Option<String>>,
) -> String {
    loop {
        // The storage knows best why it failed.
        let failed = storage.borrow_and_update().clone();
        if let Some(failed) = failed {
            return failed;
        }
        let failed = metrics.borrow_watched().running_state.clone().err();
        if let Some(failed) = failed {
            return failed.to_string();
        }
        // A core that ends lets go of the log first and then says why.
        let changed = tokio::select! {
            changed = metrics.changed() => changed.is_ok(),
            Ok(()) = storage.changed() => true,
        };
        if !changed {
            let last = metrics.borrow_watched().running_state.clone().err();
            return last.map_or_else(|| "the Raft core is gone".to_owned(), |e| e.to_string());
        }
    }
}

/// What the chores remember from one time to the next.
#[derive(Debug, Default)]
struct Seen {
    /// The newest snapshot.
    snapshot: u64,
    /// A change of the membership that stands halfway, and since when.
    halfway: Option<(LogId, Instant)>,
}

/// What has to be done from time to time.
async fn do_chores(inner: &Inner, snapshot_after_bytes: u64, seen: &mut Seen) {
    if inner.leadership.borrow().leads {
        inner.promote_learners().await;
        inner.finish_change(&mut seen.halfway).await;
    }
    if inner.replica.bytes_since_snapshot() > snapshot_after_bytes {
        // If the core is gone, the node stops anyway.
        let _ = inner.raft.trigger().snapshot().await;
    }
    let newest = inner.raft.metrics().borrow_watched().snapshot.map_or(0, |id| id.index);
    if newest > seen.snapshot {
        seen.snapshot = newest;
        shorten_log(inner).await;
    }
}

/// Purges the log up to the older of the snapshots that are kept: with it and what is left of
/// the log, the state can be had even if the newer one is damaged. History is durable up to
/// either.
async fn shorten_log(inner: &Inner) {
    let snapshots = inner.replica.snapshots.clone();
    match machine::blocking(move || snapshots.retain()).await {
        Ok(Ok(Some(oldest))) => {
            tracing::info!(upto = oldest.0, "purging the log");
            // If the core is gone, the node stops anyway.
            let _ = inner.raft.trigger().purge_log(oldest.0).await;
        }
        Ok(Ok(None)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "old snapshots cannot be removed"),
        Err(error) => tracing::warn!(%error, "old snapshots cannot be removed"),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    let done = machine::blocking(work).await;
    done.map_err(|error| OpenError::Storage(error.to_string()))?
}

fn no_identity(error: &IdentityError) -> OpenError {
    if matches!(error, IdentityError::Locked { .. } | IdentityError::Exists { .. }) {
        return OpenError::NotHere(error.to_string());
    }
    refused(error)
}

/// Keeps the whole chain of causes in the message.
fn refused(error: &dyn std::error::Error) -> OpenError {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    OpenError::Refused(texts.join(": "))
}
