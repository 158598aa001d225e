//! What must hold after every entry. Run by every test and by the simulation.

use std::collections::BTreeMap;

use crate::rule::{self, Judgement};
use crate::state::State;
use crate::workflow::{Action, DefinitionId, Hook};
use crate::{
    Attempt, AttemptRecord, Flight, Outcome, Run, RunId, RunStatus, Tally, Task, TaskEnd, TaskId,
    TaskStatus, Timer, UnixMs, Verdict,
};

impl State {
    /// Checks every invariant. Costs the size of the state.
    ///
    /// # Errors
    ///
    /// Names the first that is broken.
    pub fn check(&self) -> Result<(), String> {
        self.check_definitions()?;
        self.check_queue()?;
        self.check_workers()?;
        self.check_timers()?;
        for (&id, run) in &self.runs {
            self.check_run(id, run)?;
        }
        Ok(())
    }

    /// A definition is kept exactly as long as a version or a live run uses it.
    fn check_definitions(&self) -> Result<(), String> {
        let versions = self.workflows.values().flat_map(|workflow| workflow.versions.values());
        let by_versions = versions.map(|version| version.definition);
        let by_runs = self.runs.values().map(|run| run.definition);
        let mut uses: BTreeMap<DefinitionId, u64> = BTreeMap::new();
        for id in by_versions.chain(by_runs) {
            *uses.entry(id).or_default() += 1;
        }
        let counted: BTreeMap<_, _> =
            self.stored_definitions().iter().map(|(&id, stored)| (id, stored.uses)).collect();
        ensure(uses == counted, || format!("definitions are used {uses:?}, counted {counted:?}"))
    }

    /// The queues hold the ready tasks, and those to be decided, of runs that go, and nothing
    /// else.
    fn check_queue(&self) -> Result<(), String> {
        let queues = [(&self.ready, TaskStatus::Ready), (&self.deciding, TaskStatus::Deciding)];
        for (queue, status) in queues {
            for &(index, id) in queue {
                let belongs = self.task(id).is_ok_and(|task| {
                    task.status == status && task.ready.is_some_and(|r| r.index == index)
                });
                ensure(belongs, || format!("{id} is in a queue at {index} but not {status}"))?;
                let goes = self.runs.get(&id.run).is_some_and(|run| run.is_going());
                ensure(goes, || format!("{id} is in a queue but its run does not go"))?;
            }
        }
        Ok(())
    }

    /// A worker runs what is in flight on it under its epoch, and only with a lease.
    fn check_workers(&self) -> Result<(), String> {
        for (&id, worker) in &self.workers {
            let full = worker.running.len() > worker.slots as usize;
            ensure(!full, || format!("{id} runs more than it has slots"))?;
            let idle = worker.running.is_empty();
            ensure(worker.is_live() || idle, || format!("{id} has no lease but tasks"))?;
            let forget = Timer::ForgetWorker(id, worker.epoch);
            let forgotten = worker.forgotten_at().is_none_or(|at| self.has_timer(at, forget));
            ensure(forgotten, || format!("{id} is gone but never forgotten"))?;
            for &task in &worker.running {
                let holds = self
                    .task(task)
                    .ok()
                    .and_then(Task::flight)
                    .is_some_and(|flight| flight.worker == id && flight.epoch == worker.epoch);
                ensure(holds, || format!("{id} is said to run {task}"))?;
            }
        }
        Ok(())
    }

    /// Each timer has its reason still, and is set to when that says.
    fn check_timers(&self) -> Result<(), String> {
        for &(at, timer) in &self.timers {
            let due = match timer {
                Timer::Ready(task) => self.task(task).ok().and_then(goes_on_at),
                Timer::Answer(task) => self.task(task).ok().and_then(asks_until),
                Timer::TaskTimeout(task, attempt) => self.attempt_overdue_at(task, attempt),
                Timer::TaskDeadline(task, attempt) => self.attempt_late_at(task, attempt),
                Timer::RunTimeout(run) => self.run_overdue_at(run),
                Timer::RunDeadline(run) => self.run_late_at(run),
                Timer::Retire(run) => self.runs.get(&run).and_then(|found| found.retires_at()),
                Timer::ForgetWorker(worker, epoch) => {
                    let found = self.workers.get(&worker).filter(|found| found.epoch == epoch);
                    found.and_then(|found| found.forgotten_at())
                }
            };
            ensure(due == Some(at), || format!("{timer:?} at {at} should be at {due:?}"))?;
        }
        Ok(())
    }

