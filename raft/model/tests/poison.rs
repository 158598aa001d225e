//! Entries that nobody should propose. A panic in apply would kill every node, and again on
//! every replay; so whatever an entry says, it is applied or refused.

mod notation;
mod replicas;

use quorate_model::command::{
    AdvanceClock, AssignTask, CancelRun, EndLease, FailTask, MintNodeId, PutWorkflow,
    RegisterWorker, ReportTask, StartRun, WorkflowSource,
};
use quorate_model::workflow::{Definition, validate};
use quorate_model::{
    Answer, Attempt, Command, Containment, DurationMs, Entry, Epoch, FencingToken, IdempotencyKey,
    Json, LeaseEnd, LogIndex, NAME_BYTES_MAX, Name, OUTPUT_BYTES_MAX, Outcome, Rejection, Reply,
    Request, RunId, State, TaskEnd, TaskId, TaskStatus, Trigger, UnixMs, Usage, WorkerId,
};
use replicas::Replicas;
use uuid::Uuid;

const RUN: RunId = RunId(Uuid::from_u128(1));

fn propose(replicas: &mut Replicas, at: u64, command: Command) -> Result<Reply, Rejection> {
    let mut applied = replicas.propose(UnixMs(at), vec![command.into()]);
    applied.answers.pop().map(|Answer { reply, .. }| reply).expect("an answer to each request")
}

fn put(definition: Definition) -> Command {
    let name = notation::name("w");
    Command::PutWorkflow(PutWorkflow { name, definition, expected_version: None })
}

fn start(line: &str) -> Command {
    start_with(RUN, notation::workflow(line).expect("a workflow"), "{}")
}

fn start_with(run: RunId, definition: Definition, params: &str) -> Command {
    let source = WorkflowSource::Inline { name: notation::name("w"), definition };
    let params = Json::new(&serde_json::from_str(params).expect("JSON"));
    let (labels, trigger) = ([].into(), Trigger::Manual);
    Command::StartRun(Box::new(StartRun {
        run,
        source,
        params,
        labels,
        trigger,
        logical_time: UnixMs(0),
    }))
}

fn register(lease: u64) -> Command {
    let (name, lease) = (notation::name("node"), DurationMs(lease));
    let (last, labels, slots) = (None, [].into(), 9);
    let containment = Containment::Pidns;
    Command::RegisterWorker(RegisterWorker { last, name, labels, slots, containment, lease })
}

/// `count` tasks, each of which needs up to `edges` of those before it.
fn wide(count: u32, edges: u32) -> Definition {
    let task = |position: u32| {
        let needs = (position.saturating_sub(edges)..position).collect();
        notation::task(&format!("t{position}"), needs).expect("a name")
    };
    notation::of_tasks((0..count).map(task).collect())
}

#[test]
fn ids_that_never_were_are_refused() {
    let mut replicas = Replicas::default();
    propose(&mut replicas, 0, start("a")).expect("a run");
    for task in [TaskId { run: RUN, index: u32::MAX }, TaskId { run: RunId(Uuid::max()), index: 0 }]
    {
        let (worker, epoch) = (WorkerId(u64::MAX), Epoch(u64::MAX));
        let report = ReportTask {
            task,
            attempt: Attempt(u32::MAX),
            token: FencingToken(u64::MAX),
            worker,
            epoch,
            outcome: Outcome::Exited { code: i32::MIN },
            usage: Usage::default(),
        };
        let commands = [
            Command::AssignTask(AssignTask { task, worker, epoch, rendered: None }),
            Command::FailTask(FailTask { task, reason: String::new() }),
            Command::ReportTask(report),
            Command::EndLease(EndLease { worker, epoch, cause: LeaseEnd::Expired }),
            Command::CancelRun(CancelRun {
                run: RunId(Uuid::nil()),
                reason: String::new(),
                by: String::new(),
            }),
        ];
        for command in commands {
            assert!(propose(&mut replicas, 0, command).is_err());
        }
    }
}

