//! Finished runs, snapshots and the purging of the log.

use std::path::Path;
use std::time::Duration;

use quorate_model::command::{AdvanceClock, PruneHistory};
use quorate_model::{Command, Retired, RunEnd, RunId};
use quorate_raft::{HistoryQuery, Node, Options, Start};

use crate::harness::{
    Cluster, SOON, cancel, has_workflow, propose, put, run_id, start_run, wait_for,
};

/// So that a few dozen entries make a snapshot, and two of them purge the log.
fn snapshots_often(options: &mut Options) {
    options.snapshot_after_entries = 40;
    options.wal_segment_bytes = 64 * 1024;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_joins_late_gets_state_and_history_by_snapshot() {
    let mut cluster = Cluster::found_with(snapshots_often).await;
    let runs = finish_runs(cluster.node(0), 10).await;
    let pruned = runs[..3].to_vec();
    let prune = Command::PruneHistory(PruneHistory { runs: pruned.clone() });
    propose(cluster.node(0), prune.into()).await;
    propose(cluster.node(0), start_run(run_id(99), "live")).await;
    purge_log(cluster.node(0)).await;
    let first = cluster.node(0).status().purged_index;
    assert!(first > 0);

    cluster.join(1).await;
    cluster.wait_for_voters(2).await;
    let index = cluster.node(0).catch_up(SOON).await.unwrap();
    cluster.assert_equal_at(index).await;
    assert!(cluster.node(1).status().snapshot_index >= first, "it came by snapshot");
    assert_eq!(ids(cluster.node(1)), ids(cluster.node(0)));
    assert_eq!(all(cluster.node(1)), all(cluster.node(0)));
    assert_eq!(cluster.node(1).history().get(pruned[0]).unwrap(), None);
    assert_eq!(cluster.node(1).history().get(run_id(99)).unwrap(), None, "it is live");
    assert!(cluster.node(1).with_state(|state| state.runs().contains_key(&run_id(99))));

    // What it got, it has; and so it goes on.
    let before = all(cluster.node(1));
    cluster.kill(1);
    cluster.restart(1).await;
    cluster.node(1).catch_up(SOON).await.unwrap();
    assert_eq!(all(cluster.node(1)), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_begins_at_the_snapshot() {
    let mut cluster = Cluster::found_with(snapshots_often).await;
    purge_log(cluster.node(0)).await;
    let hash = cluster.node(0).with_state(quorate_model::State::hash);
    cluster.kill(0);
    cluster.restart(0).await;
    cluster.node(0).catch_up(SOON).await.unwrap();
    assert_eq!(cluster.node(0).with_state(quorate_model::State::hash), hash);
    assert!(cluster.node(0).status().purged_index > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_snapshot_is_passed_over_for_the_one_before() {
    let mut cluster = Cluster::found_with(snapshots_often).await;
    purge_log(cluster.node(0)).await;
    let hash = cluster.node(0).with_state(quorate_model::State::hash);
    cluster.stop(0).await;
    let mut snapshots = files(&cluster.path(0).join("snapshots"));
    snapshots.sort();
    assert!(snapshots.len() >= 2, "{snapshots:?}");
    damage(snapshots.last().unwrap());

    cluster.restart(0).await;
    cluster.node(0).catch_up(SOON).await.unwrap();
    assert_eq!(cluster.node(0).with_state(quorate_model::State::hash), hash);

    cluster.stop(0).await;
    files(&cluster.path(0).join("snapshots")).iter().for_each(|file| damage(file));
    let refused = cluster.refusal(0, Start::Resume).await;
    assert!(refused.contains("no snapshot in"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_history_is_refilled_by_another_node() {
    let mut cluster = Cluster::found_with(snapshots_often).await;
    cluster.join(1).await;
    cluster.wait_for_voters(2).await;
    let runs = finish_runs(cluster.node(0), 5).await;
    purge_log(cluster.node(0)).await;
    cluster.node(1).catch_up(SOON).await.unwrap();
    let before = all(cluster.node(1));
    assert_eq!(before.len(), runs.len());

    cluster.stop(1).await;
    std::fs::remove_dir_all(cluster.path(1).join("history")).unwrap();
    cluster.restart(1).await;
    let refilled = || (all(cluster.node(1)) == before).then_some(());
    wait_for("history", refilled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_lists_by_workflow_end_and_page() {
    let cluster = Cluster::found().await;
    let node = cluster.node(0);
    let runs = finish_runs(node, 9).await;
    let list = |query: HistoryQuery| -> Vec<RunId> {
        node.history().list(&query).unwrap().iter().map(|retired| retired.id).collect()
    };
    let newest: Vec<RunId> = runs.iter().rev().copied().collect();
    assert_eq!(list(HistoryQuery { limit: 100, ..HistoryQuery::default() }), newest);

    let mut paged = Vec::new();
    let mut before = None;
    loop {
        let query = HistoryQuery { before, limit: 4, ..HistoryQuery::default() };
        let page = node.history().list(&query).unwrap();
        let Some(last) = page.last() else { break };
        before = Some((last.run.created.at, last.id));
        paged.extend(page.iter().map(|retired| retired.id));
    }
    assert_eq!(paged, newest);

    // Every third run is of one workflow.
    let workflows = vec!["w0".to_owned(), "w2".to_owned(), "none".to_owned()];
    let of_two: Vec<RunId> = newest.iter().copied().filter(|id| id.0.as_u128() % 3 != 1).collect();
    let query =
        |ends| HistoryQuery { before: None, workflows: workflows.clone(), ends, limit: 100 };
    assert_eq!(list(query(vec![])), of_two);
    assert_eq!(list(query(vec![RunEnd::Cancelled])), of_two);
    assert_eq!(list(query(vec![RunEnd::Succeeded, RunEnd::Failed])), []);
    assert_eq!(list(HistoryQuery { workflows: vec![], ..query(vec![RunEnd::Cancelled]) }), newest);
}

/// Has runs end and leave the live state.
async fn finish_runs(node: &Node, count: u128) -> Vec<RunId> {
    let runs: Vec<RunId> = (0..count).map(run_id).collect();
    for &run in &runs {
        propose(node, start_run(run, &format!("w{}", run.0.as_u128() % 3))).await;
        propose(node, cancel(run)).await;
    }
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        // A finished run stays live for ten seconds.
        propose(node, Command::AdvanceClock(AdvanceClock {}).into()).await;
        if node.with_state(|state| state.runs().is_empty()) {
            return runs;
        }
        assert!(tokio::time::Instant::now() < deadline, "runs are not retired");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Proposes until two snapshots were taken and the log begins at the first.
async fn purge_log(node: &Node) {
    let purged = node.status().purged_index;
    for number in 0..2_000 {
        let name = format!("filler{number}");
        propose(node, put(&name)).await;
        assert!(has_workflow(node, &name));
        if node.status().purged_index > purged {
            return;
        }
    }
    wait_for("a shorter log", || (node.status().purged_index > purged).then_some(())).await;
}

fn all(node: &Node) -> Vec<Retired> {
    let query = HistoryQuery { limit: 1_000, ..HistoryQuery::default() };
    node.history().list(&query).unwrap_or_default()
}

fn ids(node: &Node) -> Vec<RunId> {
    all(node).iter().map(|retired| retired.id).collect()
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Changes a byte in the middle.
fn damage(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] = bytes[middle].wrapping_add(1);
    std::fs::write(file, bytes).unwrap();
}
