//! Workers cut off from the cluster, alone or together with a leader that is none any more.

use crate::harness::network::Network;
use crate::harness::{Cluster, Options, SOON, skip, until};
use crate::tasks::LONG_THEN_NEXT;
use crate::verdict::assert_right_with_losses;

/// Three nodes without workers and two workers, each on a host of its own.
fn start() -> Option<Cluster> {
    let network = match Network::create(5) {
        Ok(network) => network,
        Err(reason) => {
            skip(&reason);
            return None;
        }
    };
    let options = Options { workers: false, ..Options::default() };
    let mut cluster = Cluster::start_on(network, 3, &options);
    cluster.start_worker("w3", &["--slots", "1"]);
    cluster.start_worker("w4", &["--slots", "1"]);
    Some(cluster)
}

/// The host of the worker that has a task.
#[track_caller]
fn host_of(cluster: &Cluster, run: &str, task: &str) -> u8 {
    let view = cluster.client.task(run, task);
    let workers = cluster.client.list("/v1/workers");
    let found = workers.iter().find(|found| found["id"] == view["worker"]).expect("it is known");
    let name = found["name"].as_str().and_then(|name| name.strip_prefix('w'));
    name.and_then(|host| host.parse().ok()).expect("workers are called by their hosts")
}

fn cut(cluster: &Cluster, one: u8, others: &[u8]) {
    let network = cluster.network.as_ref().expect("it has one");
    others.iter().for_each(|&other| network.cut(one, other));
}

fn heal(cluster: &Cluster, one: u8, others: &[u8]) {
    let network = cluster.network.as_ref().expect("it has one");
    others.iter().for_each(|&other| network.heal(one, other));
}

/// The task was begun a second time; it ends, and the judge says whether the first was over.
#[track_caller]
fn finish(cluster: &Cluster, run: &str) {
    until(SOON, "the task begins on the other worker", || {
        (cluster.ledger.starts(run, "long") == 2).then_some(())
    });
    cluster.ledger.release("go");
    assert_eq!(cluster.client.await_end(run), "succeeded");
    assert_eq!(cluster.ledger.starts(run, "next"), 1);
}

/// T6: the worker lives, its task lives, and nobody hears of it.
#[test]
fn a_worker_cut_off_ends_its_task_before_it_begins_elsewhere() {
    let Some(cluster) = start() else { return };
    let run = cluster.client.submit(LONG_THEN_NEXT);
    cluster.await_start(&run, "long");
    let host = host_of(&cluster, &run, "long");
    cut(&cluster, host, &[0, 1, 2]);
    finish(&cluster, &run);
    heal(&cluster, host, &[0, 1, 2]);
    until(SOON, "the worker is back", || {
        let workers = cluster.client.list("/v1/workers");
        let live = workers.iter().filter(|worker| worker["state"] == "live").count();
        (live == 2).then_some(())
    });
    assert_right_with_losses(&cluster, vec![], 1);
}

/// A leader cut off together with the worker cannot keep it: it hears every renewal, and must
/// grant none.
#[test]
fn a_leader_without_its_quorum_cannot_extend_a_lease() {
    let Some(cluster) = start() else { return };
    let run = cluster.client.submit(LONG_THEN_NEXT);
    cluster.await_start(&run, "long");
    let worker = host_of(&cluster, &run, "long");
    let leader = cluster.await_leader();
    let old = u8::try_from(leader).expect("there are three");
    let others: Vec<u8> = (0..3).filter(|&host| host != old).collect();
    cut(&cluster, old, &others);
    cut(&cluster, worker, &others);
    cluster.await_leader_but(leader);
    finish(&cluster, &run);
    heal(&cluster, old, &others);
    heal(&cluster, worker, &others);
    cluster.await_voters(3);
    assert_right_with_losses(&cluster, vec![], 1);
}
