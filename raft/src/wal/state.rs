//! What the log says besides its entries.

use super::record::{Ballot, Position, Record};

/// The sum of all records so far but for the entries themselves. Restated at the head of each
/// segment, so that the segments before it can go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogState {
    pub(super) ballot: Option<Ballot>,
    /// Entries up to this one may be gone.
    pub(super) purged: Option<Position>,
    pub(super) committed: Option<Position>,
    /// The last entry, whether it is still there or purged.
    pub(super) last: Option<Position>,
    pub(super) incarnation: u64,
}

impl LogState {
    /// The records that restate it.
    pub(super) fn records(&self) -> Vec<Record> {
        let mut records = vec![Record::Incarnation(self.incarnation)];
        records.extend(self.ballot.map(Record::Ballot));
        records.extend(self.purged.map(Record::Purge));
        records.extend(self.last.map(Record::Last));
        records.extend(self.committed.map(Record::Committed));
        records
    }

    /// Takes one more record into the sum.
    pub(super) fn note(&mut self, record: &Record) {
        match record {
            Record::Ballot(ballot) => self.ballot = Some(*ballot),
            Record::Entry(entry) => self.last = Some(entry.position),
            Record::Truncate(last) => self.last = *last,
            Record::Purge(upto) => {
                self.purged = Some(*upto);
                if self.last.is_none_or(|last| last.index < upto.index) {
                    self.last = Some(*upto);
                }
            }
            Record::Committed(upto) => self.committed = Some(*upto),
            Record::Incarnation(number) => self.incarnation = *number,
            Record::Last(position) => self.last = Some(*position),
        }
    }

    /// The last entry that is here and known to be committed. No leader may have it cut off
    /// again, so a log that once held it and ends before it has lost something.
    pub(super) fn floor(&self) -> Option<u64> {
        let last = self.last.map(|last| last.index);
        let committed = self.committed.map(|committed| committed.index).min(last);
        self.purged.map(|purged| purged.index).max(committed)
    }
}
