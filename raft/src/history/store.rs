//! What the history is written on: ordered maps of bytes that outlive the process.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FallocateFlags;

use crate::error::HistoryError;

/// Memory for pages of sled, in bytes: enough for the indexes of some hundred thousand runs.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// What sled keeps its pages in.
const PAGES_FILE: &str = "db";

/// Room set aside behind the end of that, in bytes: some of the segments that sled writes.
const AHEAD_BYTES: u64 = 4 << 20;

/// A key and its value.
pub type Pair = Result<(Vec<u8>, Vec<u8>), HistoryError>;

/// Keys from one bound to the other.
pub type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// A set of ordered maps. Nothing in them is durable before it is synced; what a crash leaves
/// of changes since is the state after one of them.
pub trait Store: Debug + Send + Sync {
    /// Opens a map, or makes an empty one.
    ///
    /// # Errors
    ///
    /// If it cannot be read; so for every method here and of [`Tree`].
    fn tree(&self, name: &str) -> Result<Box<dyn Tree>, HistoryError>;

    /// Makes every change so far durable.
    ///
    /// # Errors
    ///
    /// If the disk does not do it.
    fn sync(&self) -> Result<(), HistoryError>;

    /// Has room set aside for what is written next, where a store has no way to wait for some.
    fn secure_room(&self) {}
}

/// An ordered map of bytes.
pub trait Tree: Debug + Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, HistoryError>;

    /// Whether a key is there.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn contains(&self, key: &[u8]) -> Result<bool, HistoryError>;

    /// Sets the value of a key.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    fn insert(&self, key: &[u8], value: Vec<u8>) -> Result<(), HistoryError>;

    /// Removes a key, if it is there.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    fn remove(&self, key: &[u8]) -> Result<(), HistoryError>;

    /// Removes every key.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    fn clear(&self) -> Result<(), HistoryError>;

    /// What lies in a range, in order. What is changed meanwhile is in it or not.
    fn range(&self, range: Range) -> Box<dyn Iterator<Item = Pair> + Send>;
}

/// Everything.
pub(super) const ALL: Range = (Bound::Unbounded, Bound::Unbounded);

/// Every key that begins with `prefix`, in order.
pub(super) fn scan(tree: &dyn Tree, prefix: &[u8]) -> impl Iterator<Item = Pair> + use<> {
    let prefix = prefix.to_vec();
    let from = tree.range((Bound::Included(prefix.clone()), Bound::Unbounded));
    from.take_while(move |pair| !pair.as_ref().is_ok_and(|(key, _)| !key.starts_with(&prefix)))
}

/// A directory of sled.
#[derive(Debug)]
pub(crate) struct SledStore {
    dir: PathBuf,
    db: sled::Db,
    /// Where its file ended when room was set aside behind it.
    secured_at: AtomicU64,
}

impl SledStore {
    /// Opens the one in `dir`, or an empty one.
    pub(crate) fn open(dir: &Path) -> Result<Self, HistoryError> {
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let secured_at = AtomicU64::new(u64::MAX);
        Ok(Self { dir: dir.to_owned(), db: config.open()?, secured_at })
    }
}

impl Store for SledStore {
    fn tree(&self, name: &str) -> Result<Box<dyn Tree>, HistoryError> {
        Ok(Box::new(self.db.open_tree(name)?))
    }

    /// sled's own flush is no fsync on Linux, so its files are synced here.
    fn sync(&self) -> Result<(), HistoryError> {
        self.db.flush()?;
        sync_files(&self.dir).map_err(|error| HistoryError(error.to_string()))
    }

    fn secure_room(&self) {
        if let Err(error) = set_room_aside(&self.dir.join(PAGES_FILE), &self.secured_at) {
            tracing::trace!(%error, "no room is set aside for the history");
        }
    }
}

impl Tree for sled::Tree {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, HistoryError> {
        Ok(Self::get(self, key)?.map(|value| value.to_vec()))
    }

    fn contains(&self, key: &[u8]) -> Result<bool, HistoryError> {
        Ok(self.contains_key(key)?)
    }

    fn insert(&self, key: &[u8], value: Vec<u8>) -> Result<(), HistoryError> {
        Self::insert(self, key, value)?;
        Ok(())
    }

    fn remove(&self, key: &[u8]) -> Result<(), HistoryError> {
        Self::remove(self, key)?;
        Ok(())
    }

    fn clear(&self) -> Result<(), HistoryError> {
        Ok(Self::clear(self)?)
    }

    fn range(&self, range: Range) -> Box<dyn Iterator<Item = Pair> + Send> {
        let pairs = Self::range::<Vec<u8>, _>(self, range);
        Box::new(pairs.map(|pair| {
            let (key, value) = pair?;
            Ok((key.to_vec(), value.to_vec()))
        }))
    }
}

/// Has blocks allocated behind the end of a file, if it ends elsewhere than it did before.
fn set_room_aside(path: &Path, secured_at: &AtomicU64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let end = file.metadata()?.len();
    if secured_at.swap(end, Ordering::Relaxed) != end {
        rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, end, AHEAD_BYTES)?;
    }
    Ok(())
}

/// Makes every file of sled durable, and the directories that name them.
fn sync_files(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_files(&entry.path())?;
        } else {
            sync(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}

/// As sled may remove a file between our seeing and opening it, that it is gone is fine.
fn sync(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(file) => file.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
