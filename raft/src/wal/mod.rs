//! The write-ahead log: votes and entries, durable before anyone is told.
//!
//! Its rules:
//! 1. All operations go through one queue and reach the disk in its order.
//! 2. What is queued while the disk syncs leaves as one write and one sync.
//! 3. An operation is reported done after the sync that covers it, never before.
//! 4. Entries can be read as soon as they are queued.
//! 5. A failed write or sync ends all writing until the process starts anew. So does any other
//!    failure of the node's storage: nothing is reported durable after it.
//! 6. A write for which there is no room waits for it. Nothing of it was reported durable, so
//!    nothing is lost, and whoever asked waits with it.
//! 7. Opening repairs what a crash can do, a half-written last frame, and refuses all else. It
//!    writes the last frame once more: a sync that failed may have left it in memory only, where
//!    it looks as if it were on disk.
//!
//! The files are segments of frames of [`record`]s. A segment is deleted when all of its
//! entries are purged. This module knows nothing of Raft but what a vote and an entry are,
//! and does not look into entries; [`log_store`](crate::log_store) puts openraft on top.

pub mod disk;
mod index;
pub mod record;
mod recovery;
mod segment;
mod state;
mod writer;

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{mpsc, watch};

use self::disk::Disk;
use self::index::{Found, Index, read_place};
use self::record::{Ballot, Entry, PAYLOAD_BYTES_MAX, Position, Record};
use self::recovery::Recovered;
use self::segment::Head;
pub use self::segment::Owner;
pub(crate) use self::writer::FloorHook;
use self::writer::{Done, Operation, Work, Writer, create_segment};
use crate::machine::Thread;
use crate::storage::Storage;

/// How many operations wait for the disk at most. The next waits for room, and with it
/// whoever asked: a slow disk slows Raft down but does not fill the memory.
const QUEUE_OPERATIONS_MAX: usize = 1024;

/// The largest segment that can be asked for: offsets in it are kept in 32 bits.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// What to do about a log that cannot be used.
const WAY_OUT: &str = "do not delete single files of it; set the whole data directory aside and \
                       let this machine join again as a new node, or, if it was the only node, \
                       restore a backup";

/// How the log is kept.
#[derive(Clone, Copy, Debug)]
pub struct WalOptions {
    /// A segment ends before it is larger than this, in bytes; at most 1 GiB.
    pub segment_bytes: u64,
    /// How much of the newest entries is kept in memory for replication, in bytes. Older ones
    /// are read from disk.
    pub cache_bytes: usize,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, cache_bytes: 16 << 20 }
    }
}

/// Why the log did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk did not do as asked.
    #[error("{action} {} failed", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// As the operating system says.
        #[source]
        source: std::io::Error,
    },
    /// A file was damaged, and not by a crash.
    #[error("{} is broken at byte {offset}: {what}; {WAY_OUT}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Where the damage is, in bytes.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A file is gone.
    #[error("{} is missing, and entries with it; {WAY_OUT}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The log is another node's.
    #[error(
        "{} belongs to node {} of cluster {}, and this is node {} of cluster {}; \
         put each node's data directory back where it belongs",
        path.display(), found.node, found.cluster, owner.node, owner.cluster
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: Owner,
        /// Who opened it.
        owner: Owner,
    },
    /// The log is of a format that came later.
    #[error(
        "{} has format {found}, and this version knows {known} at most; \
         start the version that wrote it, or a later one",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The latest that this version knows.
        known: u32,
    },
    /// The log and the node's identity do not belong together.
    #[error(transparent)]
    Identity(#[from] crate::identity::IdentityError),
}

/// Why an operation failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WalError {
    /// The log takes no more; whether what was under way is on disk is unknown.
    #[error("{0}; the node must stop, and reads back at its start what the disk has kept")]
    Failed(String),
    /// The entry leaves a gap, or is there already.
    #[error("entry {index} cannot follow entry {last}")]
    Gap {
        /// Of the entry.
        index: u64,
        /// Of the last one.
        last: u64,
    },
    /// The entry is too large.
    #[error("entry {index} takes {bytes} bytes; {PAYLOAD_BYTES_MAX} is the most")]
    TooLarge {
        /// Of the entry.
        index: u64,
        /// Of its payload.
        bytes: usize,
    },
    /// The entry is committed, and so are all before it: that they stay is what Raft promises.
    #[error("entry {index} is committed and cannot be cut off")]
    Committed {
        /// The last one that is.
        index: u64,
    },
    /// An entry could not be read back from disk.
    #[error("entry {index} cannot be read back: {what}")]
    Unreadable {
        /// Of the entry.
        index: u64,
        /// What is wrong.
        what: String,
    },
}

