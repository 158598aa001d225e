//! A disk in memory that remembers what was done to it, can be what a power cut would have
//! left, can fail at any point, and can be full.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};

use quorate_raft::wal::disk::{Disk, DiskFile};

/// The files of a disk, by name.
pub(crate) type Image = BTreeMap<String, Vec<u8>>;

/// What a real disk writes as one, made small so that small frames can be torn.
const SECTOR_BYTES: usize = 16;

/// What the operating system calls a disk that is broken.
const EIO: i32 = 5;

/// Names a file whatever its name.
type Inode = usize;

/// Xorshift: a test that fails does so again.
pub(crate) fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 1
    }
}

/// Something that was done to the disk.
#[derive(Clone, Debug)]
enum Event {
    Name(NameChange),
    Write(Inode, usize, Vec<u8>),
    Truncate(Inode, usize),
    Sync(Inode),
    /// A sync that failed. What it was for stays in memory, and nobody writes it any more.
    FailedSync(Inode),
    SyncDirectory,
}

/// A change of what the directory says.
#[derive(Clone, Debug)]
enum NameChange {
    Create(String, Inode),
    Delete(String),
    Rename(String, String),
}

#[derive(Debug, Default)]
struct Inner {
    first: Image,
    names: BTreeMap<String, Inode>,
    files: Vec<Arc<Mutex<Vec<u8>>>>,
    events: Vec<Event>,
    /// Things that were tried, whether they came to something or not.
    tries: usize,
    /// The thing with this number fails, and all after it would succeed.
    failing: Option<usize>,
    syncs: usize,
    /// The sync with this number fails, and all after it would succeed.
    failing_sync: Option<usize>,
    /// While set, syncs wait.
    held: bool,
    /// While set, there is room only where there is something already.
    full: bool,
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
            for (inode, (name, bytes)) in image.into_iter().enumerate() {
                inner.names.insert(name, inode);
                inner.files.push(Arc::new(Mutex::new(bytes)));
            }
        }
        disk
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.0.lock().unwrap()
    }

    /// What is on it now, as the operating system shows it.
    pub(crate) fn image(&self) -> Image {
        let inner = self.lock();
        let file = |(name, &inode): (&String, &Inode)| {
            (name.clone(), inner.files[inode].lock().unwrap().clone())
        };
        inner.names.iter().map(file).collect()
    }

    /// How many things have been done to it.
    pub(crate) fn time(&self) -> usize {
        self.lock().events.len()
    }

    /// How many things have been tried.
    pub(crate) fn tries(&self) -> usize {
        self.lock().tries
    }

    /// Has one thing fail: a write, a sync, a file made, renamed or deleted.
    pub(crate) fn fail_try(&self, number: usize) {
        self.lock().failing = Some(number);
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

    /// Leaves no room, or makes some.
    pub(crate) fn fill(&self, full: bool) {
        self.lock().full = full;
    }

    /// What a power cut after `time` things could have left: of the writes that were not
    /// synced none, all, every prefix, or a random choice of sectors; of the changes of names
    /// that were not synced none, all, or a random choice.
    pub(crate) fn cut_at(&self, time: usize, random: &mut impl FnMut() -> u64) -> Vec<Image> {
        let inner = self.lock();
        let mut cut = Cut::new(&inner.first);
        for event in &inner.events[..time] {
            cut.note(event);
        }
        cut.images(random)
    }
}

impl Inner {
    /// Counts a try; whether it is the one to fail.
    fn try_once(&mut self) -> io::Result<()> {
        self.tries += 1;
        if self.failing == Some(self.tries) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(())
    }

    fn inode(&self, name: &str) -> io::Result<Inode> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
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
    files: BTreeMap<Inode, Half>,
    names: BTreeMap<String, Inode>,
    names_pending: Vec<NameChange>,
}

impl Cut {
    fn new(first: &Image) -> Self {
        let half = |(inode, bytes): (Inode, &Vec<u8>)| {
            (inode, Half { durable: bytes.clone(), pending: Vec::new() })
        };
        let names = first.keys().cloned().enumerate().map(|(inode, name)| (name, inode));
        let files = first.values().enumerate().map(half).collect();
        Self { files, names: names.collect(), names_pending: Vec::new() }
    }

