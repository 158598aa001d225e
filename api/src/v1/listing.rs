//! Runs, newest first: those that are live and those that left for the history, as one list.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use quorate_model::{Name, Retired, Run, RunId, State, UnixMs};
use uuid::Uuid;

use crate::answer::{Answered, At, found};
use crate::backend::FinishedQuery;
use crate::edge::{Edge, live_run};
use crate::error::{Code, Failure};
use crate::feed::Topic;
use crate::request::{Call, Query, bad_query};
use crate::time::Time;
use crate::view::{RunState, RunView};
use crate::wait::READ;

/// Live runs looked at in one go: what holds up apply for well under a millisecond.
const LIVE_SCANNED_MAX: usize = 1_000;

/// Finished runs read at once when the history cannot filter them all by itself.
const FINISHED_READ: usize = 500;

/// Reads of the history for one page. After them the page ends early, and goes on with the next.
const FINISHED_READS_MAX: usize = 20;

/// The shortest piece of an id that is looked for.
const ID_PIECE_MIN: usize = 4;

const FILTERS: [&str; 12] = [
    "workflow",
    "state",
    "label",
    "created_after",
    "created_before",
    "id",
    "order_by",
    "limit",
    "page_token",
    READ[0],
    READ[1],
    READ[2],
];

/// `GET /v1/runs`.
pub(super) async fn all(call: Call) -> Answered {
    let query = call.query(&FILTERS)?;
    list(&call, query, None).await
}

/// `GET /v1/workflows/{name}/runs`.
pub(super) async fn of_workflow(At(name): At<Name>, call: Call) -> Answered {
    let query = call.query(&FILTERS[1..])?;
    list(&call, query, Some(name)).await
}

async fn list(call: &Call, query: Query<'_>, workflow: Option<Name>) -> Answered {
    let filter = Filter::of(query, workflow)?;
    let (limit, position) = (query.limit()?, query.page_position()?);
    let before = position.and_then(|position| Place::read(&position));
    let index = call.refresh_list(query, Topic::Runs).await?;
    let edge = Arc::clone(&call.edge);
    let read = move || Listing { edge: &edge, filter: &filter, limit }.page(before);
    let read = tokio::task::spawn_blocking(read).await;
    let broken = |error| Failure::new(Code::Internal, format!("listing runs broke: {error}"));
    let (runs, end) = read.map_err(broken)??;
    let views = runs.iter().map(RunView::brief).collect();
    let end = end.map(Place::bytes);
    Ok(found(index, &query.page(views, end.as_ref().map(|end| &end[..]))))
}

/// Where a run stands in the list: when it was created, then its id. Never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place(UnixMs, RunId);

impl Place {
    fn of(found: &Retired) -> Self {
        Self(found.run.created.at, found.id)
    }

    fn bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.0.0.to_be_bytes());
        bytes[8..].copy_from_slice(self.1.0.as_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (at, id) = bytes.split_first_chunk()?;
        let id = Uuid::from_slice(id).ok()?;
        Some(Self(UnixMs(u64::from_be_bytes(*at)), RunId(id)))
    }
}

/// Which runs are asked for: all filters must hold, of each one value.
#[derive(Clone, Debug, Default)]
struct Filter {
    workflows: Vec<Name>,
    states: Vec<RunState>,
    /// Several values of one label: any of them.
    labels: BTreeMap<Name, Vec<String>>,
    created_after: Option<Time>,
    created_before: Option<Time>,
    /// Hexadecimal digits that the id begins or ends with.
    id: Option<String>,
}

impl Filter {
    fn of(query: Query<'_>, workflow: Option<Name>) -> Result<Self, Failure> {
        if query.one("order_by")?.is_some_and(|order| order != "-created_at") {
            return Err(bad_query("order_by", "-created_at is the one order there is"));
        }
        let named = query.all("workflow").map(|name| parse("workflow", name));
        let workflows: Result<Vec<_>, _> = named.chain(workflow.map(Ok)).collect();
        let states: Result<Vec<_>, _> = query.all("state").map(|s| parse("state", s)).collect();
        let mut labels: BTreeMap<Name, Vec<String>> = BTreeMap::new();
        for label in query.all("label") {
            let (name, value) =
                label.split_once('=').ok_or_else(|| bad_query("label", "write NAME=VALUE"))?;
            labels.entry(parse("label", name)?).or_default().push(value.to_owned());
        }
        Ok(Self {
            workflows: workflows?,
            states: states?,
            labels,
            created_after: query.time("created_after")?,
            created_before: query.time("created_before")?,
            id: query.one("id")?.map(digits).transpose()?,
        })
    }

    fn matches(&self, id: RunId, run: &Run) -> bool {
        let state = RunState::from(run);
        let created = run.created.at;
        (self.workflows.is_empty() || self.workflows.contains(&run.workflow))
            && (self.states.is_empty() || self.states.contains(&state))
            && self.created_after.is_none_or(|Time(after)| created >= after)
            && self.created_before.is_none_or(|Time(before)| created < before)
            && self.labels.iter().all(|(name, values)| {
                run.labels.get(name).is_some_and(|value| values.contains(value))
            })
            && self.id.as_ref().is_none_or(|piece| {
                let id = id.0.simple().to_string();
                id.starts_with(piece) || id.ends_with(piece)
            })
    }