    fn has_timer(&self, at: UnixMs, timer: Timer) -> bool {
        self.timers.contains(&(at, timer))
    }

    fn attempt_overdue_at(&self, id: TaskId, attempt: Attempt) -> Option<UnixMs> {
        let flight = self.task(id).ok()?.flight().filter(|flight| flight.attempt == attempt)?;
        flight.overdue_at(self.task_definition(id).ok()?.timeout)
    }

    fn attempt_late_at(&self, id: TaskId, attempt: Attempt) -> Option<UnixMs> {
        let flight = self.task(id).ok()?.flight().filter(|flight| flight.attempt == attempt)?;
        flight.late_at(self.task_definition(id).ok()?.deadline)
    }

    fn run_late_at(&self, id: RunId) -> Option<UnixMs> {
        let run = self.runs.get(&id).filter(|run| run.status == RunStatus::Running)?;
        run.late_at(self.definition(run.definition).deadline)
    }

    fn run_overdue_at(&self, id: RunId) -> Option<UnixMs> {
        let run = self.runs.get(&id)?;
        run.overdue_at(self.definition(run.definition).timeout)
    }

    fn check_run(&self, id: RunId, run: &Run) -> Result<(), String> {
        let open = run.tasks.iter().filter(|task| task.end().is_none()).count();
        ensure(open == run.tasks_open as usize, || format!("run {id} has {open} open tasks"))?;
        ensure((open == 0) == run.has_ended(), || {
            format!("run {id}: {} with {open} open", run.status)
        })?;
        let retires = run.retires_at().is_none_or(|at| self.has_timer(at, Timer::Retire(id)));
        ensure(retires, || format!("run {id} ended but never retires"))?;
        let idle = run.pause.is_none() || run.status == RunStatus::Running;
        ensure(idle, || format!("run {id} is paused and {}", run.status))?;
        let overdue_at = self.run_overdue_at(id);
        let is_watched = |at| run.late.is_some() || self.has_timer(at, Timer::RunDeadline(id));
        let late_at = self.run_late_at(id);
        ensure(late_at.is_none_or(is_watched), || format!("run {id} is never late"))?;
        let stops = overdue_at.is_none_or(|at| self.has_timer(at, Timer::RunTimeout(id)));
        ensure(stops, || format!("run {id} never times out"))?;
        for (position, task) in run.tasks.iter().enumerate() {
            self.check_task(TaskId::new(id, position), task, run)?;
        }
        Ok(())
    }

    /// Whatever has not ended waits on something that can be named.
    fn check_task(&self, id: TaskId, task: &Task, run: &Run) -> Result<(), String> {
        let stopping = matches!(run.status, RunStatus::Stopping(_));
        let waits = match &task.status {
            TaskStatus::Waiting(_) if self.is_late_hook(id, run) => {
                matches!(run.status, RunStatus::Running | RunStatus::Stopping(_))
            }
            TaskStatus::Waiting(tally) => !stopping && self.is_undecided(id, run, *tally),
            TaskStatus::Ready => {
                let queued = task.ready.is_some_and(|r| self.ready.contains(&(r.index, id)));
                !stopping && queued == run.is_going()
            }
            TaskStatus::Deciding => {
                let queued = task.ready.is_some_and(|r| self.deciding.contains(&(r.index, id)));
                !stopping && queued == run.is_going()
            }
            TaskStatus::Running(flight) => {
                let holder = self.workers.get(&flight.worker);
                holder.is_some_and(|worker| worker.running.contains(&id))
                    && (!stopping || flight.stop.is_some())
                    && self.is_timed(id, flight)
            }
            TaskStatus::Retrying { at } | TaskStatus::Delayed { at } => {
                !stopping && self.has_timer(*at, Timer::Ready(id))
            }
            TaskStatus::Asking { until } => {
                let is_timed = until.is_none_or(|at| self.has_timer(at, Timer::Answer(id)));
                !stopping && is_timed && task.question.is_some()
            }
            TaskStatus::Held => !stopping && task.held.is_some() && is_unknown(task),
            TaskStatus::Ended(_) => task.ended.is_some(),
        };
        ensure(waits, || format!("{id} is {} and nothing will change that", task.status))?;
        let definition = self.definition(run.definition);
        check_attempts(id, task, &definition.tasks[id.position()].action)
    }

