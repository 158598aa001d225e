//! A backend that is nothing but a state: every request is an entry, applied at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use quorate_api::backend::{
    Backend, Chunk, Cluster, Committed, FinishedQuery, Join, Joined, Member, ProposeError, Read,
    ReadError, ReadFrom, StoreError,
};
use quorate_model::command::{AdvanceClock, AssignTask, RegisterWorker, ReportTask};
use quorate_model::{
    Attempt, Command, Containment, DurationMs, Entry, Epoch, Event, FencingToken, Json, LogIndex,
    Outcome, Reply, Request, Retired, RunId, State, TaskId, UnixMs, Usage, WorkerId,
};
use tokio::sync::{Notify, broadcast};

/// Events that receivers may lag behind by.
const EVENTS: usize = 256;

/// A state, and whatever else a test wants to be the case.
pub(crate) struct Bare {
    inner: Mutex<Inner>,
    events: broadcast::Sender<(LogIndex, Event)>,
    written: Notify,
}

#[derive(Default)]
struct Inner {
    state: State,
    index: u64,
    now: UnixMs,
    history: BTreeMap<(UnixMs, RunId), Retired>,
    files: HashMap<(TaskId, Attempt, Option<String>), File>,
    cluster: Cluster,
    /// What becomes of the next proposals, before any is applied.
    faults: Vec<ProposeError>,
    /// What becomes of the next proposals after they are applied.
    lost: Vec<ProposeError>,
    unreachable: bool,
}

#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    complete: bool,
}

/// A worker with its lease.
#[derive(Clone, Copy)]
pub(crate) struct Holder(pub(crate) WorkerId, pub(crate) Epoch);

