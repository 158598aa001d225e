//! Every rule that a definition must keep.
//!
//! Checked in apply, where a broken rule would hurt every node; the workflow file is checked
//! by the same rules before, with positions, in `quorate-api`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Action, Definition, Graph, TaskDefinition, TriggerRule};
use crate::Name;

/// Tasks in one workflow. A run keeps a record for each in memory while it lives.
pub const TASKS_MAX: usize = 10_000;

/// Edges in one workflow.
pub const EDGES_MAX: usize = 50_000;

/// Bytes of environment for one task, names and values, the workflow's included.
pub const ENV_BYTES_MAX: usize = 64 * 1024;

/// Retries after the first attempt.
pub const RETRIES_MAX: u32 = 1_000;

/// Bytes of one condition. Far beyond what a person can follow.
pub const CONDITION_BYTES_MAX: usize = 16 * 1024;

/// Conditions of one switch.
pub const ARMS_MAX: usize = 256;

/// Cycles are shown up to this many tasks; more do not help to find the mistake.
const CYCLE_SHOWN_MAX: usize = 20;

/// The rule that a definition breaks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum DefinitionError {
    /// There is nothing to do.
    #[error("it has no tasks; add at least one")]
    Empty,
    /// More than [`TASKS_MAX`].
    #[error("it has {tasks} tasks; {TASKS_MAX} is the most: split it into several workflows")]
    TooManyTasks {
        /// How many.
        tasks: u64,
    },
    /// More than [`EDGES_MAX`].
    #[error("it has {edges} dependencies; {EDGES_MAX} is the most: let tasks join in between")]
    TooManyEdges {
        /// How many.
        edges: u64,
    },
    /// Two tasks have one id.
    #[error("two tasks have the id {id}")]
    DuplicateTask {
        /// That id.
        id: Name,
    },
    /// A position in `needs` is beyond the tasks.
    #[error("task {id} needs a task that does not exist")]
    NoSuchNeed {
        /// The task that needs it.
        id: Name,
    },
    /// A task needs the same task twice, or its needs are not in order.
    #[error("task {id} lists a dependency twice or out of order")]
    UnorderedNeeds {
        /// The task.
        id: Name,
    },
    /// Tasks wait for each other.
    #[error("tasks wait for each other: {path}")]
    Cycle {
        /// The ids, each needed by the next, joined by arrows; the first comes again last.
        path: String,
    },
    /// More than [`ENV_BYTES_MAX`].
    #[error("the environment of task {id} takes {bytes} bytes; {ENV_BYTES_MAX} is the most")]
    EnvTooLarge {
        /// The task.
        id: Name,
        /// How many.
        bytes: u64,
    },
    /// A switch names what does not need it, or is out of order.
    #[error("the switch {id} names a task that does not need it, or one twice")]
    BadTarget {
        /// The switch.
        id: Name,
    },
    /// A hook is a part of the DAG, comes twice, or before a task of the DAG.
    #[error("the hook {id} must be work that stands by itself, behind all tasks, and once")]
    BadHook {
        /// Its id.
        id: Name,
    },
    /// A task that a switch may leave out must wait for it.
    #[error("task {id} is chosen by a switch, so its trigger rule cannot be always")]
    ImpatientTarget {
        /// The task.
        id: Name,
    },
    /// More than [`ARMS_MAX`] arms, or a condition of more than [`CONDITION_BYTES_MAX`].
    #[error(
        "task {id} has too many conditions, or one that is too long; \
         {ARMS_MAX} of {CONDITION_BYTES_MAX} bytes is the most"
    )]
    TooManyConditions {
        /// The task.
        id: Name,
    },
    /// More than [`RETRIES_MAX`].
    #[error("task {id} asks for {limit} retries; {RETRIES_MAX} is the most")]
    TooManyRetries {
        /// The task.
        id: Name,
        /// How many.
        limit: u32,
    },
}

impl Definition {
    /// Checks every rule.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), DefinitionError> {
        check_size(&self.tasks)?;
        check_ids(&self.tasks)?;
        let shared = env_bytes(&self.env);
        for task in &self.tasks {
            check_needs(task, self.tasks.len())?;
            check_env(task, shared)?;
            check_retries(task)?;
            check_conditions(task)?;
        }
        check_hooks(&self.tasks)?;
        for (task, at) in self.tasks.iter().zip(0u32..) {
            check_targets(task, at, &self.tasks)?;
        }
        match Graph::cycle(&self.tasks) {
            Some(cycle) => Err(DefinitionError::Cycle { path: self.path(&cycle) }),
            None => Ok(()),
        }
    }

    /// Names the tasks of a cycle.
    fn path(&self, cycle: &[usize]) -> String {
        let id = |&at: &usize| self.tasks[at].id.as_str();
        let mut ids: Vec<&str> = cycle.iter().take(CYCLE_SHOWN_MAX).map(id).collect();
        if cycle.len() > CYCLE_SHOWN_MAX {
            ids.push("...");
        }
        ids.extend(cycle.first().map(id));
        ids.join(" -> ")
    }
}

