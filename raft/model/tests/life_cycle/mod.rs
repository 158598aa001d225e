//! The life of a run, against an account of it that shares no code with the model: what each
//! task comes to follows from the graph, the rules and how each try ends, in whatever order the
//! reports come.

mod account;

use std::collections::BTreeSet;

use proptest::prelude::*;
use quorate_model::command::{
    AdvanceClock, CancelRun, RegisterWorker, ReportTask, StartRun, WorkflowSource,
};
use quorate_model::plan::decisions;
use quorate_model::workflow::{Action, Arm, Definition, Hook, Switch, TaskDefinition, TriggerRule};
use quorate_model::{
    Command, Containment, Dispatch, DurationMs, Effect, Json, Outcome, Reply, RunEnd, RunId,
    RunStatus, TaskEnd, TaskStatus, Trigger, UnixMs, Usage,
};
use serde_json::json;
use uuid::Uuid;

use crate::notation;
use crate::replicas::Replicas;
use account::{Account, Deed, Plan, Rule, Seen, Traits};

const RUN: RunId = RunId(Uuid::from_u128(1));

/// With the end that each is for: success, failure, any.
const HOOKS: [Hook; 3] = [Hook::Success, Hook::Failure, Hook::Finally];

/// More steps than any run of these takes: each task, each try, and the waits in between.
const STEPS_MAX: usize = 500;

/// Up to nine tasks with up to three retries each, and how each try ends.
fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let rule = prop::sample::select(Rule::ALL.to_vec());
    let tries = prop::collection::vec(prop::bool::weighted(0.55), 4);
    let task = (any::<u16>(), rule, 0..4_u32, tries, traits());
    prop::collection::vec(task, 1..10).prop_map(|tasks| {
        let tasks = tasks.into_iter().enumerate();
        tasks
            .map(|(at, (edges, rule, retries, tries, traits))| {
                let needs = (0..at).filter(|need| edges >> need & 1 == 1).collect();
                Plan { needs, rule, retries, tries, traits }
            })
            .collect()
    })
}

fn traits() -> impl Strategy<Value = Traits> {
    let deed = prop_oneof![
        6 => Just(Deed::Work),
        1 => Just(Deed::Nothing),
        1 => Just(Deed::Choose { takes_first: true }),
        1 => Just(Deed::Choose { takes_first: false }),
    ];
    let condition = prop_oneof![6 => Just(None), 1 => Just(Some(true)), 1 => Just(Some(false))];
    let rarely = || prop::bool::weighted(0.15);
    let delay_ms = prop_oneof![4 => Just(0_u64), 1 => Just(50)];
    (deed, condition, rarely(), rarely(), any::<bool>(), delay_ms).prop_map(
        |(deed, condition, is_disabled, goes_on, judges, delay_ms)| Traits {
            deed,
            condition,
            is_disabled,
            goes_on,
            judges,
            delay_ms,
        },
    )
}

fn definition(plans: &[Plan]) -> Definition {
    let task = |(at, plan): (usize, &Plan)| {
        let needs =
            plan.needs.iter().map(|&need| u32::try_from(need).expect("a handful")).collect();
        let mut task = notation::task(&format!("t{at}"), needs).expect("a name");
        task.trigger_rule = match plan.rule {
            Rule::AllSuccess => TriggerRule::AllSuccess,
            Rule::AllDone => TriggerRule::AllDone,
            Rule::OneSuccess => TriggerRule::OneSuccess,
            Rule::OneFailed => TriggerRule::OneFailed,
            Rule::AllFailed => TriggerRule::AllFailed,
            Rule::NoneFailed => TriggerRule::NoneFailed,
            Rule::NoneFailedMinOneSuccess => TriggerRule::NoneFailedMinOneSuccess,
            Rule::Always => TriggerRule::Always,
        };
        task.retry.limit = plan.retries;
        task.retry.delay = DurationMs(100);
        task.delay = DurationMs(plan.traits.delay_ms);
        task.when = plan.traits.condition.map(|holds| holds.to_string());
        task.disabled = plan.traits.is_disabled;
        task.continue_on_failure = plan.traits.goes_on;
        if plan.traits.judges {
            task.judges = task.needs.clone();
        }
        match plan.traits.deed {
            Deed::Work => {}
            Deed::Nothing => task.action = Action::Noop,
            Deed::Choose { takes_first } => {
                task.action = Action::Switch(switch(plans, at, takes_first));
            }
        }
        task
    };
    notation::of_tasks(plans.iter().enumerate().map(task).collect())
}

