//! Workflows in a line: `a b<-a c<-a d<-b,c:all_done:retry=2:delay=100`.
//!
//! A task is its id, then its predecessors behind `<-`, then options behind colons: a trigger
//! rule, `retry= delay= backoff= max= jitter= timeout= lost=`, `wait=` before it starts,
//! `late=` its deadline, `try=` the
//! failures that are retried (`exit75,timeout`), `on=` a label that the worker must have,
//! `hook=` a moment of the run, `noop`, `disabled`, `continue`, `when=` a condition, `judges=` predecessors, or
//! `ask=QUESTION` or `ask=QUESTION/TIMEOUT/approve`, with an input `n` of 3, or
//! `switch=x>a,b;y>c;>d`, which takes `a` and `b` if `x` holds, and `d` if nothing does.

use std::collections::BTreeMap;

use quorate_model::workflow::{
    Action, Approval, Arm, Definition, OnTimeout, Param, ParamKind, RetryCause, Rules, Switch,
    TaskDefinition,
};
use quorate_model::{DurationMs, Json, Name};
use serde_json::json;

/// The workflow that a line describes.
pub(crate) fn workflow(line: &str) -> Result<Definition, String> {
    let mut tasks: Vec<TaskDefinition> = Vec::new();
    for item in line.split_whitespace() {
        let mut options = item.split(':');
        let head = options.next().unwrap_or_default();
        let (id, needs) = head.split_once("<-").unwrap_or((head, ""));
        let mut task = task(id, positions(line, needs)?)?;
        for option in options {
            set(line, &mut task, option)?;
        }
        tasks.push(task);
    }
    Ok(of_tasks(tasks))
}

/// A workflow of these tasks and nothing else.
pub(crate) fn of_tasks(tasks: Vec<TaskDefinition>) -> Definition {
    Definition { tasks, ..Definition::default() }
}

/// A task with defaults for all that is not said.
pub(crate) fn task(id: &str, needs: Vec<u32>) -> Result<TaskDefinition, String> {
    let id = id.parse().map_err(|error| format!("{error}"))?;
    Ok(TaskDefinition { needs, ..TaskDefinition::new(id, script("true")) })
}

/// Runs a script.
pub(crate) fn script(text: &str) -> Action {
    Action::Work { kind: name("run"), params: Json::new(&json!({"script": text})) }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect("a name in a test is one")
}

/// Positions of the ids in `needs`, ascending; `@7` is position 7, whether it exists or not,
/// and with such the order is kept.
fn positions(line: &str, needs: &str) -> Result<Vec<u32>, String> {
    let ids: Vec<&str> =
        line.split_whitespace().filter_map(|item| item.split(['<', ':']).next()).collect();
    let wanted = needs.split(',').filter(|need| !need.is_empty());
    let position = |need: &str| match need.strip_prefix('@') {
        Some(raw) => raw.parse().map_err(|_| format!("no position {raw}")),
        None => match ids.iter().position(|id| *id == need) {
            Some(at) => u32::try_from(at).map_err(|error| error.to_string()),
            None => Err(format!("no task {need}")),
        },
    };
    let mut positions: Vec<u32> = wanted.map(position).collect::<Result<_, _>>()?;
    if !needs.contains('@') {
        positions.sort_unstable();
    }
    Ok(positions)
}

fn set(line: &str, task: &mut TaskDefinition, option: &str) -> Result<(), String> {
    let Some((key, value)) = option.split_once('=') else {
        match option {
            "noop" => task.action = Action::Noop,
            "disabled" => task.disabled = true,
            "continue" => task.continue_on_failure = true,
            rule => {
                task.trigger_rule =
                    serde_json::from_value(json!(rule)).map_err(|e| e.to_string())?;
            }
        }
        return Ok(());
    };
    let number = || value.parse::<u64>().map_err(|error| format!("{key}: {error}"));
    let small = || u32::try_from(number()?).map_err(|error| format!("{key}: {error}"));
    match key {
        "retry" => task.retry.limit = small()?,
        "delay" => task.retry.delay = DurationMs(number()?),
        "backoff" => task.retry.backoff_permille = small()?,
        "max" => task.retry.max_delay = DurationMs(number()?),
        "jitter" => task.retry.jitter_permille = small()?,
        "try" => task.retry.on = causes(value)?,
        "wait" => task.delay = DurationMs(number()?),
        "timeout" => task.timeout = Some(DurationMs(number()?)),
        "lost" => task.on_lost = serde_json::from_value(json!(value)).map_err(|e| e.to_string())?,
        "when" => task.when = Some(value.to_owned()),
        "judges" => task.judges = positions(line, value)?,
        "switch" => task.action = Action::Switch(switch(line, value)?),
        "ask" => task.action = Action::Approval(approval(value)?),
        "late" => task.deadline = Some(DurationMs(number()?)),
        "hook" => {
            task.hook = Some(serde_json::from_value(json!(value)).map_err(|e| e.to_string())?);
        }
        "on" => task.runs_on = BTreeMap::from([(name(value), "yes".to_owned())]),
        _ => return Err(format!("no option {key}")),
    }
    Ok(())
}

fn switch(line: &str, text: &str) -> Result<Switch, String> {
    let mut switch = Switch { arms: Vec::new(), otherwise: Vec::new() };
    for arm in text.split(';') {
        let (when, then) = arm.rsplit_once('>').ok_or_else(|| format!("no > in {arm}"))?;
        let then = positions(line, then)?;
        if when.is_empty() {
            switch.otherwise = then;
        } else {
            switch.arms.push(Arm { when: when.to_owned(), then });
        }
    }
    Ok(switch)
}

fn causes(text: &str) -> Result<Vec<RetryCause>, String> {
    let cause = |word: &str| match word {
        "exit" => Ok(RetryCause::Exit),
        "signal" => Ok(RetryCause::Signal),
        "timeout" => Ok(RetryCause::Timeout),
        other => match other.strip_prefix("exit").map(str::parse) {
            Some(Ok(code)) => Ok(RetryCause::ExitCode(code)),
            Some(Err(_)) | None => Err(format!("no cause {other}")),
        },
    };
    text.split(',').map(cause).collect()
}

fn approval(text: &str) -> Result<Approval, String> {
    let mut parts = text.split('/');
    let message = parts.next().unwrap_or_default().to_owned();
    let timeout = parts.next().map(str::parse).transpose().map_err(|e| format!("{text}: {e}"))?;
    let on_timeout =
        if parts.next() == Some("approve") { OnTimeout::Approve } else { OnTimeout::Reject };
    let (kind, default) = (ParamKind::Int, Some(Json::new(&json!(3))));
    let (rules, description) = (Rules::default(), String::new());
    let input = Param { kind, default, rules, description };
    let inputs = [(name("n"), input)].into();
    let timeout = timeout.map(DurationMs);
    Ok(Approval { message, approvers: Vec::new(), inputs, timeout, on_timeout })
}
