//! The replica: what the log has made of the state here, and everyone who waits for it.
//!
//! Apply decodes an entry, changes the state, gives finished runs to the history, tells those
//! who watch and answers whoever proposed, in this order. What fails here stops the node.

use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use futures_util::{Stream, TryStreamExt};
use openraft::alias::SnapshotOf;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use quorate_model::{
    Answer, Applied, Effect, Entry, Event, LogIndex, RunId, State, UnixMs, mutant,
};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::agreement::Digests;
use crate::clock::LogClock;
use crate::codec;
use crate::error::OpenError;
use crate::history::History;
use crate::machine;
use crate::snapshot::{SnapshotFile, SnapshotReader, SnapshotStore};
use crate::storage::Storage;
use crate::types::{
    LeaderId, LogEntry, LogId, RaftEntry, SnapshotMeta, StoredMembership, TypeConfig,
};

/// Entries with effects that a slow receiver may be behind before it must resynchronise.
const EFFECTS_BUFFERED: usize = 1024;

/// Events that a slow receiver may be behind before it is told that it missed some.
const EVENTS_BUFFERED: usize = 8192;

/// What the leader is to carry out because of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effects {
    /// The entry.
    pub index: LogIndex,
    /// In order. Never empty.
    pub effects: Vec<Effect>,
}

type Snapshot = SnapshotOf<TypeConfig, SnapshotFile>;

/// The state of this node and all that is told when it changes.
#[derive(Debug)]
pub(crate) struct Replica {
    live: RwLock<Live>,
    pub(crate) history: History,
    pub(crate) snapshots: SnapshotStore,
    pub(crate) storage: Storage,
    /// The newest snapshot.
    current: Mutex<Option<(SnapshotMeta, SnapshotFile)>>,
    clock: LogClock,
    /// The last entry applied.
    pub(crate) applied: watch::Sender<LogIndex>,
    /// The leader that wrote the last entry applied.
    pub(crate) applied_leader: watch::Sender<Option<LeaderId>>,
    /// Bytes of entries applied since a snapshot was begun.
    bytes_since_snapshot: AtomicU64,
    pub(crate) effects: broadcast::Sender<Arc<Effects>>,
    pub(crate) events: broadcast::Sender<(LogIndex, Event)>,
    /// To compare with those of others.
    pub(crate) digests: Arc<Digests>,
}

#[derive(Clone, Debug, Default)]
struct Live {
    state: State,
    last: Option<LogId>,
    membership: StoredMembership,
}

impl Replica {
    /// Loads the newest snapshot that can be read; it must reach `purged`, where the log begins.
    /// Blocks.
    pub(crate) fn open(
        dir: &Path,
        disk: Storage,
        purged: Option<LogId>,
        digest_every: u64,
    ) -> Result<Self, OpenError> {
        let storage = |error: io::Error| OpenError::Storage(error.to_string());
        let snapshots = SnapshotStore::open(&dir.join("snapshots")).map_err(storage)?;
        let loaded = load_newest(&snapshots).map_err(storage)?;
        let live = loaded.as_ref().map(|(live, _)| live.clone()).unwrap_or_default();
        if live.last < purged {
            let purged = purged.map_or(0, |id| id.index);
            return Err(OpenError::Refused(format!(
                "no snapshot in {} can be read that reaches entry {purged}, before which the log \
                 is purged: restore the directory, or remove this node from the cluster and join \
                 with an empty one",
                dir.join("snapshots").display()
            )));
        }
        let file = loaded.map(|(_, file)| file);
        let history = open_history(&dir.join("history"), &live, file.as_ref())?;
        let current = file.map(|file| (live.meta(), file));
        let digests = Digests::new(digest_every);
        Ok(Self::new(live, disk, history, snapshots, current, digests))
    }

    fn new(
        live: Live,
        storage: Storage,
        history: History,
        snapshots: SnapshotStore,
        current: Option<(SnapshotMeta, SnapshotFile)>,
        digests: Digests,
    ) -> Self {
        Self {
            applied: watch::Sender::new(live.index()),
            applied_leader: watch::Sender::new(live.last.map(|id| id.leader_id)),
            clock: LogClock::default(),
            live: RwLock::new(live),
            history,
            snapshots,
            storage,
            current: Mutex::new(current),
            bytes_since_snapshot: AtomicU64::new(0),
            effects: broadcast::Sender::new(EFFECTS_BUFFERED),
            events: broadcast::Sender::new(EVENTS_BUFFERED),
            digests: Arc::new(digests),
        }
    }

