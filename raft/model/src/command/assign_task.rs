//! Assign a ready task to a worker.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply};
use crate::state::{Output, State, Timer};
use crate::{
    Attempt, Dispatch, Effect, Epoch, Event, FencingToken, Flight, Rendered, TaskId, TaskStatus,
    WorkerId,
};

/// Assigns a ready task to a worker. Proposed by the planner.
///
/// The planner decides; this only checks that the decision still holds. The index of this
/// entry is the fencing token of the attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignTask {
    /// Must be ready.
    pub task: TaskId,
    /// Must hold a lease, be eligible and have a free slot.
    pub worker: WorkerId,
    /// Its present registration.
    pub epoch: Epoch,
    /// What to tell it, where templates were evaluated.
    pub rendered: Option<Rendered>,
}

impl AssignTask {
    pub(super) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        let Self { task, worker, epoch, rendered } = self;
        let mark = state.mark();
        let token = FencingToken(mark.index.0);
        let found = state.task(task)?;
        if found.status != TaskStatus::Ready {
            return Err(Rejection::NotReady { task, status: found.status.to_string() });
        }
        if state.is_paused(task.run) {
            return Err(Rejection::RunPaused { run: task.run });
        }
        if found.attempts.last().is_some_and(|last| last.token >= token) {
            return Err(Rejection::TokenNotNewer { task });
        }
        let attempt = Attempt(found.attempts_begun.0.saturating_add(1));
        let definition = state.task_definition(task)?;
        let (timeout, deadline) = (definition.timeout, definition.deadline);
        let holder = state.live_worker(worker, epoch)?;
        if !holder.is_eligible() {
            return Err(Rejection::Ineligible { worker });
        }
        if holder.slots_free() == 0 {
            return Err(Rejection::NoFreeSlot { worker });
        }
        if !holder.has_labels(&definition.runs_on) {
            return Err(Rejection::LabelsDiffer { worker, task });
        }

        state.unmark_ready(task);
        let assigned_at = mark.at;
        #[rustfmt::skip]
        let flight = Flight { attempt, worker, epoch, token, assigned_at, rendered, stop: None };
        if let Some(at) = flight.overdue_at(timeout) {
            state.set_timer(at, Timer::TaskTimeout(task, attempt));
        }
        if let Some(at) = flight.late_at(deadline) {
            state.set_timer(at, Timer::TaskDeadline(task, attempt));
        }
        let found = state.task_mut(task);
        found.attempts_begun = attempt;
        found.status = TaskStatus::Running(flight);
        state.workers.entry(worker).and_modify(|holder| {
            holder.running.insert(task);
        });
        output.effects.push(Effect::Start(Dispatch { task, attempt, token, worker, epoch }));
        output.events.push(Event::Task(task));
        Ok(Reply::Assigned { attempt, token })
    }
}