/// An open log. Clones share it; the last one to be dropped waits for what is queued.
#[derive(Clone, Debug)]
pub struct Wal {
    shared: Arc<Shared>,
}

struct Shared {
    index: Arc<Mutex<Index>>,
    /// `None` once the log is being dropped.
    queue: Option<mpsc::Sender<Operation>>,
    writer: Option<Thread>,
    storage: Storage,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal").field("failed", &self.storage.cause()).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue = None;
        self.storage.close();
        if let Some(writer) = self.writer.take() {
            writer.join();
        }
    }
}

/// A log that has been read and not been written to.
#[derive(Debug)]
pub(crate) struct Opened {
    disk: Arc<dyn Disk>,
    storage: Storage,
    owner: Owner,
    options: WalOptions,
    recovered: Recovered,
}

impl Opened {
    /// Whether `disk` holds a log at all.
    pub(crate) fn is_there(disk: &dyn Disk) -> Result<bool, OpenError> {
        recovery::segment_numbers(disk).map(|numbers| !numbers.is_empty())
    }

    /// Reads the log on `disk`; makes one if there is none.
    pub(crate) fn read(
        disk: Arc<dyn Disk>,
        storage: Storage,
        owner: Owner,
        options: WalOptions,
    ) -> Result<Self, OpenError> {
        let segment_bytes = options.segment_bytes.min(SEGMENT_BYTES_MAX);
        let options = WalOptions { segment_bytes, ..options };
        let recovered = match recovery::recover(&*disk, owner, &options)? {
            Some(recovered) => recovered,
            None => create(&*disk, &storage, owner, &options)?,
        };
        Ok(Self { disk, storage, owner, options, recovered })
    }

    /// The last entry, be it still there or purged.
    pub(crate) fn last(&self) -> Option<u64> {
        self.recovered.index.state.last.map(|last| last.index)
    }

    /// How often the node had started when it last wrote that down.
    pub(crate) fn incarnation(&self) -> u64 {
        self.recovered.index.state.incarnation
    }

    /// Starts the writer, and notes the incarnation, durably.
    pub(crate) fn start(
        self,
        incarnation: u64,
        on_floor: Option<FloorHook>,
    ) -> Result<Wal, OpenError> {
        let path = self.disk.path("");
        let failed = |source| OpenError::Io { action: "starting to write", path, source };
        let Self { disk, storage, owner, options, recovered } = self;
        let Recovered { index, segment, sealed } = recovered;
        let state = index.state;
        let index = Arc::new(Mutex::new(index));
        let mut writer = Writer {
            disk,
            owner,
            segment_bytes: options.segment_bytes,
            index: Arc::clone(&index),
            state,
            segment,
            sealed,
            committed: None,
            storage: storage.clone(),
            on_floor,
        };
        let started = writer.begin(incarnation).and_then(|()| {
            let (sender, queue) = mpsc::channel(QUEUE_OPERATIONS_MAX);
            Ok((sender, Thread::start("wal", writer.run(queue))?))
        });
        let (sender, thread) = started.map_err(failed)?;
        let shared = Shared { index, queue: Some(sender), writer: Some(thread), storage };
        Ok(Wal { shared: Arc::new(shared) })
    }
}

/// Makes the first segment.
fn create(
    disk: &dyn Disk,
    storage: &Storage,
    owner: Owner,
    options: &WalOptions,
) -> Result<Recovered, OpenError> {
    let index = Index::new(state::LogState::default(), options.cache_bytes);
    let head = Head { number: 1, owner, previous_end: 0 };
    let segment = create_segment(disk, storage, head, &index.state);
    let failed = |source| OpenError::Io { action: "creating", path: disk.path(""), source };
    let segment = segment.map_err(failed)?;
    let mut recovered = Recovered { index, segment, sealed: VecDeque::new() };
    recovered.index.files.insert(1, Arc::clone(&recovered.segment.file));
    Ok(recovered)
}

impl Wal {
    /// Opens the log on `disk`; makes one if there is none. For a log without an identity;
    /// a node opens its log with [`LogStore::open_as`](crate::log_store::LogStore::open_as).
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(disk: Arc<dyn Disk>, options: WalOptions) -> Result<Self, OpenError> {
        let storage = Storage::new(&disk.path(""));
        let opened = Opened::read(disk, storage, Owner::default(), options)?;
        let incarnation = opened.incarnation() + 1;
        opened.start(incarnation, None)
    }

