//! The one thread that writes: takes what is queued, writes it as one frame, syncs once, and
//! tells all who wait.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::WalError;
use super::disk::{Disk, DiskFile};
use super::index::{Index, Place};
use super::record::{Entry, Position, Record};
use super::segment::{self, Frame, HEAD_BYTES, Head, Owner};
use super::state::LogState;
use crate::mutant;
use crate::storage::{Storage, is_full, never_again};

/// How far the file is filled with zeros ahead of the log, in bytes: then a sync writes the
/// records alone and not, each time, the file's new size. Zeros and not `fallocate`, because
/// the first write to space that is only reserved changes the file's metadata as well.
const ZEROS_BYTES: u64 = 1 << 20;

/// To be called when an operation is durable, or never will be.
pub(super) type Done = Box<dyn FnOnce(Result<(), WalError>) + Send>;

/// Called with an index below which the log will never end again, whenever a segment ends.
pub(crate) type FloorHook = Box<dyn FnMut(u64) -> io::Result<()> + Send>;

/// Something to write.
pub(super) struct Operation {
    pub(super) work: Work,
    /// Nobody waits for a note of what is committed, and so it is not synced.
    pub(super) done: Option<Done>,
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.work.fmt(f)
    }
}

/// What to write.
#[derive(Debug)]
pub(super) enum Work {
    Append(Vec<Entry>),
    /// Any record but of an entry or of what is committed.
    Record(Record),
    Committed(Position),
}

/// The segment that grows.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) file: Arc<dyn DiskFile>,
    /// Where the next frame goes.
    pub(super) end: u64,
    /// How far the file reaches.
    pub(super) length: u64,
    /// The greatest index of an entry in it.
    pub(super) index_max: Option<u64>,
}

/// A segment that is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealed {
    pub(super) number: u64,
    pub(super) index_max: Option<u64>,
}

/// A frame, and what holds once it is durable.
struct Pending {
    frame: Frame,
    entries: Vec<(Position, usize, usize)>,
    state: LogState,
}

pub(super) struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) owner: Owner,
    pub(super) segment_bytes: u64,
    pub(super) index: Arc<Mutex<Index>>,
    /// What is durable.
    pub(super) state: LogState,
    pub(super) segment: Segment,
    /// In order; the oldest is deleted first.
    pub(super) sealed: VecDeque<Sealed>,
    /// Known to be committed, but only noted beyond the end of the log, or not at all.
    pub(super) committed: Option<Position>,
    pub(super) storage: Storage,
    pub(super) on_floor: Option<FloorHook>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("segment", &self.segment).finish_non_exhaustive()
    }
}

impl Writer {
    /// Notes, durably, that the node has started for the `incarnation`-th time.
    pub(super) fn begin(&mut self, incarnation: u64) -> io::Result<()> {
        let mut pending = Pending::new(self.state);
        pending.push(&Record::Incarnation(incarnation));
        self.index().state.incarnation = incarnation;
        self.write(&mut pending)?;
        self.sync(&pending)
    }

