//! Disks that break. The node stops at the first failure, says so, and has said nothing since.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread;

use crate::harness::wait::within;
use crate::harness::{Cluster, Options, SOON, skip, until};
use crate::load::{StopOnDrop, submit_on};
use crate::tasks::SHORT;
use crate::verdict::{assert_right, seen};

/// What a node whose storage failed exits with: see `quorate help exit-codes`.
const STORAGE_FAILED: i32 = 10;

/// Submits before each failure: without work in flight it shows nothing.
const SUBMITS_BETWEEN: usize = 5;

/// A process whose syncs go through `strace`, one of which it has fail.
#[derive(Debug)]
struct Tracer {
    strace: Child,
    log: PathBuf,
}

impl Tracer {
    /// Has the `number`-th of the calls named fail from now on, and no other.
    fn fail(pid: u32, call: &str, number: usize, log: PathBuf) -> Result<Self, String> {
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-y", "-e", "trace=fsync,fdatasync,sync_file_range"])
            .args(["-e", &format!("inject={call}:error=EIO:when={number}")])
            .args(["-p", &pid.to_string(), "-o"])
            .arg(&log)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("strace: {error}"))?;
        let mut tracer = Self { strace, log };
        let status = format!("/proc/{pid}/status");
        let attached = within(SOON, || {
            let ended = tracer.strace.try_wait().ok().flatten().is_some();
            let text = fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("TracerPid:"));
            let is_traced = line.is_some_and(|tracer| tracer.trim() != "0");
            (ended || is_traced).then_some(is_traced)
        });
        if attached == Some(true) { Ok(tracer) } else { Err("strace cannot trace here".into()) }
    }

    /// What was called after the call that failed, once the process is gone.
    fn after_the_failure(mut self) -> Vec<String> {
        drop(self.strace.wait());
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let failed = lines.iter().position(|line| line.contains("(INJECTED)"));
        let failed = failed.expect("a sync failed");
        lines[failed + 1..].to_vec()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        drop(self.strace.kill());
        drop(self.strace.wait());
    }
}

/// Breaks the disk of the leader under load, at the `number`-th sync of its log.
fn break_leader(cluster: &mut Cluster, number: usize) -> Result<(), String> {
    let acknowledged = || cluster.client.acknowledged().len();
    let enough = acknowledged() + SUBMITS_BETWEEN;
    until(SOON, "submits are acknowledged", || (acknowledged() >= enough).then_some(()));
    let victim = cluster.await_leader();
    let pid = cluster.nodes[victim].pid().expect("it runs");
    let log = cluster.folder().join(format!("strace{number}"));
    let before = cluster.nodes[victim].log().len();
    let tracer = Tracer::fail(pid, "fdatasync", number, log)?;
    let status = cluster.nodes[victim].exited(SOON).expect("the node stops by itself");
    assert_eq!(status.code(), Some(STORAGE_FAILED), "{status}");
    let said = cluster.nodes[victim].log().split_off(before);
    assert!(said.contains("the storage failed") && said.contains("wal failed"), "{said}");

    let after = tracer.after_the_failure();
    let is_retry = |line: &&String| line.contains("sync(") && line.contains(".wal");
    let synced: Vec<&String> = after.iter().filter(is_retry).collect();
    assert!(synced.is_empty(), "a failed sync is not tried again: {synced:?}");

    let leader = cluster.await_leader_but(victim);
    assert_ne!(leader, victim);
    cluster.nodes[victim].restart();
    cluster.await_voters(3);
    Ok(())
}

#[test]
fn a_node_whose_sync_fails_stops_and_is_not_missed() {
    let mut cluster = Cluster::start(3, &Options { workers: false, ..Options::default() });
    cluster.start_worker("far", &["--slots", "4"]);
    let client = cluster.client.clone();
    let stop = AtomicBool::new(false);
    let broken = thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| submit_on(&client, || SHORT.to_owned(), &stop));
        }
        let _stopping = StopOnDrop(&stop);
        [1, 2, 7].into_iter().try_for_each(|number| break_leader(&mut cluster, number))
    });
    if let Err(reason) = broken {
        return skip(&reason);
    }
    cluster.await_quiet();
    let submits = seen("runs", client.acknowledged().len(), 3 * SUBMITS_BETWEEN);
    assert_right(&cluster, vec![submits]);
}

/// A single node has nobody to go on for it: it must not answer that it did what it could not
/// make durable.
#[test]
fn a_single_node_whose_sync_fails_acknowledges_nothing_more() {
    let mut cluster = Cluster::start(1, &Options::default());
    assert_eq!(cluster.client.await_end(&cluster.client.submit(SHORT)), "succeeded");
    let pid = cluster.nodes[0].pid().expect("it runs");
    let log = cluster.folder().join("strace");
    let _tracer = match Tracer::fail(pid, "fdatasync", 1, log) {
        Ok(tracer) => tracer,
        Err(reason) => return skip(&reason),
    };
    let address = cluster.nodes[0].address();
    let answer = cluster.client.submit_once(address, SHORT);
    assert!(!answer.is_ok_and(|answer| answer.is_ok()), "it was not durable");
    let status = cluster.nodes[0].exited(SOON).expect("the node stops by itself");
    assert_eq!(status.code(), Some(STORAGE_FAILED), "{status}");
    cluster.nodes[0].restart();
    cluster.await_voters(1);
    until(SOON, "it goes on", || {
        cluster.client.submit_once(address, SHORT).is_ok_and(|answer| answer.is_ok()).then_some(())
    });
    cluster.await_quiet();
    assert_right(&cluster, vec![]);
}
