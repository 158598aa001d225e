//! Which ready task goes to which worker.

use std::collections::{BTreeMap, BTreeSet};

use super::expression;
use crate::command::{AssignTask, FailTask};
use crate::{Command, State, TaskId, Worker, WorkerId};

/// Assignments decided at once: what fits into one entry with room for their templates.
pub const ASSIGNMENTS_MAX: usize = 500;

/// Ready tasks looked at for those assignments. Beyond it, tasks that no worker fits can
/// hold up others, but a scan never holds up the leader.
const SCANNED_MAX: usize = 10_000;

/// Assigns ready tasks, the longest waiting first, each to the worker with the most free
/// slots of those that have its labels. Workers that are not `connected` get nothing: their
/// lease may still run, but they could not be told.
#[must_use]
pub fn assignments(state: &State, connected: &BTreeSet<WorkerId>) -> Vec<Command> {
    let mut free: BTreeMap<WorkerId, usize> = connected
        .iter()
        .filter_map(|&id| Some((id, state.workers().get(&id)?.slots_free())))
        .filter(|&(_, slots)| slots > 0)
        .collect();
    let mut commands = Vec::new();
    for task in state.ready().take(SCANNED_MAX) {
        if free.is_empty() || commands.len() >= ASSIGNMENTS_MAX {
            break;
        }
        let Some(worker) = pick(state, &free, task) else { continue };
        commands.push(command(state, task, worker));
        if let Some(slots) = free.get_mut(&worker) {
            *slots -= 1;
            if *slots == 0 {
                free.remove(&worker);
            }
        }
    }
    commands
}

fn pick(state: &State, free: &BTreeMap<WorkerId, usize>, task: TaskId) -> Option<WorkerId> {
    let wanted = &state.task_definition(task).ok()?.runs_on;
    let fits = |id: &WorkerId| state.workers().get(id).is_some_and(|w| w.has_labels(wanted));
    let fitting = free.iter().filter(|(id, _)| fits(id));
    // Of equals the one with the least load, then the oldest: the order is the same every time.
    fitting
        .max_by_key(|&(&id, &slots)| {
            let running = state.workers().get(&id).map_or(0, |worker| worker.running.len());
            (slots, std::cmp::Reverse(running), std::cmp::Reverse(id))
        })
        .map(|(&id, _)| id)
}

fn command(state: &State, task: TaskId, worker: WorkerId) -> Command {
    match expression::render_task(state, task) {
        Ok(rendered) => {
            let epoch = state.workers().get(&worker).map_or_else(Default::default, Worker::epoch);
            Command::AssignTask(AssignTask { task, worker, epoch, rendered })
        }
        Err(error) => Command::FailTask(FailTask { task, reason: error.to_string() }),
    }
}
