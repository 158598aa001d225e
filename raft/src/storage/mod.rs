//! How a node's storage is doing: one answer for all that write to it.
//!
//! Two troubles are told apart, and nothing else is:
//!
//! - *Failed*: a write, a sync or a checksum came to nothing, and what is on disk is unknown.
//!   The node stops; from the first failure on, whatever it was, nothing is acknowledged.
//! - *Full*: the disk has no room. Nothing is lost by that, for what was not written can be
//!   written later. Whoever writes the log waits for room, and the node holds back what would
//!   need more of it: see [`standby`](crate::standby).
//!
//! A sync that says "full" counts as failed: it came too late to hold anything back.

mod reserve;
mod room;
mod syncs;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use reserve::Reserve;
pub use room::{Room, Usage};
pub use syncs::SyncTimes;
use syncs::Syncs;

use crate::machine;

/// Between two looks at a disk, be it for room or for use: short against what fills one,
/// long against what a look costs, a microsecond.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// With less than this, in bytes, nothing is applied or started: what one entry leaves behind in
/// the history takes less, and so do the first writes of a start.
const SCRAPS_BYTES: u64 = 4 << 20;

/// The size of a simulated disk, which has room for anything.
const SIMULATED_BYTES: u64 = 1 << 40;

/// The storage of a node at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageStatus {
    /// Whether the node can go on writing.
    pub state: StorageState,
    /// How much of the file system is left.
    pub usage: Usage,
    /// How long syncs of the log have taken since the node started.
    pub syncs: SyncTimes,
}

/// Whether a node can go on writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageState {
    /// There is room.
    Ok,
    /// Nine tenths are used, or little is left: no new work is taken, what there is goes on.
    Low,
    /// The node has stepped aside: it stores nothing new, and answers reads.
    Full,
    /// The node stops, or has stopped.
    Failed,
}

impl StorageState {
    /// In one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Low => "low",
            Self::Full => "full",
            Self::Failed => "failed",
        }
    }
}

/// The storage of a node, shared by all that write to it.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    failed: watch::Sender<Option<String>>,
    /// As it was seen last.
    usage: Mutex<(Usage, Room)>,
    /// Set while a write waits for room, whatever the file system says that it has: it may not
    /// tell of quotas.
    is_starved: AtomicBool,
    /// Nobody waits for room any more.
    is_closing: AtomicBool,
    reserve: Reserve,
    syncs: Syncs,
}

