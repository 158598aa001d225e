//! What follows from a change: who becomes ready, who never will, and when a run is over.
//!
//! Called by commands, inside the entry that made the change, so that there is no state in
//! which a task has ended and its successors do not know. Costs the successors of what
//! ended, not the size of the DAG.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::rule::{self, Judgement};
use crate::state::{Output, State, StoredDefinition, Timer};
use crate::workflow::{Action, Definition, Graph, Hook, OnFailure, OnLost, TaskDefinition};
use crate::{
    AttemptRecord, Dispatch, Effect, Event, Flight, LOSSES_MAX, Outcome, Pause, Run, RunEnd, RunId,
    RunStatus, RunStop, StopReason, Tally, Task, TaskEnd, TaskId, TaskStatus, Usage, WorkerId,
    task::ATTEMPTS_KEPT_MAX,
};

/// Lets the first tasks of a new run begin.
pub(crate) fn open(state: &mut State, output: &mut Output, run: RunId) {
    let Some((definition, graph)) = plan_of(state, run) else { return };
    if let Some(at) = state.runs.get(&run).and_then(|found| found.late_at(definition.deadline)) {
        state.set_timer(at, Timer::RunDeadline(run));
    }
    let mut ended = VecDeque::new();
    for (position, said) in definition.tasks.iter().enumerate() {
        let is_late = said.hook.is_some_and(|hook| hook != Hook::Start);
        if !is_late && rule::judge(said, Tally::default()) == Judgement::Ready {
            let task = TaskId::new(run, position);
            ended.extend(begin(state, output, task, said).then_some(task));
        }
    }
    spread(state, output, &definition, &graph, ended);
    end_run_if_done(state, output, run);
}

fn plan_of(state: &State, run: RunId) -> Option<(Arc<Definition>, Arc<Graph>)> {
    let stored = state.stored(state.runs.get(&run)?.definition);
    Some((Arc::clone(&stored.definition), Arc::clone(&stored.graph)))
}

/// Lets a task begin whose rule is met. `true` if that was all, and it has ended.
fn begin(state: &mut State, output: &mut Output, task: TaskId, said: &TaskDefinition) -> bool {
    if said.disabled {
        mark_ended(state, output, task, TaskEnd::Disabled);
        return true;
    }
    if said.delay.0 == 0 {
        return begin_now(state, output, task, said);
    }
    let at = state.now().after(said.delay);
    state.task_mut(task).status = TaskStatus::Delayed { at };
    state.set_timer(at, Timer::Ready(task));
    output.events.push(Event::Task(task));
    false
}

/// Lets a task go on whose time has come: after its delay, or for another try.
pub(crate) fn wake(state: &mut State, output: &mut Output, task: TaskId) {
    let is_delayed = matches!(state.task_mut(task).status, TaskStatus::Delayed { .. });
    let Some((definition, graph)) = plan_of(state, task.run) else { return };
    match definition.tasks.get(task.position()) {
        Some(said) if is_delayed => {
            if begin_now(state, output, task, said) {
                spread(state, output, &definition, &graph, VecDeque::from([task]));
                end_run_if_done(state, output, task.run);
            }
        }
        Some(_) | None => make_ready(state, output, task),
    }
}

fn begin_now(state: &mut State, output: &mut Output, task: TaskId, said: &TaskDefinition) -> bool {
    if said.is_conditional() {
        let mark = state.mark();
        let found = state.task_mut(task);
        found.status = TaskStatus::Deciding;
        found.ready = Some(mark);
        if state.runs.get(&task.run).is_some_and(|run| run.is_going()) {
            state.enqueue(task);
        }
        output.events.push(Event::Task(task));
        return false;
    }
    match said.action {
        Action::Noop => {
            mark_ended(state, output, task, TaskEnd::Succeeded);
            true
        }
        Action::Work { .. } | Action::Switch(_) | Action::Approval(_) => {
            make_ready(state, output, task);
            false
        }
    }
}

/// Lets a task go on whose condition holds. It must have been taken out of the queue.
pub(crate) fn pass(state: &mut State, output: &mut Output, task: TaskId) {
    let does_nothing = state.task_definition(task).is_ok_and(|said| said.action == Action::Noop);
    if does_nothing {
        end_task(state, output, task, TaskEnd::Succeeded);
    } else {
        make_ready(state, output, task);
    }
}