    /// Shows the state. Holds up apply.
    pub(crate) fn with_state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.read().state)
    }

    /// Waits until `index` is applied here; false if that takes longer than `until`.
    pub(crate) async fn wait_applied(&self, index: LogIndex, until: Instant) -> bool {
        let mut applied = self.applied.subscribe();
        let reached = applied.wait_for(|&applied| applied >= index);
        matches!(tokio::time::timeout_at(until, reached).await, Ok(Ok(_)))
    }

    /// What a leader stamps on an entry now.
    pub(crate) fn log_time(&self) -> UnixMs {
        self.clock.now(self.with_state(State::now))
    }

    /// Bytes of entries applied since a snapshot was begun.
    pub(crate) fn bytes_since_snapshot(&self) -> u64 {
        self.bytes_since_snapshot.load(Ordering::Relaxed)
    }

    /// The ids of all runs that are live.
    pub(crate) fn live_runs(&self) -> std::collections::BTreeSet<RunId> {
        self.with_state(|state| state.runs().keys().copied().collect())
    }

    fn apply(&self, entry: RaftEntry) -> io::Result<Vec<Answer>> {
        let index = LogIndex(entry.log_id.index);
        let applied = match entry.payload {
            EntryPayload::Blank => self.write().advance(entry.log_id),
            EntryPayload::Membership(membership) => {
                let mut live = self.write();
                live.membership = StoredMembership::new(Some(entry.log_id), membership);
                live.advance(entry.log_id)
            }
            EntryPayload::Normal(requests) => self.apply_requests(entry.log_id, &requests)?,
        };
        let Applied { answers, effects, events, retired: _, pruned } = applied;
        self.history.store_staged().map_err(io::Error::other)?;
        if !pruned.is_empty() {
            self.history.prune(&pruned).map_err(io::Error::other)?;
        }
        if self.digests.is_due(index) {
            self.digests.make(index, self.with_state(State::clone));
        }
        self.publish(entry.log_id, effects, events);
        tracing::trace!(%index, answers = answers.len(), "applied");
        Ok(answers)
    }

    fn apply_requests(&self, id: LogId, requests: &LogEntry) -> io::Result<Applied> {
        let index = LogIndex(id.index);
        let bytes = requests.0.len() as u64;
        self.bytes_since_snapshot.fetch_add(bytes, Ordering::Relaxed);
        let entry = codec::decode_entry(requests).map_err(|error| {
            io::Error::other(format!(
                "entry {index} cannot be decoded: {error}; if a newer version wrote it, upgrade \
                 this node"
            ))
        })?;
        let is_faulty = mutant::is("M12");
        let proposed_at = if is_faulty { self.clock.now(UnixMs(0)) } else { entry.proposed_at };
        let entry = Entry { proposed_at, ..entry };
        let mut live = self.write();
        live.advance(id);
        // An invariant that does not hold stops the node in an orderly way.
        let apply = AssertUnwindSafe(|| live.state.apply(index, entry));
        let applied = std::panic::catch_unwind(apply);
        let applied = applied.map_err(|_| {
            io::Error::other(format!("entry {index} breaks an invariant; the state is not used"))
        })?;
        self.history.stage(&applied.retired);
        Ok(applied)
    }

    fn publish(&self, id: LogId, effects: Vec<Effect>, events: Vec<Event>) {
        let index = LogIndex(id.index);
        if !effects.is_empty() && self.effects.receiver_count() > 0 {
            // Without a receiver there is nobody to tell.
            let _ = self.effects.send(Arc::new(Effects { index, effects }));
        }
        if self.events.receiver_count() > 0 {
            for event in events {
                let _ = self.events.send((index, event));
            }
        }
        self.publish_applied(id);
    }

    fn publish_applied(&self, id: LogId) {
        self.applied.send_replace(LogIndex(id.index));
        let leader = Some(id.leader_id);
        self.applied_leader.send_if_modified(|known| std::mem::replace(known, leader) != leader);
    }

    /// Replaces everything by a snapshot. Blocks.
    fn install(&self, meta: &SnapshotMeta, file: &SnapshotFile) -> io::Result<()> {
        let mut reader = SnapshotReader::open(file)?;
        let state = reader.state()?;
        let live = Live { state, last: meta.last_log_id, membership: meta.last_membership.clone() };
        if reader.has_history() {
            replace_history(&self.history, &live, &mut reader)?;
        }
        reader.end()?;
        *self.current() = Some((meta.clone(), file.clone()));
        self.snapshots.retain_only(file)?;
        let last = live.last;
        *self.write() = live;
        if let Some(last) = last {
            self.publish_applied(last);
        }
        tracing::info!(file = %file.path().display(), "a snapshot is installed");
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Live> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> MutexGuard<'_, Option<(SnapshotMeta, SnapshotFile)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn index(&self) -> LogIndex {
        LogIndex(self.last.map_or(0, |id| id.index))
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() }
    }

    fn advance(&mut self, id: LogId) -> Applied {
        self.last = Some(id);
        Applied::default()
    }
}

