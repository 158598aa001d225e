//! Which ready task goes to which worker.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::expression::Rendering;
use crate::command::{AssignTask, FailTask};
use crate::{Command, Rendered, State, TaskId, Worker, WorkerId, mutant};

/// Assignments decided at once: what fits into one entry with room for their templates.
pub const ASSIGNMENTS_MAX: usize = 500;

/// Rendered text after which no more is assigned at once, in bytes: the log takes entries of
/// about this size.
const RENDERED_BYTES_ENOUGH: usize = 512 * 1024;

/// Ready tasks looked at for those assignments. Beyond it, tasks that no worker fits can
/// hold up others, but a scan never holds up the leader.
const SCANNED_MAX: usize = 10_000;

/// Assigns ready tasks, the longest waiting first, each to the worker with the most free
/// slots of those that have its labels. Workers that are not `connected` get nothing: their
/// lease may still run, but they could not be told.
pub(super) fn assignments(state: &State, connected: &BTreeSet<WorkerId>) -> Vec<Command> {
    let mut free = Free::new(state, connected);
    let mut rendering = Rendering::default();
    let mut rendered_bytes = 0;
    let mut commands = Vec::new();
    for task in state.ready().take(SCANNED_MAX) {
        let enough = commands.len() >= ASSIGNMENTS_MAX || rendered_bytes >= RENDERED_BYTES_ENOUGH;
        if enough || free.slots.is_empty() {
            break;
        }
        let Some((worker, holder)) = free.pick(state, task) else { continue };
        commands.push(match rendering.task(state, task) {
            Ok(rendered) => {
                free.take(worker);
                rendered_bytes += rendered.as_ref().map_or(0, bytes);
                let epoch = holder.epoch();
                Command::AssignTask(AssignTask { task, worker, epoch, rendered })
            }
            Err(error) => Command::FailTask(FailTask { task, reason: error.to_string() }),
        });
    }
    commands
}

fn bytes(rendered: &Rendered) -> usize {
    let env = rendered.env.iter().map(|(name, value)| name.len() + value.len());
    rendered.params.as_str().len() + env.sum::<usize>()
}

/// Orders workers that are equal otherwise: the oldest first, the same every time.
fn in_order(id: WorkerId) -> u64 {
    if mutant::is("M13") {
        return std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), id);
    }
    id.0
}

/// What is left to give out.
struct Free {
    /// Only workers that have some.
    slots: BTreeMap<WorkerId, usize>,
}

impl Free {
    fn new(state: &State, connected: &BTreeSet<WorkerId>) -> Self {
        let slots = |&id: &WorkerId| Some((id, state.workers().get(&id)?.slots_free()));
        Self { slots: connected.iter().filter_map(slots).filter(|&(_, free)| free > 0).collect() }
    }

    /// The worker that suits a task best, if one suits.
    fn pick<'a>(&self, state: &'a State, task: TaskId) -> Option<(WorkerId, &'a Worker)> {
        let wanted = &state.task_definition(task).ok()?.runs_on;
        let holders = self
            .slots
            .iter()
            .filter_map(|(&id, &slots)| state.workers().get(&id).map(|holder| (slots, id, holder)));
        // Of equals the one with the least load, then the oldest: the order is the same every
        // time.
        holders
            .filter(|(_, _, holder)| holder.has_labels(wanted))
            .max_by_key(|&(slots, id, holder)| {
                (slots, Reverse(holder.running.len()), Reverse(in_order(id)))
            })
            .map(|(_, id, holder)| (id, holder))
    }

    fn take(&mut self, worker: WorkerId) {
        if let Some(slots) = self.slots.get_mut(&worker) {
            *slots -= 1;
            if *slots == 0 {
                self.slots.remove(&worker);
            }
        }
    }
}
