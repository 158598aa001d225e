//! Workflows by chance.

use quorate_model::DurationMs;
use quorate_model::workflow::{Definition, OnLost, TriggerRule};

use crate::dice::Dice;
use crate::notation;

const RULES: [TriggerRule; 6] = [
    TriggerRule::AllSuccess,
    TriggerRule::AllDone,
    TriggerRule::OneSuccess,
    TriggerRule::OneFailed,
    TriggerRule::NoneFailed,
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
        task
    });
    let mut definition = notation::of_tasks(tasks.collect());
    definition.timeout = dice.percent(20).then(|| DurationMs(500 + dice.below(10_000)));
    definition
}