/// The same with hooks behind it.
fn with_hooks(mut definition: Definition) -> Definition {
    for (hook, id) in HOOKS.into_iter().zip(["success", "failure", "finally"]) {
        let task = notation::task(id, Vec::new()).expect("a name");
        definition.tasks.push(TaskDefinition { hook: Some(hook), ..task });
    }
    definition
}

fn switch(plans: &[Plan], at: usize, takes_first: bool) -> Switch {
    let targets = account::targets(plans, at);
    let every_second = |from: usize| {
        let targets = targets.iter().skip(from).step_by(2);
        targets.map(|&target| u32::try_from(target).expect("a handful")).collect()
    };
    let arms = vec![Arm { when: takes_first.to_string(), then: every_second(0) }];
    Switch { arms, otherwise: every_second(1) }
}

/// A cluster of one worker, and a run of the plans.
struct Course<'p> {
    plans: &'p [Plan],
    replicas: Replicas,
    now: u64,
    running: Vec<Dispatch>,
    /// How often each task was started.
    started: Vec<usize>,
}

impl<'p> Course<'p> {
    fn new(plans: &'p [Plan], slots: u32) -> Self {
        Self::of(plans, slots, definition(plans))
    }

    fn of(plans: &'p [Plan], slots: u32, definition: Definition) -> Self {
        let replicas = Replicas::default();
        let started = vec![0; definition.tasks.len()];
        let mut course = Self { plans, replicas, now: 1_000, running: Vec::new(), started };
        let register = RegisterWorker {
            last: None,
            name: notation::name("node"),
            labels: [].into(),
            slots,
            containment: Containment::Pidns,
            lease: DurationMs(10_000),
        };
        course.propose(Command::RegisterWorker(register));
        let source = WorkflowSource::Inline { name: notation::name("w"), definition };
        let (params, labels) = (Json::new(&json!({})), [].into());
        let start = StartRun {
            run: RUN,
            source,
            params,
            labels,
            trigger: Trigger::Manual,
            logical_time: UnixMs(0),
        };
        course.propose(Command::StartRun(Box::new(start)));
        course
    }

    fn propose(&mut self, command: Command) -> Option<Reply> {
        let applied = self.replicas.propose(UnixMs(self.now), vec![command.into()]);
        for effect in &applied.effects {
            if let &Effect::Start(dispatch) = effect {
                self.check_start(dispatch);
                self.started[dispatch.task.position()] += 1;
                self.running.push(dispatch);
            }
        }
        applied.answers.into_iter().next().and_then(|answer| answer.reply.ok())
    }

    /// I3: nothing starts before its rule says so.
    fn check_start(&self, dispatch: Dispatch) {
        let at = dispatch.task.position();
        let ends = self.ends();
        let Some(plan) = self.plans.get(at) else {
            let dag = &ends[..self.plans.len()];
            assert!(dag.iter().all(Option::is_some), "{dispatch} starts too early: {ends:?}");
            return;
        };
        let see = |&need: &usize| Some(account::seen(self.plans, need, at, ends[need]?));
        let needs: Vec<Option<Seen>> = plan.needs.iter().map(see).collect();
        assert!(plan.rule.is_met(&needs), "{dispatch} starts too early: {plan:?} {ends:?}");
    }

    fn ends(&self) -> Vec<Option<TaskEnd>> {
        let end = |status: &TaskStatus| match status {
            TaskStatus::Ended(end) => Some(*end),
            TaskStatus::Waiting(_)
            | TaskStatus::Deciding
            | TaskStatus::Delayed { .. }
            | TaskStatus::Asking { .. }
            | TaskStatus::Ready
            | TaskStatus::Running(_)
            | TaskStatus::Retrying { .. }
            | TaskStatus::Held => None,
        };
        self.replicas.state.runs()[&RUN].tasks.iter().map(|task| end(&task.status)).collect()
    }

    fn status(&self) -> RunStatus {
        self.replicas.state.runs()[&RUN].status.clone()
    }

    fn report(&mut self, dispatch: Dispatch, outcome: Outcome) {
        let Dispatch { task, attempt, token, worker, epoch } = dispatch;
        let usage = Usage::default();
        let report = ReportTask { task, attempt, token, worker, epoch, outcome, usage };
        self.propose(Command::ReportTask(report)).expect("it is the attempt in flight");
    }

