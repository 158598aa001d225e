//! The state and its one entry point.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use crate::keys::Keys;
use crate::workflow::{Definition, DefinitionId, Graph, TaskDefinition, Workflow};
use crate::{
    Attempt, Command, Dispatch, Effect, Epoch, Event, IdempotencyKey, LogIndex, Mark, Name,
    Rejection, Reply, Run, RunId, Task, TaskId, TaskStatus, UnixMs, Worker, WorkerId,
};

/// One log entry: requests that were proposed together, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The leader's clock when it proposed the entry.
    pub proposed_at: UnixMs,
    /// What to do, in order.
    pub requests: Vec<Request>,
}

/// A command, and how to tell a repeat of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// If it was seen before, the command is not applied again but answered as it was.
    pub key: Option<IdempotencyKey>,
    /// What to do.
    pub command: Command,
}

impl From<Command> for Request {
    fn from(command: Command) -> Self {
        Self { key: None, command }
    }
}

/// What applying one entry produced.
#[derive(Debug, Default)]
pub struct Applied {
    /// The answers, one for each request, in order.
    pub answers: Vec<Answer>,
    /// For the leader to carry out, in order.
    pub effects: Vec<Effect>,
    /// For those who watch.
    pub events: Vec<Event>,
    /// Runs that left the live state, to be kept as history.
    pub retired: Vec<Retired>,
    /// Runs that history is to forget.
    pub pruned: Vec<RunId>,
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// For whoever proposed the command.
    pub reply: Result<Reply, Rejection>,
    /// Whether this is the answer of an earlier request with the same key.
    pub replayed: bool,
}

/// A finished run, complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// Its id.
    pub id: RunId,
    /// What became of it.
    pub run: Arc<Run>,
    /// What it executed.
    pub definition: Arc<Definition>,
}

/// What commands produce besides their reply.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) effects: Vec<Effect>,
    pub(crate) events: Vec<Event>,
    pub(crate) retired: Vec<Retired>,
    pub(crate) pruned: Vec<RunId>,
}

/// Everything the cluster agrees on.
///
/// Runs are shared pointers, so that a copy for a snapshot costs the number of live runs and
/// not their size; whoever changes one while a copy is held pays for copying that one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct State {
    /// The greatest `proposed_at` applied. Never goes back.
    now: UnixMs,
    /// The last entry applied.
    applied: LogIndex,
    /// The last id minted.
    minted: u64,
    definitions: BTreeMap<DefinitionId, StoredDefinition>,
    pub(crate) workflows: BTreeMap<Name, Workflow>,
    pub(crate) runs: BTreeMap<RunId, Arc<Run>>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    /// Ready tasks of runs that are not paused, those that became so first in front.
    pub(crate) ready: BTreeSet<(LogIndex, TaskId)>,
    /// Tasks whose turn has come and of which the leader has to decide something, those that
    /// waited longest in front.
    pub(crate) deciding: BTreeSet<(LogIndex, TaskId)>,
    /// What falls due, soonest first. Each has its reason in the state and goes with it, so
    /// that a day's timeout of a task that took a second does not stay for the day.
    pub(crate) timers: BTreeSet<(UnixMs, Timer)>,
    #[cfg_attr(mutant, serde(serialize_with = "Keys::serialize_unless_forgotten"))]
    keys: Keys,
}

/// Something that falls due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Timer {
    /// A task goes on: after its delay, or for another try.
    Ready(TaskId),
    /// A person has not answered.
    Answer(TaskId),
    /// An attempt has taken too long.
    TaskTimeout(TaskId, Attempt),
    /// An attempt is late.
    TaskDeadline(TaskId, Attempt),
    /// A run has taken too long.
    RunTimeout(RunId),
    /// A run is late.
    RunDeadline(RunId),
    /// A finished run moves to the history.
    Retire(RunId),
    /// A worker that is gone is forgotten.
    ForgetWorker(WorkerId, Epoch),
}

