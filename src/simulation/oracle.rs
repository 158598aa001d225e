//! What clients were told, and what may follow from it.
//!
//! A write that failed without doubt never happened. One that timed out may have, or may yet.
//! One that was acknowledged has, for ever, and a repeat of it gets the same answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_model::command::{CancelRun, StartRun, WorkflowSource};
use quorate_model::workflow::{Action, Definition, Retry, TaskDefinition, TriggerRule};
use quorate_model::{
    Command, DurationMs, IdempotencyKey, Json, LogIndex, Request, RunId, State, Trigger, UnixMs,
};
use quorate_raft::{Committed, ProposeError};
use serde_json::json;
use uuid::Uuid;

use super::dice::Dice;

/// Tasks of a run.
const TASKS: std::ops::RangeInclusive<u64> = 1..=4;

/// Runs that are asked for at most: one worker with two slots may be left to do them all.
const RUNS_MAX: usize = 30;

/// How long a task takes, in milliseconds: now and then longer than a lease.
const TASK_MS: [u64; 6] = [1, 20, 200, 900, 2_500, 6_000];

/// What clients know. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Oracle(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    dice: Dice,
    runs: BTreeMap<RunId, Known>,
    violations: Vec<String>,
    counts: Counts,
}

/// What became of questions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) acknowledged: u64,
    pub(super) unknown: u64,
    pub(super) refused: u64,
    pub(super) replayed: u64,
    pub(super) cancels: u64,
}

#[derive(Clone, Debug)]
struct Known {
    request: Request,
    /// Asked, and not answered yet, by so many clients.
    asking: u64,
    /// It may have happened for all that clients know.
    is_in_doubt: bool,
    acknowledged: Option<LogIndex>,
    /// Whether it was said to be new. That may be heard after an answer to a repeat.
    was_new: bool,
}

/// A question that is under way. Dropped without an answer, it is in doubt for ever.
#[derive(Debug)]
pub(super) struct Question {
    oracle: Oracle,
    run: RunId,
    pub(super) request: Request,
    is_answered: bool,
}

impl Drop for Question {
    fn drop(&mut self) {
        if !self.is_answered {
            self.oracle.settle(self.run, |known| known.is_in_doubt = true);
        }
    }
}

