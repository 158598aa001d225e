//! Where each entry is: in memory, on disk, or both.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::WalError;
use super::disk::DiskFile;
use super::record::{Entry, Position, Record};
use super::state::LogState;

/// The log as its readers see it: what was asked of it, be it durable yet or not.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) state: LogState,
    /// The index of the first slot.
    first: u64,
    /// Every entry that is not purged, without gaps.
    slots: VecDeque<Slot>,
    /// The newest entries: as many as the cache may hold, and all that have no place yet.
    cache: VecDeque<Entry>,
    cache_bytes: usize,
    cache_bytes_max: usize,
    /// Every segment that holds an entry.
    pub(super) files: BTreeMap<u64, Arc<dyn DiskFile>>,
}

#[derive(Debug)]
struct Slot {
    term: u64,
    node: u64,
    /// `None` until the entry is written.
    place: Option<Place>,
}

/// Where the record of an entry lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) segment: u64,
    /// From the segment's start, in bytes.
    pub(super) offset: u32,
    /// Of the whole record, in bytes.
    pub(super) length: u32,
    /// Of the whole record. Kept here and not on disk, where the frame's CRC covers it.
    pub(super) crc: u32,
}

/// An entry that a reader asked for.
#[derive(Debug)]
pub(super) enum Found {
    /// At hand.
    Cached(Entry),
    /// To be read with [`read_place`].
    Stored(Arc<dyn DiskFile>, Position, Place),
}

impl Index {
    pub(super) fn new(state: LogState, cache_bytes_max: usize) -> Self {
        Self {
            state,
            first: 0,
            slots: VecDeque::new(),
            cache: VecDeque::new(),
            cache_bytes: 0,
            cache_bytes_max,
            files: BTreeMap::new(),
        }
    }

    /// The first entry that is not purged, if there is any.
    pub(super) fn first(&self) -> Option<u64> {
        (!self.slots.is_empty()).then_some(self.first)
    }

    /// One past the last entry.
    fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Adds an entry behind the last one. The very first may have any index.
    pub(super) fn append(&mut self, entry: Entry, place: Option<Place>) -> Result<(), WalError> {
        let Position { term, node, index } = entry.position;
        if let Some(last) = self.state.last
            && last.index.checked_add(1) != Some(index)
        {
            return Err(WalError::Gap { index, last: last.index });
        }

        if self.slots.is_empty() {
            self.first = index;
        }
        self.state.last = Some(entry.position);
        self.slots.push_back(Slot { term, node, place });
        self.cache_bytes += entry.record_bytes();
        self.cache.push_back(entry);
        self.evict();
        Ok(())
    }

    /// Drops all entries behind `after`; returns what is the last then, or `None` if nothing
    /// was behind it.
    pub(super) fn truncate(&mut self, after: Option<u64>) -> Result<Option<Record>, WalError> {
        if self.state.last.map(|last| last.index) <= after {
            return Ok(None);
        }
        if let Some(index) = self.state.floor().filter(|index| after < Some(*index)) {
            return Err(WalError::Committed { index });
        }

        let kept = after.and_then(|after| self.position(after)).or(self.state.purged);
        self.cut(kept);
        Ok(Some(Record::Truncate(kept)))
    }

    /// Makes `last` the last entry.
    pub(super) fn cut(&mut self, last: Option<Position>) {
        let next = last.map_or(0, |last| last.index + 1);
        while self.next() > next && self.slots.pop_back().is_some() {
            if let Some(entry) = self.cache.pop_back() {
                self.cache_bytes -= entry.record_bytes();
            }
        }
        self.state.last = last;
    }

    /// Forgets all entries up to `upto`; false if they are forgotten already.
    pub(super) fn purge(&mut self, upto: Position) -> bool {
        if self.state.purged.is_some_and(|purged| purged.index >= upto.index) {
            return false;
        }
        self.state.note(&Record::Purge(upto));
        while self.first <= upto.index && self.slots.pop_front().is_some() {
            self.first += 1;
            if self.cache.len() > self.slots.len() {
                self.uncache();
            }
        }
        true
    }

    /// Notes where entries were written, unless they have been cut off or purged since.
    pub(super) fn place(&mut self, placed: &[(Position, Place)]) {
        for (position, place) in placed {
            let slot = position.index.checked_sub(self.first).and_then(|at| {
                let slot = self.slots.get_mut(usize::try_from(at).ok()?)?;
                ((slot.term, slot.node) == (position.term, position.node)).then_some(slot)
            });
            if let Some(slot) = slot {
                slot.place = Some(*place);
            }
        }
        self.evict();
    }

    /// Drops the oldest cached entries that can be read from disk, while there are too many.
    fn evict(&mut self) {
        while self.cache_bytes > self.cache_bytes_max {
            let oldest = self.slots.len() - self.cache.len();
            if self.slots.get(oldest).is_none_or(|slot| slot.place.is_none()) {
                break;
            }
            self.uncache();
        }
    }

