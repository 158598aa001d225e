//! What a log should hold, in a few lines, and how to do the same to both.

use std::collections::BTreeMap;
use std::sync::mpsc;

use bytes::Bytes;
use proptest::prelude::*;
use quorate_raft::wal::record::{Ballot, Entry, EntryKind, Position};
use quorate_raft::wal::{Wal, WalError};

/// One step.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Entries with payloads of these sizes, in bytes.
    Append(Vec<usize>),
    /// A vote in the next term.
    Vote,
    /// Drops up to so many entries from the end, but none that is purged or committed.
    Truncate(u64),
    /// Purges up to so many entries beyond the last purged, be they there or not.
    Purge(u64),
    /// All there is is committed.
    Commit,
}

pub(crate) fn steps(range: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(0..120_usize, 1..4).prop_map(Step::Append),
        2 => Just(Step::Vote),
        1 => (0..4_u64).prop_map(Step::Truncate),
        1 => (1..8_u64).prop_map(Step::Purge),
        2 => Just(Step::Commit),
    ];
    prop::collection::vec(step, range)
}

/// A log in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    term: u64,
    /// One past the last committed entry.
    committed: u64,
    pub(crate) ballot: Option<Ballot>,
    pub(crate) purged: Option<Position>,
    pub(crate) last: Option<Position>,
    pub(crate) entries: BTreeMap<u64, Entry>,
}

/// How a step was told to be done.
pub(crate) type Ended = mpsc::Receiver<Result<(), WalError>>;

impl Model {
    /// What `wal` holds.
    pub(crate) fn of(wal: &Wal) -> Self {
        let entries = wal.read(0..u64::MAX, usize::MAX).unwrap();
        Self {
            term: 0,
            committed: 0,
            ballot: wal.ballot(),
            purged: wal.purged(),
            last: wal.last(),
            entries: entries.into_iter().map(|entry| (entry.position.index, entry)).collect(),
        }
    }

    /// The same, but for what no log remembers.
    pub(crate) fn visible(&self) -> Self {
        Self { term: 0, committed: 0, ..self.clone() }
    }

    fn next(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    /// The entries that `Step::Append` with these sizes means here.
    fn new_entries(&self, sizes: &[usize]) -> Vec<Entry> {
        let entry = |(index, size): (u64, &usize)| Entry {
            position: Position { term: self.term, node: 1, index },
            kind: EntryKind::Normal,
            payload: Bytes::from(vec![u8::try_from(index % 251).unwrap() | 1; *size]),
        };
        (self.next()..).zip(sizes).map(entry).collect()
    }

    /// Does the step here and to `wal`, and hands out how to learn that it is durable; `None`
    /// if nobody is told. From a log that has failed nothing is heard but that it hangs up.
    pub(crate) fn step(&mut self, step: &Step, wal: &Wal) -> impl Future<Output = Option<Ended>> {
        let (sender, ended) = mpsc::channel();
        let wal = wal.clone();
        let done = move |result| sender.send(result).unwrap_or_default();
        let change = self.change(step);
        async move {
            match change {
                Change::Append(entries) => drop(wal.append(entries, done).await),
                Change::Ballot(ballot) => done(wal.save_ballot(ballot).await),
                Change::Truncate(after) => done(wal.truncate(after).await),
                Change::Purge(upto) => done(wal.purge(upto).await),
                Change::Commit(upto) => {
                    return wal.save_committed(upto).await.is_err().then_some(ended);
                }
                Change::Nothing => return None,
            }
            Some(ended)
        }
    }

    fn change(&mut self, step: &Step) -> Change {
        match step {
            Step::Append(sizes) => {
                let entries = self.new_entries(sizes);
                self.last = entries.last().map(|entry| entry.position);
                let indexed = entries.iter().map(|entry| (entry.position.index, entry.clone()));
                self.entries.extend(indexed);
                Change::Append(entries)
            }
            Step::Vote => {
                self.term += 1;
                let ballot =
                    Ballot { term: self.term, node: 1, committed: self.term.is_multiple_of(2) };
                self.ballot = Some(ballot);
                Change::Ballot(ballot)
            }
            Step::Truncate(count) => {
                let uncommitted = self.entries.range(self.committed..).count() as u64;
                let next = self.next() - uncommitted.min(*count);
                self.entries.split_off(&next);
                let last = self.entries.values().next_back().map(|entry| entry.position);
                self.last = last.or(self.purged);
                Change::Truncate(next.checked_sub(1))
            }
            Step::Purge(count) => {
                let index = self.purged.map_or(0, |purged| purged.index + 1) + count - 1;
                let new = Position { term: self.term, node: 1, index };
                let upto = self.entries.get(&index).map_or(new, |entry| entry.position);
                self.entries = self.entries.split_off(&(index + 1));
                self.purged = Some(upto);
                if self.last.is_none_or(|last| last.index < index) {
                    self.last = Some(upto);
                }
                Change::Purge(upto)
            }
            Step::Commit => {
                self.committed = self.next();
                self.last.map_or(Change::Nothing, Change::Commit)
            }
        }
    }
}

enum Change {
    Append(Vec<Entry>),
    Ballot(Ballot),
    Truncate(Option<u64>),
    Purge(Position),
    Commit(Position),
    Nothing,
}
