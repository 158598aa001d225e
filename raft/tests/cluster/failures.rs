//! Nodes that go down and come back.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use quorate_model::LogIndex;
use quorate_raft::{Node, ProposeError, StorageState};

use crate::harness::{
    Cluster, SOON, has_workflow, propose, propose_surely, put, put_keyed, wait_for,
};

#[tokio::test(flavor = "multi_thread")]
async fn leader_that_shuts_down_hands_over_first() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    propose(cluster.node(leader), put("before")).await;
    let began = Instant::now();
    cluster.stop(leader).await;
    cluster.leader().await;
    let gap = began.elapsed();
    // An election takes at least 150 ms of silence and then some. The machine may be busy.
    assert!(gap < Duration::from_millis(1_000), "no leader for {gap:?}");

    let other = (leader + 1) % 3;
    propose(cluster.node(other), put("after")).await;
    cluster.restart(leader).await;
    cluster.node(leader).catch_up(SOON).await.unwrap();
    assert!(has_workflow(cluster.node(leader), "after"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_with_the_leader() {
    let mut cluster = Cluster::of_three().await;
    for round in 0..5_usize {
        let leader = cluster.leader().await;
        let survivor = cluster.node((leader + 1) % 3).clone();
        let load = tokio::spawn(put_until_refused(cluster.node(leader).clone(), round));
        let enough = || has_workflow(&survivor, &format!("r{round}-20")).then_some(());
        wait_for("load", enough).await;
        cluster.kill(leader);
        let acknowledged = load.await.unwrap();

        propose_surely(&survivor, put_keyed("after", &format!("after{round}"))).await;
        for number in 0..acknowledged {
            assert!(has_workflow(&survivor, &format!("r{round}-{number}")), "{number} is lost");
        }
        cluster.restart(leader).await;
        let index = cluster.node(leader).catch_up(SOON).await.unwrap();
        cluster.assert_equal_at(index).await;
    }
}

/// Puts one workflow after the other, and answers how many were acknowledged.
async fn put_until_refused(node: Node, round: usize) -> u32 {
    for number in 0.. {
        if node.propose(put(&format!("r{round}-{number}")), Duration::from_secs(1)).await.is_err() {
            return number;
        }
    }
    u32::MAX
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_without_its_quorum_promises_nothing() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let term = cluster.node(leader).leadership().borrow().term;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    others.into_iter().for_each(|other| cluster.kill(other));

    let node = cluster.node(leader).clone();
    let deadline = Duration::from_millis(800);
    let began = Instant::now();
    let keyed = node.propose(put_keyed("keyed", "k"), deadline);
    let (bare, keyed) = tokio::join!(node.propose(put("bare"), deadline), keyed);
    for outcome in [bare, keyed] {
        let no = matches!(outcome, Err(ProposeError::Unknown | ProposeError::NoLeader { .. }));
        assert!(no, "{outcome:?}");
    }
    assert!(began.elapsed() < 2 * deadline, "took {:?}", began.elapsed());
    let read = node.catch_up(deadline).await;
    assert!(matches!(read, Err(ProposeError::NoLeader { .. })), "{read:?}");
    let confirmed = node.confirm_leadership(term, deadline).await;
    assert!(matches!(confirmed, Err(ProposeError::NoLeader { .. })), "{confirmed:?}");
    assert!(!has_workflow(&node, "bare") && !has_workflow(&node, "keyed"));
    wait_for("the loss to be noticed", || (!node.status().quorate).then_some(())).await;

    for other in others {
        cluster.restart(other).await;
    }
    let committed = propose_surely(&node, put_keyed("keyed", "k")).await;
    cluster.assert_equal_at(committed.index).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_that_was_away_does_not_disturb() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    cluster.kill(follower);
    let mut last = LogIndex(0);
    for number in 0..100 {
        last = propose(cluster.node(leader), put(&format!("w{number}"))).await.index;
    }
    let term = cluster.node(leader).status().term;
    cluster.restart(follower).await;
    cluster.assert_equal_at(last).await;
    assert_eq!(cluster.node(leader).status().term, term, "it stood for election");
    assert_eq!(cluster.leader().await, leader);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_come_back_after_all_were_killed() {
    let mut cluster = Cluster::of_three().await;
    for number in 0..20 {
        propose(cluster.node(number % 3), put(&format!("w{number}"))).await;
    }
    (0..3).for_each(|number| cluster.kill(number));
    for number in 0..3 {
        cluster.restart(number).await;
    }
    let committed = propose_surely(cluster.node(0), put_keyed("after", "k")).await;
    cluster.assert_equal_at(committed.index).await;
    assert!((0..20).all(|number| has_workflow(cluster.node(0), &format!("w{number}"))));
}

/// Breaks a part of the storage under a node, which must stop and say `reason`, and have
/// acknowledged only what is there once it is mended.
async fn stops_and_says(
    reason: &str,
    break_it: impl FnOnce(&Path) -> io::Result<()>,
    mend: impl FnOnce(&Path) -> io::Result<()>,
) {
    let mut cluster = Cluster::found_with(|options| {
        options.snapshot_after_entries = 40;
        options.wal_segment_bytes = 16 * 1024;
    })
    .await;
    let (node, dir) = (cluster.node(0).clone(), cluster.path(0));
    propose(&node, put("w0")).await;
    break_it(&dir).unwrap();
    let mut acknowledged = 1;
    let refused = loop {
        match node.propose(put(&format!("w{acknowledged}")), SOON).await {
            Ok(_) => acknowledged += 1,
            Err(refused) => break refused,
        }
        assert!(acknowledged < 10_000, "nobody notices that the storage is broken");
    };
    assert!(matches!(refused, ProposeError::Unknown | ProposeError::Stopping), "{refused}");
    let said = tokio::time::timeout(SOON, node.stopped()).await.unwrap();
    assert!(said.contains(reason), "{said}");
    assert_eq!(node.status().storage.state, StorageState::Failed);
    assert_eq!(node.propose(put("late"), SOON).await, Err(ProposeError::Stopping));
    drop(node);
    cluster.kill(0);
    mend(&dir).unwrap();
    cluster.restart(0).await;
    cluster.node(0).catch_up(SOON).await.unwrap();
    let has = |number: &u32| has_workflow(cluster.node(0), &format!("w{number}"));
    assert!((0..acknowledged).all(|number| has(&number)), "of {acknowledged} some are lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_when_a_snapshot_cannot_be_written() {
    let away = |dir: &Path| std::fs::rename(dir.join("snapshots"), dir.join("away"));
    let back = |dir: &Path| std::fs::rename(dir.join("away"), dir.join("snapshots"));
    stops_and_says("writing a snapshot failed", away, back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_when_the_history_cannot_be_made_durable() {
    let away = |dir: &Path| std::fs::rename(dir.join("history"), dir.join("away"));
    let back = |dir: &Path| std::fs::rename(dir.join("away"), dir.join("history"));
    stops_and_says("making the history durable failed", away, back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_when_its_identity_cannot_be_written() {
    let block = |dir: &Path| std::fs::create_dir(dir.join("identity.new"));
    let clear = |dir: &Path| std::fs::remove_dir(dir.join("identity.new"));
    stops_and_says("identity failed", block, clear).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_when_its_log_cannot_be_continued() {
    let away = |dir: &Path| std::fs::rename(dir.join("wal"), dir.join("away"));
    let back = |dir: &Path| std::fs::rename(dir.join("away"), dir.join("wal"));
    stops_and_says("writing the log at", away, back).await;
}
