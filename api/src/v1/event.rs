//! The stream of changes: as server-sent events, or a JSON object a line.
//!
//! An event's id is the index of its entry. Whoever comes back with it gets that entry again
//! and what followed: a change may be told twice, and none is passed over. When the ring no
//! longer has what followed, the stream says `reset`, and goes on from now.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::stream;
use quorate_model::{Event, LogIndex, Name, Retired, RunId, State, WorkerId};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};

use crate::answer::{Answered, INDEX};
use crate::edge::{Edge, live_run};
use crate::error::Failure;
use crate::feed::{Cursor, Overrun, Topic};
use crate::request::{Call, Query, bad_header, bad_query};
use crate::view::{ChangeView, RunView, TaskView, WorkerView};

/// How often a stream shows that it is alive: proxies close what is silent for a minute.
const PING_EVERY: Duration = Duration::from_secs(15);

/// How often streams look who leads, which is not in the log.
const LEADER_EVERY: Duration = Duration::from_millis(100);

/// How long a browser waits before it comes back.
const COME_BACK_AFTER_MS: u32 = 2_000;

/// Topics of one stream.
const TOPICS_MAX: usize = 100;

/// The last event that a client has seen.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// `GET /v1/events`.
pub(super) async fn stream(call: Call) -> Answered {
    let query = call.query(&["topics", "index"])?;
    let topics = Topics::of(query)?;
    let is_ndjson = call.accepts("application/x-ndjson");
    let permit = call.edge.open_stream()?;
    let edge = Arc::clone(&call.edge);
    // Before the cursor, so that no change falls in between.
    let changes = edge.feed.watch(Topic::All);
    let applied = edge.applied();
    let known = known(&call, query, applied)?;
    let cursor = edge.feed.after(known);
    let streaming = Streaming {
        edge,
        topics,
        is_ndjson,
        cursor,
        known,
        changes,
        leader: None,
        ping_at: Instant::now() + PING_EVERY,
        is_new: true,
        _permit: permit,
    };
    let body = Body::from_stream(stream::unfold(streaming, Streaming::next));
    let media = if is_ndjson { "application/x-ndjson" } else { "text/event-stream" };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // With this index nothing is missed, should the stream break at once.
        (INDEX, HeaderValue::from(applied.0)),
        // For proxies that would hold back what is meant to arrive at once.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, body).into_response())
}

/// The last entry that the client knows all of; `applied` if it does not say.
fn known(call: &Call, query: Query<'_>, applied: LogIndex) -> Result<LogIndex, Failure> {
    let seen = call.header(&LAST_EVENT_ID)?.map(str::trim).filter(|id| !id.is_empty());
    if let Some(seen) = seen {
        let seen: u64 = seen.parse().map_err(|_| bad_header(&LAST_EVENT_ID, "it is a number"))?;
        // That entry once more: its other events may not have been seen.
        return Ok(LogIndex(seen.saturating_sub(1)));
    }
    Ok(query.parsed("index")?.map_or(applied, LogIndex))
}

/// What a stream is about; everything if nothing is named.
#[derive(Clone, Debug, Default)]
struct Topics {
    runs: BTreeSet<RunId>,
    workflows: BTreeSet<Name>,
    cluster: bool,
}

impl Topics {
    fn of(query: Query<'_>) -> Result<Self, Failure> {
        let mut topics = Self::default();
        for topic in query.all("topics").flat_map(|topics| topics.split(',')).map(str::trim) {
            let bad = |why: &dyn std::fmt::Display| bad_query("topics", why);
            match topic.split_once(':') {
                Some(("run", id)) => {
                    topics.runs.insert(id.parse().map_err(|error| bad(&error))?);
                }
                Some(("workflow", name)) => {
                    topics.workflows.insert(name.parse().map_err(|error| bad(&error))?);
                }
                None if topic == "cluster" => topics.cluster = true,
                None if topic.is_empty() => {}
                None | Some(_) => return Err(bad(&"say run:ID, workflow:NAME or cluster")),
            }
        }
        if topics.runs.len() + topics.workflows.len() > TOPICS_MAX {
            return Err(bad_query("topics", format!("{TOPICS_MAX} is the most")));
        }
        Ok(topics)
    }