    fn half(&mut self, inode: Inode) -> &mut Half {
        self.files.get_mut(&inode).unwrap()
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Name(change) => {
                if let NameChange::Create(_, inode) = change {
                    self.files.insert(*inode, Half::default());
                }
                self.names_pending.push(change.clone());
            }
            Event::Write(inode, offset, bytes) => {
                let pending = &mut self.half(*inode).pending;
                let mut offset = *offset;
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    let length = (SECTOR_BYTES - offset % SECTOR_BYTES).min(rest.len());
                    pending.push((offset, Some(rest[..length].to_vec())));
                    (offset, rest) = (offset + length, &rest[length..]);
                }
            }
            Event::Truncate(inode, length) => {
                self.half(*inode).pending.push((*length, None));
            }
            Event::Sync(inode) => {
                let half = self.half(*inode);
                half.durable = half.keep(|_| true, usize::MAX);
                half.pending.clear();
            }
            Event::FailedSync(inode) => self.half(*inode).pending.clear(),
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

    /// What the directory says if `keep` has its way with each change.
    fn keep_names(&self, mut keep: impl FnMut() -> bool) -> BTreeMap<String, Inode> {
        let mut names = self.names.clone();
        // What a name stood for when it was changed, whatever became of the changes before.
        let mut seen = self.names.clone();
        for change in &self.names_pending {
            let kept = keep();
            match change {
                NameChange::Create(name, inode) => {
                    seen.insert(name.clone(), *inode);
                    if kept {
                        names.insert(name.clone(), *inode);
                    }
                }
                NameChange::Delete(name) => {
                    seen.remove(name);
                    if kept {
                        names.remove(name);
                    }
                }
                NameChange::Rename(from, to) => {
                    let inode = seen.remove(from).unwrap();
                    seen.insert(to.clone(), inode);
                    if kept {
                        names.remove(from);
                        names.insert(to.clone(), inode);
                    }
                }
            }
        }
        names
    }

    fn images_named(
        &self,
        names: &BTreeMap<String, Inode>,
        random: &mut impl FnMut() -> u64,
    ) -> Vec<Image> {
        let mut images = Vec::new();
        let mut add = |keep: &mut dyn FnMut(&Half) -> Vec<u8>| {
            let file = |(name, inode): (&String, &Inode)| (name.clone(), keep(&self.files[inode]));
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
    inode: Inode,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl SimDisk {
    fn file(&self, inode: Inode, bytes: &Arc<Mutex<Vec<u8>>>) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), inode, bytes: Arc::clone(bytes) })
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.lock();
        inner.try_once()?;
        if inner.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (inode, bytes) = (inner.files.len(), Arc::default());
        inner.files.push(Arc::clone(&bytes));
        inner.names.insert(name.to_owned(), inode);
        inner.events.push(Event::Name(NameChange::Create(name.to_owned(), inode)));
        Ok(self.file(inode, &bytes))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.lock();
        let inode = inner.inode(name)?;
        Ok(self.file(inode, &inner.files[inode]))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.try_once()?;
        let inode = inner.inode(from)?;
        inner.names.remove(from);
        inner.names.insert(to.to_owned(), inode);
        inner.events.push(Event::Name(NameChange::Rename(from.to_owned(), to.to_owned())));
        Ok(())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.inode(name)?;
        inner.try_once()?;
        inner.names.remove(name);
        inner.events.push(Event::Name(NameChange::Delete(name.to_owned())));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.try_once()?;
        inner.events.push(Event::SyncDirectory);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/sim").join(name)
    }
}

impl DiskFile for SimFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

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
        let mut inner = self.disk.lock();
        inner.try_once()?;
        let mut file = self.bytes.lock().unwrap();
        let room = if inner.full { file.len().saturating_sub(offset) } else { usize::MAX };
        // As much as there is room for is written all the same.
        let written = &bytes[..bytes.len().min(room)];
        inner.events.push(Event::Write(self.inode, offset, written.to_vec()));
        write(&mut file, offset, written);
        if written.len() < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).unwrap();
        let mut inner = self.disk.lock();
        inner.try_once()?;
        inner.events.push(Event::Truncate(self.inode, length));
        self.bytes.lock().unwrap().truncate(length);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let (lock, woken) = &*self.disk.inner;
        let mut inner = woken.wait_while(lock.lock().unwrap(), |inner| inner.held).unwrap();
        inner.syncs += 1;
        let is_failing = inner.failing_sync == Some(inner.syncs);
        let tried = inner.try_once();
        if is_failing || tried.is_err() {
            inner.events.push(Event::FailedSync(self.inode));
            return Err(io::Error::from_raw_os_error(EIO));
        }
        inner.events.push(Event::Sync(self.inode));
        Ok(())
    }
}
