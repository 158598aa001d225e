//! Workflows by chance.

use quorate_model::DurationMs;
use quorate_model::workflow::{
    Action, Arm, Definition, Hook, OnFailure, OnLost, Switch, TaskDefinition, TriggerRule,
};

use crate::dice::Dice;
use crate::notation;

const RULES: [TriggerRule; 8] = [
    TriggerRule::AllSuccess,
    TriggerRule::AllDone,
    TriggerRule::OneSuccess,
    TriggerRule::OneFailed,
    TriggerRule::AllFailed,
    TriggerRule::NoneFailed,
    TriggerRule::NoneFailedMinOneSuccess,
    TriggerRule::Always,
];

/// A workflow of up to eight tasks with edges, rules, retries and timeouts of any kind.
pub(crate) fn any(dice: &mut Dice) -> Definition {
    let count = 1 + dice.below(8);
    let tasks = (0..count).map(|position| {
        let needs = (0..position).filter(|_| dice.percent(40));
        let needs = needs.map(|need| u32::try_from(need).expect("a handful")).collect();
        let mut task = notation::task(&format!("t{position}"), needs).expect("a name");
        if dice.percent(60) {
            task.trigger_rule = *dice.pick(&RULES);
        }
        task.retry.limit = u32::try_from(dice.below(3)).expect("a handful");
        task.retry.delay = DurationMs(dice.below(3) * 100);
        task.timeout = dice.percent(30).then(|| DurationMs(200 + dice.below(2_000)));
        task.on_lost = *dice.pick(&[OnLost::Retry, OnLost::Retry, OnLost::Fail, OnLost::Hold]);
        if dice.percent(10) {
            task.runs_on = [(notation::name("gpu"), "yes".to_owned())].into();
        }
        steer(dice, &mut task);
        task
    });
    let mut tasks: Vec<TaskDefinition> = tasks.collect();
    if dice.percent(30) {
        add_switch(dice, &mut tasks);
    }
    for hook in [Hook::Start, Hook::Failure, Hook::Finally] {
        if dice.percent(10) {
            let id = format!("hook{}", tasks.len());
            let task = notation::task(&id, Vec::new()).expect("a name");
            tasks.push(TaskDefinition { hook: Some(hook), ..task });
        }
    }
    let mut definition = notation::of_tasks(tasks);
    if dice.percent(20) {
        definition.on_failure = OnFailure::Stop;
    }
    definition.deadline = dice.percent(20).then(|| DurationMs(dice.below(2_000)));
    definition.timeout = dice.percent(20).then(|| DurationMs(500 + dice.below(10_000)));
    definition
}

/// Makes some tasks depend on more than the rule.
fn steer(dice: &mut Dice, task: &mut TaskDefinition) {
    let conditions = ["true", "false", "run.id == ''", "nothing.at_all"];
    if dice.percent(15) {
        task.when = Some((*dice.pick(&conditions)).to_owned());
    }
    if dice.percent(10) {
        task.action = Action::Noop;
    }
    if dice.percent(10) {
        let line = *dice.pick(&["a:ask=well?", "a:ask=well?/300", "a:ask=well?/300/approve"]);
        let asks = notation::workflow(line).expect("a workflow");
        task.action = asks.tasks[0].action.clone();
    }
    if dice.percent(20) && !task.needs.is_empty() {
        task.judges = vec![task.needs[0]];
    }
    task.delay = DurationMs(if dice.percent(10) { dice.below(500) } else { 0 });
    task.deadline = dice.percent(10).then(|| DurationMs(dice.below(500)));
    task.disabled = dice.percent(10);
    task.continue_on_failure = dice.percent(10);
}

/// Makes the first task a switch over those that need it.
fn add_switch(dice: &mut Dice, tasks: &mut [TaskDefinition]) {
    let patient = |task: &TaskDefinition| task.trigger_rule != TriggerRule::Always;
    let targets = tasks.iter().zip(0u32..).filter(|(task, _)| task.needs.contains(&0));
    let targets: Vec<u32> =
        targets.filter(|(task, _)| patient(task)).map(|(_, position)| position).collect();
    let (then, otherwise) = targets.iter().partition(|_| dice.percent(50));
    let when = (*dice.pick(&["true", "false"])).to_owned();
    tasks[0].action = Action::Switch(Switch { arms: vec![Arm { when, then }], otherwise });
}
