//! Let due timers fire.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply};
use crate::state::{Output, State, Timer};
use crate::workflow::{Action, OnTimeout};
use crate::{Dispatch, Effect, Event, RunStop, StopReason, TaskEnd, TaskId, TaskStatus, settle};

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

/// Does what a timer is for. Its reason holds, or it would have been taken back.
fn fire(state: &mut State, output: &mut Output, timer: Timer) {
    match timer {
        Timer::Ready(task) => settle::wake(state, output, task),
        Timer::Answer(task) => go_on_unanswered(state, output, task),
        Timer::TaskTimeout(task, _) => time_out_task(state, output, task),
        Timer::TaskDeadline(task, _) => {
            let mark = state.mark();
            state.task_mut(task).late.get_or_insert(mark);
            output.events.push(Event::Task(task));
        }
        Timer::RunDeadline(run) => {
            let mark = state.mark();
            state.run_mut(run).late = Some(mark);
            output.events.push(Event::Run(run));
        }
        Timer::RunTimeout(run) => settle::stop_run(state, output, run, RunStop::TimedOut),
        Timer::Retire(run) => state.retire_run(output, run),
        Timer::ForgetWorker(worker, _) => {
            state.workers.remove(&worker);
            output.events.push(Event::Worker(worker));
        }
    }
}

/// Takes it for an answer that there is none.
fn go_on_unanswered(state: &mut State, output: &mut Output, task: TaskId) {
    let action = state.task_definition(task).ok().map(|said| &said.action);
    let Some(Action::Approval(approval)) = action else { return };
    let (end, outputs) = match approval.on_timeout {
        OnTimeout::Reject => (TaskEnd::TimedOut, None),
        OnTimeout::Approve => (TaskEnd::Succeeded, Some(approval.defaults())),
    };
    let found = state.task_mut(task);
    found.note = Some("nobody answered in time".to_owned());
    found.outputs = outputs;
    settle::end_task(state, output, task, end);
}

/// Stops an attempt, unless its run is stopping and has stopped it already.
fn time_out_task(state: &mut State, output: &mut Output, task: TaskId) {
    if let TaskStatus::Running(flight) = &mut state.task_mut(task).status
        && flight.stop.is_none()
    {
        flight.stop = Some(StopReason::TimedOut);
        let dispatch = Dispatch::of(task, flight);
        output.effects.push(Effect::Stop(dispatch, StopReason::TimedOut));
        output.events.push(Event::Task(task));
    }
}