impl Storage {
    /// The storage of the node in `dir`; nothing is known of its room yet.
    pub(crate) fn new(dir: &Path) -> Self {
        let shared = Shared {
            dir: dir.to_owned(),
            failed: watch::Sender::new(None),
            usage: Mutex::new((Usage::default(), Room::Ample)),
            is_starved: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            reserve: Reserve::in_dir(dir),
            syncs: Syncs::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Ends all writing and acknowledging, for good. Only the first cause counts; it is what
    /// this answers.
    pub(crate) fn fail(&self, cause: impl FnOnce() -> String) -> String {
        self.shared.failed.send_if_modified(|failed| {
            let is_first = failed.is_none();
            if is_first {
                let cause = cause();
                tracing::error!(cause, "the storage failed");
                *failed = Some(cause);
            }
            is_first
        });
        self.cause().unwrap_or_default()
    }

    /// Why the storage failed, if it has.
    pub(crate) fn cause(&self) -> Option<String> {
        self.shared.failed.borrow().clone()
    }

    /// Whether it has failed: then nothing may be acknowledged.
    pub(crate) fn has_failed(&self) -> bool {
        self.shared.failed.borrow().is_some()
    }

    /// Turns to the cause when the storage fails.
    pub(crate) fn failed(&self) -> watch::Receiver<Option<String>> {
        self.shared.failed.subscribe()
    }

    /// What became of something that is done to the disk: if it failed, all has.
    pub(crate) fn judge<T>(&self, what: &str, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| io::Error::other(self.fail(|| format!("{what} failed: {error}"))))
    }

    /// Looks how much room there is, and keeps the reserve accordingly.
    pub(crate) fn look(&self) {
        if machine::simulated().is_some() {
            let usage = Usage { bytes_total: SIMULATED_BYTES, bytes_free: SIMULATED_BYTES };
            *self.shared.usage.lock().unwrap_or_else(PoisonError::into_inner) =
                (usage, Room::Ample);
            return;
        }
        let held = self.shared.reserve.bytes_held();
        let usage = match Usage::of(&self.shared.dir) {
            Ok(usage) => Usage { bytes_free: usage.bytes_free + held, ..usage },
            Err(error) => {
                tracing::warn!(%error, "the file system does not tell how much room there is");
                return;
            }
        };
        let room = {
            let mut known = self.shared.usage.lock().unwrap_or_else(PoisonError::into_inner);
            *known = (usage, usage.room(known.1));
            known.1
        };
        match room {
            Room::Ample => self.shared.reserve.make(),
            Room::Low => {}
            Room::Full => drop(self.shared.reserve.release()),
        }
    }

    /// How much room there is, as far as is known.
    pub(crate) fn room(&self) -> Room {
        if self.shared.is_starved.load(Ordering::Acquire) {
            return Room::Full;
        }
        self.shared.usage.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Repeats a write as long as there is no room for it. Blocks.
    ///
    /// # Errors
    ///
    /// As the write says, or that there is no room, once the storage is closed.
    pub(crate) fn with_room<T>(&self, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match write() {
                Err(error) if is_full(&error) => self.wait_for_room(error)?,
                other => {
                    self.shared.is_starved.store(false, Ordering::Release);
                    return other;
                }
            }
        }
    }

    /// Gives up the reserve, or lets some time pass.
    fn wait_for_room(&self, error: io::Error) -> io::Result<()> {
        // A simulation has one thread, which cannot wait for itself.
        if self.is_closing() || machine::simulated().is_some() {
            return Err(error);
        }
        if !self.shared.is_starved.swap(true, Ordering::AcqRel) {
            tracing::error!(%error, "a write waits: the disk is full; make room");
        }
        if !self.shared.reserve.release() {
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Waits until there is the little room that a start takes, with the reserve given up if need
    /// be. A node that exits for want of it would only be started again.
    pub(crate) async fn room_to_start(&self) {
        self.look();
        if self.has_scraps() {
            return;
        }
        tracing::error!(dir = %self.shared.dir.display(), "no start: the disk is full; make room");
        while !self.has_scraps() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until there is room for what one entry leaves behind. Whoever writes it cannot.
    pub(crate) async fn room_to_apply(&self) {
        while self.room() == Room::Full && !self.is_closing() && !self.has_scraps() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether just now something is left.
    fn has_scraps(&self) -> bool {
        let left = Usage::of(&self.shared.dir);
        left.is_ok_and(|usage| usage.bytes_free >= SCRAPS_BYTES) || machine::simulated().is_some()
    }

    fn is_closing(&self) -> bool {
        self.shared.is_closing.load(Ordering::Acquire)
    }

    /// Lets no write wait for room any more: the node stops.
    pub(crate) fn close(&self) {
        self.shared.is_closing.store(true, Ordering::Release);
    }

    /// Notes how long a sync of the log took.
    pub(crate) fn synced(&self, took: Duration) {
        self.shared.syncs.note(took);
    }

    /// How it is doing.
    pub(crate) fn status(&self) -> StorageStatus {
        let usage = self.shared.usage.lock().unwrap_or_else(PoisonError::into_inner).0;
        let state = match self.room() {
            _ if self.has_failed() => StorageState::Failed,
            Room::Ample => StorageState::Ok,
            Room::Low => StorageState::Low,
            Room::Full => StorageState::Full,
        };
        StorageStatus { state, usage, syncs: self.shared.syncs.read() }
    }
}

/// Whether a write failed for want of room only: it can be done again.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The result of a sync, which is never tried again: not even if it failed for want of room.
pub(crate) fn never_again(synced: io::Result<()>) -> io::Result<()> {
    synced.map_err(|error| if is_full(&error) { io::Error::other(error) } else { error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> io::Error {
        io::ErrorKind::StorageFull.into()
    }

    #[test]
    fn a_write_without_room_gets_the_reserve_and_then_waits() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::new(dir.path());
        storage.look();
        let mut tries = 0;
        let written = storage.with_room(|| {
            tries += 1;
            match tries {
                1 | 2 => Err(full()),
                _ => Ok(storage.room()),
            }
        });
        assert_eq!((written.unwrap(), tries), (Room::Full, 3), "full while it waits");
        assert!(!dir.path().join("reserve").exists());
        assert_eq!(storage.room(), Room::Ample, "and not afterwards");
    }

    #[test]
    fn nothing_waits_for_room_once_the_node_stops() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::new(dir.path());
        storage.close();
        let written: io::Result<()> = storage.with_room(|| Err(full()));
        assert!(is_full(&written.unwrap_err()));
    }

    #[test]
    fn only_the_first_failure_is_told() {
        let storage = Storage::new(Path::new("/nowhere"));
        let first: io::Result<()> = Err(io::Error::from_raw_os_error(5));
        assert!(storage.judge("syncing a", first).is_err());
        let cause = storage.fail(|| "another".to_owned());
        assert!(cause.starts_with("syncing a failed: "), "{cause}");
        assert_eq!(storage.status().state, StorageState::Failed);
    }

    #[test]
    fn a_sync_without_room_is_a_failure() {
        assert!(!is_full(&never_again(Err(full())).unwrap_err()));
    }
}
