//! What follows from a change: who becomes ready, who never will, and when a run is over.
//!
//! Called by commands, inside the entry that made the change, so that there is no state in
//! which a task has ended and its successors do not know. Costs the successors of what
//! ended, not the size of the DAG.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::state::{Output, State, Timer};
use crate::workflow::{OnLost, TaskDefinition, TriggerRule};
use crate::{
    AttemptRecord, Dispatch, Effect, Event, Flight, LOSSES_MAX, Outcome, RunEnd, RunId, RunStatus,
    RunStop, StopReason, Tally, TaskEnd, TaskId, TaskStatus, Usage, WorkerId,
    task::ATTEMPTS_KEPT_MAX,
};

/// What a trigger rule says of the predecessors so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    Wait,
    Ready,
    Never(TaskEnd),
}

/// Judges a task by its rule. The result does not depend on the order in which the
/// predecessors ended: what is decided early holds however the rest ends.
fn judge(rule: TriggerRule, tally: Tally, needs: u32) -> Judgement {
    let any_failed = tally.failed > 0;
    let early = match rule {
        TriggerRule::Always => Some(Judgement::Ready),
        TriggerRule::AllSuccess | TriggerRule::NoneFailed if any_failed => {
            Some(Judgement::Never(TaskEnd::UpstreamFailed))
        }
        TriggerRule::OneSuccess if tally.succeeded > 0 => Some(Judgement::Ready),
        TriggerRule::OneFailed if any_failed => Some(Judgement::Ready),
        TriggerRule::AllSuccess
        | TriggerRule::AllDone
        | TriggerRule::OneSuccess
        | TriggerRule::OneFailed
        | TriggerRule::NoneFailed => None,
    };
    let late = || if tally.ended() < needs { Judgement::Wait } else { judge_late(rule, tally) };
    early.unwrap_or_else(late)
}

/// Judges a task whose predecessors have all ended, and did not decide it before.
fn judge_late(rule: TriggerRule, tally: Tally) -> Judgement {
    match rule {
        // Without predecessors there is nothing to ask for: such a task just starts.
        TriggerRule::OneSuccess | TriggerRule::OneFailed if tally.ended() == 0 => Judgement::Ready,
        TriggerRule::OneSuccess if tally.failed > 0 => Judgement::Never(TaskEnd::UpstreamFailed),
        TriggerRule::OneSuccess | TriggerRule::OneFailed => Judgement::Never(TaskEnd::Skipped),
        TriggerRule::AllSuccess if tally.skipped > 0 => Judgement::Never(TaskEnd::Skipped),
        TriggerRule::AllSuccess
        | TriggerRule::AllDone
        | TriggerRule::NoneFailed
        | TriggerRule::Always => Judgement::Ready,
    }
}

/// Whether its predecessors so far decide what becomes of a task.
pub(crate) fn is_decided(task: &TaskDefinition, tally: Tally) -> bool {
    judge_task(task, tally) != Judgement::Wait
}

fn judge_task(task: &TaskDefinition, tally: Tally) -> Judgement {
    judge(task.trigger_rule, tally, u32::try_from(task.needs.len()).unwrap_or(u32::MAX))
}

/// Readies the first tasks of a new run.
pub(crate) fn open(state: &mut State, output: &mut Output, run: RunId) {
    let Some(definition) = state.runs.get(&run).map(|found| found.definition) else { return };
    let definition = Arc::clone(state.definition(definition));
    for (position, task) in definition.tasks.iter().enumerate() {
        if judge_task(task, Tally::default()) == Judgement::Ready {
            make_ready(state, output, TaskId::new(run, position));
        }
    }
}

/// Puts a task in the queue for a worker.
pub(crate) fn make_ready(state: &mut State, output: &mut Output, task: TaskId) {
    let mark = state.mark();
    let found = state.task_mut(task);
    found.status = TaskStatus::Ready;
    found.ready = Some(mark);
    state.ready.insert((mark.index, task));
    output.events.push(Event::Task(task));
}

