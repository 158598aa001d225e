//! Who this node is, in a file of its own, and whether its log is the one it had.
//!
//! A Raft node that forgets a vote or an entry it has acknowledged can split the cluster. So
//! a data directory that was emptied, swapped or put back from an old copy must not start
//! under its old id. Two facts show it without a sync per write:
//!
//! - Each start is an *incarnation*, noted in the log first and then here. A log that is older
//!   than the last start, or an identity that is older than the log, is refused.
//! - The *floor* is an index that was committed and durable here, raised at the end of each
//!   segment, when segments are deleted, and when the node stops. A log that ends below it is
//!   refused.
//!
//! What this cannot show is a whole directory put back from an old copy, identity and all:
//! its parts agree. The leader finds it out by what the node had acknowledged to it, and the
//! node stops; but the next leader knows nothing of it. Never copy a data directory for a
//! backup.

use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_model::mutant;
use serde::{Deserialize, Serialize};

use crate::machine;
use crate::storage::{Storage, never_again};
use crate::wal::Owner;
use crate::wal::disk::{Directory, Disk};

const FILE: &str = "identity";
const TEMPORARY_FILE: &str = "identity.new";
const LOCK_FILE: &str = "lock";
/// The directories of a node's state. With any of them filled, a missing identity is a loss.
const STATE_DIRECTORIES: [&str; 3] = ["wal", "snapshots", "history"];
const FORMAT_VERSION: u32 = 1;

/// What to do when a node can no longer prove what it has acknowledged.
pub(crate) const WAY_OUT: &str = "set this data directory aside and let the machine join again as a new \
                       node, or, if it was the only node, restore a backup";

/// Names a cluster. Random, so that no two are alike.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u128);

impl ClusterId {
    /// A new one, from the operating system's randomness.
    ///
    /// # Errors
    ///
    /// If that cannot be read.
    pub fn random() -> io::Result<Self> {
        machine::secret().map(|bytes| Self(u128::from_le_bytes(bytes)))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ClusterId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The disk did not do as asked.
    #[error("{action} {} failed", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// As the operating system says.
        #[source]
        source: io::Error,
    },
    /// Another process has the data directory open.
    #[error(
        "another process{} uses {}; stop it, or start this one with another data directory",
        holder, path.display()
    )]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// Which, if it said so: ` (process 4711)`.
        holder: String,
    },
    /// There is an identity already.
    #[error("{} exists: a node lives here already; start it, or choose an empty directory", path.display())]
    Exists {
        /// The identity.
        path: PathBuf,
    },
    /// The node's state is there, but not who it is.
    #[error(
        "{} is missing, but {} is not empty; if the file was moved, put it back; else {WAY_OUT}",
        path.display(), beside.display()
    )]
    Missing {
        /// The identity.
        path: PathBuf,
        /// What is there.
        beside: PathBuf,
    },
    /// The identity cannot be read.
    #[error("{} is damaged: {what}; {WAY_OUT}", path.display())]
    Broken {
        /// The identity.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The log is gone.
    #[error(
        "this node has a log, but {} is missing or empty; if it was moved, put it back; \
         else {WAY_OUT}",
        path.display()
    )]
    LogMissing {
        /// The directory of the log.
        path: PathBuf,
    },
    /// The log is not the newest that the node had.
    #[error(
        "the log is of start {log} of this node, and its last start was {identity}: the log was \
         emptied or put back from an old copy, and what it has acknowledged since is lost; \
         if you have the newest log, put it back; else {WAY_OUT}"
    )]
    LogOlder {
        /// The incarnation that the log knows.
        log: u64,
        /// The incarnation that the identity knows.
        identity: u64,
    },
    /// The identity is not the newest that the node had.
    #[error(
        "the identity is of start {identity} of this node, but the log is of start {log}: the \
         identity was put back from an old copy, and cannot tell what the log must hold; if you \
         have the newest identity, put it back; else {WAY_OUT}"
    )]
    IdentityOlder {
        /// The incarnation that the identity knows.
        identity: u64,
        /// The incarnation that the log knows.
        log: u64,
    },
    /// The log has lost committed entries.
    #[error(
        "the log ends {}, but entry {floor} was committed and durable: entries are lost; {WAY_OUT}",
        last.map_or_else(|| "before its first entry".to_owned(), |last| format!("at entry {last}"))
    )]
    BelowFloor {
        /// Its last entry.
        last: Option<u64>,
        /// The entry that must be there.
        floor: u64,
    },
}

/// Who the node is. Clones share it, and hold the lock of the data directory.
#[derive(Clone, Debug)]
pub struct Identity {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    /// The same, for the file.
    disk: Directory,
    storage: Storage,
    /// Locked as long as it is open.
    _lock: File,
    record: Mutex<Record>,
}

