//! Workers: they come and go, are drained and lost.

use std::io::Write as _;

use crate::user::{Running, Server, User, one_at_a_time, until};

/// A second worker, called `hand`, the only one with a label `gpu`.
fn begin_worker(user: &User, server: &Server) -> Running {
    let folder = user.home.path().join("worker");
    let line = format!(
        "quorate worker --server {} --name hand --slots 2 --label gpu=yes --data {}",
        server.url,
        folder.display()
    );
    user.begins(&line)
}

#[test]
fn a_worker_joins_and_leaves() {
    let _gate = one_at_a_time();
    let mut user = User::new();
    let server = Server::start(&mut user);
    let worker = begin_worker(&user, &server);
    let state = |wanted: &str| {
        let workers = user.types("quorate ls workers --no-headers").exits(0).out;
        let hand = workers.lines().find(|line| line.contains(" hand "))?.to_owned();
        hand.contains(wanted).then_some(())
    };
    until("it is live", || state("live"));
    let there = user.file("there.yaml", "tasks: [{id: a, runs_on: {gpu: yes}, run: echo here}]\n");
    user.types(&format!("quorate submit {there} --wait")).exits(0);
    worker.signal("TERM");
    worker.ends().exits(0);
    until("it is gone", || state("gone"));
}

/// What the task of a run looks like.
fn task(user: &User, id: &str) -> serde_json::Value {
    let got = user.types(&format!("quorate get task/@last/{id} -o json")).exits(0).out;
    serde_json::from_str(&got).unwrap()
}

#[test]
fn what_must_not_happen_twice_is_held_when_its_worker_is_lost() {
    let _gate = one_at_a_time();
    let mut user = User::new();
    let server = Server::start_with(&mut user, &["--lease", "1s"]);
    let worker = begin_worker(&user, &server);
    let ledger = user.home.path().join("ledger");
    let text = format!(
        "tasks:\n  - id: pay\n    runs_on: {{gpu: yes}}\n    on_lost: hold\n    \
         run: echo paid >> {}; sleep 60\n  - {{id: book, needs: pay, run: 'true'}}\n",
        ledger.display()
    );
    let file = user.file("pay.yaml", &text);
    user.types(&format!("quorate submit {file}")).exits(0);
    until("it has begun", || ledger.exists().then_some(()));
    user.types("quorate decide @last pay retry").exits(7);
    worker.signal("KILL");
    until("it is held", || (task(&user, "pay")["held"] == true).then_some(()));
    user.types("quorate ls tasks @last").exits(0).prints("lost").prints("waits for a person");
    user.types("quorate get run/@last").exits(0).prints("running");
    user.types("quorate decide @last pay failed --output-value paid=7").exits(2);
    user.types("quorate decide @last none failed").exits(6);
    user.types("quorate decide @last pay succeeded -m booked --output-value paid=7").exits(0);
    user.types("quorate wait @last").exits(0);
    let pay = task(&user, "pay");
    assert_eq!(pay["decision"]["comment"], "booked");
    assert_eq!(pay["outputs"]["paid"], "7");
    assert_eq!(std::fs::read_to_string(ledger).unwrap(), "paid\n");
}

#[test]
fn a_drained_worker_finishes_what_it_has_and_gets_no_more() {
    let _gate = one_at_a_time();
    let mut user = User::new();
    let server = Server::start(&mut user);
    let worker = begin_worker(&user, &server);
    let (begun, end) = (user.home.path().join("begun"), user.home.path().join("end"));
    let text = format!(
        "tasks:\n  - id: long\n    runs_on: {{gpu: yes}}\n    \
         run: touch {}; until [ -e {} ]; do sleep 0.05; done\n",
        begun.display(),
        end.display()
    );
    let long = user.file("long.yaml", &text);
    let short = user.file("short.yaml", "tasks: [{id: a, runs_on: {gpu: yes}, run: echo here}]\n");
    user.types(&format!("quorate submit {long}")).exits(0);
    until("it has begun", || begun.exists().then_some(()));
    user.types("quorate worker drain hand --reason disk").exits(0).says("1 of its tasks go on");
    user.types("quorate ls workers").exits(0).prints("draining");
    user.types("quorate describe worker/hand").exits(0).prints("drained: disk");
    user.types(&format!("quorate submit {short}")).exits(0);
    until("the short one waits", || (task(&user, "a")["state"] == "queued").then_some(()));
    std::fs::write(end, "").unwrap();
    until("it is drained", || {
        user.types("quorate ls workers").exits(0).out.contains("drained").then_some(())
    });
    assert_eq!(task(&user, "a")["state"], "queued");
    user.types("quorate worker drain nobody").exits(6);
    user.types("quorate worker eligible hand").exits(0);
    user.types("quorate wait @last").exits(0);
    worker.signal("INT");
    worker.ends().exits(0);
}

