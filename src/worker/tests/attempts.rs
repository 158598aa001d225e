//! What an attempt is given, and what is kept of it.

use std::fs;

use quorate_api::backend::{ReadError, ReadFrom};
use quorate_model::{Dispatch, Json, Outcome};
use serde_json::json;

use super::fixture::*;

async fn outcome_of(line: &mut Line, script: &str, token: u64) -> Outcome {
    line.start(task(dispatch(0, 1, token), script)).await;
    line.outcome().await
}

fn reason(outcome: Outcome) -> String {
    let Outcome::Broken { reason } = outcome else { panic!("not broken: {outcome:?}") };
    reason
}

async fn log(line: &mut Line, dispatch: Dispatch) -> Vec<String> {
    let chunk = line.read(log_of(dispatch, ReadFrom::Offset(0), 0)).await.unwrap();
    let text = String::from_utf8(chunk.bytes).unwrap();
    text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

#[tokio::test]
async fn tells_codes_and_signals_apart() {
    let (_world, mut line) = World::registered(LONG).await;
    assert_eq!(outcome_of(&mut line, "exit 75", 11).await, Outcome::Exited { code: 75 });
    assert_eq!(outcome_of(&mut line, "kill -9 $$", 12).await, Outcome::Signalled { signal: 9 });
    assert_eq!(outcome_of(&mut line, "false | true", 13).await, Outcome::Exited { code: 1 });
    assert_eq!(outcome_of(&mut line, "echo $nothing", 14).await, Outcome::Exited { code: 1 });
}

#[tokio::test]
async fn has_a_directory_and_an_environment_of_its_own() {
    let (world, mut line) = World::registered(LONG).await;
    let at = dispatch(3, 2, 11);
    let mut start = task(at, "pwd; env | sort; ls -A; echo x > left; mkdir sub");
    start.env.insert("GREETING".to_owned(), "hello world".to_owned());
    line.start(start).await;
    assert_eq!(line.outcome().await, Outcome::Succeeded { outputs: None });
    let log = log(&mut line, at).await;
    let place = world.worker_dir().canonicalize().unwrap().join("workspaces/0");
    assert_eq!(log[0], format!("stdout F {}", place.join("work").display()));
    let names: Vec<_> =
        log[1..].iter().map(|line| line["stdout F ".len()..].split('=').next().unwrap()).collect();
    for name in names {
        let expected = name.starts_with("QUORATE_")
            || ["GREETING", "PATH", "HOME", "LANG", "TZ", "TMPDIR"].contains(&name)
            || ["PWD", "OLDPWD", "SHLVL", "_"].contains(&name);
        assert!(expected, "{name} leaks into tasks");
    }
    for line in [
        "GREETING=hello world",
        "QUORATE_ATTEMPT=2",
        "QUORATE_FENCING_TOKEN=11",
        "QUORATE_TASK=t3",
        "QUORATE_WORKFLOW=etl",
        &format!("QUORATE_IDEMPOTENCY_KEY={}/t3", at.task.run),
        &format!("QUORATE_OUTPUT={}", place.join("output").display()),
    ] {
        assert!(log.contains(&format!("stdout F {line}")), "{line} is missing in {log:?}");
    }
    let is_empty = |mut entries: std::fs::ReadDir| entries.next().is_none();
    until("the work is cleared", || std::fs::read_dir(place.join("work")).is_ok_and(is_empty))
        .await;
}

#[tokio::test]
async fn outputs_come_from_the_file_and_from_stdout() {
    let (_world, mut line) = World::registered(LONG).await;
    let script = "echo rows=5 >> $QUORATE_OUTPUT; echo '::output state=fine'";
    let outputs = Json::new(&json!({ "rows": "5", "state": "fine" }));
    let outcome = outcome_of(&mut line, script, 11).await;
    assert_eq!(outcome, Outcome::Succeeded { outputs: Some(outputs) });
    let script = "head -c 70000 /dev/zero | tr '\\0' x | sed 's/^/k=/' > $QUORATE_OUTPUT";
    assert!(reason(outcome_of(&mut line, script, 12).await).contains("64 KiB"));
    let script = "echo nonsense > $QUORATE_OUTPUT; exit 4";
    assert_eq!(outcome_of(&mut line, script, 13).await, Outcome::Exited { code: 4 });
}

#[tokio::test]
async fn artifacts_are_kept_and_read() {
    let (_world, mut line) = World::registered(LONG).await;
    let at = dispatch(0, 1, 11);
    let mut start = task(at, "mkdir out; echo 1,2 > out/a.csv; echo gone > b.csv");
    start.artifacts = vec!["out/a.csv".to_owned()];
    line.start(start.clone()).await;
    assert_eq!(line.outcome().await, Outcome::Succeeded { outputs: None });
    let mut read = log_of(at, ReadFrom::Offset(0), 0);
    read.artifact = Some("out/a.csv".to_owned());
    assert_eq!(line.read(read.clone()).await.unwrap().bytes, b"1,2\n");
    for other in ["b.csv", "../log", "out"] {
        read.artifact = Some(other.to_owned());
        assert!(matches!(line.read(read.clone()).await, Err(ReadError::NotFound(_))), "{other}");
    }

    start.dispatch = dispatch(0, 2, 12);
    start.artifacts = vec!["missing".to_owned()];
    line.start(start.clone()).await;
    assert!(reason(line.outcome().await).contains("\"missing\" does not exist"));
    start.dispatch = dispatch(0, 3, 13);
    start.artifacts = vec!["../output".to_owned()];
    line.start(start).await;
    assert!(reason(line.outcome().await).contains("leads out"));
}

#[tokio::test]
async fn says_why_a_task_cannot_be_started() {
    let (_world, mut line) = World::registered(LONG).await;
    let mut token = 10;
    for (params, word) in [
        (json!({ "run": "true", "shell": "no-such-shell" }), "no program"),
        (json!({ "run": "true", "shell": [] }), "empty list"),
        (json!({ "run": "true", "shell": "./here" }), "absolute path"),
        (json!({ "run": "" }), "0 bytes"),
        (json!({ "run": "a\0b" }), "NUL"),
        (json!({ "script": "true" }), "unknown field"),
        (json!({ "run": "x".repeat(1024 * 1024 + 1) }), "1 MiB"),
        (json!({ "run": "true", "shell": ["sh", "x".repeat(250_000)] }), "KiB is the most"),
    ] {
        token += 1;
        line.start(with_params(dispatch(0, 1, token), &params)).await;
        let reason = reason(line.outcome().await);
        assert!(reason.contains(word), "{word}: {reason}");
    }
    let mut start = task(dispatch(0, 1, 30), "true");
    start.kind = "sql".parse().unwrap();
    line.start(start.clone()).await;
    assert!(reason(line.outcome().await).contains("knows no task kind \"sql\", only run"));
    start = task(dispatch(0, 1, 31), "true");
    start.env.insert("LD_PRELOAD".to_owned(), "x.so".to_owned());
    line.start(start).await;
    assert!(reason(line.outcome().await).contains("LD_PRELOAD"));
}

#[tokio::test]
async fn interpreters_by_name_by_path_and_by_words() {
    let (_world, mut line) = World::registered(LONG).await;
    let long = format!("x={}\necho done", "y".repeat(1_000_000));
    let mut attempt = 0;
    for (params, expected) in [
        (json!({ "run": "echo $0", "shell": "sh" }), "sh"),
        (json!({ "run": "shopt -o pipefail >/dev/null; echo on", "shell": "bash" }), "on"),
        (json!({ "run": "echo yes", "shell": "/bin/sh" }), "yes"),
        (json!({ "run": "BEGIN { print 6 * 7 }", "shell": ["awk", "-f"] }), "42"),
        (json!({ "run": long }), "done"),
    ] {
        attempt += 1;
        let at = dispatch(0, attempt, 10 + u64::from(attempt));
        line.start(with_params(at, &params)).await;
        let outcome = line.outcome().await;
        let log = log(&mut line, at).await;
        assert_eq!(outcome, Outcome::Succeeded { outputs: None }, "{log:?}");
        assert!(log[0].ends_with(expected), "{log:?}");
    }
}

#[tokio::test]
async fn usage_is_measured() {
    let (_world, mut line) = World::registered(LONG).await;
    line.start(task(dispatch(0, 1, 11), "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")).await;
    let usage = line.report().await.1.usage;
    assert!(usage.user_us > 1_000 && usage.memory_kib_max > 500, "{usage:?}");
    assert!(usage.wall.0 * 1_000 + 1_000 >= usage.user_us, "{usage:?}");
}

#[tokio::test]
async fn a_log_is_followed_while_it_grows() {
    let (world, mut line) = World::registered(LONG).await;
    let (at, gate) = (dispatch(0, 1, 11), world.path("gate"));
    let script = format!("echo one; until [ -e {gate} ]; do sleep 0.01; done; echo two >&2");
    line.start(task(at, &script)).await;
    let one = line.read(log_of(at, ReadFrom::Offset(0), 10_000)).await.unwrap();
    assert!(String::from_utf8(one.bytes).unwrap().ends_with(" stdout F one\n"));
    assert!(!one.complete);
    fs::write(gate, "").unwrap();
    let two = line.read(log_of(at, ReadFrom::Offset(one.size), 10_000)).await.unwrap();
    assert!(String::from_utf8(two.bytes).unwrap().ends_with(" stderr F two\n"));
    until("it has ended", || world.worker.as_ref().unwrap().probe().read().running == 0).await;
    let end = line.read(log_of(at, ReadFrom::Offset(two.size), 10_000)).await.unwrap();
    assert!(end.bytes.is_empty() && end.complete);
}

/// A daemon that left its group and its session, but not its environment, is found.
#[tokio::test]
async fn nothing_of_a_task_is_left_when_it_is_reported() {
    let (world, mut line) = World::registered(LONG).await;
    let (token, go) = (token(), world.path("go"));
    let script = format!(
        "sleep {token} & setsid sleep {token} &
         (setsid sh -c 'sleep {token} & exec sleep {token}' & )
         until [ -e {go} ]; do sleep 0.01; done"
    );
    line.start(task(dispatch(0, 1, 11), &script)).await;
    until("all run", || sleepers(&token).len() == 4).await;
    std::fs::write(go, "").unwrap();
    assert_eq!(line.outcome().await, Outcome::Succeeded { outputs: None });
    assert_eq!(sleepers(&token), [0; 0]);
}

/// The short form of ten thousand.
#[tokio::test]
async fn three_hundred_starts_leak_nothing() {
    let (world, mut line) = World::registered(LONG).await;
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let mut before = 0;
    for token in 0..300 {
        line.start(task(dispatch(token, 1, 11 + u64::from(token)), "true")).await;
        assert_eq!(line.outcome().await, Outcome::Succeeded { outputs: None });
        if token == 20 {
            before = open();
        }
    }
    // Other tests come and go in this process; a leak would be of six hundred.
    assert!(open() < before + 200, "{} descriptors, {before} before", open());
    let run = world.worker_dir().join("attempts").join(dispatch(0, 1, 0).task.run.to_string());
    until("no directory is left", || fs::read_dir(&run).unwrap().count() == 0).await;
}