/// Puts a task in the queue for a worker.
pub(crate) fn make_ready(state: &mut State, output: &mut Output, task: TaskId) {
    let mark = state.mark();
    let found = state.task_mut(task);
    found.status = TaskStatus::Ready;
    found.ready = Some(mark);
    if state.runs.get(&task.run).is_some_and(|run| run.is_going()) {
        state.enqueue(task);
    }
    output.events.push(Event::Task(task));
}

/// Has nothing more of a run start. What is ready leaves the queue; it stays ready.
pub(crate) fn pause_run(state: &mut State, output: &mut Output, run: RunId, pause: Pause) {
    unset_run_timeout(state, run);
    for task in state.due_tasks(run) {
        state.unmark_ready(task);
    }
    let found = state.run_mut(run);
    // Since when it is paused stays: the timeout is put off by all of it.
    let mark = found.pause.take().map_or(pause.mark, |before| before.mark);
    found.pause = Some(Pause { mark, ..pause });
    output.events.push(Event::Run(run));
}

/// Has a paused run go on: what is ready comes back to its place in the queue.
pub(crate) fn resume_run(state: &mut State, output: &mut Output, run: RunId) {
    let now = state.now();
    let found = state.run_mut(run);
    let Some(pause) = found.pause.take() else { return };
    found.timed_from = found.timed_from.after(now.since(pause.mark.at));
    set_run_timeout(state, run);
    for task in state.due_tasks(run) {
        state.enqueue(task);
    }
    output.events.push(Event::Run(run));
}

/// Ends a task for good, then whatever that decides downstream, then perhaps the run.
///
/// A task that is ready or running must have been taken out of the queue or off its worker.
pub(crate) fn end_task(state: &mut State, output: &mut Output, task: TaskId, end: TaskEnd) {
    let Some((definition, graph)) = plan_of(state, task.run) else { return };
    mark_ended(state, output, task, end);
    spread(state, output, &definition, &graph, VecDeque::from([task]));
    let is_running = || state.runs.get(&task.run).is_some_and(|r| r.status == RunStatus::Running);
    let stops = end.is_failure()
        && definition.on_failure == OnFailure::Stop
        && !rule::is_handled(&definition, &graph, task.index, end)
        && is_running();
    match definition.tasks.get(task.position()) {
        Some(said) if stops => {
            stop_run(state, output, task.run, RunStop::Failed { task: said.id.clone() });
        }
        Some(_) | None => end_run_if_done(state, output, task.run),
    }
}

/// Tells those that come after tasks that have ended.
fn spread(
    state: &mut State,
    output: &mut Output,
    definition: &Definition,
    graph: &Graph,
    mut ended: VecDeque<TaskId>,
) {
    while let Some(before) = ended.pop_front() {
        for &after in graph.successors(before.position()) {
            let Some(said) = definition.tasks.get(after as usize) else { continue };
            let Some(run) = state.runs.get(&before.run) else { return };
            let Some(edge) = rule::edge(definition, run, before.index, after) else { continue };
            let after = TaskId { run: before.run, index: after };
            let TaskStatus::Waiting(tally) = &mut state.task_mut(after).status else { continue };
            tally.count(edge);
            // It ends here and not when its turn comes: a second predecessor in the queue would
            // find it waiting still, and end it for its successors again.
            let has_ended = match rule::judge(said, *tally) {
                Judgement::Wait => false,
                Judgement::Ready => begin(state, output, after, said),
                Judgement::Never(end) => {
                    mark_ended(state, output, after, end);
                    true
                }
            };
            ended.extend(has_ended.then_some(after));
        }
    }
}

fn mark_ended(state: &mut State, output: &mut Output, task: TaskId, end: TaskEnd) {
    let mark = state.mark();
    let run = state.run_mut(task.run);
    let Some(found) = run.tasks.get_mut(task.position()) else { return };
    found.status = TaskStatus::Ended(end);
    found.ended = Some(mark);
    run.tasks_open = run.tasks_open.saturating_sub(1);
    output.events.push(Event::Task(task));
}

