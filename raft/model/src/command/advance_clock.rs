//! Let due timers fire.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply};
use crate::state::{Output, State, Timer};
use crate::{
    Attempt, Dispatch, Effect, Event, RunId, RunStatus, RunStop, StopReason, TaskId, TaskStatus,
    settle,
};

/// Timers that one entry lets fire. What is left makes the next entry due at once, so that
/// no entry holds up apply for long.
pub const TIMERS_PER_ENTRY_MAX: usize = 1_000;

/// Lets the timers fire that are due at the time of this entry. Proposed by the leader's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvanceClock {}

impl AdvanceClock {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self {} = self;
        for _ in 0..TIMERS_PER_ENTRY_MAX {
            let Some(timer) = state.pop_due_timer() else { break };
            fire(state, output, timer);
        }
        Ok(Reply::Done)
    }
}

/// A timer is not taken back when its reason goes away; so each looks whether it still holds.
fn fire(state: &mut State, output: &mut Output, timer: Timer) {
    match timer {
        Timer::Retry(task) => retry(state, output, task),
        Timer::TaskTimeout(task, attempt) => time_out_task(state, output, task, attempt),
        Timer::RunTimeout(run) => time_out_run(state, output, run),
        Timer::Retire(run) => {
            state.retire_run(output, run);
        }
        Timer::DropKey(key) => {
            state.keys.remove(&key);
        }
        Timer::ForgetWorker(worker, epoch) => {
            let gone = state.workers.get(&worker);
            if gone.is_some_and(|found| !found.is_live() && found.epoch == epoch) {
                state.workers.remove(&worker);
                output.events.push(Event::Worker(worker));
            }
        }
    }
}

fn retry(state: &mut State, output: &mut Output, task: TaskId) {
    let is_due = |found: &crate::Task| match found.status {
        TaskStatus::Retrying { at } => at <= state.now(),
        TaskStatus::Waiting(_)
        | TaskStatus::Ready
        | TaskStatus::Running(_)
        | TaskStatus::Ended(_) => false,
    };
    if state.task(task).is_ok_and(is_due) {
        settle::make_ready(state, output, task);
    }
}

fn time_out_task(state: &mut State, output: &mut Output, task: TaskId, attempt: Attempt) {
    let in_flight = |found: &crate::Task| found.flight().is_some_and(|f| f.attempt == attempt);
    if !state.task(task).is_ok_and(in_flight) {
        return;
    }
    if let TaskStatus::Running(flight) = &mut state.task_mut(task).status
        && flight.stop.is_none()
    {
        flight.stop = Some(StopReason::TimedOut);
        let dispatch = Dispatch::of(task, flight);
        output.effects.push(Effect::Stop(dispatch, StopReason::TimedOut));
        output.events.push(Event::Task(task));
    }
}

fn time_out_run(state: &mut State, output: &mut Output, run: RunId) {
    let is_running = |found: &std::sync::Arc<crate::Run>| found.status == RunStatus::Running;
    if state.runs.get(&run).is_some_and(is_running) {
        settle::stop_run(state, output, run, RunStop::TimedOut);
    }
}