    fn is_everything(&self) -> bool {
        self.runs.is_empty() && self.workflows.is_empty() && !self.cluster
    }

    fn has_cluster(&self) -> bool {
        self.cluster || self.is_everything()
    }

    /// Whether the run may be among them, as far as its id tells.
    fn may_have(&self, run: RunId) -> bool {
        self.is_everything() || !self.workflows.is_empty() || self.runs.contains(&run)
    }

    fn have(&self, found: &Retired) -> bool {
        self.is_everything()
            || self.runs.contains(&found.id)
            || self.workflows.contains(&found.run.workflow)
    }

    fn have_workflow(&self, name: Option<&Name>) -> bool {
        let is_named = || name.is_none_or(|name| self.workflows.contains(name));
        self.is_everything() || (!self.workflows.is_empty() && is_named())
    }
}

/// A stream on its way to a client.
struct Streaming {
    edge: Arc<Edge>,
    topics: Topics,
    is_ndjson: bool,
    cursor: Result<Cursor, Overrun>,
    /// Nothing is told of this entry and those before: the ring may get them yet.
    known: LogIndex,
    changes: watch::Receiver<()>,
    /// Who was last said to lead; `None` if nothing was said yet.
    leader: Option<Option<u64>>,
    ping_at: Instant,
    is_new: bool,
    _permit: OwnedSemaphorePermit,
}