impl Oracle {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            dice: Dice::new(seed),
            runs: BTreeMap::new(),
            violations: Vec::new(),
            counts: Counts::default(),
        })))
    }

    /// What a client asks next: mostly something new, at times something again.
    pub(super) fn ask(&self) -> Question {
        let mut inner = self.lock();
        let Inner { dice, runs, .. } = &mut *inner;
        let doubtful = |known: &Known| known.acknowledged.is_none() && known.asking == 0;
        let again: Vec<RunId> = if runs.len() >= RUNS_MAX {
            runs.keys().copied().collect()
        } else if dice.percent(50) {
            runs.iter().filter(|(_, known)| doubtful(known)).map(|(&run, _)| run).collect()
        } else if dice.percent(20) {
            runs.keys().copied().collect()
        } else {
            Vec::new()
        };
        let run = if again.is_empty() {
            let bits = u128::from(dice.roll()) << 64 | u128::from(dice.roll());
            let run = RunId(Uuid::from_u128(bits));
            let request = start_run(run, dice);
            let known = Known {
                request,
                asking: 0,
                is_in_doubt: false,
                acknowledged: None,
                was_new: false,
            };
            runs.insert(run, known);
            run
        } else {
            dice.pick(&again)
        };
        let known = runs.get_mut(&run).expect("it was picked from them");
        known.asking += 1;
        let request = known.request.clone();
        Question { oracle: self.clone(), run, request, is_answered: false }
    }

    /// A run that was acknowledged, to be cancelled.
    pub(super) fn cancel(&self) -> Option<Request> {
        let mut inner = self.lock();
        let Inner { dice, runs, counts, .. } = &mut *inner;
        let known = runs.iter().filter(|(_, known)| known.acknowledged.is_some());
        let known: Vec<RunId> = known.map(|(&run, _)| run).rev().take(20).collect();
        if known.is_empty() || !dice.percent(10) {
            return None;
        }
        counts.cancels += 1;
        let run = dice.pick(&known);
        Some(Command::CancelRun(CancelRun { run, reason: String::new(), by: String::new() }).into())
    }

    /// The runs that must be there for ever.
    pub(super) fn acknowledged(&self) -> Vec<RunId> {
        let inner = self.lock();
        let known = inner.runs.iter().filter(|(_, known)| known.acknowledged.is_some());
        known.map(|(&run, _)| run).collect()
    }

    /// Whether nothing is in a state that it cannot be in.
    pub(super) fn check(&self, state: &State) -> Result<(), String> {
        let inner = self.lock();
        for run in state.runs().keys() {
            let possible = inner.runs.get(run).is_some_and(|known| {
                known.asking > 0 || known.is_in_doubt || known.acknowledged.is_some()
            });
            if !possible {
                return Err(format!("{run} is there, though its submission failed for certain"));
            }
        }
        Ok(())
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().counts
    }

    fn settle(&self, run: RunId, learn: impl FnOnce(&mut Known)) {
        let mut inner = self.lock();
        let known = inner.runs.get_mut(&run).expect("it was asked for");
        known.asking -= 1;
        learn(known);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Question {
    /// Takes in the answer.
    pub(super) fn answered(mut self, answer: Result<Committed, ProposeError>) {
        self.is_answered = true;
        let (oracle, run) = (self.oracle.clone(), self.run);
        let mut violation = None;
        oracle.settle(run, |known| match &answer {
            Ok(Committed { index, answer }) => {
                if let Err(rejection) = &answer.reply {
                    violation = Some(format!("{run} was refused: {rejection}"));
                }
                if known.was_new && !answer.replayed {
                    violation = Some(format!("{run} was acknowledged twice, as new"));
                }
                known.was_new |= !answer.replayed;
                known.acknowledged.get_or_insert(*index);
            }
            Err(ProposeError::Unknown) => known.is_in_doubt = true,
            Err(_) => {}
        });
        let mut inner = oracle.lock();
        inner.violations.extend(violation);
        match answer {
            Ok(Committed { answer, .. }) if answer.replayed => inner.counts.replayed += 1,
            Ok(_) => inner.counts.acknowledged += 1,
            Err(ProposeError::Unknown) => inner.counts.unknown += 1,
            Err(_) => inner.counts.refused += 1,
        }
    }
}

/// A run of a workflow that comes along.
fn start_run(run: RunId, dice: &mut Dice) -> Request {
    let name = "simulated".parse().expect("this is a name");
    let count = u32::try_from(dice.within(TASKS)).expect("they are few");
    let tasks = (0..count).map(|index| task(index, dice)).collect();
    let definition = Definition {
        timeout: dice.percent(5).then(|| DurationMs(dice.within(2_000..=20_000))),
        tasks,
        ..Definition::default()
    };
    let source = WorkflowSource::Inline { name, definition };
    let (params, labels) = (Json::new(&json!({})), BTreeMap::new());
    let start =
        StartRun { run, source, params, labels, trigger: Trigger::Manual, logical_time: UnixMs(0) };
    let key = IdempotencyKey { key: run.to_string(), request_hash: 1 };
    Request { key: Some(key), command: Command::StartRun(Box::new(start)) }
}

fn task(index: u32, dice: &mut Dice) -> TaskDefinition {
    let needs: Vec<u32> = (0..index).filter(|_| dice.percent(40)).collect();
    // How long it takes, how many of its attempts fail, and whether it ends when it is asked to.
    let fails: u64 = dice.pick(&[0, 0, 0, 1, 9]);
    let polite: u64 = dice.within(0..=1);
    let env = [("MS", dice.pick(&TASK_MS)), ("FAILS", fails), ("POLITE", polite)];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_string()));
    let limit = u32::try_from(dice.within(0..=3)).expect("it is small");
    let params = Json::new(&json!({ "run": "true" }));
    let action = Action::Work { kind: "run".parse().expect("this is a name"), params };
    let id = format!("t{index}").parse().expect("this is a name");
    TaskDefinition {
        needs,
        trigger_rule: dice.pick(&[TriggerRule::AllSuccess, TriggerRule::AllDone]),
        env: BTreeMap::from(env),
        retry: Retry { limit, delay: DurationMs(dice.within(0..=2_000)), ..Retry::default() },
        timeout: dice.percent(10).then(|| DurationMs(dice.within(500..=8_000))),
        ..TaskDefinition::new(id, action)
    }
}
