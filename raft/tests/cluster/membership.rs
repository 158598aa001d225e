//! Nodes that come and go for good.

use quorate_raft::{ProposeError, Start};

use crate::harness::{Cluster, SOON, has_workflow, propose, put, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn every_node_gets_an_id_that_none_had() {
    let mut cluster = Cluster::of_three().await;
    cluster.join(3).await;
    cluster.wait_for_voters(4).await;
    let mut ids: Vec<u64> = cluster.nodes().map(quorate_raft::Node::id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    assert_eq!(ids[0], 1, "the founder");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_node_is_replaced() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let dead = (leader + 1) % 3;
    let id = cluster.node(dead).id();
    propose(cluster.node(leader), put("before")).await;
    cluster.kill(dead);
    let third = (leader + 2) % 3;
    cluster.node(third).remove(id, SOON).await.unwrap();
    cluster.wait_for_voters(2).await;
    let again = cluster.node(third).remove(id, SOON).await;
    assert_eq!(again, Err(ProposeError::Membership(format!("there is no node {id}"))));

    cluster.join(3).await;
    cluster.wait_for_voters(3).await;
    assert_ne!(cluster.node(3).id(), id);
    let committed = propose(cluster.node(3), put("after")).await;
    cluster.assert_equal_at(committed.index).await;
    assert!(has_workflow(cluster.node(3), "before"));
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_can_be_removed() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let id = cluster.node(leader).id();
    let other = cluster.node((leader + 1) % 3);
    other.remove(id, SOON).await.unwrap();
    let follows = || other.leadership().borrow().leader.as_ref().is_some_and(|&(at, _)| at != id);
    wait_for("another leader", || follows().then_some(())).await;
    propose(other, put("after")).await;
    assert_eq!(other.status().members.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn last_voter_stays() {
    let cluster = Cluster::found().await;
    let node = cluster.node(0);
    let refused = node.remove(node.id(), SOON).await;
    assert!(matches!(refused, Err(ProposeError::Membership(_))), "{refused:?}");
    let refused = node.transfer_leadership(None, SOON).await;
    assert!(matches!(refused, Err(ProposeError::Membership(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wish_to_vote_outlives_the_leader_that_heard_it() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    // It joins on paper, and does not start yet: it stays a learner.
    let address = "127.0.0.1:1".to_owned();
    let joined = cluster.node(leader).join(&address, true, SOON).await.unwrap();
    cluster.stop(leader).await;
    let heir = cluster.leader().await;
    let members = cluster.node(heir).status().members;
    let learner = members.iter().find(|member| member.id == joined.node).unwrap();
    assert!(learner.wants_vote && !learner.voter);

    // At the same address a new one takes its place.
    let again = cluster.node(heir).join(&address, false, SOON).await.unwrap();
    assert_ne!(again.node, joined.node);
    let members = cluster.node(heir).status().members;
    let there: Vec<u64> =
        members.iter().filter(|member| member.address == address).map(|member| member.id).collect();
    assert_eq!(there, [again.node]);
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_of_a_node_takes_no_other() {
    let mut cluster = Cluster::found().await;
    let joined = cluster.node(0).join("127.0.0.1:1", false, SOON).await.unwrap();
    cluster.stop(0).await;
    let start = Start::Join { node_id: joined.node, cluster_id: joined.cluster };
    for start in [start, Start::Bootstrap] {
        let refused = cluster.refusal(0, start).await;
        assert!(refused.contains("a node lives here already"), "{refused}");
    }
    cluster.restart(0).await;
    cluster.leader().await;
}