/// A definition, shared by the versions and runs that use it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct StoredDefinition {
    pub(crate) definition: Arc<Definition>,
    pub(crate) graph: Arc<Graph>,
    /// Versions and live runs that use it. Dropped with the last.
    pub(crate) uses: u64,
}

impl State {
    /// Applies one committed entry.
    ///
    /// Runs on every node, in log order, and must leave every node in the same
    /// state. A [`Rejection`] is an answer: the request counts as applied, and the state is
    /// unchanged but for the clock and the answer kept under an idempotency key.
    ///
    /// # Panics
    ///
    /// If an invariant is broken. Halting beats diverging. No entry, however odd, breaks one.
    pub fn apply(&mut self, index: LogIndex, entry: Entry) -> Applied {
        self.now = self.now.max(entry.proposed_at);
        self.applied = index;
        let mut output = Output::default();
        let answers =
            entry.requests.into_iter().map(|request| self.answer(request, &mut output)).collect();
        let Output { effects, events, retired, pruned } = output;
        Applied { answers, effects, events, retired, pruned }
    }

    /// Applies a request unless it is a repeat.
    fn answer(&mut self, request: Request, output: &mut Output) -> Answer {
        let Request { key, command } = request;
        let Some(key) = key else {
            return Answer { reply: command.apply(self, output), replayed: false };
        };
        self.keys.forget(self.now);
        match self.keys.answered(&key) {
            Ok(Some(reply)) => Answer { reply, replayed: true },
            Err(rejection) => Answer { reply: Err(rejection), replayed: false },
            Ok(None) => {
                let reply = command.apply(self, output);
                self.keys.remember(self.now, key, reply.clone());
                Answer { reply, replayed: false }
            }
        }
    }

    /// Every effect whose result has not been reported, for a new leader.
    pub fn outstanding(&self) -> Vec<Effect> {
        self.workers.keys().flat_map(|&worker| self.outstanding_of(worker)).collect()
    }

    /// Those of [`outstanding`](Self::outstanding) that concern one worker.
    pub fn outstanding_of(&self, worker: WorkerId) -> Vec<Effect> {
        let running = self.workers.get(&worker).map(|found| &found.running);
        running
            .into_iter()
            .flatten()
            .filter_map(|&id| {
                let flight = self.task(id).ok()?.flight()?;
                let dispatch = Dispatch::of(id, flight);
                Some(flight.stop.map_or(Effect::Start(dispatch), |why| Effect::Stop(dispatch, why)))
            })
            .collect()
    }

