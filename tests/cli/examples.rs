//! The examples, each run on a real node, with what becomes of their tasks.

use serde_json::Value;

use super::user::{Server, User, one_at_a_time, until};

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

#[test]
fn a_person_is_asked_and_answers() {
    let _gate = one_at_a_time();
    let mut user = User::new();
    let _server = Server::start(&mut user);
    let question = |user: &User| user.types("quorate get task/@last/sign_off -o json").exits(0).out;
    let asks = |user: &User| {
        until("the run asks", || question(user).contains("\"asking\"").then_some(()));
        assert!(question(user).contains("Print the report on sales?"), "{}", question(user));
    };
    user.types("quorate submit examples/approval.quorate.yaml").exits(0);
    asks(&user);
    user.types("quorate approve @last print").exits(7).says("asks nobody");
    user.types("quorate approve @last sign_off -i copies=many").exits(1).says("copies");
    user.types("quorate approve @last sign_off -i copies=2 -m fine").exits(0);
    user.types("quorate wait @last").exits(0);
    user.types("quorate logs @last print").exits(0).prints("2 copies, none");
    user.types("quorate approve @last sign_off").exits(7);

    user.types("quorate submit examples/approval.quorate.yaml").exits(0);
    asks(&user);
    user.types("quorate reject @last sign_off -m later").exits(0);
    user.types("quorate wait @last").exits(3);
    assert!(question(&user).contains("later"), "{}", question(&user));
}

#[test]
fn hooks_come_with_the_end() {
    let _gate = one_at_a_time();
    let mut user = User::new();
    let _server = Server::start(&mut user);
    ends(
        &user,
        "hooks.quorate.yaml",
        0,
        "work succeeded, hook_start succeeded, hook_failure skipped, hook_finally succeeded",
    );
    ends(
        &user,
        "hooks.quorate.yaml -p exit_code=3",
        3,
        "work failed, hook_start succeeded, hook_failure succeeded, hook_finally succeeded",
    );
    user.types("quorate logs @last hook_failure").exits(0).prints("work is failed");
}