/// Ends a task for good, then whatever that decides downstream, then perhaps the run.
///
/// A task that is ready or running must have been taken out of the queue or off its worker.
pub(crate) fn end_task(state: &mut State, output: &mut Output, task: TaskId, end: TaskEnd) {
    let run = task.run;
    let Some(found) = state.runs.get(&run) else { return };
    let stored = state.stored(found.definition);
    let (definition, graph) = (Arc::clone(&stored.definition), Arc::clone(&stored.graph));
    mark_ended(state, output, task, end);
    let mut ended = VecDeque::from([(task, end)]);
    while let Some((task, end)) = ended.pop_front() {
        for &after in graph.successors(task.position()) {
            let after = TaskId { run, index: after };
            let Some(task) = definition.tasks.get(after.position()) else { continue };
            let TaskStatus::Waiting(tally) = &mut state.task_mut(after).status else { continue };
            tally.count(end);
            match judge_task(task, *tally) {
                Judgement::Wait => {}
                Judgement::Ready => make_ready(state, output, after),
                Judgement::Never(end) => {
                    // Here and not when its turn comes: a second predecessor in the queue
                    // would find it waiting still, and end it for its successors again.
                    mark_ended(state, output, after, end);
                    ended.push_back((after, end));
                }
            }
        }
    }
    end_run_if_done(state, output, run);
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
    if run.tasks_open > 0 || run.has_ended() {
        return;
    }
    let any_failed = || run.tasks.iter().any(|task| task.end().is_some_and(TaskEnd::is_failure));
    let (end, stop) = match &run.status {
        RunStatus::Stopping(stop @ RunStop::Cancelled { .. }) => (RunEnd::Cancelled, Some(stop)),
        RunStatus::Stopping(stop @ RunStop::TimedOut) => (RunEnd::TimedOut, Some(stop)),
        RunStatus::Running | RunStatus::Ended { .. } if any_failed() => (RunEnd::Failed, None),
        RunStatus::Running | RunStatus::Ended { .. } => (RunEnd::Succeeded, None),
    };
    let stop = stop.cloned();
    unset_run_timeout(state, id);
    let run = state.run_mut(id);
    run.status = RunStatus::Ended { end, mark, stop };
    if let Some(at) = run.retires_at() {
        state.set_timer(at, Timer::Retire(id));
    }
    output.events.push(Event::Run(id));
}

fn unset_run_timeout(state: &mut State, id: RunId) {
    let Some(run) = state.runs.get(&id) else { return };
    if let Some(at) = run.overdue_at(state.definition(run.definition).timeout) {
        state.unset_timer(at, Timer::RunTimeout(id));
    }
}

/// Has a run end before its tasks are through: what has not started never will, and what
/// runs is stopped. The run ends with the last of the latter.
pub(crate) fn stop_run(state: &mut State, output: &mut Output, run: RunId, why: RunStop) {
    unset_run_timeout(state, run);
    state.run_mut(run).status = RunStatus::Stopping(why);
    output.events.push(Event::Run(run));
    for task in state.open_tasks(run) {
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
        TaskStatus::Ready => state.unmark_ready(task),
        &mut TaskStatus::Retrying { at } => state.unset_timer(at, Timer::Retry(task)),
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
    let timeout = state.task_definition(task).ok()?.timeout;
    state.task(task).ok()?.flight()?;
    // Held open only: whoever lands an attempt decides at once what the task is instead.
    let status = std::mem::replace(&mut state.task_mut(task).status, TaskStatus::Ready);
    let TaskStatus::Running(flight) = status else { return None };
    if let Some(at) = flight.overdue_at(timeout) {
        state.unset_timer(at, Timer::TaskTimeout(task, flight.attempt));
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
    let Ok(retry) = state.task_definition(task).map(|found| found.retry) else { return };
    let now = state.now();
    let found = state.task_mut(task);
    found.failures = found.failures.saturating_add(1);
    let failures = found.failures;
    if failures > retry.limit {
        end_task(state, output, task, end);
        return;
    }
    let delay = retry.delay_after(failures);
    if delay.0 == 0 {
        make_ready(state, output, task);
        return;
    }
    let at = now.after(delay);
    state.task_mut(task).status = TaskStatus::Retrying { at };
    state.set_timer(at, Timer::Retry(task));
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

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [TriggerRule; 6] = [
        TriggerRule::AllSuccess,
        TriggerRule::AllDone,
        TriggerRule::OneSuccess,
        TriggerRule::OneFailed,
        TriggerRule::NoneFailed,
        TriggerRule::Always,
    ];

    const ENDS: [TaskEnd; 3] = [TaskEnd::Succeeded, TaskEnd::Failed, TaskEnd::Skipped];

    /// What a rule makes of four predecessors that end one after another; it is asked after
    /// each, and its first answer counts.
    fn decided(rule: TriggerRule, ends: &[TaskEnd]) -> Judgement {
        let mut tally = Tally::default();
        for &end in ends {
            tally.count(end);
            let verdict = judge(rule, tally, 4);
            if verdict != Judgement::Wait {
                return verdict;
            }
        }
        Judgement::Wait
    }

    #[test]
    fn no_rule_depends_on_the_order_of_ends() {
        for rule in RULES {
            for code in 0..81_usize {
                let ends = [code % 3, code / 3 % 3, code / 9 % 3, code / 27].map(|at| ENDS[at]);
                let mut sorted = ends;
                sorted.sort_unstable();
                let verdict = decided(rule, &ends);
                assert_eq!(verdict, decided(rule, &sorted), "{rule:?} of {ends:?}");
                assert_ne!(verdict, Judgement::Wait, "{rule:?} of {ends:?} is never decided");
            }
        }
    }

    #[test]
    fn every_rule_starts_a_task_that_needs_nothing() {
        for rule in RULES {
            assert_eq!(judge(rule, Tally::default(), 0), Judgement::Ready, "{rule:?}");
        }
    }
}
