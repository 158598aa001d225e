//! A data directory that is not what the node left is refused, and says what to do.

use std::fs;
use std::path::Path;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::vote::RaftLeaderId;
use openraft::{EntryPayload, RaftLogReader};
use quorate_raft::identity::{ClusterId, Identity, IdentityError};
use quorate_raft::log_store::LogStore;
use quorate_raft::types::{LeaderId, LogEntry, LogId, RaftEntry, Vote};
use quorate_raft::wal::{OpenError, WalOptions};
use tempfile::TempDir;

const CLUSTER: ClusterId = ClusterId(0xc1);
const SMALL: WalOptions = WalOptions { segment_bytes: 4096, cache_bytes: 1024 };

fn log_id(index: u64) -> LogId {
    LogId { leader_id: LeaderId::new(1, 1), index }
}

/// Makes a node that has written and committed `entries`, and stopped.
async fn node_with(entries: u64) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::create(dir.path(), CLUSTER, 1).unwrap();
    let log = LogStore::open_as(&identity, SMALL).unwrap();
    write(log, 0, entries).await;
    dir
}

async fn write(mut log: LogStore, first: u64, next: u64) {
    for index in first..next {
        let payload = EntryPayload::Normal(LogEntry(vec![1; 100].into()));
        let entry = RaftEntry { log_id: log_id(index), payload };
        log.append([entry], IOFlushed::noop()).await.unwrap();
    }
    log.save_committed(Some(log_id(next - 1))).await.unwrap();
    log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
}

/// Starts the node, as a server does.
fn start(dir: &Path) -> Result<LogStore, OpenError> {
    let identity = Identity::open(dir)?.expect("a node lives here");
    LogStore::open_as(&identity, SMALL)
}

/// Starts the node and expects it to be refused for `reason`, with a way out.
fn refused(dir: &Path, reason: &str) {
    let error = start(dir).expect_err(reason).to_string();
    assert!(error.contains(reason), "{error}");
    assert!(error.contains("join again as a new node") || error.contains("put"), "{error}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn counts_its_starts_and_raises_its_floor() {
    let dir = node_with(200).await;
    let identity = Identity::open(dir.path()).unwrap().unwrap();
    assert_eq!((identity.cluster(), identity.node()), (CLUSTER, 1));
    assert_eq!((identity.incarnation(), identity.floor()), (1, Some(199)));
    let mut log = LogStore::open_as(&identity, SMALL).unwrap();
    assert_eq!(identity.incarnation(), 2);
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 200);
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new_committed(1, 1)));
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(199)));
}

#[tokio::test]
async fn raises_its_floor_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::create(dir.path(), CLUSTER, 1).unwrap();
    let log = LogStore::open_as(&identity, SMALL).unwrap();
    write(log.clone(), 0, 50).await;
    write(log.clone(), 50, 100).await;
    let floor = identity.floor().expect("segments have ended");
    assert!((49..100).contains(&floor), "{floor}");
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::create(dir.path(), CLUSTER, 1).unwrap();
    let log = LogStore::open_as(&identity, SMALL).unwrap();
    drop(identity);
    let error = Identity::open(dir.path()).unwrap_err();
    let process = format!("another process (process {}) uses", std::process::id());
    assert!(error.to_string().starts_with(&process), "{error}");
    drop(log);
    Identity::open(dir.path()).expect("the lock goes with the log");
}

#[test]
fn a_new_directory_has_no_identity() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Identity::open(&dir.path().join("absent")).unwrap().is_none());
    assert!(Identity::open(dir.path()).unwrap().is_none());
}

#[test]
fn an_identity_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    drop(Identity::create(dir.path(), CLUSTER, 1).unwrap());
    let error = Identity::create(dir.path(), CLUSTER, 2).unwrap_err();
    assert!(matches!(error, IdentityError::Exists { .. }), "{error}");
}