    /// When the clock next has something to do, by the time of the log. May be past already,
    /// if more fell due at once than one entry lets fire.
    #[must_use]
    pub fn next_deadline(&self) -> Option<UnixMs> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// A digest of everything: two nodes of one build and one architecture that applied the
    /// same entries have the same.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hasher = Xxh3Default::new();
        Hash::hash(self, &mut hasher);
        hasher.finish()
    }

    /// The time of the log.
    #[must_use]
    pub fn now(&self) -> UnixMs {
        self.now
    }

    /// The last entry applied.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// Every workflow, by name.
    #[must_use]
    pub fn workflows(&self) -> &BTreeMap<Name, Workflow> {
        &self.workflows
    }

    /// The live runs: those that have not ended, or only just.
    #[must_use]
    pub fn runs(&self) -> &BTreeMap<RunId, Arc<Run>> {
        &self.runs
    }

    /// Every worker that holds a lease or did so lately.
    #[must_use]
    pub fn workers(&self) -> &BTreeMap<WorkerId, Worker> {
        &self.workers
    }

    /// Tasks that wait for a worker, the longest waiting first.
    pub fn ready(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.ready.iter().map(|&(_, task)| task)
    }

    /// Tasks of which the leader has to decide something, the longest waiting first.
    pub fn deciding(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.deciding.iter().map(|&(_, task)| task)
    }

    /// What a request with this key is answered, if the key came before. For the edge: it must
    /// not refuse a repeat that was accepted when it came first.
    #[must_use]
    pub fn answered(&self, key: &IdempotencyKey) -> Option<Answer> {
        match self.keys.answered(key) {
            Ok(None) => None,
            Ok(Some(reply)) => Some(Answer { reply, replayed: true }),
            Err(rejection) => Some(Answer { reply: Err(rejection), replayed: false }),
        }
    }

    /// How many idempotency keys are remembered.
    #[must_use]
    pub fn keys_count(&self) -> usize {
        self.keys.count()
    }

    /// How many tasks wait for a worker.
    #[must_use]
    pub fn ready_count(&self) -> usize {
        self.ready.len()
    }

    /// What the definition with this id says.
    ///
    /// # Panics
    ///
    /// If nothing uses it: ids come from a version or a live run of this very state.
    #[must_use]
    pub fn definition(&self, id: DefinitionId) -> &Arc<Definition> {
        &self.stored(id).definition
    }

    /// A task of a live run.
    ///
    /// # Errors
    ///
    /// If the run is not live, or has no such task.
    pub fn task(&self, id: TaskId) -> Result<&Task, Rejection> {
        let run = self.runs.get(&id.run).ok_or(Rejection::NoSuchRun { run: id.run })?;
        run.tasks.get(id.position()).ok_or(Rejection::NoSuchTask { task: id })
    }

    /// What the definition says of a task of a live run.
    ///
    /// # Errors
    ///
    /// If the run is not live, or has no such task.
    pub fn task_definition(&self, id: TaskId) -> Result<&TaskDefinition, Rejection> {
        let run = self.runs.get(&id.run).ok_or(Rejection::NoSuchRun { run: id.run })?;
        let tasks = &self.definition(run.definition).tasks;
        tasks.get(id.position()).ok_or(Rejection::NoSuchTask { task: id })
    }

    /// What the definition says of a task that waits for a decision.
    pub(crate) fn deciding_task(&self, id: TaskId) -> Result<&TaskDefinition, Rejection> {
        let found = self.task(id)?;
        if found.status != TaskStatus::Deciding {
            return Err(Rejection::NotDeciding { task: id, status: found.status.to_string() });
        }
        if self.is_paused(id.run) {
            return Err(Rejection::RunPaused { run: id.run });
        }
        self.task_definition(id)
    }

    pub(crate) fn stored(&self, id: DefinitionId) -> &StoredDefinition {
        self.definitions.get(&id).expect("a definition in use is kept")
    }

    pub(crate) fn stored_definitions(&self) -> &BTreeMap<DefinitionId, StoredDefinition> {
        &self.definitions
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { index: self.applied, at: self.now }
    }

    /// A number that was never minted before: the index of the entry, or the next free one
    /// if the entry mints several. Never 0 or 1; node 1 is the one that founds a cluster.
    pub(crate) fn mint(&mut self) -> u64 {
        self.minted = self.applied.0.max(self.minted.saturating_add(1)).max(2);
        self.minted
    }

    /// The worker, if it holds a lease under this epoch.
    pub(crate) fn live_worker(&self, worker: WorkerId, epoch: Epoch) -> Result<&Worker, Rejection> {
        let found = self.workers.get(&worker).ok_or(Rejection::NoSuchWorker { worker })?;
        if found.is_live() && found.epoch == epoch {
            Ok(found)
        } else {
            Err(Rejection::StaleEpoch { worker, epoch })
        }
    }

    /// A task that is known to exist, to be changed. Marks its run as changed.
    pub(crate) fn task_mut(&mut self, id: TaskId) -> &mut Task {
        let run = self.run_mut(id.run);
        run.tasks.get_mut(id.position()).expect("whoever changes a task has looked it up")
    }

    /// A run that is known to be live, to be changed. Marks it as changed.
    pub(crate) fn run_mut(&mut self, id: RunId) -> &mut Run {
        let changed = self.mark();
        let run = self.runs.get_mut(&id).expect("whoever changes a run has looked it up");
        let run = Arc::make_mut(run);
        run.changed = changed;
        run
    }

    /// Counts one more use of a definition, and stores it if this is the first.
    pub(crate) fn hold_definition(
        &mut self,
        id: DefinitionId,
        definition: impl FnOnce() -> Definition,
    ) {
        let stored = self.definitions.entry(id).or_insert_with(|| {
            let definition = definition();
            let graph = Arc::new(Graph::new(&definition.tasks));
            StoredDefinition { definition: Arc::new(definition), graph, uses: 0 }
        });
        stored.uses = stored.uses.saturating_add(1);
    }

    /// Counts one use of a definition less, and drops it with the last.
    pub(crate) fn release_definition(&mut self, id: DefinitionId) {
        let Some(stored) = self.definitions.get_mut(&id) else { return };
        stored.uses = stored.uses.saturating_sub(1);
        if stored.uses == 0 {
            self.definitions.remove(&id);
        }
    }

    pub(crate) fn set_timer(&mut self, at: UnixMs, timer: Timer) {
        self.timers.insert((at, timer));
    }

    /// Takes a timer back whose reason is gone. One that has fired is not there any more.
    pub(crate) fn unset_timer(&mut self, at: UnixMs, timer: Timer) {
        self.timers.remove(&(at, timer));
    }

    pub(crate) fn pop_due_timer(&mut self) -> Option<Timer> {
        let due = self.timers.first().is_some_and(|&(at, _)| at <= self.now);
        if due { self.timers.pop_first().map(|(_, timer)| timer) } else { None }
    }

    /// Whether a live run is paused.
    pub(crate) fn is_paused(&self, run: RunId) -> bool {
        self.runs.get(&run).is_some_and(|found| found.pause.is_some())
    }

    /// Puts a task whose turn has come in its queue, for a worker or for a decision, by when it
    /// came.
    pub(crate) fn enqueue(&mut self, task: TaskId) {
        let Ok(found) = self.task(task) else { return };
        let Some(mark) = found.ready else { return };
        if found.status == TaskStatus::Deciding {
            self.deciding.insert((mark.index, task));
        } else {
            self.ready.insert((mark.index, task));
        }
    }

    /// Takes a task out of the queue that it is in, for a worker or for a decision.
    pub(crate) fn unmark_ready(&mut self, task: TaskId) {
        let ready = self.task(task).ok().and_then(|found| found.ready);
        if let Some(mark) = ready {
            self.ready.remove(&(mark.index, task));
            self.deciding.remove(&(mark.index, task));
        }
    }

    /// Moves a finished run out of the live state.
    pub(crate) fn retire_run(&mut self, output: &mut Output, id: RunId) {
        let Some(run) = self.runs.remove(&id) else { return };
        let definition = Arc::clone(self.definition(run.definition));
        self.release_definition(run.definition);
        output.retired.push(Retired { id, run, definition });
    }

    /// The tasks of `run` that have not ended.
    pub(crate) fn open_tasks(&self, run: RunId) -> Vec<TaskId> {
        self.tasks_where(run, |task| !matches!(task.status, TaskStatus::Ended(_)))
    }

    /// The tasks of `run` whose turn has come, whether or not it is paused.
    pub(crate) fn due_tasks(&self, run: RunId) -> Vec<TaskId> {
        self.tasks_where(run, |task| {
            matches!(task.status, TaskStatus::Ready | TaskStatus::Deciding)
        })
    }

    fn tasks_where(&self, run: RunId, is_meant: impl Fn(&Task) -> bool) -> Vec<TaskId> {
        let tasks = self.runs.get(&run).map_or(&[][..], |found| &found.tasks);
        let positions = tasks.iter().enumerate().filter(|(_, task)| is_meant(task));
        positions.map(|(position, _)| TaskId::new(run, position)).collect()
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests at {}", self.requests.len(), self.proposed_at)
    }
}