fn check_size(tasks: &[TaskDefinition]) -> Result<(), DefinitionError> {
    let edges: usize = tasks.iter().map(|task| task.needs.len()).sum();
    if tasks.is_empty() {
        Err(DefinitionError::Empty)
    } else if tasks.len() > TASKS_MAX {
        Err(DefinitionError::TooManyTasks { tasks: tasks.len() as u64 })
    } else if edges > EDGES_MAX {
        Err(DefinitionError::TooManyEdges { edges: edges as u64 })
    } else {
        Ok(())
    }
}

fn check_ids(tasks: &[TaskDefinition]) -> Result<(), DefinitionError> {
    let mut ids: Vec<&Name> = tasks.iter().map(|task| &task.id).collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(DefinitionError::DuplicateTask { id: pair[0].clone() }),
        None => Ok(()),
    }
}

fn check_needs(task: &TaskDefinition, tasks: usize) -> Result<(), DefinitionError> {
    if task.needs.iter().any(|&need| need as usize >= tasks) {
        return Err(DefinitionError::NoSuchNeed { id: task.id.clone() });
    }
    let is_judged = |judged: &u32| task.needs.binary_search(judged).is_ok();
    if !rises(&task.needs) || !rises(&task.judges) || !task.judges.iter().all(is_judged) {
        return Err(DefinitionError::UnorderedNeeds { id: task.id.clone() });
    }
    Ok(())
}

fn rises(positions: &[u32]) -> bool {
    positions.windows(2).all(|pair| pair[0] < pair[1])
}

fn check_conditions(task: &TaskDefinition) -> Result<(), DefinitionError> {
    let arms = task.action.switch().map_or(&[][..], |switch| &switch.arms);
    let question = match &task.action {
        Action::Approval(approval) => Some(&approval.message),
        Action::Work { .. } | Action::Noop | Action::Switch(_) => None,
    };
    let texts = task.when.iter().chain(arms.iter().map(|arm| &arm.when));
    let mut texts = texts.chain(question);
    if arms.len() > ARMS_MAX || texts.any(|text| text.len() > CONDITION_BYTES_MAX) {
        return Err(DefinitionError::TooManyConditions { id: task.id.clone() });
    }
    Ok(())
}

/// Hooks stand behind the DAG, and neither needs the other.
fn check_hooks(tasks: &[TaskDefinition]) -> Result<(), DefinitionError> {
    let first = tasks.iter().position(|task| task.hook.is_some()).unwrap_or(tasks.len());
    let (dag, hooks) = tasks.split_at(first);
    let limit = u32::try_from(first).unwrap_or(u32::MAX);
    let needs_hook = |task: &&TaskDefinition| task.needs.last().is_some_and(|&need| need >= limit);
    if let Some(task) = dag.iter().find(needs_hook) {
        return Err(DefinitionError::BadHook { id: task.id.clone() });
    }
    let mut seen = BTreeSet::new();
    for task in hooks {
        let stands_alone = task.needs.is_empty() && !task.is_conditional();
        let works = matches!(task.action, Action::Work { .. });
        let is_new = task.hook.is_some_and(|hook| seen.insert(hook));
        if !stands_alone || !works || !is_new || dag.is_empty() {
            return Err(DefinitionError::BadHook { id: task.id.clone() });
        }
    }
    Ok(())
}

/// Each target of a switch needs the switch, and waits for what it needs.
fn check_targets(
    task: &TaskDefinition,
    at: u32,
    tasks: &[TaskDefinition],
) -> Result<(), DefinitionError> {
    let Some(switch) = task.action.switch() else { return Ok(()) };
    if !switch.all_targets().all(rises) {
        return Err(DefinitionError::BadTarget { id: task.id.clone() });
    }
    for &target in switch.all_targets().flatten() {
        let found = tasks.get(target as usize);
        let Some(found) = found.filter(|found| found.needs.binary_search(&at).is_ok()) else {
            return Err(DefinitionError::BadTarget { id: task.id.clone() });
        };
        if found.trigger_rule == TriggerRule::Always {
            return Err(DefinitionError::ImpatientTarget { id: found.id.clone() });
        }
    }
    Ok(())
}

fn env_bytes(env: &BTreeMap<String, String>) -> usize {
    env.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// `shared` is what the workflow's environment takes: counted once, for every task has it.
fn check_env(task: &TaskDefinition, shared: usize) -> Result<(), DefinitionError> {
    let bytes = shared + env_bytes(&task.env);
    if bytes > ENV_BYTES_MAX {
        return Err(DefinitionError::EnvTooLarge { id: task.id.clone(), bytes: bytes as u64 });
    }
    Ok(())
}

fn check_retries(task: &TaskDefinition) -> Result<(), DefinitionError> {
    let limit = task.retry.limit;
    if limit > RETRIES_MAX {
        return Err(DefinitionError::TooManyRetries { id: task.id.clone(), limit });
    }
    Ok(())
}