#[test]
fn starts_again_after_a_crash_in_the_midst_of_the_first_start() {
    let dir = tempfile::tempdir().unwrap();
    drop(Identity::create(dir.path(), CLUSTER, 1).unwrap());
    let new = fs::read(dir.path().join("identity")).unwrap();
    drop(start(dir.path()).unwrap());
    fs::write(dir.path().join("identity"), new).unwrap();
    drop(start(dir.path()).expect("the log may be one start ahead"));
}

#[tokio::test]
async fn refuses_a_log_that_is_gone() {
    let dir = node_with(3).await;
    let wal = dir.path().join("wal");
    fs::rename(&wal, dir.path().join("elsewhere")).unwrap();
    refused(dir.path(), "wal is missing or empty");
    refused(dir.path(), "wal is missing or empty");
    assert_eq!(fs::read_dir(&wal).unwrap().count(), 0, "and it is not begun anew");
    fs::remove_dir(&wal).unwrap();
    fs::rename(dir.path().join("elsewhere"), &wal).unwrap();
    start(dir.path()).expect("put back, it is as before");
}

#[tokio::test]
async fn refuses_a_log_of_an_earlier_start() {
    let dir = node_with(3).await;
    let old = dir.path().join("old");
    copy(&dir.path().join("wal"), &old);
    for _ in 0..2 {
        drop(start(dir.path()).unwrap());
    }
    fs::remove_dir_all(dir.path().join("wal")).unwrap();
    fs::rename(old, dir.path().join("wal")).unwrap();
    refused(dir.path(), "the log is of start 1 of this node, and its last start was 3");
}

#[tokio::test]
async fn refuses_a_log_that_ends_below_its_floor() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::create(dir.path(), CLUSTER, 1).unwrap();
    let log = LogStore::open_as(&identity, SMALL).unwrap();
    write(log.clone(), 0, 3).await;
    let old = dir.path().join("old");
    copy(&dir.path().join("wal"), &old);
    write(log, 3, 100).await;
    drop(identity);
    fs::remove_dir_all(dir.path().join("wal")).unwrap();
    fs::rename(old, dir.path().join("wal")).unwrap();
    refused(dir.path(), "the log ends at entry 2, but entry 99 was committed and durable");
}

#[tokio::test]
async fn refuses_an_identity_of_an_earlier_start() {
    let dir = node_with(3).await;
    let old = fs::read(dir.path().join("identity")).unwrap();
    for _ in 0..2 {
        drop(start(dir.path()).unwrap());
    }
    fs::write(dir.path().join("identity"), old).unwrap();
    refused(dir.path(), "the identity is of start 1 of this node, but the log is of start 3");
}

#[tokio::test]
async fn refuses_a_log_without_an_identity() {
    let dir = node_with(3).await;
    fs::remove_file(dir.path().join("identity")).unwrap();
    let error = Identity::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("identity is missing, but"), "{error}");
    let error = Identity::create(dir.path(), CLUSTER, 2).unwrap_err();
    assert!(error.to_string().contains("join again as a new node"), "{error}");
}

#[tokio::test]
async fn refuses_the_log_of_another_cluster_or_node() {
    let dir = node_with(3).await;
    for (cluster, node) in [(ClusterId(0xc2), 1), (CLUSTER, 2)] {
        let other = tempfile::tempdir().unwrap();
        let identity = Identity::create(other.path(), cluster, node).unwrap();
        copy(&dir.path().join("wal"), &other.path().join("wal"));
        let error = LogStore::open_as(&identity, SMALL).unwrap_err();
        let owner = format!("belongs to node 1 of cluster {CLUSTER}");
        assert!(error.to_string().contains(&owner), "{error}");
    }
}

#[tokio::test]
async fn refuses_a_damaged_identity() {
    let dir = node_with(3).await;
    let path = dir.path().join("identity");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("node 1", "node 2")).unwrap();
    refused(dir.path(), "identity is damaged: its checksum does not match");
    fs::write(&path, "").unwrap();
    refused(dir.path(), "identity is damaged");
}
