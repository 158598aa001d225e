//! Nodes that die with tasks of their own, and come back.

use std::time::{Duration, Instant};

use crate::harness::seed::Seed;
use crate::harness::{Cluster, Options, SOON, until};
use crate::tasks::{LONG_THEN_NEXT, chain, failing};
use crate::verdict::{assert_right, assert_right_with_losses};

/// T12: all nodes are killed at once, and come back in any order.
#[test]
fn a_cluster_killed_whole_goes_on_in_any_order() {
    let mut seed = Seed::choose();
    let mut cluster = Cluster::start(3, &Options::default());
    cluster.start_worker("far", &["--slots", "4"]);
    let mut runs = Vec::new();
    for round in 0..3 {
        runs.extend((0..4).map(|_| cluster.client.submit(&chain(4, 15))));
        runs.push(cluster.client.submit(&failing("flaky", &[], 1, 2)));
        cluster.await_start(&runs[round * 5], "t0");
        // The worker last in the first round, first in the others: it finds nobody there.
        let mut order = seed.shuffled(&[0, 1, 2]);
        order.insert(if round == 0 { 3 } else { 0 }, 3);
        cluster.nodes.iter_mut().for_each(|node| node.power_off());
        cluster.workers[0].power_off();
        for process in order {
            match process {
                3 => cluster.workers[0].restart(),
                node => cluster.nodes[node].restart(),
            }
        }
        cluster.await_voters(3);
    }
    for run in &runs {
        assert_eq!(cluster.client.await_end(run), "succeeded", "{}", seed.repeat());
    }
    assert_right_with_losses(&cluster, vec![], 1);
}

/// T15: a node dies, and is back at the same address before anybody has missed it. Its task
/// notices nothing, and is not run again.
#[test]
fn a_node_that_is_back_within_its_lease_goes_on_with_its_task() {
    let options = Options { lease: "8s", ..Options::default() };
    let mut cluster = Cluster::start(3, &options);
    let run = cluster.client.submit(LONG_THEN_NEXT);
    cluster.await_start(&run, "long");
    let holder = cluster.worker_of(&run, "long");
    let address = cluster.nodes[holder].address();
    cluster.nodes[holder].kill();
    cluster.nodes[holder].restart();
    assert_eq!(cluster.nodes[holder].address(), address);
    cluster.ledger.release("go");
    assert_eq!(cluster.client.await_end(&run), "succeeded");
    assert_eq!(cluster.ledger.starts(&run, "long"), 1);
    assert!(cluster.nodes[holder].is_serving());
    cluster.await_voters(3);
    assert_right(&cluster, vec![]);
}

/// T8: a node that is not heard for a while, though for less than its lease, keeps its task.
#[test]
fn a_node_that_is_silent_for_less_than_its_lease_keeps_its_task() {
    let options = Options { lease: "8s", ..Options::default() };
    let mut cluster = Cluster::start(3, &options);
    let run = cluster.client.submit(LONG_THEN_NEXT);
    cluster.await_start(&run, "long");
    let holder = cluster.worker_of(&run, "long");
    cluster.nodes[holder].freeze();
    let frozen = Instant::now();
    // One or two renewals are not sent at all.
    until(SOON, "half of the lease is over", || {
        (frozen.elapsed() > Duration::from_secs(4)).then_some(())
    });
    cluster.nodes[holder].thaw();
    cluster.ledger.release("go");
    assert_eq!(cluster.client.await_end(&run), "succeeded");
    assert_eq!(cluster.ledger.starts(&run, "long"), 1);
    cluster.await_voters(3);
    assert_right(&cluster, vec![]);
}

/// T7, as far as it belongs here: a worker that never comes back takes its processes along,
/// and its task begins elsewhere only after that.
#[test]
fn a_task_begins_elsewhere_only_after_its_dead_worker_let_go() {
    let mut cluster = Cluster::start(3, &Options::default());
    let run = cluster.client.submit(LONG_THEN_NEXT);
    cluster.await_start(&run, "long");
    let holder = cluster.worker_of(&run, "long");
    cluster.nodes[holder].kill();
    until(SOON, "it begins elsewhere", || (cluster.ledger.starts(&run, "long") > 1).then_some(()));
    cluster.ledger.release("go");
    assert_eq!(cluster.client.await_end(&run), "succeeded");
    cluster.nodes[holder].restart();
    cluster.await_voters(3);
    assert_right_with_losses(&cluster, vec![], 1);
}

/// A worker that is frozen past its lease, and woken, finds its task given away.
#[test]
fn a_worker_that_wakes_up_after_its_lease_has_lost_its_task() {
    let mut cluster = Cluster::start(3, &Options::default());
    let run = cluster.client.submit(LONG_THEN_NEXT);
    cluster.await_start(&run, "long");
    let holder = cluster.worker_of(&run, "long");
    cluster.nodes[holder].freeze();
    until(SOON, "it begins elsewhere", || (cluster.ledger.starts(&run, "long") > 1).then_some(()));
    cluster.nodes[holder].thaw();
    cluster.ledger.release("go");
    assert_eq!(cluster.client.await_end(&run), "succeeded");
    cluster.await_voters(3);
    assert_right_with_losses(&cluster, vec![], 1);
}