fn end_run_if_done(state: &mut State, output: &mut Output, id: RunId) {
    let mark = state.mark();
    let Some(run) = state.runs.get(&id) else { return };
    let hooks = waiting_hooks(state, id);
    if run.tasks_open as usize > hooks.len() || run.has_ended() {
        return;
    }
    let any_failed = || has_failed(state.stored(run.definition), run);
    let (end, stop) = match &run.status {
        RunStatus::Stopping(stop @ RunStop::Cancelled { .. }) => (RunEnd::Cancelled, Some(stop)),
        RunStatus::Stopping(stop @ RunStop::TimedOut) => (RunEnd::TimedOut, Some(stop)),
        RunStatus::Stopping(stop @ RunStop::Failed { .. }) => (RunEnd::Failed, Some(stop)),
        RunStatus::Ending { end, stop } => (*end, stop.as_ref()),
        RunStatus::Running | RunStatus::Ended { .. } if any_failed() => (RunEnd::Failed, None),
        RunStatus::Running | RunStatus::Ended { .. } => (RunEnd::Succeeded, None),
    };
    let stop = stop.cloned();
    unset_run_timeout(state, id);
    unset_run_deadline(state, id);
    let run = state.run_mut(id);
    run.pause = None;
    if hooks.iter().any(|(_, hook)| hook.is_for(end)) {
        run.status = RunStatus::Ending { end, stop };
        output.events.push(Event::Run(id));
        begin_hooks(state, output, &hooks, end);
        return;
    }
    begin_hooks(state, output, &hooks, end);
    let run = state.run_mut(id);
    run.status = RunStatus::Ended { end, mark, stop };
    if let Some(at) = run.retires_at() {
        state.set_timer(at, Timer::Retire(id));
    }
    output.events.push(Event::Run(id));
}

/// The hooks of a run that wait for its end, at most one for each way to end.
fn waiting_hooks(state: &State, id: RunId) -> Vec<(TaskId, Hook)> {
    let Some(run) = state.runs.get(&id) else { return Vec::new() };
    let definition = state.definition(run.definition);
    let tasks = run.tasks.iter().zip(&definition.tasks).enumerate();
    let hooks = tasks.rev().map_while(|(at, (task, said))| Some((at, task, said.hook?)));
    let waiting = |task: &Task| matches!(task.status, TaskStatus::Waiting(_));
    let hooks = hooks.filter(|(_, task, hook)| *hook != Hook::Start && waiting(task));
    hooks.map(|(at, _, hook)| (TaskId::new(id, at), hook)).collect()
}

/// Lets the hooks begin that are for an end, and ends the others.
fn begin_hooks(state: &mut State, output: &mut Output, hooks: &[(TaskId, Hook)], end: RunEnd) {
    for &(task, hook) in hooks {
        if hook.is_for(end) {
            make_ready(state, output, task);
        } else {
            mark_ended(state, output, task, TaskEnd::Skipped);
        }
    }
}

/// Whether a task failed and nobody provided for it.
fn has_failed(stored: &StoredDefinition, run: &Run) -> bool {
    let mut ends = run.tasks.iter().zip(0u32..).filter_map(|(task, at)| Some((at, task.end()?)));
    ends.any(|(at, end)| {
        end.is_failure() && !rule::is_handled(&stored.definition, &stored.graph, at, end)
    })
}

/// Has the clock stop a run that takes too long.
pub(crate) fn set_run_timeout(state: &mut State, id: RunId) {
    let Some(run) = state.runs.get(&id) else { return };
    if let Some(at) = run.overdue_at(state.definition(run.definition).timeout) {
        state.set_timer(at, Timer::RunTimeout(id));
    }
}

fn unset_run_timeout(state: &mut State, id: RunId) {
    let Some(run) = state.runs.get(&id) else { return };
    if let Some(at) = run.overdue_at(state.definition(run.definition).timeout) {
        state.unset_timer(at, Timer::RunTimeout(id));
    }
}

fn unset_run_deadline(state: &mut State, id: RunId) {
    let Some(run) = state.runs.get(&id) else { return };
    if let Some(at) = run.late_at(state.definition(run.definition).deadline) {
        state.unset_timer(at, Timer::RunDeadline(id));
    }
}

