//! A disk in memory that loses at a power cut what was not synced, as real ones do.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_raft::wal::disk::{Disk, DiskFile};

use super::dice::Dice;

/// What a real disk writes as one, made small so that small frames are torn.
const SECTOR_BYTES: usize = 64;

/// How long a sync takes, in microseconds.
const SYNC_US: std::ops::RangeInclusive<u64> = 100..=3_000;

/// The error of the operating system for a disk that is broken.
const EIO: i32 = 5;

/// A disk. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct SimDisk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    dice: Dice,
    files: BTreeMap<String, Arc<Mutex<Bytes>>>,
    /// What a power cut may undo, in order: names, and the file that had each before, if any.
    unsynced: Vec<(String, Option<Arc<Mutex<Bytes>>>)>,
    /// Added to every sync.
    slowness: Duration,
    /// Syncs until they fail.
    fails_in: Option<u64>,
}

/// The bytes of a file, and what of them is durable.
#[derive(Clone, Debug, Default)]
struct Bytes {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Pieces of writes, and cuts, since the last sync.
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => {
                let end = offset + bytes.len();
                to.resize(to.len().max(end), 0);
                to[*offset..end].copy_from_slice(bytes);
            }
            Self::Cut(length) => to.truncate(*length),
        }
    }
}

impl SimDisk {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            dice: Dice::new(seed),
            files: BTreeMap::new(),
            unsynced: Vec::new(),
            slowness: Duration::ZERO,
            fails_in: None,
        })))
    }

    /// Makes syncs slower by so much.
    pub(super) fn slow_down(&self, by: Duration) {
        self.lock().slowness = by;
    }

    /// Lets the sync after so many fail, and all that follow, until the machine starts anew.
    pub(super) fn fail_after(&self, syncs: u64) {
        self.lock().fails_in = Some(syncs);
    }

    /// Lets no further sync fail.
    pub(super) fn repair(&self) {
        self.lock().fails_in = None;
    }

    /// Whether it is, or will be, broken.
    pub(super) fn is_failing(&self) -> bool {
        self.lock().fails_in.is_some()
    }

    /// Whether it has come to the sync that fails, which the node may know already.
    pub(super) fn is_broken(&self) -> bool {
        self.lock().fails_in == Some(0)
    }

    /// Leaves of what was not synced what chance leaves. Nobody may have files open.
    pub(super) fn cut_power(&self) {
        let mut inner = self.lock();
        let Inner { dice, files, unsynced, fails_in, .. } = &mut *inner;
        *fails_in = None;
        // File systems keep the order of names: what is lost is the last of them.
        let kept = dice.index(unsynced.len() + 1);
        for (name, before) in unsynced.drain(..).skip(kept).rev() {
            let undone = match before {
                Some(bytes) => files.insert(name, bytes),
                None => files.remove(&name),
            };
            drop(undone);
        }
        for bytes in files.values() {
            bytes.lock().unwrap_or_else(PoisonError::into_inner).tear(dice);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_file(&self, bytes: &Arc<Mutex<Bytes>>) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), bytes: Arc::clone(bytes) })
    }
}

impl Bytes {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }

    fn tear(&mut self, dice: &mut Dice) {
        let most = dice.pick(&[0, 50, 90, 100]);
        for change in std::mem::take(&mut self.pending) {
            if dice.percent(most) {
                change.apply(&mut self.durable);
            }
        }
        self.now = self.durable.clone();
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    bytes: Arc<Mutex<Bytes>>,
}

impl SimFile {
    fn lock(&self) -> MutexGuard<'_, Bytes> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().files.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.lock();
        if inner.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let bytes = Arc::default();
        inner.files.insert(name.to_owned(), Arc::clone(&bytes));
        inner.unsynced.push((name.to_owned(), None));
        Ok(self.open_file(&bytes))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.lock();
        let bytes = inner.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.open_file(bytes))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.lock();
        let bytes = inner.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        let replaced = inner.files.insert(to.to_owned(), Arc::clone(&bytes));
        inner.unsynced.push((from.to_owned(), Some(bytes)));
        inner.unsynced.push((to.to_owned(), replaced));
        Ok(())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let mut inner = self.lock();
        let bytes = inner.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        inner.unsynced.push((name.to_owned(), Some(bytes)));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.lock().unsynced.clear();
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("disk").join(name)
    }

    fn sync_time(&self) -> Option<Duration> {
        let mut inner = self.lock();
        let usual = Duration::from_micros(inner.dice.within(SYNC_US));
        Some(usual + inner.slowness)
    }
}

impl DiskFile for SimFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.lock().now.len() as u64)
    }

    fn read_all(&self) -> io::Result<Vec<u8>> {
        Ok(self.lock().now.clone())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = self.lock();
        let found = bytes.now.get(offset..offset + buffer.len());
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut offset = usize::try_from(offset).map_err(io::Error::other)?;
        let mut file = self.lock();
        let mut rest = bytes;
        while !rest.is_empty() {
            // Long runs of the same are reserved space, and not worth tearing.
            let sector =
                if rest.len() > 64 * SECTOR_BYTES { 64 * SECTOR_BYTES } else { SECTOR_BYTES };
            let length = (sector - offset % sector).min(rest.len());
            file.change(Change::Write(offset, rest[..length].to_vec()));
            (offset, rest) = (offset + length, &rest[length..]);
        }
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        self.lock().change(Change::Cut(length));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        match &mut self.disk.lock().fails_in {
            Some(0) => return Err(io::Error::from_raw_os_error(EIO)),
            Some(left) => *left -= 1,
            None => {}
        }
        let mut bytes = self.lock();
        let Bytes { durable, pending, .. } = &mut *bytes;
        pending.drain(..).for_each(|change| change.apply(durable));
        Ok(())
    }
}