#[test]
fn the_end_of_time_is_a_time() {
    let mut replicas = Replicas::default();
    let line = "a:timeout=18446744073709551615:retry=3:delay=18446744073709551615:backoff=4294967295:max=18446744073709551615";
    propose(&mut replicas, u64::MAX, register(u64::MAX)).expect("a worker");
    let mut definition = notation::workflow(line).expect("a workflow");
    definition.timeout = Some(DurationMs(u64::MAX));
    propose(&mut replicas, u64::MAX, start_with(RUN, definition, "{}")).expect("a run");
    let task = TaskId { run: RUN, index: 0 };
    let (worker, epoch) = (WorkerId(2), Epoch(2));
    let assign = AssignTask { task, worker, epoch, rendered: None };
    propose(&mut replicas, 0, Command::AssignTask(assign)).expect("an assignment");
    propose(&mut replicas, 0, Command::AdvanceClock(AdvanceClock {})).expect("everything is due");
    let lease = EndLease { worker, epoch, cause: LeaseEnd::Expired };
    propose(&mut replicas, 0, Command::EndLease(lease)).expect("the end of a lease");
    for _ in 0..3 {
        propose(&mut replicas, u64::MAX, Command::AdvanceClock(AdvanceClock {})).expect("due");
    }
    assert!(replicas.state.runs().is_empty(), "timed out, cancelled and retired");
    assert_eq!(replicas.state.next_deadline(), None);
    replicas.agree();
}

#[test]
fn the_end_of_the_log_does_not_panic() {
    let mut state = State::default();
    let commands = [register(1), register(1), Command::MintNodeId(MintNodeId {}), start("a")];
    let requests = commands.into_iter().map(Request::from).collect();
    state.apply(LogIndex(u64::MAX), Entry { proposed_at: UnixMs(u64::MAX), requests });
}

#[test]
fn an_empty_entry_only_moves_the_clock() {
    let mut replicas = Replicas::default();
    let applied = replicas.propose(UnixMs(7), Vec::new());
    assert!(applied.answers.is_empty() && applied.effects.is_empty() && applied.events.is_empty());
    assert_eq!((replicas.state.now(), replicas.state.applied()), (UnixMs(7), LogIndex(1)));
}

#[test]
fn names_are_checked_when_they_are_read() {
    for text in ["", ".", "-a", "a/b", "a b", "ä", "a\0", &"a".repeat(129)] {
        let written = bincode::serde::encode_to_vec(text, bincode::config::standard()).unwrap();
        let read =
            bincode::serde::decode_from_slice::<Name, _>(&written, bincode::config::standard());
        assert!(read.is_err(), "{text:?} was read as a name");
        assert!(serde_json::from_value::<Name>(text.into()).is_err(), "{text:?} in JSON");
    }
}

#[test]
fn a_name_has_at_most_128_bytes() {
    assert!("a".repeat(NAME_BYTES_MAX).parse::<Name>().is_ok());
    assert!("a".repeat(NAME_BYTES_MAX + 1).parse::<Name>().is_err());
}

#[test]
fn a_task_has_at_most_a_thousand_retries() {
    let mut replicas = Replicas::default();
    let definition = |limit| notation::workflow(&format!("a:retry={limit}")).expect("a workflow");
    propose(&mut replicas, 0, put(definition(validate::RETRIES_MAX))).expect("as many as may be");
    let limit = validate::RETRIES_MAX + 1;
    let reason = validate::DefinitionError::TooManyRetries { id: notation::name("a"), limit };
    let refused = propose(&mut replicas, 0, put(definition(limit)));
    assert_eq!(refused, Err(Rejection::BadDefinition(reason)));
}

#[test]
fn outputs_take_at_most_64_kib() {
    for (bytes, end) in
        [(OUTPUT_BYTES_MAX, TaskEnd::Succeeded), (OUTPUT_BYTES_MAX + 1, TaskEnd::Failed)]
    {
        let mut replicas = Replicas::default();
        propose(&mut replicas, 0, register(1)).expect("a worker");
        propose(&mut replicas, 0, start("a")).expect("a run");
        let task = TaskId { run: RUN, index: 0 };
        let (worker, epoch) = (WorkerId(2), Epoch(2));
        let assign = AssignTask { task, worker, epoch, rendered: None };
        propose(&mut replicas, 0, Command::AssignTask(assign)).expect("an assignment");
        let frame = serde_json::json!({"n": ""}).to_string().len();
        let outputs = Json::new(&serde_json::json!({"n": "x".repeat(bytes - frame)}));
        assert_eq!(outputs.as_str().len(), bytes);
        let (attempt, token) = (Attempt(1), FencingToken(3));
        let outcome = Outcome::Succeeded { outputs: Some(outputs) };
        let usage = Usage::default();
        let report = ReportTask { task, attempt, token, worker, epoch, outcome, usage };
        propose(&mut replicas, 0, Command::ReportTask(report)).expect("a report is taken");
        let found = &replicas.state.task(task).expect("the run is live").status;
        assert_eq!(*found, TaskStatus::Ended(end), "{bytes} bytes");
    }
}