    /// Serves the queue until its senders are gone.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Operation>) {
        while let Some(first) = queue.recv().await {
            self.commit(first, &mut queue).await;
            // Deleting a large file takes milliseconds: one at a time, so that writes go on.
            while self.delete_oldest() && queue.is_empty() {}
        }
        self.close().await;
    }

    /// Writes `first` and what is queued behind it.
    async fn commit(&mut self, first: Operation, queue: &mut mpsc::Receiver<Operation>) {
        let mut batch = Batch::new(self.state);
        batch.add(first);
        while !batch.is_full()
            && let Ok(operation) = queue.try_recv()
        {
            batch.add(operation);
        }
        let Batch { full, open, waiting, committed } = batch;
        self.committed = committed.or(self.committed);

        let result = if waiting.is_empty() {
            self.note_committed()
        } else {
            self.write_all(full, open).await
        };
        // Whatever failed meanwhile, here or elsewhere: from then on nothing is acknowledged.
        let result = result.and_then(|()| self.check()).map_err(|error| self.fail(&error));
        for done in waiting {
            done(result.clone());
        }
    }

    async fn write_all(&mut self, full: Vec<Pending>, mut last: Pending) -> io::Result<()> {
        self.check()?;
        if let Some(committed) = self.committed.take() {
            last.push(&Record::Committed(committed));
        }
        for mut pending in full.into_iter().chain([last]) {
            if pending.frame.is_empty() {
                continue;
            }
            self.write(&mut pending)?;
            let started = Instant::now();
            if let Some(time) = self.disk.sync_time() {
                tokio::time::sleep(time).await;
            }
            self.sync(&pending)?;
            self.storage.synced(started.elapsed());
        }
        Ok(())
    }

    /// Writes a frame behind the last.
    fn write(&mut self, pending: &mut Pending) -> io::Result<()> {
        let size = pending.frame.size() as u64;
        if self.segment.end + size > self.segment_bytes {
            self.roll()?;
        }
        let Segment { number, end, .. } = self.segment;
        self.fill(end + size)?;
        let bytes = pending.frame.seal(number, end);
        self.storage.with_room(|| self.segment.file.write_at(end, bytes))
    }

    /// Syncs the frame that was written last.
    fn sync(&mut self, pending: &Pending) -> io::Result<()> {
        let is_vote = pending.state.ballot != self.state.ballot;
        let is_faulty = if is_vote { mutant::is("M10") } else { mutant::is("M11") };
        if !is_faulty {
            never_again(self.segment.file.sync())?;
        }

        let Segment { number, end, .. } = self.segment;
        self.segment.end += pending.frame.size() as u64;
        self.state = pending.state;
        let index_max = pending.entries.iter().map(|(position, ..)| position.index).max();
        self.segment.index_max = self.segment.index_max.max(index_max);
        self.index().place(&pending.places(number, end));
        Ok(())
    }

    /// Notes what is committed where the next frame will go, which then overwrites it. So the
    /// note needs no sync, and costs nothing but itself if it is lost. Nor is it worth a wait
    /// for room.
    fn note_committed(&mut self) -> io::Result<()> {
        self.check()?;
        let Some(committed) = self.committed else { return Ok(()) };
        match self.write_note(committed) {
            Err(error) if is_full(&error) => Ok(()),
            other => other,
        }
    }

    fn write_note(&mut self, committed: Position) -> io::Result<()> {
        let mut frame = Frame::new();
        frame.push(&Record::Committed(committed));
        let Segment { number, end, .. } = self.segment;
        let after = end + frame.size() as u64;
        if after > self.segment_bytes {
            return Ok(());
        }
        if after > self.segment.length {
            self.extend(after)?;
        }
        self.segment.file.write_at(end, frame.seal(number, end))
    }

    /// Sees to it that the file reaches as far as `end`.
    fn fill(&mut self, end: u64) -> io::Result<()> {
        if end <= self.segment.length {
            return Ok(());
        }
        let storage = self.storage.clone();
        storage.with_room(|| self.extend(end))
    }

    fn extend(&mut self, end: u64) -> io::Result<()> {
        let length = end.next_multiple_of(ZEROS_BYTES).min(self.segment_bytes.max(end));
        let zeros =
            vec![0; usize::try_from(length - self.segment.length).map_err(io::Error::other)?];
        self.segment.file.write_at(self.segment.length, &zeros)?;
        self.segment.length = length;
        Ok(())
    }

    /// Ends the segment and begins the next.
    fn roll(&mut self) -> io::Result<()> {
        let number = self.segment.number + 1;
        let head = Head { number, owner: self.owner, previous_end: self.segment.end };
        let next = create_segment(&*self.disk, &self.storage, head, &self.state)?;
        let full = std::mem::replace(&mut self.segment, next);
        self.sealed.push_back(Sealed { number: full.number, index_max: full.index_max });
        self.index().files.insert(number, Arc::clone(&self.segment.file));
        let storage = self.storage.clone();
        storage.with_room(|| self.raise_floor())
    }

    fn raise_floor(&mut self) -> io::Result<()> {
        match (&mut self.on_floor, self.state.floor()) {
            (Some(on_floor), Some(floor)) => on_floor(floor),
            (None, _) | (_, None) => Ok(()),
        }
    }

    fn is_purged(&self, sealed: &Sealed) -> bool {
        self.state.purged.is_some_and(|purged| sealed.index_max <= Some(purged.index))
    }

    /// Deletes the oldest segment if all of its entries are purged; tells whether it did.
    fn delete_oldest(&mut self) -> bool {
        let Some(oldest) = self.sealed.front().copied() else { return false };
        if self.storage.has_failed() || !self.is_purged(&oldest) {
            return false;
        }
        match self.raise_floor() {
            // Another time: to wait here would be to wait for the very room that this makes.
            Err(error) if is_full(&error) => return false,
            Err(error) => {
                self.fail(&error);
                return false;
            }
            Ok(()) => {}
        }
        self.sealed.pop_front();
        self.index().files.remove(&oldest.number);
        // The directory is synced each time, lest a later segment be gone and an earlier not.
        let deleted = self.disk.delete(&segment::file_name(oldest.number));
        let deleted = deleted.and_then(|()| self.disk.sync_directory());
        deleted.map_err(|error| self.fail(&error)).is_ok()
    }

    /// Writes what nobody waited for.
    async fn close(mut self) {
        let last = Pending::new(self.state);
        let written = match self.committed {
            Some(_) => self.write_all(Vec::new(), last).await,
            None => self.check(),
        };
        match written.and_then(|()| self.raise_floor()) {
            // What nobody waited for is left out.
            Err(error) if is_full(&error) => {}
            Err(error) => drop(self.fail(&error)),
            Ok(()) => {}
        }
    }

    fn check(&self) -> io::Result<()> {
        match self.storage.cause() {
            None => Ok(()),
            Some(cause) => Err(io::Error::other(cause)),
        }
    }

    /// Ends all writing for good. What a failed sync left on disk is unknown, and a second one
    /// could succeed without having written anything.
    fn fail(&self, error: &io::Error) -> WalError {
        WalError::Failed(self.storage.fail(|| {
            let path = self.disk.path(&segment::file_name(self.segment.number));
            format!("writing the log at {} failed: {error}", path.display())
        }))
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("nobody panics with the index in hand")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if thread::panicking() {
            self.fail(&io::Error::other("the writer panicked"));
        }
    }
}