    /// Appends entries. They can be read when this returns, and are durable when `done` is
    /// called.
    ///
    /// # Errors
    ///
    /// If the log has failed, or the entries cannot stand where they should.
    pub async fn append(
        &self,
        entries: Vec<Entry>,
        done: impl FnOnce(Result<(), WalError>) + Send + 'static,
    ) -> Result<(), WalError> {
        for Entry { position, payload, .. } in &entries {
            if payload.len() > PAYLOAD_BYTES_MAX {
                return Err(WalError::TooLarge { index: position.index, bytes: payload.len() });
            }
        }
        let permit = self.permit().await?;
        let mut index = self.index();
        let before = index.state.last;
        for entry in &entries {
            index.append(entry.clone(), None).inspect_err(|_| index.cut(before))?;
        }
        let done: Done = Box::new(done);
        permit.send(Operation { work: Work::Append(entries), done: Some(done) });
        Ok(())
    }

    /// Notes a vote. It is durable when this returns.
    ///
    /// # Errors
    ///
    /// If the log has failed.
    pub async fn save_ballot(&self, ballot: Ballot) -> Result<(), WalError> {
        self.record(|index| {
            index.state.ballot = Some(ballot);
            Ok(Some(Record::Ballot(ballot)))
        })
        .await
    }

    /// Drops all entries behind `after`; without one, all. Durable when this returns.
    ///
    /// # Errors
    ///
    /// If the log has failed, or entries that are committed would go.
    pub async fn truncate(&self, after: Option<u64>) -> Result<(), WalError> {
        self.record(|index| index.truncate(after)).await
    }

    /// Forgets all entries up to `upto`, be they there or not. Durable when this returns;
    /// segments are deleted later.
    ///
    /// # Errors
    ///
    /// If the log has failed.
    pub async fn purge(&self, upto: Position) -> Result<(), WalError> {
        self.record(|index| Ok(index.purge(upto).then_some(Record::Purge(upto)))).await
    }

    /// Notes that entries up to `upto` are committed. Durable with the next thing that is.
    ///
    /// # Errors
    ///
    /// If the log has failed.
    pub async fn save_committed(&self, upto: Position) -> Result<(), WalError> {
        let permit = self.permit().await?;
        self.index().state.committed = Some(upto);
        permit.send(Operation { work: Work::Committed(upto), done: None });
        Ok(())
    }

    /// Makes a change and waits until the record of it is durable.
    async fn record(
        &self,
        change: impl FnOnce(&mut Index) -> Result<Option<Record>, WalError>,
    ) -> Result<(), WalError> {
        let permit = self.permit().await?;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        {
            let mut index = self.index();
            let Some(record) = change(&mut index)? else { return Ok(()) };
            let done: Done = Box::new(move |result| {
                // Whoever asked may have stopped waiting.
                let _ = sender.send(result);
            });
            permit.send(Operation { work: Work::Record(record), done: Some(done) });
        }
        receiver.await.unwrap_or_else(|_| Err(self.failed()))
    }

    /// A place in the queue. It is taken before the lock on the index, and the operation is
    /// put there under that lock, so the disk sees operations in the order readers do.
    async fn permit(&self) -> Result<mpsc::Permit<'_, Operation>, WalError> {
        if self.shared.storage.has_failed() {
            return Err(self.failed());
        }
        let queue = self.shared.queue.as_ref().expect("the queue ends only with the log");
        queue.reserve().await.map_err(|_| self.failed())
    }

    fn failed(&self) -> WalError {
        WalError::Failed(self.shared.storage.cause().unwrap_or_default())
    }

    /// The entries of `range` that there are; no more once they take `bytes_max`, but at least
    /// one.
    ///
    /// # Errors
    ///
    /// If an entry cannot be read back from disk: then the log fails, for what it acknowledged
    /// is no longer there.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, WalError> {
        let found = self.index().find(range, bytes_max);
        let entry = |found| match found {
            Found::Cached(entry) => Ok(entry),
            Found::Stored(file, position, place) => read_place(&*file, position, place),
        };
        found.into_iter().map(entry).collect::<Result<_, _>>().inspect_err(|error| {
            self.shared.storage.fail(|| error.to_string());
        })
    }

    /// The last vote.
    #[must_use]
    pub fn ballot(&self) -> Option<Ballot> {
        self.index().state.ballot
    }

    /// Up to where entries are known to be committed.
    #[must_use]
    pub fn committed(&self) -> Option<Position> {
        self.index().state.committed
    }

    /// Up to where entries are forgotten.
    #[must_use]
    pub fn purged(&self) -> Option<Position> {
        self.index().state.purged
    }

    /// The last entry, be it still there or purged.
    #[must_use]
    pub fn last(&self) -> Option<Position> {
        self.index().state.last
    }

    /// Turns to the cause when the log fails. The node must stop then.
    #[must_use]
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.shared.storage.failed()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.shared.index.lock().expect("nobody panics with the index in hand")
    }
}