    /// Whether the history can leave out all that does not match.
    fn is_known_to_history(&self) -> bool {
        self.labels.is_empty() && self.id.is_none()
    }

    /// Whether no run that has ended can match.
    fn is_for_live_only(&self) -> bool {
        !self.states.is_empty() && !self.states.iter().any(|state| state.is_final())
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &str,
    text: &str,
) -> Result<T, Failure> {
    text.parse().map_err(|error| bad_query(name, error))
}

fn digits(text: &str) -> Result<String, Failure> {
    let digits = text.replace('-', "").to_ascii_lowercase();
    let fits = (ID_PIECE_MIN..=32).contains(&digits.len());
    if fits && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(digits)
    } else {
        let why = format!("give {ID_PIECE_MIN} to 32 hexadecimal digits of the id");
        Err(bad_query("id", why))
    }
}

/// The list, as far as one page needs it.
#[derive(Clone, Copy)]
struct Listing<'a> {
    edge: &'a Edge,
    filter: &'a Filter,
    limit: usize,
}

impl Listing<'_> {
    /// The runs before a place, newest first, and where the page ends if more follow.
    fn page(self, before: Option<Place>) -> Result<(Vec<Retired>, Option<Place>), Failure> {
        // The live ones first: a run that leaves meanwhile is in both rather than in neither.
        let mut runs = self.live(before);
        let stopped =
            if self.filter.is_for_live_only() { None } else { self.finished(before, &mut runs)? };
        if let Some(stopped) = stopped {
            runs.retain(|&place, _| place >= stopped);
        }
        let mut page: Vec<Retired> = runs.into_values().rev().collect();
        let more = page.len() > self.limit;
        page.truncate(self.limit);
        let end = if more { page.last().map(Place::of) } else { stopped };
        Ok((page, end))
    }

    /// Collects live runs: one more than fit on the page.
    fn live(self, before: Option<Place>) -> BTreeMap<Place, Retired> {
        let mut runs = BTreeMap::new();
        let mut from = Bound::Unbounded;
        loop {
            let next = self.edge.look(|state| self.scan(state, from, before, &mut runs));
            match next {
                Some(id) => from = Bound::Excluded(id),
                None => return runs,
            }
        }
    }

    /// Looks at some live runs; returns the last one looked at if more follow.
    fn scan(
        self,
        state: &State,
        from: Bound<RunId>,
        before: Option<Place>,
        runs: &mut BTreeMap<Place, Retired>,
    ) -> Option<RunId> {
        let mut last = None;
        let scanned = state.runs().range((from, Bound::Unbounded)).take(LIVE_SCANNED_MAX);
        for (position, (&id, run)) in scanned.enumerate() {
            last = (position + 1 == LIVE_SCANNED_MAX).then_some(id);
            let place = Place(run.created.at, id);
            let is_before = before.is_none_or(|before| place < before);
            if is_before && self.filter.matches(id, run) {
                runs.extend(live_run(state, id).map(|found| (place, found)));
                if runs.len() > self.limit + 1 {
                    runs.pop_first();
                }
            }
        }
        last
    }

    /// Adds finished runs until there are more than fit on the page. Returns how far it came
    /// if it gave up before that.
    fn finished(
        self,
        before: Option<Place>,
        runs: &mut BTreeMap<Place, Retired>,
    ) -> Result<Option<Place>, Failure> {
        let newest = self.filter.created_before.map(|Time(at)| Place(at, RunId::default()));
        let mut before = before.into_iter().chain(newest).min();
        let mut found = 0;
        for _ in 0..FINISHED_READS_MAX {
            let query = self.finished_query(before);
            let batch = self.edge.backend.finished_runs(&query)?;
            let is_last = batch.len() < query.limit;
            let too_old = |run: &Retired| {
                self.filter.created_after.is_some_and(|Time(after)| run.run.created.at < after)
            };
            let is_done = is_last || batch.last().is_some_and(too_old);
            before = batch.last().map(Place::of).or(before);
            for run in batch {
                if self.filter.matches(run.id, &run.run) {
                    found += 1;
                    runs.insert(Place::of(&run), run);
                }
            }
            if is_done || found > self.limit {
                return Ok(None);
            }
        }
        Ok(before)
    }

    fn finished_query(self, before: Option<Place>) -> FinishedQuery {
        FinishedQuery {
            before: before.map(|Place(at, id)| (at, id)),
            workflows: self.filter.workflows.iter().map(ToString::to_string).collect(),
            ends: self.filter.states.iter().filter_map(|state| state.end()).collect(),
            limit: if self.filter.is_known_to_history() { self.limit + 1 } else { FINISHED_READ },
        }
    }
}
