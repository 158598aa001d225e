//! A disk in memory that remembers what was done to it, and can be what a power cut would
//! have left.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};

use quorate_raft::wal::disk::{Disk, DiskFile};

/// The files of a disk, by name.
pub(crate) type Image = BTreeMap<String, Vec<u8>>;

/// What a real disk writes as one, made small so that small frames can be torn.
const SECTOR_BYTES: usize = 16;

/// Something that was done to the disk.
#[derive(Clone, Debug)]
enum Event {
    Create(String),
    Delete(String),
    Write(String, usize, Vec<u8>),
    Truncate(String, usize),
    Sync(String),
    SyncDirectory,
}

#[derive(Debug, Default)]
struct Inner {
    first: Image,
    files: BTreeMap<String, Arc<Mutex<Vec<u8>>>>,
    events: Vec<Event>,
    syncs: usize,
    /// The sync with this number fails, and all after it would succeed.
    failing_sync: Option<usize>,
    /// While set, syncs wait.
    held: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct SimDisk {
    inner: Arc<(Mutex<Inner>, Condvar)>,
}

impl SimDisk {
    /// A disk on which `image` is durable.
    pub(crate) fn new(image: Image) -> Self {
        let disk = Self::default();
        {
            let mut inner = disk.lock();
            inner.first = image.clone();
            let file = |(name, bytes)| (name, Arc::new(Mutex::new(bytes)));
            inner.files = image.into_iter().map(file).collect();
        }
        disk
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.0.lock().unwrap()
    }

    /// What is on it now, as the operating system shows it.
    pub(crate) fn image(&self) -> Image {
        let inner = self.lock();
        let file = |(name, bytes): (&String, &Arc<Mutex<Vec<u8>>>)| {
            (name.clone(), bytes.lock().unwrap().clone())
        };
        inner.files.iter().map(file).collect()
    }

    /// How many things have been done to it.
    pub(crate) fn time(&self) -> usize {
        self.lock().events.len()
    }

    /// How many syncs of files have been tried.
    pub(crate) fn syncs(&self) -> usize {
        self.lock().syncs
    }

    pub(crate) fn fail_sync(&self, number: usize) {
        self.lock().failing_sync = Some(number);
    }

    /// Lets syncs wait, or go on.
    pub(crate) fn hold(&self, held: bool) {
        self.lock().held = held;
        self.inner.1.notify_all();
    }

