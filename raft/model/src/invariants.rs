//! What must hold after every entry. Run by every test and by the simulation.

use std::collections::BTreeMap;

use crate::state::State;
use crate::workflow::DefinitionId;
use crate::{Run, RunId, RunStatus, Task, TaskEnd, TaskId, TaskStatus, Timer};

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

    /// The queue holds the ready tasks and nothing else.
    fn check_queue(&self) -> Result<(), String> {
        for &(index, id) in &self.ready {
            let ready = self.task(id).is_ok_and(|task| {
                task.status == TaskStatus::Ready && task.ready.is_some_and(|r| r.index == index)
            });
            ensure(ready, || format!("{id} is in the queue at {index} but not ready"))?;
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

    fn check_run(&self, id: RunId, run: &Run) -> Result<(), String> {
        let open = run.tasks.iter().filter(|task| task.end().is_none()).count();
        ensure(open == run.tasks_open as usize, || format!("run {id} has {open} open tasks"))?;
        ensure((open == 0) == run.has_ended(), || {
            format!("run {id}: {} with {open} open", run.status)
        })?;
        let retires = || self.timers.iter().any(|(_, timer)| *timer == Timer::Retire(id));
        ensure(!run.has_ended() || retires(), || format!("run {id} ended but never retires"))?;
        for (position, task) in run.tasks.iter().enumerate() {
            self.check_task(TaskId::new(id, position), task, run)?;
        }
        Ok(())
    }

    /// Whatever has not ended waits on something that can be named.
    fn check_task(&self, id: TaskId, task: &Task, run: &Run) -> Result<(), String> {
        let stopping = matches!(run.status, RunStatus::Stopping(_));
        let waits = match &task.status {
            TaskStatus::Waiting(_) => !stopping && self.has_open_need(id, run),
            TaskStatus::Ready => {
                let queued = task.ready.is_some_and(|r| self.ready.contains(&(r.index, id)));
                !stopping && queued
            }
            TaskStatus::Running(flight) => {
                let holder = self.workers.get(&flight.worker);
                holder.is_some_and(|worker| worker.running.contains(&id))
                    && (!stopping || flight.stop.is_some())
            }
            TaskStatus::Retrying { at } => {
                !stopping && self.timers.contains(&(*at, Timer::Retry(id)))
            }
            TaskStatus::Ended(_) => task.ended.is_some(),
        };
        ensure(waits, || format!("{id} is {} and nothing will change that", task.status))?;
        let succeeded = task.status == TaskStatus::Ended(TaskEnd::Succeeded);
        ensure(succeeded || task.outputs.is_none(), || format!("{id} has outputs unearned"))?;
        let kept = task.attempts.len() + usize::from(task.flight().is_some());
        let begun = task.attempts_begun.0 as usize;
        ensure(kept <= begun, || format!("{id} has {kept} attempts on record of {begun}"))?;
        let tokens_rise = task.attempts.windows(2).all(|pair| pair[0].token < pair[1].token);
        ensure(tokens_rise, || format!("{id} had a fencing token that did not rise"))
    }

    fn has_open_need(&self, id: TaskId, run: &Run) -> bool {
        let needs = &self.definition(run.definition).tasks[id.position()].needs;
        needs.iter().any(|&need| run.tasks[need as usize].end().is_none())
    }
}

fn ensure(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}