    fn uncache(&mut self) {
        if let Some(entry) = self.cache.pop_front() {
            self.cache_bytes -= entry.record_bytes();
        }
    }

    /// The position of an entry that is not purged.
    pub(super) fn position(&self, index: u64) -> Option<Position> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        let slot = self.slots.get(at)?;
        Some(Position { term: slot.term, node: slot.node, index })
    }

    /// The entries of `range` that there are, but no more after `bytes_max` bytes of records.
    pub(super) fn find(&self, range: Range<u64>, bytes_max: usize) -> Vec<Found> {
        let range = range.start.max(self.first)..range.end.min(self.next());
        let cached_from = self.next() - self.cache.len() as u64;
        let mut found = Vec::new();
        let mut bytes = 0;
        for index in range {
            if bytes >= bytes_max {
                break;
            }
            let at = usize::try_from(index - self.first).expect("a slot's place fits in memory");
            let entry = if index >= cached_from {
                let at = at - (self.slots.len() - self.cache.len());
                bytes += self.cache[at].record_bytes();
                Found::Cached(self.cache[at].clone())
            } else {
                let slot = &self.slots[at];
                let place = slot.place.expect("only entries with a place leave the cache");
                bytes += place.length as usize;
                let file = Arc::clone(&self.files[&place.segment]);
                let position = Position { term: slot.term, node: slot.node, index };
                Found::Stored(file, position, place)
            };
            found.push(entry);
        }
        found
    }
}

/// Reads an entry back from its segment.
pub(super) fn read_place(
    file: &dyn DiskFile,
    position: Position,
    place: Place,
) -> Result<Entry, WalError> {
    let mut bytes = vec![0; place.length as usize];
    file.read_at(u64::from(place.offset), &mut bytes)
        .map_err(|error| WalError::Unreadable { index: position.index, what: error.to_string() })?;
    match Record::decode(&mut bytes.as_slice()) {
        Some(Record::Entry(entry))
            if entry.position == position && crc32c::crc32c(&bytes) == place.crc =>
        {
            Ok(entry)
        }
        _ => {
            let what = "its checksum does not match".to_owned();
            Err(WalError::Unreadable { index: position.index, what })
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wal::record::EntryKind;

    fn entry(term: u64, index: u64) -> Entry {
        let position = Position { term, node: 1, index };
        Entry { position, kind: EntryKind::Normal, payload: Bytes::from_static(b"x") }
    }

    fn indexes(index: &Index, range: Range<u64>) -> Vec<u64> {
        let found = index.find(range, usize::MAX);
        let position = |found: &Found| match found {
            Found::Cached(entry) => entry.position.index,
            Found::Stored(_, position, _) => position.index,
        };
        found.iter().map(position).collect()
    }

    #[test]
    fn refuses_a_gap() {
        let mut index = Index::new(LogState::default(), usize::MAX);
        index.append(entry(1, 4), None).expect("the first may have any index");
        assert!(matches!(index.append(entry(1, 6), None), Err(WalError::Gap { .. })));
        assert!(matches!(index.append(entry(1, 4), None), Err(WalError::Gap { .. })));
    }

    #[test]
    fn keeps_an_entry_in_memory_until_it_is_written() {
        let mut index = Index::new(LogState::default(), 0);
        for at in 0..3 {
            index.append(entry(1, at), None).expect("no gap");
        }
        assert_eq!(index.cache.len(), 3);
        let place = Place { segment: 1, offset: 0, length: 1, crc: 0 };
        index.place(&[(entry(1, 0).position, place)]);
        assert_eq!(index.cache.len(), 2);
    }

    #[test]
    fn gives_no_place_to_an_entry_that_replaced_the_written_one() {
        let mut index = Index::new(LogState::default(), usize::MAX);
        index.append(entry(1, 0), None).expect("no gap");
        index.truncate(None).expect("nothing is purged");
        index.append(entry(2, 0), None).expect("no gap");
        index.place(&[(entry(1, 0).position, Place { segment: 1, offset: 0, length: 1, crc: 0 })]);
        assert!(index.slots[0].place.is_none());
    }

    #[test]
    fn purges_past_its_end_and_goes_on_from_there() {
        let mut index = Index::new(LogState::default(), usize::MAX);
        index.append(entry(1, 0), None).expect("no gap");
        assert!(index.purge(Position { term: 2, node: 1, index: 9 }));
        assert!(!index.purge(Position { term: 2, node: 1, index: 8 }));
        assert_eq!(index.first(), None);
        index.append(entry(2, 10), None).expect("no gap");
        assert_eq!(indexes(&index, 0..100), [10]);
        assert!(matches!(index.truncate(Some(8)), Err(WalError::Committed { index: 9 })));
        index.truncate(Some(9)).expect("10 is not purged");
        assert_eq!(index.state.last.map(|last| last.index), Some(9));
    }
}
