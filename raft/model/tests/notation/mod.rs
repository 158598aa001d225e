//! Workflows in a line: `a b<-a c<-a d<-b,c:all_done:retry=2:delay=100`.
//!
//! A task is its id, then its predecessors behind `<-`, then options behind colons: a trigger
//! rule, `retry= delay= backoff= max= timeout= lost=`, or `on=` a label that the worker must have.

use std::collections::BTreeMap;

use quorate_model::workflow::{Action, Definition, OnLost, Retry, TaskDefinition, TriggerRule};
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
            set(&mut task, option)?;
        }
        tasks.push(task);
    }
    Ok(of_tasks(tasks))
}

/// A workflow of these tasks and nothing else.
pub(crate) fn of_tasks(tasks: Vec<TaskDefinition>) -> Definition {
    Definition {
        description: String::new(),
        labels: BTreeMap::new(),
        params: BTreeMap::new(),
        env: BTreeMap::new(),
        timeout: None,
        tasks,
        outputs: BTreeMap::new(),
        source: String::new(),
    }
}

/// A task with defaults for all that is not said.
pub(crate) fn task(id: &str, needs: Vec<u32>) -> Result<TaskDefinition, String> {
    Ok(TaskDefinition {
        id: id.parse().map_err(|error| format!("{error}"))?,
        title: String::new(),
        needs,
        trigger_rule: TriggerRule::AllSuccess,
        action: script("true"),
        env: BTreeMap::new(),
        retry: Retry::default(),
        on_lost: OnLost::default(),
        timeout: None,
        runs_on: BTreeMap::new(),
        artifacts: Vec::new(),
    })
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

fn set(task: &mut TaskDefinition, option: &str) -> Result<(), String> {
    let Some((key, value)) = option.split_once('=') else {
        task.trigger_rule = serde_json::from_value(json!(option)).map_err(|e| e.to_string())?;
        return Ok(());
    };
    let number = || value.parse::<u64>().map_err(|error| format!("{key}: {error}"));
    let small = || u32::try_from(number()?).map_err(|error| format!("{key}: {error}"));
    match key {
        "retry" => task.retry.limit = small()?,
        "delay" => task.retry.delay = DurationMs(number()?),
        "backoff" => task.retry.backoff_permille = small()?,
        "max" => task.retry.max_delay = DurationMs(number()?),
        "timeout" => task.timeout = Some(DurationMs(number()?)),
        "lost" => task.on_lost = serde_json::from_value(json!(value)).map_err(|e| e.to_string())?,
        "on" => task.runs_on = BTreeMap::from([(name(value), "yes".to_owned())]),
        _ => return Err(format!("no option {key}")),
    }
    Ok(())
}
