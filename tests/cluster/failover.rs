//! The leader dies, at every bad moment.
//!
//! Of the failure list, here by real processes: T3, T9, T10, T13. One level below, where the bad
//! moment is hit every time: T4 and T5, a start that is sent twice, and T11, words that come
//! late, in `src/worker/tests/orders.rs`; T11 and T35, a lease ended under another's name, in the
//! golden scripts of the model.

use crate::harness::{Cluster, Options};
use crate::tasks::{LONG_THEN_NEXT, SHORT, chain, task};
use crate::verdict::{assert_right, seen};

/// Nodes that do not run tasks, and a worker that is none of them: whatever dies here, no
/// task's own worker does, so that nothing may begin twice.
fn start() -> Cluster {
    let options = Options { lease: "6s", workers: false, ..Options::default() };
    let mut cluster = Cluster::start(3, &options);
    cluster.start_worker("far", &["--slots", "8"]);
    cluster
}

#[track_caller]
fn assert_each_began_once(cluster: &Cluster) {
    for run in cluster.runs() {
        for (id, task) in &run.tasks {
            assert_eq!(task.attempts.len(), 1, "{id}: {:?}", task.attempts);
            assert_eq!(cluster.ledger.starts(&run.id, id), 1, "{id} of {}", run.id);
        }
    }
}

/// T3: the leader dies between the decision to start a task and its being carried out.
#[test]
fn a_start_decided_by_a_leader_that_dies_is_carried_out_once() {
    let mut cluster = start();
    let mut changes = 0;
    for _ in 0..5 {
        let leader = cluster.await_leader();
        let run = cluster.client.submit(&chain(2, 0));
        cluster.nodes[leader].kill();
        changes += usize::from(cluster.await_leader_but(leader) != leader);
        assert_eq!(cluster.client.await_end(&run), "succeeded");
        cluster.nodes[leader].restart();
        cluster.await_voters(3);
    }
    assert_each_began_once(&cluster);
    assert_right(&cluster, vec![seen("leader changes", changes, 5)]);
}

/// T9: everything about a running task is recorded when the leader dies.
#[test]
fn a_running_task_outlives_its_leader() {
    let mut cluster = start();
    let run = cluster.client.submit(LONG_THEN_NEXT);
    cluster.await_start(&run, "long");
    let old = cluster.await_leader();
    cluster.nodes[old].kill();
    let new = cluster.await_leader_but(old);
    cluster.ledger.release("go");
    assert_eq!(cluster.client.await_end(&run), "succeeded");
    assert_each_began_once(&cluster);
    cluster.nodes[old].restart();
    cluster.await_voters(3);
    assert_right(&cluster, vec![seen("leader changes", usize::from(new != old), 1)]);
}

/// T10: a task ends while there is nobody to tell.
#[test]
fn a_result_that_finds_no_leader_is_recorded_once() {
    let mut cluster = start();
    let runs: Vec<String> = (0..4).map(|_| cluster.client.submit(LONG_THEN_NEXT)).collect();
    runs.iter().for_each(|run| cluster.await_start(run, "long"));
    let old = cluster.await_leader();
    cluster.nodes[old].kill();
    // At once: the election takes some hundred milliseconds, a task some ten.
    cluster.ledger.release("go");
    let new = cluster.await_leader_but(old);
    for run in &runs {
        assert_eq!(cluster.client.await_end(run), "succeeded");
    }
    assert_each_began_once(&cluster);
    cluster.nodes[old].restart();
    cluster.await_voters(3);
    assert_right(&cluster, vec![seen("leader changes", usize::from(new != old), 1)]);
}

/// T13: whoever takes over dies as well, again and again.
#[test]
fn leaders_that_die_one_after_the_other_change_nothing() {
    let mut cluster = start();
    let long = cluster.client.submit(LONG_THEN_NEXT);
    cluster.await_start(&long, "long");
    let runs: Vec<String> = (0..3).map(|_| cluster.client.submit(&chain(6, 20))).collect();
    let mut dead: Option<usize> = None;
    let mut changes = 0;
    for _ in 0..6 {
        let leader = match dead {
            None => cluster.await_leader(),
            Some(dead) => cluster.await_leader_but(dead),
        };
        changes += usize::from(dead.is_some());
        // The one that died before comes back only now, in the middle of the next failover.
        cluster.nodes[leader].kill();
        if let Some(dead) = dead.replace(leader) {
            cluster.nodes[dead].restart();
        }
    }
    if let Some(dead) = dead {
        cluster.nodes[dead].restart();
    }
    cluster.ledger.release("go");
    for run in runs.iter().chain([&long]) {
        assert_eq!(cluster.client.await_end(run), "succeeded");
    }
    cluster.await_voters(3);
    assert_each_began_once(&cluster);
    assert_right(&cluster, vec![seen("leader changes", changes, 5)]);
}

/// A leader that is asked to stop hands over, and nobody waits for an election.
#[test]
fn a_leader_that_is_asked_to_stop_hands_over_first() {
    let mut cluster = start();
    let old = cluster.await_leader();
    let run = cluster.client.submit(&task("steady", &[], 50));
    cluster.await_start(&run, "steady");
    let status = cluster.nodes[old].terminate();
    assert!(status.success(), "{status}");
    cluster.await_leader_but(old);
    let after = cluster.client.submit(SHORT);
    for run in [&run, &after] {
        assert_eq!(cluster.client.await_end(run), "succeeded");
    }
    assert_each_began_once(&cluster);
    cluster.nodes[old].restart();
    cluster.await_voters(3);
    assert_right(&cluster, vec![]);
}