#[test]
fn what_is_given_to_a_worker_that_stops_goes_elsewhere_at_once() {
    let _gate = one_at_a_time();
    let mut user = User::new();
    let server = Server::start(&mut user);
    let worker = begin_worker(&user, &server);
    let (begun, end) = (user.home.path().join("begun"), user.home.path().join("end"));
    let text = format!(
        "tasks:\n  - id: long\n    runs_on: {{gpu: yes}}\n    \
         run: touch {}; until [ -e {} ]; do sleep 0.05; done\n",
        begun.display(),
        end.display()
    );
    let long = user.file("long.yaml", &text);
    user.types(&format!("quorate submit {long}")).exits(0);
    until("it has begun", || begun.exists().then_some(()));
    worker.signal("INT");
    // Work comes in all the while: whatever crosses the word that the worker stops must not
    // count as lost.
    let many = "tasks:\n".to_owned()
        + &(0..40).map(|at| format!("  - {{id: t{at}, run: 'true'}}\n")).collect::<String>();
    let many = user.file("many.yaml", &many);
    user.types(&format!("quorate submit {many} --wait")).exits(0);
    let got = user.types("quorate ls tasks @last -o json").exits(0).out;
    let page: serde_json::Value = serde_json::from_str(&got).unwrap();
    assert!(page["items"].as_array().unwrap().iter().all(|task| task["losses"] == 0), "{page}");
    until("the log knows", || {
        let all = user.types("quorate ls workers -o wide").exits(0).out;
        all.contains("it is stopping").then_some(())
    });
    std::fs::write(end, "").unwrap();
    worker.ends().exits(0);
    user.types("quorate ls workers").exits(0).prints("gone");
}

/// A library that bends the clock of a program.
fn faketime() -> Option<std::path::PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten();
    let paths = folders.filter_map(|dir| Some(dir.ok()?.path().join("faketime/libfaketime.so.1")));
    let found = paths.into_iter().find(|path| path.is_file());
    if found.is_none() {
        let is_compulsory = std::env::var_os("QUORATE_TESTS_COMPULSORY").is_some();
        assert!(!is_compulsory, "libfaketime is not installed");
        // Past the test runner, which keeps what a test that passes prints to itself.
        drop(std::io::stderr().write_all(b"skipped: libfaketime is not installed\n"));
    }
    found
}

#[test]
fn a_worker_whose_clock_is_off_by_two_percent_is_quarantined_and_a_good_one_is_not() {
    let Some(library) = faketime() else { return };
    let _gate = one_at_a_time();
    let mut user = User::new();
    let server = Server::start(&mut user);
    let folder = user.home.path().join("worker");
    let line = format!("quorate worker --server {} --name fast --data", server.url);
    let mut command = user.command(&line);
    command.arg(folder).env("LD_PRELOAD", library).env("FAKETIME", "+0 x1.02");
    let worker = Running::of(&mut command);
    let state = |name: &str| {
        let workers = user.types("quorate ls workers --no-headers").exits(0).out;
        workers.lines().find(|line| line.contains(&format!(" {name} "))).map(str::to_owned)
    };
    until("it is quarantined", || state("fast").filter(|line| line.contains("quarantined")));
    user.types("quorate describe worker/fast").exits(0).prints("its clock is off by +");
    assert!(state("dev").is_some_and(|line| line.contains("live")), "the server's own is good");
    user.types("quorate worker eligible fast").exits(0).says("still is given nothing");
    worker.signal("INT");
    worker.ends().exits(0);
}
