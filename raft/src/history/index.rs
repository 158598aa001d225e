//! The order of the lists: keys that sort newest first, and the merging of several indexes.

use std::collections::BTreeSet;
use std::ops::Bound;

use quorate_model::plan::Finished;
use quorate_model::workflow::DefinitionId;
use quorate_model::{Retired, Run, RunEnd, RunId, UnixMs};
use uuid::Uuid;

use super::store::{ALL, Pair, Tree};
use super::{HistoryQuery, Record, Trees};
use crate::error::HistoryError;

/// Bytes of a place in the order: the time and the id, both inverted.
const PLACE_BYTES: usize = 24;

/// Every way a run can end.
const ENDS: [RunEnd; 4] = [RunEnd::Succeeded, RunEnd::Failed, RunEnd::Cancelled, RunEnd::TimedOut];

/// Where a run stands in the lists. Sorts newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    place: [u8; PLACE_BYTES],
    end: u8,
}

impl Position {
    /// `None` of a run that has not ended; none such is ever retired.
    pub(super) fn of_run(id: RunId, run: &Run) -> Option<Self> {
        Some(Self { place: place(run.created.at, id), end: end_byte(run.end()?) })
    }

    pub(super) fn of(retired: &Retired) -> Option<Self> {
        Self::of_run(retired.id, &retired.run)
    }

    pub(super) fn by_end(self) -> Vec<u8> {
        [&[self.end][..], &self.place].concat()
    }

    pub(super) fn by_workflow(self, workflow: &str) -> Vec<u8> {
        [workflow.as_bytes(), &[0, self.end], &self.place].concat()
    }
}

/// The ids that a query asks for, newest first.
pub(super) fn newest(
    trees: &Trees,
    query: &HistoryQuery,
) -> Result<impl Iterator<Item = Result<RunId, HistoryError>> + use<>, HistoryError> {
    let mut sources = Vec::new();
    for prefix in prefixes(query) {
        let tree = if query.workflows.is_empty() { &trees.by_end } else { &trees.by_workflow };
        sources.push(Source::open(&**tree, prefix, query.before)?);
    }
    Ok(std::iter::from_fn(move || {
        let next = sources.iter_mut().filter(|source| source.head.is_some());
        let next = next.min_by_key(|source| source.head)?;
        next.advance().transpose()
    }))
}

/// Whether a run is one that the query asks for.
pub(super) fn matches(query: &HistoryQuery, retired: &Retired) -> bool {
    let HistoryQuery { before, workflows, ends, limit: _ } = query;
    let run = &retired.run;
    let named = |name: &String| name == run.workflow.as_str();
    (workflows.is_empty() || workflows.iter().any(named))
        && (ends.is_empty() || run.end().is_some_and(|end| ends.contains(&end)))
        && before.is_none_or(|(at, id)| (run.created.at, retired.id) < (at, id))
}

/// The beginnings of the index keys to merge: every index is ordered only within one end.
fn prefixes(query: &HistoryQuery) -> Vec<Vec<u8>> {
    let ends: BTreeSet<u8> = if query.ends.is_empty() { &ENDS[..] } else { &query.ends }
        .iter()
        .copied()
        .map(end_byte)
        .collect();
    if query.workflows.is_empty() {
        return ends.iter().map(|&end| vec![end]).collect();
    }
    let workflows: BTreeSet<&String> = query.workflows.iter().collect();
    let prefix = |workflow: &&String, end: u8| [workflow.as_bytes(), &[0, end]].concat();
    workflows.iter().flat_map(|name| ends.iter().map(move |&end| prefix(name, end))).collect()
}

/// One index, read from a place on.
struct Source {
    rest: Box<dyn Iterator<Item = Pair> + Send>,
    head: Option<[u8; PLACE_BYTES]>,
}

