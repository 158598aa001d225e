//! What Quorate was begun for: a leader that does not know that it is none any more.
//!
//! T1: cut off from its peers, but not from the worker. T2: frozen past an election, and woken.

use crate::harness::network::Network;
use crate::harness::{Cluster, NoAnswer, Options, Request, Response, SOON, skip, until};
use crate::tasks::{LONG_THEN_NEXT, SHORT};
use crate::verdict::{assert_right, seen};

/// Nodes that do not run tasks, so that a task's worker is never the leader's own machine; and
/// a lease that outlasts any election.
fn options() -> Options {
    Options { lease: "5s", workers: false, ..Options::default() }
}

/// What a node without a quorum may say to a write.
#[track_caller]
fn assert_powerless(answer: &Result<Response, NoAnswer>) {
    match answer {
        Ok(response) => {
            let said = (response.status, response.code());
            let allowed = [(503, "no-leader"), (504, "commit-unknown")];
            assert!(
                allowed.iter().any(|(status, code)| said == (*status, (*code).to_owned())),
                "{said:?}"
            );
        }
        Err(NoAnswer::Unknown(_)) => {}
        Err(NoAnswer::NotReached(error)) => panic!("the client's own link was not cut: {error}"),
    }
}

/// The entries that a node knows to be committed.
#[track_caller]
fn committed(cluster: &Cluster, node: usize) -> u64 {
    let view = until(SOON, "the node answers", || cluster.view(node));
    view["committed_index"].as_u64().expect("it is a number")
}

#[track_caller]
fn await_follows(cluster: &Cluster, node: usize) {
    until(SOON, "the old leader follows", || {
        let leader = cluster.leader().filter(|&leader| leader != node)?;
        let (its, theirs) = (cluster.view(node)?, cluster.view(leader)?);
        let caught_up = its["applied_index"].as_u64() >= theirs["committed_index"].as_u64();
        (its["leader"] == theirs["node"] && caught_up).then_some(())
    });
}

#[test]
fn a_leader_cut_off_from_its_peers_but_not_from_the_worker_is_powerless() {
    let network = match Network::create(4) {
        Ok(network) => network,
        Err(reason) => return skip(&reason),
    };
    let mut cluster = Cluster::start_on(network, 3, &options());
    cluster.start_worker("far", &[]);
    let run = cluster.client.submit(LONG_THEN_NEXT);
    cluster.await_start(&run, "long");

    let old = cluster.await_leader();
    let peers: Vec<u8> = (0..3).filter(|&host| usize::from(host) != old).collect();
    let host = u8::try_from(old).expect("there are three");
    let network = cluster.network.as_ref().expect("it has one");
    peers.iter().for_each(|&peer| network.cut(host, peer));
    let new = cluster.await_leader_but(old);
    let committed_before = committed(&cluster, old);

    let refused = cluster.client.submit_once(cluster.nodes[old].address(), SHORT);
    assert_powerless(&refused);
    cluster.ledger.release("go");
    until(SOON, "the next task has begun without the old leader", || {
        (cluster.ledger.starts(&run, "next") > 0).then_some(())
    });
    until(SOON, "the run has ended", || {
        let found = cluster.nodes[new].send(&Request::get(format!("/v1/runs/{run}")));
        found.ok().filter(|found| found.is_ok() && found.json()["state"] == "succeeded")
    });
    assert_powerless(&cluster.client.submit_once(cluster.nodes[old].address(), SHORT));
    assert_eq!(committed(&cluster, old), committed_before, "the old leader recorded something");

    let network = cluster.network.as_ref().expect("it has one");
    peers.iter().for_each(|&peer| network.heal(host, peer));
    await_follows(&cluster, old);
    assert_eq!(cluster.ledger.starts(&run, "long"), 1, "the long task outlived the change");
    assert_eq!(cluster.ledger.starts(&run, "next"), 1);
    assert_right(&cluster, vec![seen("leader changes", usize::from(new != old), 1)]);
}

#[test]
fn a_leader_that_wakes_up_after_an_election_finds_itself_deposed() {
    let mut cluster = Cluster::start(3, &options());
    cluster.start_worker("far", &[]);
    let run = cluster.client.submit(LONG_THEN_NEXT);
    cluster.await_start(&run, "long");

    let old = cluster.await_leader();
    cluster.nodes[old].freeze();
    let new = cluster.await_leader_but(old);
    cluster.ledger.release("go");
    cluster.await_start(&run, "next");
    let address = cluster.nodes[old].address();
    cluster.nodes[old].thaw();
    // Whatever it says, there is at most one run of it: the judge counts.
    drop(cluster.client.submit_once(address, SHORT));
    await_follows(&cluster, old);

    for run in cluster.runs() {
        assert_eq!(cluster.client.await_end(&run.id), "succeeded");
    }
    assert_eq!(cluster.ledger.starts(&run, "long"), 1, "the long task outlived the change");
    assert_eq!(cluster.ledger.starts(&run, "next"), 1);
    assert_right(&cluster, vec![seen("leader changes", usize::from(new != old), 1)]);
}