    /// Whether a task comes when all others have ended.
    fn is_late_hook(&self, id: TaskId, run: &Run) -> bool {
        let said = &self.definition(run.definition).tasks[id.position()];
        said.hook.is_some_and(|hook| hook != Hook::Start)
    }

    /// Whether the tally is that of the predecessors, and their rule leaves it open.
    fn is_undecided(&self, id: TaskId, run: &Run, tally: Tally) -> bool {
        let definition = self.definition(run.definition);
        let task = &definition.tasks[id.position()];
        let mut counted = Tally::default();
        for edge in task.needs.iter().filter_map(|&at| rule::edge(definition, run, at, id.index)) {
            counted.count(edge);
        }
        counted == tally && rule::judge(task, tally) == Judgement::Wait
    }

    /// Whether an attempt that has a timeout has its timer, or was stopped already.
    fn is_timed(&self, id: TaskId, flight: &Flight) -> bool {
        let overdue_at = self.attempt_overdue_at(id, flight.attempt);
        let timer = || Timer::TaskTimeout(id, flight.attempt);
        flight.stop.is_some() || overdue_at.is_none_or(|at| self.has_timer(at, timer()))
    }
}

fn goes_on_at(task: &Task) -> Option<UnixMs> {
    match task.status {
        TaskStatus::Retrying { at } | TaskStatus::Delayed { at } => Some(at),
        TaskStatus::Waiting(_)
        | TaskStatus::Deciding
        | TaskStatus::Asking { .. }
        | TaskStatus::Ready
        | TaskStatus::Running(_)
        | TaskStatus::Held
        | TaskStatus::Ended(_) => None,
    }
}

fn asks_until(task: &Task) -> Option<UnixMs> {
    if let TaskStatus::Asking { until } = task.status { until } else { None }
}

/// Whether nobody knows how the last attempt ended.
fn is_unknown(task: &Task) -> bool {
    let last = task.attempts.last().map(|past| &past.outcome);
    matches!(last, Some(Outcome::Lost | Outcome::Stopped))
}

/// A task is tried once at a time, under tokens that rise, until it has succeeded once.
fn check_attempts(id: TaskId, task: &Task, action: &Action) -> Result<(), String> {
    let succeeded = task.status == TaskStatus::Ended(TaskEnd::Succeeded);
    ensure(succeeded || task.outputs.is_none(), || format!("{id} has outputs unearned"))?;
    let is_success = |past: &AttemptRecord| matches!(past.outcome, Outcome::Succeeded { .. });
    let successes = task.attempts.iter().filter(|past| is_success(past)).count();
    let works = matches!(action, Action::Work { .. });
    let declared = task.decision.as_ref().is_some_and(|made| made.verdict == Verdict::Succeeded);
    ensure(successes == usize::from(succeeded && works && !declared), || {
        format!("{id} succeeded {successes} times")
    })?;
    let kept = task.attempts.len() + usize::from(task.flight().is_some());
    let begun = task.attempts_begun.0 as usize;
    ensure(kept <= begun, || format!("{id} has {kept} attempts on record of {begun}"))?;
    let tried = task.attempts.iter().map(|past| (past.attempt, past.token));
    let tried: Vec<_> = tried.chain(task.flight().map(|now| (now.attempt, now.token))).collect();
    let rise = tried.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
    ensure(rise, || format!("{id} had an attempt or a fencing token that did not rise"))?;
    let latest = tried.last().is_none_or(|&(attempt, _)| attempt == task.attempts_begun);
    ensure(latest, || format!("{id} has begun an attempt that is not on record"))
}

fn ensure(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}