/// The newest snapshot that can be read; nothing if there is none.
fn load_newest(snapshots: &SnapshotStore) -> io::Result<Option<(Live, SnapshotFile)>> {
    for (_, file) in snapshots.list()? {
        match load(&file) {
            Ok(live) => return Ok(Some((live, file))),
            Err(error) => {
                tracing::error!(
                    file = %file.path().display(), %error,
                    "a snapshot cannot be used; trying an older one and the log"
                );
            }
        }
    }
    Ok(None)
}

fn load(file: &SnapshotFile) -> io::Result<Live> {
    let mut reader = SnapshotReader::open(file)?;
    let meta = reader.meta()?;
    let state = reader.state()?;
    reader.end()?;
    Ok(Live { state, last: meta.last_log_id, membership: meta.last_membership })
}

/// Opens the history, which must reach the snapshot that the state comes from; where it does
/// not but the snapshot holds one, takes that.
fn open_history(
    dir: &Path,
    live: &Live,
    file: Option<&SnapshotFile>,
) -> Result<History, OpenError> {
    let storage = |error: String| OpenError::Storage(error);
    let reaches =
        |history: &History| history.durable().is_ok_and(|durable| durable >= live.index());
    if let Some(file) = file {
        let mut reader = SnapshotReader::open(file).map_err(|error| storage(error.to_string()))?;
        if reader.has_history() {
            let history =
                History::open_or_set_aside(dir, LogIndex(0)).map_err(|error| storage(error.0))?;
            if !reaches(&history) {
                reader.state().map_err(|error| storage(error.to_string()))?;
                replace_history(&history, live, &mut reader)
                    .map_err(|error| storage(error.to_string()))?;
            }
            return Ok(history);
        }
    }
    History::open_or_set_aside(dir, live.index()).map_err(|error| storage(error.0))
}

fn replace_history(history: &History, live: &Live, reader: &mut SnapshotReader) -> io::Result<()> {
    let runs = live.state.runs().keys().copied().collect();
    history.replace(|| reader.next_record(), &runs, live.index()).map_err(io::Error::other)
}

/// The replica as openraft drives it.
#[derive(Clone, Debug)]
pub(crate) struct StateMachine(pub(crate) Arc<Replica>);

/// A copy of the state, to be written as a snapshot while apply goes on.
#[derive(Debug)]
pub(crate) struct SnapshotBuilder {
    replica: Arc<Replica>,
    /// Taken when it is built.
    live: Live,
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let live = self.0.read();
        Ok((live.last, live.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.0.storage.room_to_apply().await;
            let applied = self.0.apply(entry);
            let answers = applied.inspect_err(|error| {
                self.0.storage.fail(|| error.to_string());
            })?;
            if let Some(responder) = responder {
                responder.send(answers);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.0.bytes_since_snapshot.store(0, Ordering::Relaxed);
        SnapshotBuilder { replica: Arc::clone(&self.0), live: self.0.read().clone() }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> io::Result<()> {
        let (replica, meta) = (Arc::clone(&self.0), meta.clone());
        blocking(move || {
            let installed = replica.install(&meta, &snapshot);
            replica.storage.judge("installing a snapshot", installed)
        })
        .await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let current = self.0.current().clone();
        Ok(current.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (replica, live) = (Arc::clone(&self.replica), std::mem::take(&mut self.live));
        blocking(move || {
            let meta = live.meta();
            // First: a snapshot lets the log be purged, from which history is repaired.
            let storage = &replica.storage;
            let durable = replica.history.checkpoint(live.index()).map_err(io::Error::other);
            storage.judge("making the history durable", durable)?;
            let written = storage.with_room(|| replica.snapshots.write(&meta, &live.state));
            let snapshot = storage.judge("writing a snapshot", written)?;
            let mut current = replica.current();
            if current.as_ref().is_none_or(|(newest, _)| newest.last_log_id <= meta.last_log_id) {
                *current = Some((meta.clone(), snapshot.clone()));
            }
            tracing::info!(file = %snapshot.path().display(), "a snapshot is taken");
            Ok(Snapshot { meta, snapshot })
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    machine::blocking(work).await.map_err(io::Error::other)?
}