impl Bare {
    pub(crate) fn new() -> Self {
        let members = (1..=3)
            .map(|id| Member {
                id,
                address: format!("127.0.0.1:{}", 7_000 + id),
                voter: true,
                matched_index: None,
            })
            .collect();
        let cluster = Cluster {
            id: "c1".to_owned(),
            node: 1,
            leader: Some(1),
            term: 4,
            quorate: true,
            last_contact_ms: Some(3),
            members,
            ..Cluster::default()
        };
        let inner = Inner { now: UnixMs(1_795_167_000_000), cluster, ..Inner::default() };
        Self {
            inner: Mutex::new(inner),
            events: broadcast::Sender::new(EVENTS),
            written: Notify::new(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Lets time go by, and has due timers fire.
    pub(crate) fn pass(&self, span: DurationMs) {
        let mut inner = self.inner();
        inner.now = inner.now.after(span);
        drop(inner);
        self.commit(Command::AdvanceClock(AdvanceClock {}));
    }

    /// Commits a command that nobody refuses.
    pub(crate) fn commit(&self, command: Command) -> Reply {
        self.apply(command.into()).answer.reply.unwrap()
    }

    fn apply(&self, request: Request) -> Committed {
        let mut inner = self.inner();
        inner.index += 1;
        let index = LogIndex(inner.index);
        let entry = Entry { proposed_at: inner.now, requests: vec![request] };
        let applied = inner.state.apply(index, entry);
        for retired in applied.retired {
            inner.history.insert((retired.run.created.at, retired.id), retired);
        }
        inner.state.check().unwrap();
        drop(inner);
        for event in applied.events {
            // Nobody has to listen.
            let _ = self.events.send((index, event));
        }
        let answer = applied.answers.into_iter().next().unwrap();
        Committed { index, answer }
    }

    /// The next proposals fail so, without being applied.
    pub(crate) fn fail_next(&self, fault: ProposeError, times: usize) {
        self.inner().faults.extend(vec![fault; times]);
    }

    /// The next proposal is applied, and its answer lost.
    pub(crate) fn lose_next(&self, fault: ProposeError) {
        self.inner().lost.push(fault);
    }

    pub(crate) fn cluster_becomes(&self, change: impl FnOnce(&mut Cluster)) {
        change(&mut self.inner().cluster);
    }

    pub(crate) fn workers_are_unreachable(&self, unreachable: bool) {
        self.inner().unreachable = unreachable;
    }

    pub(crate) fn applied(&self) -> u64 {
        self.inner().index
    }

    pub(crate) fn live_runs(&self) -> usize {
        self.inner().state.runs().len()
    }

    /// A worker with slots enough for every test.
    pub(crate) fn worker(&self) -> Holder {
        let register = RegisterWorker {
            last: None,
            name: "w".parse().unwrap(),
            labels: BTreeMap::new(),
            slots: 100,
            containment: Containment::Pidns,
            lease: DurationMs(10_000),
        };
        let reply = self.commit(Command::RegisterWorker(register));
        let Reply::Registered { worker, epoch } = reply else { panic!("{reply:?}") };
        Holder(worker, epoch)
    }

    pub(crate) fn assign(&self, Holder(worker, epoch): Holder, task: TaskId) -> (Attempt, u64) {
        let assign = AssignTask { task, worker, epoch, rendered: None };
        let reply = self.commit(Command::AssignTask(assign));
        let Reply::Assigned { attempt, token } = reply else { panic!("{reply:?}") };
        (attempt, token.0)
    }

    pub(crate) fn report(&self, holder: Holder, task: TaskId, tried: (Attempt, u64), end: Outcome) {
        let Holder(worker, epoch) = holder;
        let (attempt, token) = (tried.0, FencingToken(tried.1));
        let (outcome, usage) = (end, Usage { wall: DurationMs(1_500), ..Usage::default() });
        let report = ReportTask { task, attempt, token, worker, epoch, outcome, usage };
        self.commit(Command::ReportTask(report));
    }

    /// Has a task succeed, with outputs.
    pub(crate) fn succeed(&self, holder: Holder, run: RunId, position: usize, outputs: &str) {
        let task = TaskId::new(run, position);
        let tried = self.assign(holder, task);
        let outputs = serde_json::from_str(outputs).unwrap();
        let outputs = Some(Json::new(&outputs));
        self.report(holder, task, tried, Outcome::Succeeded { outputs });
    }

    /// Writes to a file of the first attempt at a task.
    pub(crate) fn write(&self, task: TaskId, artifact: Option<&str>, text: &str, complete: bool) {
        let key = (task, Attempt(1), artifact.map(str::to_owned));
        let mut inner = self.inner();
        let file = inner.files.entry(key).or_default();
        file.bytes.extend_from_slice(text.as_bytes());
        file.complete = complete;
        drop(inner);
        self.written.notify_waiters();
    }

    fn chunk(&self, read: &Read) -> Result<Chunk, ReadError> {
        let inner = self.inner();
        if inner.unreachable {
            return Err(ReadError::Unavailable("the worker is out of reach".to_owned()));
        }
        let key = (read.task, read.attempt, read.artifact.clone());
        let file = inner.files.get(&key);
        let file = file.ok_or_else(|| ReadError::NotFound("no such file".to_owned()))?;
        let size = file.bytes.len();
        let begin = match read.from {
            ReadFrom::Offset(offset) => usize::try_from(offset).unwrap().min(size),
            ReadFrom::Tail(lines) => {
                let ends = file.bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
                let ends: Vec<usize> = ends.map(|(at, _)| at + 1).collect();
                let skip = ends.len().saturating_sub(usize::try_from(lines).unwrap());
                if skip == 0 { 0 } else { ends[skip - 1] }
            }
        };
        let end = size.min(begin + read.bytes_max as usize);
        Ok(Chunk {
            offset: begin as u64,
            bytes: file.bytes[begin..end].to_vec(),
            size: size as u64,
            complete: file.complete,
        })
    }
}

#[async_trait]
impl Backend for Bare {
    async fn propose(&self, request: Request) -> Result<Committed, ProposeError> {
        let (fault, lost) = {
            let mut inner = self.inner();
            (inner.faults.pop(), inner.lost.pop())
        };
        match (fault, lost) {
            (Some(fault), _) => Err(fault),
            (None, lost) => {
                let committed = self.apply(request);
                lost.map_or(Ok(committed), Err)
            }
        }
    }

    async fn catch_up(&self) -> Result<LogIndex, ProposeError> {
        let inner = self.inner();
        match inner.cluster.leader {
            _ if inner.cluster.storage.state == "full" => {
                Err(ProposeError::DiskFull("node 1 has no room".to_owned()))
            }
            Some(_) => Ok(LogIndex(inner.index)),
            None => Err(ProposeError::NoLeader),
        }
    }

    fn with_state(&self, look: &mut dyn FnMut(&State)) {
        look(&self.inner().state);
    }

    fn events(&self) -> broadcast::Receiver<(LogIndex, Event)> {
        self.events.subscribe()
    }

    fn finished_run(&self, run: RunId) -> Result<Option<Retired>, StoreError> {
        Ok(self.inner().history.values().find(|retired| retired.id == run).cloned())
    }

    fn finished_runs(&self, query: &FinishedQuery) -> Result<Vec<Retired>, StoreError> {
        let inner = self.inner();
        let newest_first = inner.history.iter().rev();
        let found = newest_first.filter(|(place, retired)| {
            let run = &retired.run;
            query.before.is_none_or(|before| **place < before)
                && (query.workflows.is_empty()
                    || query.workflows.iter().any(|name| name == run.workflow.as_str()))
                && (query.ends.is_empty() || run.end().is_some_and(|end| query.ends.contains(&end)))
        });
        Ok(found.map(|(_, retired)| retired.clone()).take(query.limit).collect())
    }

    fn cluster(&self) -> Cluster {
        let inner = self.inner();
        let index = inner.index;
        let cluster = inner.cluster.clone();
        Cluster { last_index: index, applied_index: index, ..cluster }
    }

    async fn add_member(&self, join: Join) -> Result<Joined, ProposeError> {
        let mut inner = self.inner();
        if inner.cluster.members.iter().any(|member| member.address == join.address) {
            let why = format!("{} is a member already", join.address);
            return Err(ProposeError::Membership(why));
        }
        let Join { address, voter } = join;
        inner.cluster.members.push(Member { id: 9, address, voter, matched_index: None });
        Ok(Joined { node: 9, cluster: inner.cluster.id.clone() })
    }

    async fn remove_member(&self, node: u64) -> Result<(), ProposeError> {
        self.inner().cluster.members.retain(|member| member.id != node);
        Ok(())
    }

    async fn transfer_leadership(&self, to: Option<u64>) -> Result<(), ProposeError> {
        self.inner().cluster.leader = to.or(Some(2));
        Ok(())
    }

    async fn read(&self, read: Read) -> Result<Chunk, ReadError> {
        let deadline = tokio::time::Instant::now() + Duration::from_millis(read.wait.0);
        loop {
            let written = self.written.notified();
            let chunk = self.chunk(&read)?;
            let is_over = chunk.complete || tokio::time::Instant::now() >= deadline;
            if !chunk.bytes.is_empty() || is_over {
                return Ok(chunk);
            }
            let _ = tokio::time::timeout_at(deadline, written).await;
        }
    }

    fn metrics(&self) -> String {
        "# EOF\n".to_owned()
    }
}