/// Has a run end before its tasks are through: what has not started never will, and what
/// runs is stopped. The run ends with the last of the latter.
pub(crate) fn stop_run(state: &mut State, output: &mut Output, run: RunId, why: RunStop) {
    unset_run_timeout(state, run);
    unset_run_deadline(state, run);
    let found = state.run_mut(run);
    found.pause = None;
    // What it has come to, it has come to: then only its hooks are stopped.
    if !matches!(found.status, RunStatus::Ending { .. }) {
        found.status = RunStatus::Stopping(why);
    }
    output.events.push(Event::Run(run));
    let hooks: BTreeSet<TaskId> = waiting_hooks(state, run).into_iter().map(|(id, _)| id).collect();
    for task in state.open_tasks(run).into_iter().filter(|task| !hooks.contains(task)) {
        stop_task(state, output, task);
    }
    end_run_if_done(state, output, run);
}

fn stop_task(state: &mut State, output: &mut Output, task: TaskId) {
    match &mut state.task_mut(task).status {
        TaskStatus::Running(flight) => {
            // Also where a timeout has stopped it already: what becomes of it is different.
            flight.stop = Some(StopReason::Cancelled);
            let dispatch = Dispatch::of(task, flight);
            output.effects.push(Effect::Stop(dispatch, StopReason::Cancelled));
            output.events.push(Event::Task(task));
            return;
        }
        TaskStatus::Ready | TaskStatus::Deciding => state.unmark_ready(task),
        &mut (TaskStatus::Retrying { at } | TaskStatus::Delayed { at }) => {
            state.unset_timer(at, Timer::Ready(task));
        }
        &mut TaskStatus::Asking { until } => {
            if let Some(at) = until {
                state.unset_timer(at, Timer::Answer(task));
            }
        }
        TaskStatus::Waiting(_) | TaskStatus::Held | TaskStatus::Ended(_) => {}
    }
    mark_ended(state, output, task, TaskEnd::Cancelled);
}

/// Ends every attempt that a worker has: they are lost.
pub(crate) fn lose_attempts(state: &mut State, output: &mut Output, worker: WorkerId) {
    let running = state.workers.get(&worker).map(|found| found.running.clone());
    for task in running.unwrap_or_default() {
        end_attempt(state, output, task, Outcome::Lost, Usage::default());
    }
}

/// Ends the attempt of a task that is in flight, and decides what becomes of the task.
pub(crate) fn end_attempt(
    state: &mut State,
    output: &mut Output,
    task: TaskId,
    mut outcome: Outcome,
    usage: Usage,
) {
    let Some(flight) = land(state, task) else { return };
    let on_lost = state.task_definition(task).map(|found| found.on_lost).unwrap_or_default();
    let fate = fate(&outcome, flight.stop, on_lost);
    let (ended, late) = (state.mark(), false);
    let Flight { attempt, worker, token, assigned_at, .. } = flight;
    let found = state.task_mut(task);
    if let Outcome::Succeeded { outputs } = &mut outcome {
        found.outputs = outputs.take();
    }
    if found.attempts.len() >= ATTEMPTS_KEPT_MAX {
        found.attempts.remove(0);
    }
    #[rustfmt::skip]
    found.attempts.push(AttemptRecord {
        attempt, worker, token, assigned_at, ended, outcome, late, usage,
    });
    meet(state, output, task, fate);
}

/// Takes in how the last attempt of a task that is held did end after all. `false` if that
/// says no more than was known.
pub(crate) fn end_late(
    state: &mut State,
    output: &mut Output,
    task: TaskId,
    mut outcome: Outcome,
    usage: Usage,
) -> bool {
    let fate = match outcome {
        Outcome::Succeeded { .. } => Fate::End(TaskEnd::Succeeded),
        Outcome::Exited { .. } | Outcome::Signalled { .. } | Outcome::Broken { .. } => {
            Fate::Failure(TaskEnd::Failed)
        }
        Outcome::Returned => Fate::Return,
        Outcome::Stopped | Outcome::Lost => return false,
    };
    let ended = state.mark();
    let found = state.task_mut(task);
    let Some(record) = found.attempts.last_mut() else { return false };
    if let Outcome::Succeeded { outputs } = &mut outcome {
        found.outputs = outputs.take();
    }
    *record = AttemptRecord { ended, outcome, late: true, usage, ..record.clone() };
    meet(state, output, task, fate);
    true
}