/// What the file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    cluster: ClusterId,
    node: u64,
    /// 0 until the log has been opened for the first time.
    incarnation: u64,
    floor: Option<u64>,
}

impl Identity {
    /// Opens the identity in the data directory `dir`; `None` if no node has lived there.
    ///
    /// # Errors
    ///
    /// See [`IdentityError`].
    pub fn open(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = dir.join(FILE);
        if !dir.is_dir() {
            return Ok(None);
        }
        let lock = lock(dir)?;
        let disk = directory(dir)?;
        match read(&disk)? {
            Some(record) => Ok(Some(Self::new(dir, disk, lock, record))),
            None => match filled_directory(dir)? {
                Some(beside) => Err(IdentityError::Missing { path, beside }),
                None => Ok(None),
            },
        }
    }

    /// Makes `dir` the data directory of a new node. `node` must be an id that no node of the
    /// cluster has ever had.
    ///
    /// # Errors
    ///
    /// See [`IdentityError`]; above all if a node lives or has lived there.
    pub fn create(dir: &Path, cluster: ClusterId, node: u64) -> Result<Self, IdentityError> {
        let disk = directory(dir)?;
        let lock = lock(dir)?;
        let path = dir.join(FILE);
        if path.exists() {
            return Err(IdentityError::Exists { path });
        }
        if let Some(beside) = filled_directory(dir)? {
            return Err(IdentityError::Missing { path, beside });
        }
        let record = Record { cluster, node, incarnation: 0, floor: None };
        write(&disk, &record)?;
        Ok(Self::new(dir, disk, lock, record))
    }

    fn new(dir: &Path, disk: Directory, lock: File, record: Record) -> Self {
        let (dir, storage) = (dir.to_owned(), Storage::new(dir));
        let record = Mutex::new(record);
        Self { shared: Arc::new(Shared { dir, disk, storage, _lock: lock, record }) }
    }

    /// How the disk of the data directory is doing.
    pub(crate) fn storage(&self) -> &Storage {
        &self.shared.storage
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// The cluster that the node belongs to, for good.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.record().cluster
    }

    /// The node's id, for good.
    #[must_use]
    pub fn node(&self) -> u64 {
        self.record().node
    }

    /// How often the node has started, with this time if its log is open.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.record().incarnation
    }

    /// The index that the log must reach.
    #[must_use]
    pub fn floor(&self) -> Option<u64> {
        self.record().floor
    }

    /// Demands from now on that the log reach `index`, which must be committed and durable
    /// here: an entry that is only durable may rightly be cut off again. Lower ones change
    /// nothing. Syncs two times, so not for every entry; the log calls it where it matters,
    /// and whoever makes a snapshot durable may.
    ///
    /// # Errors
    ///
    /// If the disk fails. The node must stop then.
    pub fn raise_floor(&self, index: u64) -> Result<(), IdentityError> {
        self.change(|record| record.floor = record.floor.max(Some(index)))
    }

    /// Notes that the log has been opened once more.
    pub(crate) fn begin_incarnation(&self) -> Result<(), IdentityError> {
        self.change(|record| record.incarnation += 1)
    }

    /// Whether the log was never opened.
    pub(crate) fn is_new(&self) -> bool {
        self.incarnation() == 0
    }

    pub(crate) fn owner(&self) -> Owner {
        Owner { cluster: self.cluster(), node: self.node() }
    }

    /// Checks that a log which was last opened at start `log` and ends at `last` is the newest
    /// of this node.
    pub(crate) fn check_log(&self, log: u64, last: Option<u64>) -> Result<(), IdentityError> {
        let Record { incarnation: identity, floor, .. } = *self.record();
        if mutant::is("M19") {
            return Ok(());
        }
        if log < identity {
            return Err(IdentityError::LogOlder { log, identity });
        }
        // One ahead is a crash between the two notes of a start.
        if log > identity + 1 {
            return Err(IdentityError::IdentityOlder { identity, log });
        }
        match floor {
            Some(floor) if last < Some(floor) => Err(IdentityError::BelowFloor { last, floor }),
            Some(_) | None => Ok(()),
        }
    }

    /// Changes the record, durably; what is in memory only after what is on disk.
    fn change(&self, change: impl FnOnce(&mut Record)) -> Result<(), IdentityError> {
        let mut record = self.record();
        let mut changed = *record;
        change(&mut changed);
        if changed != *record {
            write(&self.shared.disk, &changed)?;
            *record = changed;
        }
        Ok(())
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.shared.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Locks the data directory until the file is closed, be it by the death of the process.
fn lock(dir: &Path) -> Result<File, IdentityError> {
    let path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let failed = |source| IdentityError::Io { action: "locking", path: path.clone(), source };
    let mut file = options.open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            let process = format!("{}\n", std::process::id());
            file.set_len(0).and_then(|()| file.write_all(process.as_bytes())).map_err(failed)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            let named = file.read_to_string(&mut process).is_ok() && !process.trim().is_empty();
            let holder =
                if named { format!(" (process {})", process.trim()) } else { String::new() };
            Err(IdentityError::Locked { path: dir.to_owned(), holder })
        }
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// A directory of a node's state that has anything in it.
fn filled_directory(dir: &Path) -> Result<Option<PathBuf>, IdentityError> {
    for name in STATE_DIRECTORIES {
        let path = dir.join(name);
        match fs::read_dir(&path) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Ok(Some(path));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(IdentityError::Io { action: "listing", path, source }),
        }
    }
    Ok(None)
}

