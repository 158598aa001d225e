//! What a transition costs. The bounds are generous, for a debug build on a busy machine: they
//! catch what grows with the size of the DAG and should not. For figures:
//! `cargo test --release -p quorate-model --test performance -- --nocapture --test-threads=1`.
#![allow(clippy::disallowed_methods, reason = "a test may look at the clock, the model may not")]
#![allow(clippy::print_stderr, reason = "the figures are for people")]

mod notation;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use quorate_model::command::{RegisterWorker, ReportTask, StartRun, WorkflowSource};
use quorate_model::workflow::Definition;
use quorate_model::{
    Applied, Command, Containment, Dispatch, DurationMs, Effect, Entry, Json, LogIndex, Outcome,
    Request, RunId, State, Trigger, UnixMs, Usage, plan,
};
use serde_json::json;
use uuid::Uuid;

/// What one transition may take at most, in a debug build among others.
const TRANSITION_MAX: Duration = Duration::from_micros(500);

#[derive(Default)]
struct Bench {
    state: State,
    index: u64,
    transitions: u32,
    applying: Duration,
    planning: Duration,
}

impl Bench {
    fn apply(&mut self, commands: Vec<Command>) -> Applied {
        self.index += 1;
        self.transitions += u32::try_from(commands.len()).expect("a few thousand");
        let requests = commands.into_iter().map(Request::from).collect();
        let begun = Instant::now();
        let proposed_at = UnixMs(self.index);
        let applied = self.state.apply(LogIndex(self.index), Entry { proposed_at, requests });
        self.applying += begun.elapsed();
        applied
    }

    fn start(&mut self, run: u128, definition: Definition) {
        let source = WorkflowSource::Inline { name: notation::name("w"), definition };
        let (run, params) = (RunId(Uuid::from_u128(run)), Json::new(&json!({"day": "monday"})));
        let (labels, trigger) = ([].into(), Trigger::Manual);
        let start = StartRun { run, source, params, labels, trigger, logical_time: UnixMs(0) };
        self.apply(vec![Command::StartRun(Box::new(start))]);
    }

    fn register(&mut self) {
        let (name, lease) = (notation::name("node"), DurationMs(10_000));
        let (last, labels, slots) = (None, [].into(), 10_000);
        let containment = Containment::Pidns;
        let register = RegisterWorker { last, name, labels, slots, containment, lease };
        self.apply(vec![Command::RegisterWorker(register)]);
    }

    /// Plans, assigns and reports until nothing is left.
    fn run_to_the_end(&mut self) {
        let connected: BTreeSet<_> = self.state.workers().keys().copied().collect();
        loop {
            let begun = Instant::now();
            let commands = plan::decisions(&self.state, &connected);
            self.planning += begun.elapsed();
            if commands.is_empty() {
                break;
            }
            let effects = self.apply(commands).effects;
            self.apply(effects.iter().map(report).collect());
        }
        assert!(self.state.runs().values().all(|run| run.has_ended()));
    }

    fn judge(&self, what: &str) {
        let each = self.applying / self.transitions;
        let planned = self.planning / self.transitions;
        eprintln!(
            "{what}: {} transitions, apply {each:?} and plan {planned:?} each",
            self.transitions
        );
        assert!(each < TRANSITION_MAX, "{what}: {each:?} for a transition");
        assert!(planned < TRANSITION_MAX, "{what}: {planned:?} to plan one");
    }
}

fn report(effect: &Effect) -> Command {
    let &(Effect::Start(dispatch) | Effect::Stop(dispatch, _)) = effect;
    let Dispatch { task, attempt, token, worker, epoch } = dispatch;
    let (outcome, usage) = (Outcome::Succeeded { outputs: None }, Usage::default());
    Command::ReportTask(ReportTask { task, attempt, token, worker, epoch, outcome, usage })
}

/// One task, then all but two of `count` side by side, then one.
fn fan(count: u32) -> Definition {
    let task = |at: u32, needs| notation::task(&format!("t{at}"), needs).expect("a name");
    let last = count - 1;
    let middle = (1..last).map(|at| task(at, vec![0]));
    let tasks = std::iter::once(task(0, vec![])).chain(middle);
    notation::of_tasks(tasks.chain([task(last, (1..last).collect())]).collect())
}

/// One task after another.
fn chain(count: u32) -> Definition {
    let task = |at: u32| match at.checked_sub(1) {
        Some(before) => format!("t{at}<-t{before} "),
        None => format!("t{at} "),
    };
    notation::workflow(&(0..count).map(task).collect::<String>()).expect("a chain")
}

#[test]
fn ten_thousand_tasks_out_and_in() {
    let mut bench = Bench::default();
    bench.register();
    bench.start(1, fan(10_000));
    bench.run_to_the_end();
    bench.judge("a fan of 10,000 tasks");
}

#[test]
fn a_thousand_runs_of_ten_tasks() {
    let mut bench = Bench::default();
    bench.register();
    for run in 1..=1_000 {
        bench.start(run, chain(10));
    }
    bench.run_to_the_end();
    bench.judge("1,000 runs of 10 tasks");
}

#[test]
fn ten_thousand_tasks_with_templates() {
    let mut bench = Bench::default();
    let mut definition = fan(10_000);
    for task in &mut definition.tasks {
        task.action = notation::script("echo ${{ params.day }} $HOME");
    }
    bench.register();
    bench.start(1, definition);
    bench.run_to_the_end();
    bench.judge("10,000 tasks with templates");
}

#[test]
fn a_copy_of_the_state_does_not_copy_the_runs() {
    let mut bench = Bench::default();
    bench.register();
    bench.start(1, fan(10_000));
    let begun = Instant::now();
    let copy = bench.state.clone();
    let copying = begun.elapsed();
    eprintln!("a copy of a state with a run of 10,000 tasks: {copying:?}");
    assert!(copying < Duration::from_millis(5), "{copying:?} to copy a state for a snapshot");
    // While the copy is held the first change pays for copying the run, the others do not.
    bench.run_to_the_end();
    bench.judge("a fan of 10,000 tasks while a snapshot is taken");
    drop(copy);
}

/// Every node digests its state now and then, on a core that has better things to do.
#[test]
fn a_digest_of_ten_thousand_tasks_takes_milliseconds() {
    let mut bench = Bench::default();
    bench.register();
    for run in 1..=1_000 {
        bench.start(run, chain(10));
    }
    bench.run_to_the_end();
    let begun = Instant::now();
    let digest = bench.state.hash();
    let digesting = begun.elapsed();
    eprintln!("a digest of a state with 1,000 runs of 10 tasks: {digesting:?}, {digest:016x}");
    assert!(digesting < Duration::from_millis(500), "{digesting:?} to digest a state");
}
