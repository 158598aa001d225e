//! One node by itself.

use std::time::Duration;

use quorate_model::Reply;
use quorate_raft::ProposeError;

use crate::harness::{Cluster, SOON, has_workflow, propose, put, put_keyed, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn keeps_everything_over_a_restart() {
    let mut cluster = Cluster::found().await;
    let (id, name) = (cluster.node(0).id(), cluster.node(0).cluster());
    let committed = propose(cluster.node(0), put("a")).await;
    assert_eq!(committed.answer.reply, Ok(Reply::WorkflowPut { version: 1, changed: true }));
    let hash = cluster.node(0).with_state(quorate_model::State::hash);

    cluster.stop(0).await;
    cluster.restart(0).await;
    let node = cluster.node(0);
    let index = node.catch_up(SOON).await.unwrap();
    assert!(index > committed.index, "a new term begins with an entry of its own");
    assert_eq!((node.id(), node.cluster()), (id, name));
    assert_eq!(node.with_state(quorate_model::State::hash), hash);
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_what_was_acknowledged_when_killed() {
    let mut cluster = Cluster::found().await;
    for round in 0..3 {
        propose(cluster.node(0), put(&format!("w{round}"))).await;
        cluster.kill(0);
        cluster.restart(0).await;
    }
    cluster.node(0).catch_up(SOON).await.unwrap();
    for round in 0..3 {
        assert!(has_workflow(cluster.node(0), &format!("w{round}")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tells_who_leads_and_in_which_term() {
    let cluster = Cluster::found().await;
    let node = cluster.node(0);
    let known = node.leadership().borrow().clone();
    assert_eq!(known.leader, Some((node.id(), cluster.address(0).to_string())));

    node.confirm_leadership(known.term, SOON).await.unwrap();
    let done = node.propose_as(known.term, vec![put("a"), put("b")], SOON).await.unwrap();
    assert_eq!(done.len(), 2);
    assert_eq!(done[0].index, done[1].index, "proposed together, in one entry");
    let deposed = node.propose_as(known.term + 1, vec![put("c")], SOON).await;
    assert!(matches!(deposed, Err(ProposeError::NoLeader { .. })), "{deposed:?}");
    let deposed = node.confirm_leadership(known.term + 1, SOON).await;
    assert!(matches!(deposed, Err(ProposeError::NoLeader { .. })), "{deposed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_what_arrives_together() {
    let cluster = Cluster::found().await;
    let node = cluster.node(0);
    let before = node.status().proposals.entries;
    let all = (0..500).map(|number| {
        let node = node.clone();
        tokio::spawn(async move { propose(&node, put(&format!("w{number}"))).await })
    });
    for proposed in all.collect::<Vec<_>>() {
        proposed.await.unwrap();
    }
    let status = node.status();
    let entries = status.proposals.entries - before;
    assert!(entries < 250, "500 requests took {entries} entries");
    assert_eq!(status.proposals.queued, 0);
    assert!(status.quorate && status.leads);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_the_answer_to_a_repeated_request() {
    let cluster = Cluster::found().await;
    let node = cluster.node(0);
    let first = propose(node, put_keyed("a", "k")).await;
    let again = propose(node, put_keyed("a", "k")).await;
    assert_eq!((first.answer.replayed, again.answer.replayed), (false, true));
    assert_eq!(first.answer.reply, again.answer.reply);
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_a_request_that_no_entry_holds() {
    let cluster = Cluster::found().await;
    let mut large = put("a");
    if let quorate_model::Command::PutWorkflow(put) = &mut large.command {
        put.definition.source = "x".repeat(quorate_raft::REQUEST_BYTES_MAX);
    }
    let refused = cluster.node(0).propose(large, SOON).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })), "{refused:?}");
    propose(cluster.node(0), put("a")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn says_that_it_stops() {
    let cluster = Cluster::found().await;
    let node = cluster.node(0).clone();
    let stopped = tokio::spawn({
        let node = node.clone();
        async move { node.stopped().await }
    });
    node.shutdown().await;
    assert_eq!(stopped.await.unwrap(), "it was shut down");
    let refused = node.propose(put("a"), Duration::from_millis(100)).await;
    assert_eq!(refused, Err(ProposeError::Stopping));
    wait_for("end of leadership", || (!node.leadership().borrow().leads).then_some(())).await;
}