impl Streaming {
    /// The next bytes to send.
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        let mut text = Vec::new();
        if std::mem::take(&mut self.is_new) && !self.is_ndjson {
            text.extend(format!("retry: {COME_BACK_AFTER_MS}\n\n").into_bytes());
        }
        loop {
            self.changes.mark_unchanged();
            for change in self.take() {
                self.write(&change, &mut text);
            }
            if text.is_empty() && Instant::now() >= self.ping_at {
                text.extend_from_slice(if self.is_ndjson { b"\n" } else { b": ping\n\n" });
            }
            if !text.is_empty() {
                self.ping_at = Instant::now() + PING_EVERY;
                return Some((Ok(text.into()), self));
            }
            self.wait().await;
        }
    }

    /// Waits until there may be something to tell.
    async fn wait(&mut self) {
        let mut until = self.ping_at;
        if self.topics.has_cluster() {
            until = until.min(Instant::now() + LEADER_EVERY);
        }
        if let Ok(Err(_)) = timeout_at(until, self.changes.changed()).await {
            self.changes = self.edge.feed.watch(Topic::All);
        }
    }

    /// Takes what there is to tell, a few at a time.
    fn take(&mut self) -> Vec<ChangeView> {
        let mut told: Vec<ChangeView> = self.new_leader().into_iter().collect();
        loop {
            match self.cursor.and_then(|cursor| self.edge.feed.read(cursor)) {
                Ok((events, _)) if events.is_empty() => return told,
                Ok((events, next)) => {
                    self.cursor = Ok(next);
                    told.extend(self.tell(events));
                }
                Err(Overrun) => {
                    // The end first: what comes in between is told as well.
                    self.cursor = Ok(self.edge.feed.end());
                    let LogIndex(index) = self.edge.applied();
                    told.push(ChangeView::Reset { index });
                }
            }
            if !told.is_empty() {
                return told;
            }
        }
    }

    fn new_leader(&mut self) -> Option<ChangeView> {
        if !self.topics.has_cluster() {
            return None;
        }
        let cluster = self.edge.backend.cluster();
        let is_new = self.leader != Some(cluster.leader);
        self.leader = Some(cluster.leader);
        is_new.then_some(ChangeView::Leader { leader: cluster.leader, term: cluster.term })
    }

    /// What a client hears of some events.
    fn tell(&self, events: Vec<(LogIndex, Event)>) -> Vec<ChangeView> {
        // Several changes to one thing look alike by now: the last one tells them all.
        let last: BTreeMap<Event, LogIndex> = events.iter().map(|&(i, e)| (e, i)).collect();
        let mut events: Vec<_> = events;
        events.retain(|&(index, event)| {
            // But of workflows only the entry tells which.
            let is_last = last.get(&event) == Some(&index) || event == Event::Workflows;
            index > self.known && is_last && self.may_concern(event)
        });
        events.dedup();
        let mut found = Found::default();
        self.edge.look(|state| found.look(state, &events));
        events.into_iter().flat_map(|(index, event)| self.changes(index, event, &found)).collect()
    }

    fn may_concern(&self, event: Event) -> bool {
        match event {
            Event::Run(run) => self.topics.may_have(run),
            Event::Task(task) => self.topics.may_have(task.run),
            Event::Workflows => self.topics.is_everything() || !self.topics.workflows.is_empty(),
            Event::Worker(_) => self.topics.has_cluster(),
        }
    }

    fn changes(&self, LogIndex(index): LogIndex, event: Event, found: &Found) -> Vec<ChangeView> {
        let run = |id| {
            let live = found.runs.get(&id).cloned();
            let run = live.or_else(|| self.edge.backend.finished_run(id).ok().flatten());
            run.filter(|run| self.topics.have(run))
        };
        match event {
            Event::Run(id) => {
                let run = run(id).map(|run| Box::new(RunView::brief(&run)));
                run.map(|run| ChangeView::Run { index, run }).into_iter().collect()
            }
            Event::Task(id) => {
                let task = run(id.run).and_then(|run| TaskView::of(&run, id.position()));
                let change = |task| ChangeView::Task { index, run: id.run, task: Box::new(task) };
                task.map(change).into_iter().collect()
            }
            Event::Workflows => {
                let names = found.workflows.get(&LogIndex(index)).cloned().unwrap_or_default();
                let named = names.into_iter().map(Some);
                let all: Vec<Option<Name>> = named.collect();
                let all = if all.is_empty() { vec![None] } else { all };
                let all = all.into_iter().filter(|name| self.topics.have_workflow(name.as_ref()));
                all.map(|name| ChangeView::Workflow { index, name }).collect()
            }
            Event::Worker(id) => {
                let worker = found.workers.get(&id).cloned();
                vec![ChangeView::Worker { index, id, worker: worker.map(Box::new) }]
            }
        }
    }

    fn write(&self, change: &ChangeView, out: &mut Vec<u8>) {
        let json = serde_json::to_string(change).expect("a change has string keys only");
        let text = if self.is_ndjson {
            format!("{json}\n")
        } else {
            let id = change.index().map(|index| format!("id: {index}\n")).unwrap_or_default();
            format!("{id}event: {}\ndata: {json}\n\n", change.name())
        };
        out.extend(text.into_bytes());
    }
}

/// What the state has on some events.
#[derive(Debug, Default)]
struct Found {
    runs: BTreeMap<RunId, Retired>,
    /// Which workflows an entry put.
    workflows: BTreeMap<LogIndex, Vec<Name>>,
    workers: BTreeMap<WorkerId, WorkerView>,
}

impl Found {
    fn look(&mut self, state: &State, events: &[(LogIndex, Event)]) {
        for &(index, event) in events {
            match event {
                Event::Run(run) => self.add_run(state, run),
                Event::Task(task) => self.add_run(state, task.run),
                Event::Workflows => {
                    self.workflows.insert(index, Vec::new());
                }
                Event::Worker(id) => {
                    let worker = state.workers().get(&id);
                    self.workers.extend(worker.map(|worker| (id, WorkerView::brief(id, worker))));
                }
            }
        }
        if !self.workflows.is_empty() {
            self.name_workflows(state);
        }
    }

    /// Finds out which workflows the entries put, in one go over all of them.
    fn name_workflows(&mut self, state: &State) {
        for (name, workflow) in state.workflows() {
            if let Some(put) = self.workflows.get_mut(&workflow.latest().1.created_index) {
                put.push(name.clone());
            }
        }
    }

    fn add_run(&mut self, state: &State, id: RunId) {
        if !self.runs.contains_key(&id) {
            self.runs.extend(live_run(state, id).map(|found| (id, found)));
        }
    }
}
