//! Reading the log back, and telling a crash from damage.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::index::Index;
use super::record::Record;
use super::segment::{self, FORMAT_VERSION, FrameFound, HEAD_BYTES, Head, HeadFault, Owner};
use super::state::LogState;
use super::writer::{Sealed, Segment, place_of};
use super::{OpenError, WalOptions};

/// What was found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) index: Index,
    pub(super) segment: Segment,
    pub(super) sealed: VecDeque<Sealed>,
}

/// A segment as it lies on disk.
struct Read {
    number: u64,
    name: String,
    file: Arc<dyn DiskFile>,
    bytes: Vec<u8>,
    head: Head,
}

/// Reads the log, and writes its last frame once more; `None` if there is none.
///
/// # Errors
///
/// If it cannot be read, if anything but the very end of it is broken, or if it is another
/// owner's.
pub(super) fn recover(
    disk: &dyn Disk,
    owner: Owner,
    options: &WalOptions,
) -> Result<Option<Recovered>, OpenError> {
    let numbers = segment_numbers(disk)?;
    let mut replay = Replay { disk, index: None, sealed: VecDeque::new(), options };
    let mut current: Option<Read> = None;
    for (at, &number) in numbers.iter().enumerate() {
        let is_last = at + 1 == numbers.len();
        let Some(next) = read_segment(disk, number, owner, is_last)? else { break };
        if let Some(ended) = current.replace(next) {
            let end = current.as_ref().map_or(0, |next| next.head.previous_end);
            replay.sealed(&ended, end)?;
        }
    }
    let Some(last) = current else { return Ok(None) };
    let segment = replay.last(last)?;
    let Replay { index, sealed, .. } = replay;
    let index = index.expect("the last segment was replayed");
    let first = sealed.front().map_or(segment.number, |first| first.number);
    check_start(disk, &index, first)?;
    Ok(Some(Recovered { index, segment, sealed }))
}

/// The numbers of all segments, which must follow one another.
pub(super) fn segment_numbers(disk: &dyn Disk) -> Result<Vec<u64>, OpenError> {
    let names = disk.list().map_err(|source| OpenError::io("listing", disk.path(""), source))?;
    let mut numbers: Vec<u64> =
        names.iter().filter_map(|name| segment::file_number(name)).collect();
    numbers.sort_unstable();
    match numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
        Some(pair) => Err(OpenError::Missing { path: disk.path(&segment::file_name(pair[0] + 1)) }),
        None => Ok(numbers),
    }
}

/// Reads a segment's file and its head.
///
/// The last one may be the remains of a crash in the midst of its making. Nothing was
/// acknowledged from it then; it is deleted, and the answer is `None`.
fn read_segment(
    disk: &dyn Disk,
    number: u64,
    owner: Owner,
    is_last: bool,
) -> Result<Option<Read>, OpenError> {
    let name = segment::file_name(number);
    let failed = |source| OpenError::io("reading", disk.path(&name), source);
    let file = disk.open(&name).map_err(failed)?;
    let bytes = file.read_all().map_err(failed)?;

    let state_frame = segment::frame_at(number, &bytes, HEAD_BYTES);
    match Head::decode(&bytes) {
        Ok(head) if head.number != number => {
            Err(broken(disk, &name, 0, "this is another segment, renamed"))
        }
        Ok(head) if head.owner != owner => {
            Err(OpenError::Foreign { path: disk.path(&name), found: head.owner, owner })
        }
        Ok(head) if state_frame.is_some() => Ok(Some(Read { number, name, file, bytes, head })),
        Err(HeadFault::Version(found)) => {
            Err(OpenError::Version { path: disk.path(&name), found, known: FORMAT_VERSION })
        }
        Ok(_) | Err(HeadFault::Unreadable) => {
            if !is_last || segment::frame_after(number, &bytes, HEAD_BYTES).is_some() {
                return Err(broken(disk, &name, 0, "its head is damaged"));
            }
            tracing::warn!(file = %disk.path(&name).display(), "deleting a half-made segment");
            let deleted = disk.delete(&name).and_then(|()| disk.sync_directory());
            deleted.map_err(|source| OpenError::io("deleting", disk.path(&name), source))?;
            Ok(None)
        }
    }
}

/// No entry may be missing between what is purged and what is there.
fn check_start(disk: &dyn Disk, index: &Index, first_segment: u64) -> Result<(), OpenError> {
    let purged = index.state.purged.map(|purged| purged.index);
    let missing = match (index.first(), purged) {
        (Some(first), Some(purged)) => first > purged + 1,
        (None, Some(purged)) => index.state.last.is_some_and(|last| last.index > purged),
        (_, None) => first_segment != 1,
    };
    if missing {
        let path = disk.path(&segment::file_name(first_segment.saturating_sub(1)));
        return Err(OpenError::Missing { path });
    }
    Ok(())
}

struct Replay<'a> {
    disk: &'a dyn Disk,
    options: &'a WalOptions,
    index: Option<Index>,
    sealed: VecDeque<Sealed>,
}

