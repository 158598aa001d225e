//! Tasks of a run and their attempts.

use std::fmt;
use std::str::FromStr;

use quorate_model::workflow::TaskDefinition;
use quorate_model::{Attempt, LogIndex, Retired, RunId, Task, TaskId};
use serde::Deserialize;

use super::run;
use crate::answer::{Answered, At, found};
use crate::edge::Edge;
use crate::error::{Code, Failure};
use crate::feed::Topic;
use crate::request::Call;
use crate::view::{AttemptView, TaskView};
use crate::wait::READ;

/// `GET /v1/runs/{run}/tasks`: in the order of the workflow.
pub(super) async fn list(At(id): At<RunId>, call: Call) -> Answered {
    let query = call.query(&["limit", "page_token", READ[0], READ[1], READ[2]])?;
    let (limit, position) = (query.limit()?, query.page_position()?);
    let position =
        position.and_then(|position| Some(u32::from_be_bytes(position.try_into().ok()?)));
    let from = position.map_or(0, |position| position as usize);
    let (index, run) = call.read(query, Topic::Run(id), || run::look(&call.edge, id)).await?;
    let to = run.run.tasks.len().min(from.saturating_add(limit));
    let items = (from..to).filter_map(|position| TaskView::of(&run, position)).collect();
    let end = u32::try_from(to).ok().filter(|_| to < run.run.tasks.len()).map(u32::to_be_bytes);
    let page = query.page::<TaskView>(items, end.as_ref().map(|end| &end[..]));
    Ok(found(index, &page))
}

/// `GET /v1/runs/{run}/tasks/{task}`.
pub(super) async fn get(At((id, task)): At<(RunId, String)>, call: Call) -> Answered {
    let query = call.query(&READ)?;
    let look = || look(&call.edge, id, &task);
    let (index, (run, position)) = call.read(query, Topic::Run(id), look).await?;
    let view = TaskView::of(&run, position).ok_or_else(|| no_such_task(id, &task))?;
    Ok(found(index, &view))
}

/// `GET /v1/runs/{run}/tasks/{task}/attempts/{attempt}`.
pub(super) async fn attempt(
    At((id, task, which)): At<(RunId, String, Which)>,
    call: Call,
) -> Answered {
    let query = call.query(&READ)?;
    let look = || look(&call.edge, id, &task);
    let (index, (run, position)) = call.read(query, Topic::Run(id), look).await?;
    let tried = &run.run.tasks[position];
    let attempt = which.of(tried);
    let view = AttemptView::all(tried).into_iter().find(|view| Some(view.attempt) == attempt);
    let view = view.ok_or_else(|| no_such_attempt(&task, which))?;
    Ok(found(index, &view))
}

/// Which attempt a path names: by its number, or `latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum Which {
    Number(u32),
    Latest,
}

impl Which {
    fn of(self, task: &Task) -> Option<u32> {
        let begun = task.attempts_begun.0;
        let number = match self {
            Self::Number(number) => number,
            Self::Latest => begun,
        };
        (1..=begun).contains(&number).then_some(number)
    }
}

impl FromStr for Which {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        let number = text.parse().map_err(|_| format!("{text:?} is no attempt; say 1 or latest"));
        number.map(Self::Number)
    }
}

impl TryFrom<String> for Which {
    type Error = String;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Latest => f.write_str("latest"),
        }
    }
}

/// An attempt that was begun.
pub(super) fn find_attempt(
    edge: &Edge,
    run: RunId,
    task: &str,
    which: Which,
) -> Result<(TaskId, Attempt), Failure> {
    let (_, (found, position)) = look(edge, run, task)?;
    let attempt = which.of(&found.run.tasks[position]);
    let attempt = attempt.ok_or_else(|| no_such_attempt(task, which))?;
    Ok((TaskId::new(run, position), Attempt(attempt)))
}

/// A task that must be there.
pub(super) fn find(edge: &Edge, run: RunId, task: &str) -> Result<TaskId, Failure> {
    let (_, (_, position)) = look(edge, run, task)?;
    Ok(TaskId::new(run, position))
}

/// A task that must be there, and what its workflow says of it.
pub(super) fn look_up(
    edge: &Edge,
    run: RunId,
    task: &str,
) -> Result<(TaskId, TaskDefinition), Failure> {
    let (_, (found, position)) = look(edge, run, task)?;
    Ok((TaskId::new(run, position), found.definition.tasks[position].clone()))
}

/// A task by its id. The position is within the tasks of the run.
fn look(edge: &Edge, run: RunId, task: &str) -> Result<(LogIndex, (Retired, usize)), Failure> {
    let (index, found) = run::look(edge, run)?;
    let position = found.definition.position(task);
    let position = position.filter(|&position| position < found.run.tasks.len());
    let position = position.ok_or_else(|| no_such_task(run, task))?;
    Ok((index, (found, position)))
}

fn no_such_task(run: RunId, task: &str) -> Failure {
    Failure::new(Code::NoSuchTask, format!("run {run} has no task {task}")).of_run(run)
}

fn no_such_attempt(task: &str, which: Which) -> Failure {
    let detail = match which {
        Which::Latest => format!("task {task} has not been started yet"),
        Which::Number(number) => format!("task {task} has no attempt {number} on record"),
    };
    Failure::new(Code::NoSuchAttempt, detail)
}