#[test]
fn a_workflow_has_at_most_ten_thousand_tasks() {
    let mut replicas = Replicas::default();
    let most = u32::try_from(validate::TASKS_MAX).unwrap();
    propose(&mut replicas, 0, put(wide(most, 1))).expect("as many tasks as may be");
    let refused = propose(&mut replicas, 0, put(wide(most + 1, 1)));
    let reason = validate::DefinitionError::TooManyTasks { tasks: u64::from(most) + 1 };
    assert_eq!(refused, Err(Rejection::BadDefinition(reason)));
}

#[test]
fn a_workflow_has_at_most_fifty_thousand_edges() {
    let mut replicas = Replicas::default();
    // The first ten tasks have 0 + 1 + ... + 9 edges, the others ten each.
    let most = 10 + (u32::try_from(validate::EDGES_MAX).unwrap() - 45) / 10;
    let mut definition = wide(most, 10);
    definition.tasks.push(notation::task("last", vec![0, 1, 2, 3, 4]).unwrap());
    let edges = |d: &Definition| d.tasks.iter().map(|task| task.needs.len()).sum::<usize>();
    assert_eq!(edges(&definition), validate::EDGES_MAX);
    propose(&mut replicas, 0, put(definition.clone())).expect("as many edges as may be");
    definition.tasks.push(notation::task("over", vec![0]).unwrap());
    let reason = validate::DefinitionError::TooManyEdges { edges: edges(&definition) as u64 };
    let refused = propose(&mut replicas, 0, put(definition));
    assert_eq!(refused, Err(Rejection::BadDefinition(reason)));
}

#[test]
fn a_cycle_of_ten_thousand_tasks_is_named_in_short() {
    let mut definition = wide(10_000, 1);
    definition.tasks[0].needs = vec![9_999];
    let error = definition.validate().unwrap_err().to_string();
    assert!(error.starts_with("tasks wait for each other: ") && error.contains("..."), "{error}");
    assert!(error.len() < 1_000, "{} bytes", error.len());
}

#[test]
fn json_that_is_none_is_carried_and_not_read() {
    let text = bincode::serde::encode_to_vec("{not json", bincode::config::standard()).unwrap();
    let (params, _): (Json, usize) =
        bincode::serde::decode_from_slice(&text, bincode::config::standard()).unwrap();
    assert_eq!(params.value(), serde_json::Value::Null);
    let mut replicas = Replicas::default();
    let Command::StartRun(mut run) = start("a") else { unreachable!("it starts a run") };
    run.params = params;
    propose(&mut replicas, 0, Command::StartRun(run)).expect("a run");
}

#[test]
fn keys_and_texts_of_any_kind_are_carried() {
    let mut replicas = Replicas::default();
    for key in ["\0", "\u{10ffff}", " ", "'; drop table", &"ä".repeat(127)] {
        let key = Some(IdempotencyKey { key: key.to_owned(), request_hash: u64::MAX });
        let request = Request { key, command: Command::MintNodeId(MintNodeId {}) };
        let applied = replicas.propose(UnixMs(0), vec![request.clone(), request]);
        assert_eq!(applied.answers[0].reply, applied.answers[1].reply);
        assert!(applied.answers[1].replayed);
    }
    propose(&mut replicas, 0, start("a")).expect("a run");
    let reason = "\u{1F980}".repeat(2_000);
    propose(
        &mut replicas,
        0,
        Command::CancelRun(CancelRun { run: RUN, reason, by: String::new() }),
    )
    .expect("cut");
    replicas.agree();
}

#[test]
fn bytes_at_random_are_no_entry_or_one_that_can_be_applied() {
    let mut dice = 1_u64;
    let mut roll = || {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        dice >> 33
    };
    let entry = Entry {
        proposed_at: UnixMs(5),
        requests: vec![start("a b<-a").into(), register(1).into()],
    };
    let good = bincode::serde::encode_to_vec(&entry, bincode::config::standard()).unwrap();
    let mut read = 0;
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..1 + roll() % 3 {
            let at = usize::try_from(roll()).unwrap() % bytes.len();
            bytes[at] = u8::try_from(roll() % 256).unwrap();
        }
        let config = bincode::config::standard().with_limit::<{ 1 << 20 }>();
        if let Ok((entry, _)) = bincode::serde::decode_from_slice::<Entry, _>(&bytes, config) {
            read += 1;
            let mut state = State::default();
            state.apply(LogIndex(1), entry);
            assert_eq!(state.check(), Ok(()));
        }
    }
    assert!(read > 100, "only {read} were entries");
}