/// Does to a task what the end of its attempt means for it.
fn meet(state: &mut State, output: &mut Output, task: TaskId, fate: Fate) {
    match fate {
        Fate::End(end) => end_task(state, output, task, end),
        Fate::Failure(end) => fail(state, output, task, end),
        Fate::Loss(on_lost) => lose(state, output, task, on_lost),
        Fate::Return => make_ready(state, output, task),
    }
}

/// Takes the attempt of a task that is in flight off its worker and off the clock.
fn land(state: &mut State, task: TaskId) -> Option<Flight> {
    let said = state.task_definition(task).ok()?;
    let (timeout, deadline) = (said.timeout, said.deadline);
    state.task(task).ok()?.flight()?;
    // Held open only: whoever lands an attempt decides at once what the task is instead.
    let status = std::mem::replace(&mut state.task_mut(task).status, TaskStatus::Ready);
    let TaskStatus::Running(flight) = status else { return None };
    if let Some(at) = flight.overdue_at(timeout) {
        state.unset_timer(at, Timer::TaskTimeout(task, flight.attempt));
    }
    if let Some(at) = flight.late_at(deadline) {
        state.unset_timer(at, Timer::TaskDeadline(task, flight.attempt));
    }
    state.workers.entry(flight.worker).and_modify(|holder| {
        holder.running.remove(&task);
    });
    Some(flight)
}

/// What an outcome means for its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    End(TaskEnd),
    Failure(TaskEnd),
    Loss(OnLost),
    Return,
}

fn fate(outcome: &Outcome, stop: Option<StopReason>, on_lost: OnLost) -> Fate {
    match (outcome, stop) {
        // Done is done, even if the order to stop was already on its way.
        (Outcome::Succeeded { .. }, _) => Fate::End(TaskEnd::Succeeded),
        (_, Some(StopReason::Cancelled)) => Fate::End(TaskEnd::Cancelled),
        // Not its fault, however long its worker took to say so.
        (Outcome::Returned, Some(StopReason::TimedOut) | None) => Fate::Return,
        // The order may have come when it had done its work: that is not known either.
        (Outcome::Lost, Some(StopReason::TimedOut)) if on_lost != OnLost::Retry => {
            Fate::Loss(on_lost)
        }
        (_, Some(StopReason::TimedOut)) => Fate::Failure(TaskEnd::TimedOut),
        (Outcome::Exited { .. } | Outcome::Signalled { .. } | Outcome::Broken { .. }, None) => {
            Fate::Failure(TaskEnd::Failed)
        }
        (Outcome::Stopped | Outcome::Lost, None) => Fate::Loss(on_lost),
    }
}

fn fail(state: &mut State, output: &mut Output, task: TaskId, end: TaskEnd) {
    let Ok(retry) = state.task_definition(task).map(|found| found.retry.clone()) else { return };
    let now = state.now();
    let found = state.task_mut(task);
    found.failures = found.failures.saturating_add(1);
    let failures = found.failures;
    let outcome = found.attempts.last().map(|last| &last.outcome);
    if failures > retry.limit || !retry.covers(end, outcome) {
        end_task(state, output, task, end);
        return;
    }
    let delay = retry.wait(task, failures);
    if delay.0 == 0 {
        make_ready(state, output, task);
        return;
    }
    let at = now.after(delay);
    state.task_mut(task).status = TaskStatus::Retrying { at };
    state.set_timer(at, Timer::Ready(task));
    output.events.push(Event::Task(task));
}

fn lose(state: &mut State, output: &mut Output, task: TaskId, on_lost: OnLost) {
    let held = state.mark();
    let found = state.task_mut(task);
    found.losses = found.losses.saturating_add(1);
    let is_last = found.losses >= LOSSES_MAX;
    match on_lost {
        OnLost::Retry if is_last => end_task(state, output, task, TaskEnd::Lost),
        OnLost::Retry => make_ready(state, output, task),
        OnLost::Fail => end_task(state, output, task, TaskEnd::Lost),
        OnLost::Hold => {
            found.status = TaskStatus::Held;
            found.held = Some(held);
            output.events.push(Event::Task(task));
        }
    }
}