    /// One thing happens: work is given out, an attempt ends, or time passes.
    fn step(&mut self, choice: usize) {
        self.now += 1;
        let connected = self.replicas.state.workers().keys().copied().collect::<BTreeSet<_>>();
        loop {
            let commands = decisions(&self.replicas.state, &connected);
            if commands.is_empty() {
                break;
            }
            for command in commands {
                self.propose(command);
            }
        }
        if self.has_ended() {
            return;
        }
        if self.running.is_empty() {
            let next = self.replicas.state.next_deadline();
            self.now = next.expect("whatever has not ended waits for something").0;
            self.propose(Command::AdvanceClock(AdvanceClock {}));
            return;
        }
        let dispatch = self.running.swap_remove(choice % self.running.len());
        let plan = self.plans.get(dispatch.task.position());
        let at = usize::try_from(dispatch.attempt.0 - 1).expect("a handful");
        // A hook fails, for that is to change nothing.
        let outcome = match plan.and_then(|plan| plan.tries.get(at)) {
            Some(true) => Outcome::Succeeded { outputs: None },
            Some(false) | None => Outcome::Exited { code: 1 },
        };
        self.report(dispatch, outcome);
    }

    fn has_ended(&self) -> bool {
        matches!(self.status(), RunStatus::Ended { .. })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_run_comes_to_what_its_graph_and_its_tries_say(
        plans in plans(), slots in 1..5_u32, choices in prop::collection::vec(any::<usize>(), 40),
    ) {
        let mut course = Course::new(&plans, slots);
        let mut choices = choices.iter().cycle();
        for _ in 0..STEPS_MAX {
            if course.has_ended() {
                break;
            }
            course.step(*choices.next().unwrap());
        }
        let Account { ends, starts, succeeds } = Account::of(&plans);
        let found: Vec<TaskEnd> = course.ends().into_iter().map(|end| end.unwrap()).collect();
        prop_assert_eq!(found, ends);
        prop_assert_eq!(&course.started, &starts);
        let RunStatus::Ended { end, .. } = course.status() else { panic!("the run goes on") };
        prop_assert_eq!(end == RunEnd::Succeeded, succeeds);
    }

    #[test]
    fn hooks_come_when_all_is_over_and_change_nothing(
        plans in plans(), slots in 1..5_u32, choices in prop::collection::vec(any::<usize>(), 40),
    ) {
        let mut course = Course::of(&plans, slots, with_hooks(definition(&plans)));
        let mut choices = choices.iter().cycle();
        for _ in 0..STEPS_MAX {
            if course.has_ended() {
                break;
            }
            course.step(*choices.next().unwrap());
        }
        let Account { mut ends, mut starts, succeeds } = Account::of(&plans);
        let came = |came: bool| if came { (TaskEnd::Failed, 1) } else { (TaskEnd::Skipped, 0) };
        for (end, started) in [came(succeeds), came(!succeeds), came(true)] {
            ends.push(end);
            starts.push(started);
        }
        let found: Vec<TaskEnd> = course.ends().into_iter().map(|end| end.unwrap()).collect();
        prop_assert_eq!(found, ends);
        prop_assert_eq!(&course.started, &starts);
        let RunStatus::Ended { end, .. } = course.status() else { panic!("the run goes on") };
        prop_assert_eq!(end == RunEnd::Succeeded, succeeds);
    }

    #[test]
    fn a_cancelled_run_starts_nothing_more_and_keeps_what_had_ended(
        plans in plans(), slots in 1..5_u32, before in 0..12_usize, choice: usize,
    ) {
        let mut course = Course::new(&plans, slots);
        for _ in 0..before {
            if !course.has_ended() {
                course.step(choice);
            }
        }
        let had_ended = course.has_ended();
        let (ends, started) = (course.ends(), course.started.clone());
        let cancel = CancelRun { run: RUN, reason: "no".to_owned(), by: String::new() };
        prop_assert_eq!(course.propose(Command::CancelRun(cancel)).is_some(), !had_ended);
        for dispatch in std::mem::take(&mut course.running) {
            course.report(dispatch, Outcome::Stopped);
        }
        prop_assert!(course.has_ended());
        prop_assert_eq!(&course.started, &started);
        for (before, after) in ends.into_iter().zip(course.ends()) {
            prop_assert_eq!(after, before.or(Some(TaskEnd::Cancelled)));
        }
    }
}
