//! The examples, each run on a real node, with what becomes of their tasks.

use serde_json::Value;

use super::user::{Server, User, one_at_a_time};

/// Submits an example, and compares how its run and its tasks end: `task state` in order.
#[track_caller]
fn ends(user: &User, line: &str, code: i32, expected: &str) {
    user.types(&format!("quorate submit examples/{line} --wait")).exits(code);
    let listed = user.types("quorate ls tasks @last -o json").exits(0).out;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let tasks = listed["items"].as_array().or(listed.as_array()).expect("a list of tasks");
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found: Vec<String> = tasks
        .iter()
        .map(|task| format!("{} {}", word(&task["id"]), word(&task["state"])))
        .collect();
    assert_eq!(found.join(", "), expected, "{line}");
}

#[test]
fn branches_are_taken_by_what_was_found() {
    let _gate = one_at_a_time();
    let mut user = User::new();
    let _server = Server::start(&mut user);
    ends(
        &user,
        "branches.quorate.yaml",
        0,
        "count succeeded, route succeeded, load_in_parts skipped, load succeeded, say_so skipped, \
         report succeeded, alarm skipped",
    );
    user.types("quorate ls tasks @last").exits(0).prints("took load");
    user.types("quorate ls tasks @last").exits(0).prints("params.rows > 100000");
    ends(
        &user,
        "branches.quorate.yaml -p rows=0",
        0,
        "count succeeded, route succeeded, load_in_parts skipped, load skipped, say_so succeeded, \
         report skipped, alarm skipped",
    );
    ends(
        &user,
        "branches.quorate.yaml -p rows=200000",
        0,
        "count succeeded, route succeeded, load_in_parts succeeded, load skipped, say_so skipped, \
         report succeeded, alarm succeeded",
    );
}

#[test]
fn failures_that_are_provided_for_do_not_fail_the_run() {
    let _gate = one_at_a_time();
    let mut user = User::new();
    let _server = Server::start(&mut user);
    ends(
        &user,
        "failures.quorate.yaml",
        0,
        "ping failed, fetch failed, fetched succeeded, use skipped, mirror succeeded, \
         old_way skipped, done succeeded",
    );
    user.types("quorate ls tasks @last").exits(0).prints("(handled)").prints("disabled");
    ends(
        &user,
        "failures.quorate.yaml -p exit_code=0",
        0,
        "ping failed, fetch succeeded, fetched succeeded, use succeeded, mirror skipped, \
         old_way skipped, done succeeded",
    );
}
