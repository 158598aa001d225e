//! The command line, as a user meets it: the built binary, its two streams and its exit code.

#![expect(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

mod control;
mod examples;
mod files;
mod user;
mod workers;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use user::{Server, User, one_at_a_time, until};

/// Compares with a file in `tests/cli`. `UPDATE_GOLDENFILES=1` writes it; read the diff.
#[track_caller]
fn assert_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(name);
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        fs::write(&path, text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(&path).unwrap(), "{name}");
}

#[test]
fn tells_what_it_can_do() {
    let user = User::new();
    let mut all = String::new();
    let verbs = [
        "demo",
        "run",
        "server",
        "worker",
        "submit",
        "apply",
        "validate",
        "init",
        "fmt",
        "diff",
        "graph",
        "schema",
        "ls",
        "get",
        "describe",
        "logs",
        "cancel",
        "pause",
        "resume",
        "decide",
        "approve",
        "reject",
        "wait",
        "cluster",
        "version",
        "completion",
        "help",
    ];
    for verb in verbs {
        let line = format!("quorate help {verb}");
        let help = user.types(&line).exits(0);
        all.push_str(&format!("$ {line}\n{}\n", help.out));
    }
    assert_golden("help.golden", &all);
    user.types("quorate help worker drain").exits(0).prints("--reason");
    user.types("quorate help cluster leader").exits(0).prints("transfer");
    user.types("quorate help exit-codes").exits(0).prints("  3  the run failed\n");
    user.types("quorate help env").exits(0).prints("QUORATE_ADDR");
    user.types("quorate help file").exits(0).prints("\n  trigger_rule ");
    user.types("quorate help nonsense").exits(2).says("topics: exit-codes, env");
    user.types("quorate version").exits(0).prints(env!("CARGO_PKG_VERSION"));
    user.types("quorate completion bash").exits(0).prints("_quorate()");
}

#[test]
fn refuses_what_is_no_command() {
    let user = User::new();
    user.types("quorate sumbit").exits(2).says("submit");
    user.types("quorate ls tasks").exits(2).says("<RUN>");
    user.types("quorate submit x --timeout 3").exits(2).says("3s or 3m");
    user.types("quorate ls --limit 0").exits(2).says("1 to 1000");
    user.types("quorate get everything").exits(2).says("say run/ID");
    user.types("quorate server --lease 5").exits(2).says("10s");
}

#[test]
fn checks_files_without_a_server() {
    let user = User::new();
    user.types("quorate validate examples").exits(0).prints("✓ examples/hello.quorate.yaml: hello");
    user.types("quorate validate nowhere.yaml").exits(1).says("could not read nowhere.yaml");

    let bad = "tests/cli/bad.yaml";
    let text = user.types(&format!("quorate validate {bad}")).exits(1);
    assert_golden("validate.golden", &text.out);
    let json = user.types(&format!("quorate validate {bad} -o json")).exits(1);
    let report: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(report["items"][0]["valid"], false);
    assert_eq!(report["items"][0]["diagnostics"][0]["severity"], "error");
    user.types(&format!("quorate validate {bad} -o github"))
        .exits(1)
        .prints("::error file=tests/cli/bad.yaml,line=");
    let sarif = user.types(&format!("quorate validate {bad} examples -o sarif")).exits(1);
    let sarif: serde_json::Value = serde_json::from_str(&sarif.out).unwrap();
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), 4, "{results:#?}");
    assert_eq!(results[0]["ruleId"], "unknown_key");
    let region = &results[0]["locations"][0]["physicalLocation"]["region"];
    assert_eq!((&region["startLine"], &region["startColumn"]), (&4.into(), &5.into()));
    assert_eq!(results[3]["relatedLocations"][0]["message"]["text"], "first here");
    user.types(&format!("quorate run {bad}")).exits(1).says("bad.yaml:");
}