fn directory(dir: &Path) -> Result<Directory, IdentityError> {
    let failed = |source| IdentityError::Io { action: "making", path: dir.to_owned(), source };
    Directory::open(dir).map_err(failed)
}

/// What the file says, if there is one.
fn read(disk: &dyn Disk) -> Result<Option<Record>, IdentityError> {
    let path = disk.path(FILE);
    let bytes = match disk.open(FILE).and_then(|file| file.read_all()) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(IdentityError::Io { action: "reading", path, source }),
    };
    let text = String::from_utf8(bytes).map_err(|_| "it is not text");
    let record = text.and_then(|text| Record::parse(&text));
    record.map(Some).map_err(|what| IdentityError::Broken { path, what })
}

/// Replaces the file, so that a crash leaves the old one or the new one.
fn write(disk: &dyn Disk, record: &Record) -> Result<(), IdentityError> {
    let replace = || {
        match disk.delete(TEMPORARY_FILE) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = disk.create(TEMPORARY_FILE)?;
        file.write_at(0, record.render().as_bytes())?;
        never_again(file.sync())?;
        disk.rename(TEMPORARY_FILE, FILE)?;
        never_again(disk.sync_directory())
    };
    replace().map_err(|source| IdentityError::Io {
        action: "writing",
        path: disk.path(FILE),
        source,
    })
}

/// Keeps what the operating system said: a disk that is full is not a broken one.
impl From<IdentityError> for io::Error {
    fn from(error: IdentityError) -> Self {
        let IdentityError::Io { source, .. } = &error else { return Self::other(error) };
        Self::new(source.kind(), error)
    }
}

impl Record {
    /// The file's text: for people to read, not to edit.
    fn render(&self) -> String {
        let Self { cluster, node, incarnation, floor } = self;
        let floor = floor.map_or_else(|| "none".to_owned(), |floor| floor.to_string());
        let mut text = format!(
            "quorate identity {FORMAT_VERSION}\ncluster {cluster}\nnode {node}\n\
             incarnation {incarnation}\nfloor {floor}\n"
        );
        let crc = crc32c::crc32c(text.as_bytes());
        writeln!(text, "crc32c {crc:08x}").expect("a String takes all that is written");
        text
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let record = Self::fields(text).ok_or("it does not have the lines it should")?;
        // Comparing the whole text checks the CRC, and leaves no second way to write a thing.
        if record.render() != text {
            return Err("its checksum does not match");
        }
        Ok(record)
    }

    fn fields(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        field("quorate identity")?;
        let cluster = field("cluster")?.parse().ok()?;
        let node = field("node")?.parse().ok()?;
        let incarnation = field("incarnation")?.parse().ok()?;
        let floor = match field("floor")? {
            "none" => None,
            floor => Some(floor.parse().ok()?),
        };
        Some(Self { cluster, node, incarnation, floor })
    }
}

#[cfg(test)]
mod crash;

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: Record =
        Record { cluster: ClusterId(0xfeed), node: 3, incarnation: 7, floor: Some(1200) };

    #[test]
    fn reads_what_it_writes() {
        assert_eq!(Record::parse(&RECORD.render()), Ok(RECORD));
        let new = Record { floor: None, ..RECORD };
        assert_eq!(Record::parse(&new.render()), Ok(new));
    }

    #[test]
    fn keeps_the_format_of_released_identities() {
        let text = "quorate identity 1\ncluster 0000000000000000000000000000feed\nnode 3\n\
                    incarnation 7\nfloor 1200\ncrc32c 9d7a49a9\n";
        assert_eq!(RECORD.render(), text);
    }

    #[test]
    fn refuses_every_flipped_bit_and_every_shorter_file() {
        let sound = RECORD.render();
        for length in 0..sound.len() {
            assert!(Record::parse(&sound[..length]).is_err(), "{length} bytes");
        }
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let parsed = std::str::from_utf8(&bytes).map(Record::parse);
            assert!(!matches!(parsed, Ok(Ok(_))), "bit {bit}");
        }
    }
}