impl Source {
    fn open(
        tree: &dyn Tree,
        prefix: Vec<u8>,
        before: Option<(UnixMs, RunId)>,
    ) -> Result<Self, HistoryError> {
        let mut last = prefix.clone();
        last.extend_from_slice(&[u8::MAX; PLACE_BYTES]);
        let mut first = prefix;
        let rest = if let Some((at, id)) = before {
            first.extend_from_slice(&place(at, id));
            tree.range((Bound::Excluded(first), Bound::Included(last)))
        } else {
            tree.range((Bound::Included(first), Bound::Included(last)))
        };
        let mut source = Self { rest, head: None };
        source.advance()?;
        Ok(source)
    }

    /// Takes the head, and reads the next.
    fn advance(&mut self) -> Result<Option<RunId>, HistoryError> {
        let taken = self.head.take().map(|place| run_at(&place));
        if let Some(item) = self.rest.next() {
            let (key, _) = item?;
            self.head = key.last_chunk::<PLACE_BYTES>().copied();
        }
        Ok(taken)
    }
}

/// Every run, as far as retention looks at it, by the keys of an index alone.
pub(super) fn finished(trees: &Trees) -> impl Iterator<Item = Result<Finished, HistoryError>> {
    trees.by_workflow.range(ALL).filter_map(|pair| match pair {
        Ok((key, _)) => finished_at(&key).map(Ok),
        Err(error) => Some(Err(error)),
    })
}

fn finished_at(key: &[u8]) -> Option<Finished> {
    let (head, place) = key.split_last_chunk::<PLACE_BYTES>()?;
    // Behind the name: a zero, and how the run ended.
    let name = head.get(..head.len().checked_sub(2)?)?;
    let workflow = std::str::from_utf8(name).ok()?.parse().ok()?;
    let created_at = UnixMs(!u64::from_be_bytes(*place.first_chunk()?));
    Some(Finished { run: run_at(place), workflow, created_at })
}

fn place(at: UnixMs, id: RunId) -> [u8; PLACE_BYTES] {
    let mut place = [0; PLACE_BYTES];
    place[..8].copy_from_slice(&(!at.0).to_be_bytes());
    place[8..].copy_from_slice(&(!id.0.as_u128()).to_be_bytes());
    place
}

fn run_at(place: &[u8; PLACE_BYTES]) -> RunId {
    let mut id = [0; 16];
    id.copy_from_slice(&place[8..]);
    RunId(Uuid::from_u128(!u128::from_be_bytes(id)))
}

/// Part of the format: never change one.
fn end_byte(end: RunEnd) -> u8 {
    match end {
        RunEnd::Succeeded => 0,
        RunEnd::Failed => 1,
        RunEnd::Cancelled => 2,
        RunEnd::TimedOut => 3,
    }
}

pub(super) fn run_key(id: RunId) -> [u8; 16] {
    *id.0.as_bytes()
}

pub(super) fn parse_run_key(key: &[u8]) -> Option<RunId> {
    Some(RunId(Uuid::from_bytes(key.try_into().ok()?)))
}

pub(super) fn use_key(definition: DefinitionId, run: RunId) -> Vec<u8> {
    [definition.0.to_be_bytes(), run_key(run)].concat()
}

pub(super) fn parse_use_key(key: &[u8]) -> Option<(DefinitionId, RunId)> {
    let (definition, run) = key.split_first_chunk::<16>()?;
    Some((DefinitionId(u128::from_be_bytes(*definition)), parse_run_key(run)?))
}

/// Everything in a tree after a key.
pub(super) fn after(tree: &dyn Tree, key: [u8; 16]) -> Box<dyn Iterator<Item = Pair> + Send> {
    tree.range((Bound::Excluded(key.to_vec()), Bound::Unbounded))
}

pub(super) fn run_record(key: &[u8], value: &[u8]) -> Option<Record> {
    Some(Record::Run { id: parse_run_key(key)?, value: value.to_vec() })
}

pub(super) fn definition_record(key: &[u8], value: &[u8]) -> Option<Record> {
    let id = DefinitionId(u128::from_be_bytes(key.try_into().ok()?));
    Some(Record::Definition { id, value: value.to_vec() })
}