/// Makes a segment with `state` at its head, durably.
pub(super) fn create_segment(
    disk: &dyn Disk,
    storage: &Storage,
    head: Head,
    state: &LogState,
) -> io::Result<Segment> {
    let mut frame = Frame::new();
    for record in state.records() {
        frame.push(&record);
    }
    let mut bytes = head.encode();
    bytes.extend_from_slice(frame.seal(head.number, HEAD_BYTES as u64));

    let file = storage.with_room(|| create_file(disk, head.number, &bytes))?;
    never_again(file.sync())?;
    never_again(disk.sync_directory())?;
    let end = bytes.len() as u64;
    Ok(Segment { number: head.number, file, end, length: end, index_max: None })
}

/// Makes a file that begins with `bytes`; leaves none where there is no room for them.
fn create_file(disk: &dyn Disk, number: u64, bytes: &[u8]) -> io::Result<Arc<dyn DiskFile>> {
    let name = segment::file_name(number);
    let file = disk.create(&name)?;
    match file.write_at(0, bytes) {
        Err(error) if is_full(&error) => disk.delete(&name).and(Err(error)),
        written => written.map(|()| file),
    }
}

/// What is written together.
struct Batch {
    /// Frames that are full.
    full: Vec<Pending>,
    open: Pending,
    waiting: Vec<Done>,
    committed: Option<Position>,
}

impl Batch {
    fn new(state: LogState) -> Self {
        Self { full: Vec::new(), open: Pending::new(state), waiting: Vec::new(), committed: None }
    }

    fn is_full(&self) -> bool {
        !self.full.is_empty() || self.open.frame.is_full()
    }

    fn add(&mut self, operation: Operation) {
        match operation.work {
            Work::Append(entries) => entries.into_iter().for_each(|entry| self.append(entry)),
            Work::Record(record) => self.open.push(&record),
            Work::Committed(upto) => self.committed = Some(upto),
        }
        self.waiting.extend(operation.done);
    }

    fn append(&mut self, entry: Entry) {
        if self.open.frame.is_full() {
            let next = Pending::new(self.open.state);
            self.full.push(std::mem::replace(&mut self.open, next));
        }
        self.open.push(&Record::Entry(entry));
    }
}

impl Pending {
    fn new(state: LogState) -> Self {
        Self { frame: Frame::new(), entries: Vec::new(), state }
    }

    fn push(&mut self, record: &Record) {
        let offset = self.frame.push(record);
        self.state.note(record);
        if let Record::Entry(entry) = record {
            self.entries.push((entry.position, offset, entry.record_bytes()));
        }
    }

    /// Where its entries are once it is written at `start`.
    fn places(&self, segment: u64, start: u64) -> Vec<(Position, Place)> {
        let place = |&(position, offset, length): &(Position, usize, usize)| {
            let crc = crc32c::crc32c(self.frame.record(offset, length));
            (position, place_of(segment, start + offset as u64, length, crc))
        };
        self.entries.iter().map(place).collect()
    }
}

/// A place, from wider numbers.
pub(super) fn place_of(segment: u64, offset: u64, length: usize, crc: u32) -> Place {
    Place {
        segment,
        offset: u32::try_from(offset).expect("a segment is smaller than 4 GiB"),
        length: u32::try_from(length).expect("a record is bounded"),
        crc,
    }
}
