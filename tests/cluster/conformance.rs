//! The cases in `tests/conformance`: a workflow each, with what it comes to in its first lines.
//!
//! A case says `#= run STATE`, and `#= TASK STATE` for each task. All of them run on one node,
//! and again on three, with leaders killed while they run: what they come to is the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Cluster, Options, Request};

/// How often a leader dies while the cases run.
const KILLS: usize = 2;

struct Case {
    name: String,
    text: String,
    run: String,
    tasks: BTreeMap<String, String>,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path());
    let cases: Vec<Case> = files.map(|file| case(&file)).collect();
    assert!(cases.len() >= 14, "the cases are where they are looked for");
    cases
}

fn case(file: &Path) -> Case {
    let text = fs::read_to_string(file).expect("a text");
    let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
    let said = text.lines().filter_map(|line| line.strip_prefix("#= "));
    let said = said.map(|line| line.split_once(' ').expect("a name and a state"));
    let mut tasks: BTreeMap<String, String> =
        said.map(|(of, state)| (of.to_owned(), state.to_owned())).collect();
    let run = tasks.remove("run").unwrap_or_else(|| panic!("{name} does not say how it ends"));
    Case { name, text, run, tasks }
}

fn submit(cluster: &Cluster, case: &Case) -> String {
    let request = Request::post("/v1/runs").header("idempotency-key", &case.name).yaml(&case.text);
    let response = cluster.client.ask(&request);
    assert!(response.is_ok(), "{}: {} {}", case.name, response.status, response.text());
    response.json()["id"].as_str().expect("a run has an id").to_owned()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// What a run has come to that is not what its case says.
fn differences(cluster: &Cluster, case: &Case, run: &str) -> Vec<String> {
    let end = cluster.client.await_end(run);
    let tasks = cluster.client.list(&format!("/v1/runs/{run}/tasks"));
    let found: BTreeMap<String, String> =
        tasks.iter().map(|task| (text(&task["id"]), text(&task["state"]))).collect();
    let mut wrong = Vec::new();
    if (&end, &found) != (&case.run, &case.tasks) {
        let expected = (&case.run, &case.tasks);
        wrong.push(format!("{}: {end} {found:?}, not {expected:?}", case.name));
    }
    // What ended has an end: nothing is left hanging when the run is over.
    let open = tasks.iter().filter(|task| !task["ended_at"].is_string());
    wrong.extend(open.map(|task| format!("{}: {} has no end", case.name, task["id"])));
    wrong
}

#[track_caller]
fn assert_conform(cluster: &Cluster, cases: &[Case], runs: &[String]) {
    let pairs = cases.iter().zip(runs);
    let wrong: Vec<String> =
        pairs.flat_map(|(case, run)| differences(cluster, case, run)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_case_comes_to_what_it_says() {
    let cluster = Cluster::start(1, &Options::default());
    let cases = cases();
    let runs: Vec<String> = cases.iter().map(|case| submit(&cluster, case)).collect();
    assert_conform(&cluster, &cases, &runs);
}

/// No task's own worker dies, so that a run comes to the same whatever it was about to do.
#[test]
fn each_case_comes_to_the_same_with_leaders_killed_in_the_middle() {
    let options = Options { lease: "6s", workers: false, ..Options::default() };
    let mut cluster = Cluster::start(3, &options);
    cluster.start_worker("far", &["--slots", "8"]);
    let cases = cases();
    let mut runs = Vec::new();
    // The last of them is submitted, and the leader is gone: most have hardly begun.
    for half in cases.chunks(cases.len().div_ceil(KILLS)) {
        runs.extend(half.iter().map(|case| submit(&cluster, case)));
        let old = cluster.await_leader();
        cluster.nodes[old].kill();
        cluster.await_leader_but(old);
        let open = cluster.client.list("/v1/runs?state=running").len();
        assert!(open > 0, "the leader died when all was over");
        cluster.nodes[old].restart();
        cluster.await_voters(3);
    }
    assert_conform(&cluster, &cases, &runs);
}
