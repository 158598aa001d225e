//! Nodes come and go, and the work goes on.

use crate::harness::{Cluster, Options, Request, SOON, until};
use crate::tasks::{LONG_THEN_NEXT, SHORT, chain};
use crate::verdict::assert_right;

/// T14: every server is restarted, one after the other; the worker never left.
#[test]
fn a_rolling_restart_begins_no_task_again() {
    let options = Options { lease: "6s", workers: false, ..Options::default() };
    let mut cluster = Cluster::start(3, &options);
    cluster.start_worker("far", &["--slots", "8"]);
    let long = cluster.client.submit(LONG_THEN_NEXT);
    cluster.await_start(&long, "long");
    let mut runs = vec![long];
    for node in 0..3 {
        runs.push(cluster.client.submit(&chain(4, 10)));
        let status = cluster.nodes[node].terminate();
        assert!(status.success(), "{status}");
        cluster.nodes[node].restart();
        cluster.await_voters(3);
    }
    cluster.ledger.release("go");
    for run in &runs {
        assert_eq!(cluster.client.await_end(run), "succeeded");
    }
    for run in cluster.runs() {
        assert!(run.tasks.values().all(|task| task.attempts.len() == 1), "{run:?}");
    }
    assert_right(&cluster, vec![]);
}

/// T14, where the servers are the workers too: their tasks go on without them.
#[test]
fn an_upgrade_of_every_node_under_load_kills_nothing_and_runs_nothing_again() {
    let options = Options { lease: "6s", slots: 6, ..Options::default() };
    let mut cluster = Cluster::start(3, &options);
    let mut runs: Vec<_> = (0..6).map(|_| cluster.client.submit(LONG_THEN_NEXT)).collect();
    runs.iter().for_each(|run| cluster.await_start(run, "long"));
    for node in 0..3 {
        runs.extend((0..4).map(|_| cluster.client.submit(&chain(6, 20))));
        let status = cluster.nodes[node].terminate();
        assert!(status.success(), "{status}");
        cluster.nodes[node].restart();
        cluster.await_voters(3);
    }
    cluster.ledger.release("go");
    for run in &runs {
        assert_eq!(cluster.client.await_end(run), "succeeded");
    }
    for run in cluster.runs() {
        assert!(run.tasks.values().all(|task| task.attempts.len() == 1), "{run:?}");
    }
    assert_right(&cluster, vec![]);
}

/// A node dies for good. It is removed, and a fresh one takes its place under an id of its own.
#[test]
fn a_dead_node_is_replaced_by_a_fresh_one() {
    let mut cluster = Cluster::start(3, &Options::default());
    let before: Vec<String> = (0..10).map(|_| cluster.client.submit(SHORT)).collect();
    before.iter().for_each(|run| assert_eq!(cluster.client.await_end(run), "succeeded"));
    let dead = (0..3).find(|&node| Some(node) != cluster.leader()).expect("one leads");
    let id = cluster.view(dead).and_then(|view| view["node"].as_u64()).expect("it has an id");
    cluster.nodes[dead].power_off();
    let home = cluster.nodes[dead].setup.home.clone();
    std::fs::remove_dir_all(home).expect("a disk can be lost");
    let removed = cluster.client.ask(&Request::new("DELETE", format!("/v1/cluster/members/{id}")));
    assert!(removed.is_ok(), "{} {}", removed.status, removed.text());

    // In the place of the dead one, and at its address.
    let living = (0..3).find(|&node| node != dead).expect("two are left");
    let join = cluster.nodes[living].address().to_string();
    cluster.nodes[dead].setup.join(join);
    cluster.nodes[dead].restart();
    cluster.await_voters(3);
    let fresh = cluster.view(dead).and_then(|view| view["node"].as_u64()).expect("it has an id");
    assert!(fresh > id, "node id {id} came back as {fresh}");
    for run in &before {
        until(SOON, "the fresh node knows what was before it", || {
            let found = cluster.nodes[dead].send(&Request::get(format!("/v1/runs/{run}"))).ok()?;
            found.is_ok().then_some(())
        });
    }
    // It counts: with it, two of three are a quorum.
    let other = (0..3).find(|&node| node != dead && node != living).expect("there are three");
    cluster.nodes[other].power_off();
    let after = cluster.client.submit(SHORT);
    assert_eq!(cluster.client.await_end(&after), "succeeded");
    cluster.nodes[other].restart();
    cluster.await_voters(3);
    assert_right(&cluster, vec![]);
}
