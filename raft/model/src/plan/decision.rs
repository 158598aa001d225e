//! What becomes of tasks that have a condition.

use std::collections::BTreeSet;

use super::expression::{Rendering, TemplateError};
use super::placement::assignments;
use crate::command::{AskPerson, FailTask, PassTask, SkipTask, TakeBranch};
use crate::workflow::{Action, Switch};
use crate::{Command, State, TaskId, WorkerId};

/// Conditions looked at at once: each may cost what a template may.
pub const DECISIONS_MAX: usize = 500;

/// Bytes of a condition that are repeated where it did not hold.
const CONDITION_SHOWN_MAX: usize = 200;

/// All that the leader has to say next: what becomes of the tasks that have a condition, then
/// which ready task goes to which of the `connected` workers.
#[must_use]
pub fn decisions(state: &State, connected: &BTreeSet<WorkerId>) -> Vec<Command> {
    let mut rendering = Rendering::default();
    let tasks = state.deciding().take(DECISIONS_MAX);
    let mut commands: Vec<Command> = tasks
        .map(|task| {
            let reason = |error: TemplateError| error.to_string();
            let failed = |reason| Command::FailTask(FailTask { task, reason });
            decide(state, &mut rendering, task).map_err(reason).unwrap_or_else(failed)
        })
        .collect();
    commands.extend(assignments(state, connected));
    commands
}

fn decide(
    state: &State,
    rendering: &mut Rendering,
    task: TaskId,
) -> Result<Command, TemplateError> {
    let Ok(said) = state.task_definition(task) else {
        return Ok(Command::PassTask(PassTask { task }));
    };
    if let Some(when) = &said.when
        && !rendering.condition(state, task, "when", when)?
    {
        let shown = &when[..when.floor_char_boundary(CONDITION_SHOWN_MAX)];
        let because = format!("its condition does not hold: {shown}");
        return Ok(Command::SkipTask(SkipTask { task, because }));
    }
    Ok(match &said.action {
        Action::Switch(switch) => {
            let arm = first_that_holds(state, rendering, task, switch)?;
            Command::TakeBranch(TakeBranch { task, arm })
        }
        Action::Approval(approval) => {
            let place = "approval.message";
            let question = rendering.text(state, task, place, &approval.message)?;
            Command::AskPerson(AskPerson { task, question })
        }
        Action::Work { .. } | Action::Noop => Command::PassTask(PassTask { task }),
    })
}

fn first_that_holds(
    state: &State,
    rendering: &mut Rendering,
    task: TaskId,
    switch: &Switch,
) -> Result<u32, TemplateError> {
    let mut at = 0;
    for arm in &switch.arms {
        if rendering.condition(state, task, &format!("switch[{at}].when"), &arm.when)? {
            return Ok(at);
        }
        at += 1;
    }
    Ok(at)
}