    /// What a power cut after `time` things could have left: of the writes that were not
    /// synced none, all, every prefix, or a random choice of sectors; of the files made or
    /// deleted but not synced none, all, or a random choice.
    pub(crate) fn cut_at(&self, time: usize, random: &mut impl FnMut() -> u64) -> Vec<Image> {
        let inner = self.lock();
        let mut cut = Cut::new(&inner.first);
        for event in &inner.events[..time] {
            cut.note(event);
        }
        cut.images(random)
    }
}

/// A file as the disk has it, and what is still on the way.
#[derive(Clone, Debug, Default)]
struct Half {
    durable: Vec<u8>,
    /// Pieces of writes, and cuts (`None`).
    pending: Vec<(usize, Option<Vec<u8>>)>,
}

#[derive(Debug, Default)]
struct Cut {
    files: BTreeMap<String, Half>,
    names: BTreeSet<String>,
    /// Files made (true) and deleted.
    names_pending: Vec<(String, bool)>,
}

impl Cut {
    fn new(first: &Image) -> Self {
        let half = |(name, bytes): (&String, &Vec<u8>)| {
            (name.clone(), Half { durable: bytes.clone(), pending: Vec::new() })
        };
        let names = first.keys().cloned().collect();
        Self { files: first.iter().map(half).collect(), names, names_pending: Vec::new() }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Create(name) => {
                self.files.insert(name.clone(), Half::default());
                self.names_pending.push((name.clone(), true));
            }
            Event::Delete(name) => self.names_pending.push((name.clone(), false)),
            Event::Write(name, offset, bytes) => {
                let pending = &mut self.files.get_mut(name).unwrap().pending;
                let mut offset = *offset;
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    let length = (SECTOR_BYTES - offset % SECTOR_BYTES).min(rest.len());
                    pending.push((offset, Some(rest[..length].to_vec())));
                    (offset, rest) = (offset + length, &rest[length..]);
                }
            }
            Event::Truncate(name, length) => {
                self.files.get_mut(name).unwrap().pending.push((*length, None));
            }
            Event::Sync(name) => {
                let half = self.files.get_mut(name).unwrap();
                half.durable = half.keep(|_| true, usize::MAX);
                half.pending.clear();
            }
            Event::SyncDirectory => {
                self.names = self.keep_names(|| true);
                self.names_pending.clear();
            }
        }
    }

    fn images(&self, random: &mut impl FnMut() -> u64) -> Vec<Image> {
        let mut images = self.images_named(&self.names, random);
        for _ in 0..self.names_pending.len() {
            let names = self.keep_names(|| random().is_multiple_of(2));
            images.extend(self.images_named(&names, random));
        }
        if !self.names_pending.is_empty() {
            images.extend(self.images_named(&self.keep_names(|| true), random));
        }
        images
    }

    /// The names of the files that are there if `keep` has its way with each change.
    fn keep_names(&self, mut keep: impl FnMut() -> bool) -> BTreeSet<String> {
        let mut names = self.names.clone();
        for (name, made) in &self.names_pending {
            if keep() {
                if *made {
                    names.insert(name.clone());
                } else {
                    names.remove(name);
                }
            }
        }
        names
    }

    fn images_named(
        &self,
        names: &BTreeSet<String>,
        random: &mut impl FnMut() -> u64,
    ) -> Vec<Image> {
        let mut images = Vec::new();
        let mut add = |keep: &mut dyn FnMut(&Half) -> Vec<u8>| {
            let file = |name: &String| (name.clone(), keep(&self.files[name]));
            images.push(names.iter().map(file).collect());
        };
        let most = self.files.values().map(|half| half.pending.len()).max().unwrap_or(0);
        for kept in 0..=most {
            add(&mut |half| half.keep(|at| at < kept, usize::MAX));
        }
        if most > 0 {
            let partial = usize::try_from(random()).unwrap() % SECTOR_BYTES;
            add(&mut |half| half.keep(|_| true, partial));
            for _ in 0..3 {
                add(&mut |half| half.keep(|_| random().is_multiple_of(2), usize::MAX));
            }
        }
        images
    }
}

impl Half {
    /// The file with those pieces that `keep` picks by number, each cut to `bytes`.
    fn keep(&self, mut keep: impl FnMut(usize) -> bool, bytes_max: usize) -> Vec<u8> {
        let mut file = self.durable.clone();
        for (at, (offset, piece)) in self.pending.iter().enumerate() {
            if !keep(at) {
                continue;
            }
            match piece {
                Some(bytes) => write(&mut file, *offset, &bytes[..bytes.len().min(bytes_max)]),
                None => file.truncate(*offset),
            }
        }
        file
    }
}

fn write(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    name: String,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl SimDisk {
    fn file(&self, name: &str, bytes: &Arc<Mutex<Vec<u8>>>) -> Arc<dyn DiskFile> {
        let bytes = Arc::clone(bytes);
        Arc::new(SimFile { disk: self.clone(), name: name.to_owned(), bytes })
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
        inner.events.push(Event::Create(name.to_owned()));
        Ok(self.file(name, &bytes))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.lock();
        let bytes = inner.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(name, bytes))
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        inner.events.push(Event::Delete(name.to_owned()));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.lock().events.push(Event::SyncDirectory);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/sim").join(name)
    }
}

impl DiskFile for SimFile {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        Ok(self.bytes.lock().unwrap().clone())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let bytes = self.bytes.lock().unwrap();
        let found = bytes.get(offset..offset + buffer.len());
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let event = Event::Write(self.name.clone(), offset, bytes.to_vec());
        self.disk.lock().events.push(event);
        write(&mut self.bytes.lock().unwrap(), offset, bytes);
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).unwrap();
        self.disk.lock().events.push(Event::Truncate(self.name.clone(), length));
        self.bytes.lock().unwrap().truncate(length);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let (lock, woken) = &*self.disk.inner;
        let mut inner = woken.wait_while(lock.lock().unwrap(), |inner| inner.held).unwrap();
        inner.syncs += 1;
        if inner.failing_sync == Some(inner.syncs) {
            return Err(io::Error::from_raw_os_error(5));
        }
        inner.events.push(Event::Sync(self.name.clone()));
        Ok(())
    }
}