impl Replay<'_> {
    /// Replays a segment which has one behind it, and so was complete.
    fn sealed(&mut self, read: &Read, end: u64) -> Result<(), OpenError> {
        // Behind its end there may be a note of what was committed, which counts no more.
        let limit = usize::try_from(end).unwrap_or(usize::MAX);
        let Frames { end: reached, index_max, .. } = self.frames(read, limit)?;
        if reached as u64 != end {
            let what = format!("it should be sound up to byte {end}");
            return Err(broken(self.disk, &read.name, reached, &what));
        }
        self.sealed.push_back(Sealed { number: read.number, index_max });
        Ok(())
    }

    /// Replays the last segment, and cuts off what a crash left half written.
    fn last(&mut self, read: Read) -> Result<Segment, OpenError> {
        let Frames { last, end, index_max } = self.frames(&read, read.bytes.len())?;
        let mut length = read.bytes.len() as u64;
        let torn = read.bytes[end..].iter().rposition(|byte| *byte != 0);
        if let Some(torn) = torn {
            if let Some(sound) = segment::frame_after(read.number, &read.bytes, end) {
                let what = format!("it is damaged, for at byte {sound} it is sound again");
                return Err(broken(self.disk, &read.name, end, &what));
            }
            let path = self.disk.path(&read.name);
            tracing::warn!(path = %path.display(), at = end, bytes = torn + 1, "cutting a torn tail");
            let cut = read.file.truncate(end as u64).and_then(|()| read.file.sync());
            cut.map_err(|source| OpenError::io("cutting", path, source))?;
            length = end as u64;
        }
        settle(self.disk, &read, last..end)?;
        let Read { number, file, .. } = read;
        Ok(Segment { number, file, end: end as u64, length, index_max })
    }

    /// Replays all sound frames that begin before `limit`.
    fn frames(&mut self, read: &Read, limit: usize) -> Result<Frames, OpenError> {
        let mut offset = HEAD_BYTES;
        let mut last = 0;
        let mut index_max = None;
        while offset < limit
            && let Some(FrameFound { records, end }) =
                segment::frame_at(read.number, &read.bytes, offset)
        {
            let fault = |what: &str| broken(self.disk, &read.name, offset, what);
            if offset == HEAD_BYTES {
                let state = head_state(records).ok_or_else(|| fault(UNKNOWN_RECORD))?;
                let cache_bytes = self.options.cache_bytes;
                let index = self.index.get_or_insert_with(|| Index::new(state, cache_bytes));
                if index.state != state {
                    return Err(fault("it does not go on where the segment before it ends"));
                }
                index.files.insert(read.number, Arc::clone(&read.file));
            } else {
                let index = self.index.as_mut().expect("the state frame comes first");
                let at = offset + segment::FRAME_HEAD_BYTES;
                let max = replay_frame(index, read.number, at as u64, records)
                    .map_err(|what| broken(self.disk, &read.name, offset, &what))?;
                index_max = index_max.max(max);
            }
            // The head of the segment was written with its first frame.
            last = if offset == HEAD_BYTES { 0 } else { offset };
            offset = end;
        }
        Ok(Frames { last, end: offset, index_max })
    }
}

/// The sound frames of a segment.
struct Frames {
    /// Where the last write began, and all end.
    last: usize,
    end: usize,
    /// The greatest index among them.
    index_max: Option<u64>,
}

/// Writes once more what was written last, and syncs it. A sync that failed leaves what it was
/// for in memory, marked as written: it can be read, by this process as well, until the power
/// goes. What came before it had been synced without a failure.
fn settle(disk: &dyn Disk, read: &Read, last: Range<usize>) -> Result<(), OpenError> {
    let rewritten = read.file.write_at(last.start as u64, &read.bytes[last]);
    let settled = rewritten.and_then(|()| read.file.sync()).and_then(|()| disk.sync_directory());
    settled.map_err(|source| OpenError::io("rewriting the end of", disk.path(&read.name), source))
}

const UNKNOWN_RECORD: &str = "it holds a record that this version does not know; \
                              start the version that wrote it, or a later one";

/// The state that the records of a state frame add up to.
fn head_state(mut records: &[u8]) -> Option<LogState> {
    let mut state = LogState::default();
    while !records.is_empty() {
        state.note(&Record::decode(&mut records)?);
    }
    Some(state)
}

/// Does again what the records say; returns the greatest index of an entry among them.
fn replay_frame(
    index: &mut Index,
    segment: u64,
    start: u64,
    records: &[u8],
) -> Result<Option<u64>, String> {
    let mut rest = records;
    let mut index_max = None;
    while !rest.is_empty() {
        let offset = records.len() - rest.len();
        let record = Record::decode(&mut rest).ok_or(UNKNOWN_RECORD)?;
        match record {
            Record::Entry(entry) => {
                index_max = index_max.max(Some(entry.position.index));
                let bytes = &records[offset..records.len() - rest.len()];
                let crc = crc32c::crc32c(bytes);
                let place = place_of(segment, start + offset as u64, bytes.len(), crc);
                index.append(entry, Some(place)).map_err(|error| error.to_string())?;
            }
            Record::Truncate(last) => index.cut(last),
            Record::Purge(upto) => {
                index.purge(upto);
            }
            Record::Ballot(_) | Record::Committed(_) | Record::Incarnation(_) | Record::Last(_) => {
                index.state.note(&record)
            }
        }
    }
    Ok(index_max)
}

fn broken(disk: &dyn Disk, name: &str, offset: usize, what: &str) -> OpenError {
    OpenError::Broken { path: disk.path(name), offset: offset as u64, what: what.to_owned() }
}

impl OpenError {
    fn io(action: &'static str, path: std::path::PathBuf, source: io::Error) -> Self {
        Self::Io { action, path, source }
    }
}
