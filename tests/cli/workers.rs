//! Workers: they come and go, are drained and lost.

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
