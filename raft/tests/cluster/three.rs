//! Three voters, all well.

use quorate_raft::ProposeError;

use crate::harness::{Cluster, SOON, has_workflow, propose, put, put_keyed, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn takes_proposals_on_every_node() {
    let cluster = Cluster::of_three().await;
    for number in 0..3 {
        let name = format!("w{number}");
        let committed = propose(cluster.node(number), put(&name)).await;
        assert!(has_workflow(cluster.node(number), &name), "a node reads what it wrote");
        cluster.assert_equal_at(committed.index).await;
    }
    let wishes = cluster.node(0).status().members.iter().all(|member| member.wants_vote);
    assert!(wishes);
}

#[tokio::test(flavor = "multi_thread")]
async fn shows_on_a_follower_what_the_leader_wrote() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    for round in 0..50 {
        let name = format!("w{round}");
        propose(cluster.node(leader), put(&name)).await;
        let follower = cluster.node((leader + 1 + round % 2) % 3);
        follower.catch_up(SOON).await.unwrap();
        assert!(has_workflow(follower, &name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn applies_a_keyed_request_once_whoever_is_asked() {
    let cluster = Cluster::of_three().await;
    let mut replayed = Vec::new();
    for number in 0..3 {
        replayed.push(propose(cluster.node(number), put_keyed("a", "k")).await.answer.replayed);
    }
    assert_eq!(replayed, [false, true, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hands_leadership_over_and_goes_on() {
    let cluster = Cluster::of_three().await;
    for to in [1, 2, 0] {
        let id = cluster.node(to).id();
        cluster.node(0).transfer_leadership(Some(id), SOON).await.unwrap();
        let leads = || cluster.node(to).leadership().borrow().leads.then_some(());
        wait_for("new leader", leads).await;
        propose(cluster.node(0), put(&format!("w{to}"))).await;
    }
    let nobody = cluster.node(0).transfer_leadership(Some(99), SOON).await;
    assert_eq!(nobody, Err(ProposeError::Membership("node 99 is not a voter".into())));
}