#[test]
fn says_where_nobody_answers_and_what_to_type() {
    let user = User::new();
    user.types("quorate ls").exits(9).says("quorate server --dev");
    user.types("quorate ls --address nowhere:what").exits(2).says("--address http://HOST:PORT");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let user = User::new();
    let mut command = user.command("quorate completion bash");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn runs_a_file_without_a_server() {
    let _gate = one_at_a_time();
    let user = User::new();
    let hello = user.types("quorate run examples/hello.quorate.yaml").exits(0);
    hello.says("✓ main  succeeded").says("hello succeeded in");

    let artifacts = user.home.path().join("artifacts");
    let line = format!(
        "quorate run examples/etl.quorate.yaml -p minimum=50 --artifacts {}",
        artifacts.display()
    );
    user.types(&line).exits(0).prints("total=184.50\n").prints("revenue.csv  load");
    let saved = fs::read_to_string(artifacts.join("load/revenue.csv")).unwrap();
    assert!(saved.contains(",France,1,120.00"), "{saved}");
    assert_eq!(user.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn a_run_is_about_the_day_that_it_is_told() {
    let _gate = one_at_a_time();
    let user = User::new();
    user.types("quorate run examples/dates.quorate.yaml --logical-time 2028-02-29 -p region=us")
        .exits(0)
        .prints("day=2028/02/29\n")
        .prints("before=2028-02-28\n")
        .prints("week=2028-02-28 to 2028-03-05\n")
        .prints("month=202802\n")
        .prints("month_end=2028-02-29\n")
        .prints("last_year=2027-02-28\n");
    // Half an hour before midnight in UTC it is tomorrow in Paris.
    user.types("quorate run examples/dates.quorate.yaml --logical-time 2026-12-31T23:30:00Z")
        .exits(0)
        .prints("day=2027/01/01\n");
    user.types("quorate run examples/dates.quorate.yaml -p region=uk")
        .exits(1)
        .says("the parameter `region` must be one of eu, us");
    user.types("quorate run examples/dates.quorate.yaml -p day=2027-02-29")
        .exits(2)
        .says("-p day=2026-02-28");
    user.types("quorate run examples/dates.quorate.yaml --logical-time soon")
        .exits(1)
        .says("write 2026-11-20");
}

/// The table in `raft/expression/README.md`.
#[test]
fn the_nearer_word_wins() {
    let _gate = one_at_a_time();
    let user = User::new();
    let text = r#"
params: {of_file: file, given: file, twice: file, made: "${{ params.given }} made"}
env: {OF_ALL: workflow, OF_ONE: workflow, HOME: workflow}
tasks:
  - id: a
    env: {OF_ONE: task}
    run: |
      echo "a=$OF_ALL $OF_ONE $HOME $QUORATE_TASK" >> "$QUORATE_OUTPUT"
outputs:
  params: ${{ params.of_file }}, ${{ params.given }}, ${{ params.twice }}, ${{ params.made }}
  env: ${{ tasks.a.outputs.a }}
"#;
    let file = user.file("words.yaml", text);
    user.types(&format!("quorate run {file} -p given=first -p twice=first -p twice=second"))
        .exits(0)
        .prints("params=file, first, second, first made\n")
        .prints("env=workflow task workflow a\n");
}

#[test]
fn exits_as_the_run_did() {
    let _gate = one_at_a_time();
    let user = User::new();
    let failing = user.file("failing.yaml", "run: echo no luck; exit 7\n");
    user.types(&format!("quorate run {failing}"))
        .exits(3)
        .says("failed #1")
        .says("exit code 7")
        .says("main | no luck");
    let late = user.file("late.yaml", "timeout: 300ms\ntasks: [{id: a, run: exec sleep 60}]\n");
    user.types(&format!("quorate run {late}")).exits(5).says("late timed out");
    let typed = user.file("typed.yaml", "params: {n: {type: int, default: 1}}\nrun: 'true'\n");
    user.types(&format!("quorate run {typed} -p n=one")).exits(2).says("-p n=3");
    user.types(&format!("quorate run {typed} -p m=1")).exits(2).says("no parameter `m`");
    user.types(&format!("quorate run {typed} -- n=4")).exits(0);
    assert_eq!(user.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn cancels_a_run_of_its_own_on_ctrl_c() {
    let _gate = one_at_a_time();
    let user = User::new();
    let flag = user.home.path().join("begun");
    let text = format!("tasks: [{{id: a, run: 'touch {}; exec sleep 60'}}]\n", flag.display());
    let long = user.file("long.yaml", &text);
    let running = user.begins(&format!("quorate run {long}"));
    until("the task begins", || flag.exists().then_some(()));
    running.signal("INT");
    running.ends().exits(4).says("cancelled");
    assert_eq!(user.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn submits_waits_and_tells() {
    let _gate = one_at_a_time();
    let mut user = User::new();
    let server = Server::start(&mut user);
    let run = user
        .types("quorate submit examples/etl.quorate.yaml --wait -l team=x -p minimum=@tests/cli/minimum")
        .exits(0)
        .says("✓ load")
        .word();
    user.types("quorate ls").exits(0).prints(&run).prints("5/5");
    user.types("quorate ps -q -l team=x").exits(0).prints(&run);
    user.types("quorate ls -o name --state succeeded").exits(0).prints(&format!("run/{run}\n"));
    user.types("quorate ls --state failed --no-headers").exits(0).prints("");
    user.types("quorate list workflows").exits(0).prints("Revenue by country");
    user.types("quorate ls workers").exits(0).prints("disk=ssd");
    user.types("quorate ls tasks @last").exits(0).prints("transform");
    user.types("quorate describe").exits(0).prints("total=184.50").prints("revenue.csv");
    user.types(&format!("quorate status run/{run}")).exits(0).prints("minimum=50");
    user.types("quorate logs @last load").exits(0).prints("United States,1,64.50\n");
    user.types("quorate logs @last -f --tail 1").exits(0).prints("check | orders: 184.50");
    user.types("quorate wait @last").exits(0).prints("succeeded");
    user.types("quorate get workflow/etl -o wide").exits(0).prints("team=sales");
    user.types("quorate get worker/dev").exits(0).prints("live");
    user.types("quorate version --server").exits(0).prints("server");
    user.types("quorate cluster status").exits(0).prints("leader");
    user.types("quorate cluster members -q").exits(0).prints("1\n");
    user.types("quorate cluster leader").exits(0).prints("1\n");

    let body = user.types(&format!("quorate get run/{run} -o json")).exits(0).out;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["outputs"]["total"], "184.50");
    user.types("quorate apply -f examples/dates.quorate.yaml").exits(0);
    user.types("quorate describe workflow/dates")
        .exits(0)
        .prints("Europe/Paris")
        .prints(
            "day: date; from 2020-01-01; default ${{ run.logical_time | date }}; The day to load.",
        )
        .prints("region: string; one of eu, us; default eu")
        .prints("report: run, after partitions");
    user.types("quorate submit dates --logical-time 2028-02-29 -w").exits(0);
    user.types("quorate describe").exits(0).prints("2028-02-28T23:00:00.000Z");
    drop(server);
    user.types("quorate ls").exits(9);
}

#[test]
fn refusals_of_the_server_have_codes_and_a_next_step() {
    let _gate = one_at_a_time();
    let mut user = User::new();
    let _server = Server::start(&mut user);
    user.types("quorate describe").exits(6).says("no run was started from here");
    let apply = "quorate apply -f examples/hello.quorate.yaml";
    user.types(apply).exits(0).prints("hello     v1       yes");
    user.types(apply).exits(0).prints("hello     v1       no");
    user.types("quorate submit nothing").exits(6).says("quorate ls workflows");
    user.types("quorate trigger hello --wait").exits(0);
    user.types("quorate stop @last").exits(7).says("has ended");
    user.types("quorate get run/ffff").exits(6).says("quorate ls");
    user.types("quorate logs @last nobody").exits(6).says("quorate ls tasks");
    user.types("quorate cluster remove 7").exits(2).says("--yes");
    user.types("quorate cluster remove 7 --yes").exits(6).says("quorate cluster members");
    user.types("quorate submit hello --version 9").exits(6).says("version 9");
    let again = "quorate submit hello -q --idempotency-key once";
    let first = user.types(again).exits(0).word();
    assert_eq!(user.types(again).exits(0).word(), first);
}

#[test]
fn lets_go_of_a_run_on_ctrl_c_and_comes_back() {
    let _gate = one_at_a_time();
    let mut user = User::new();
    let _server = Server::start(&mut user);
    let flag = user.home.path().join("begun");
    let text =
        format!("name: long\ntasks: [{{id: a, run: 'touch {}; exec sleep 60'}}]\n", flag.display());
    let long = user.file("long.yaml", &text);
    let waiting = user.begins(&format!("quorate submit {long} --wait"));
    until("the task begins", || flag.exists().then_some(()));
    waiting.signal("INT");
    waiting.ends().exits(130).says("to come back: quorate wait");
    user.types("quorate wait @last --timeout 100ms").exits(5).says("still runs");
    user.types("quorate cancel @last --reason enough").exits(0);
    user.types("quorate wait @last").exits(4);
    user.types("quorate describe @last").exits(0).prints("Reason    enough");
}

#[test]
fn reads_a_workflow_from_standard_input() {
    let user = User::new();
    let mut running = user.begins_with("quorate validate -", Stdio::piped());
    let mut stdin = running.child.stdin.take().expect("stdin is a pipe");
    stdin.write_all(b"run: echo hi\n").unwrap();
    drop(stdin);
    running.ends().exits(0).prints("1 tasks");
}

#[test]
fn the_demo_holds_and_leaves_nothing_behind() {
    let _gate = one_at_a_time();
    let user = User::new();
    let demo = user.types("quorate demo").exits(0);
    let demo = demo.says("kill -9 ").says("ms after the kill").says("crates succeeded");
    let demo = demo.prints("# Crates").prints("✓ nothing lost: all 16 tasks succeeded");
    assert!(!demo.out.contains('✗'), "{demo:#?}");
    assert_eq!(user.leftovers(), Vec::<PathBuf>::new());
}
