//! Disks that run full. Nothing is lost by that, nobody exits, and room is all that it takes to
//! go on.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use crate::harness::cluster::folder;
use crate::harness::disk::Disk;
use crate::harness::{Cluster, Gate, Options, Request, Response, SOON, skip, until};
use crate::load::{StopOnDrop, submit_on};
use crate::tasks::{LONG_THEN_NEXT, SHORT};
use crate::verdict::{assert_right, seen};

/// Left on a disk of 200 MB so that it is low, but not full. The node's reserve counts as well.
const LOW_BYTES_LEFT: u64 = 36 << 20;

/// Runs before and after each change.
const RUNS: usize = 5;

/// Nodes with a disk each.
struct Site {
    cluster: Cluster,
    disks: Vec<Disk>,
    _place: tempfile::TempDir,
}

impl Site {
    /// Starts so many nodes, and a worker on none of the disks. Without disks there is nothing to
    /// be shown.
    fn start(count: usize) -> Option<Self> {
        let mut site = Self::start_with(count, false)?;
        site.cluster.start_worker("far", &["--slots", "4"]);
        Some(site)
    }

    /// The same where the nodes are workers, each on its disk, and nobody else is.
    fn start_with(count: usize, workers: bool) -> Option<Self> {
        let place = folder();
        let disk = |number| Disk::create(place.path(), &format!("disk{number}"));
        let disks: Vec<Disk> = match (0..count).map(disk).collect() {
            Ok(disks) => disks,
            Err(reason) => {
                skip(&reason);
                return None;
            }
        };
        let homes = disks.iter().map(|disk| disk.folder().join("data")).collect();
        let options = Options { homes, workers, ..Options::default() };
        let cluster = Cluster::start_in(Gate::alone(), folder(), count, &options);
        Some(Self { cluster, disks, _place: place })
    }

    /// Leaves so many bytes on the disk of a node; answers what is to be removed to undo that.
    fn fill(&self, node: usize, bytes_left: u64) -> PathBuf {
        let path = self.disks[node].folder().join("ballast");
        let mut rest = left(self.disks[node].folder()).saturating_sub(bytes_left);
        let mut file = fs::File::create(&path).expect("a disk takes files");
        // Small pieces at the end: the last blocks are had by them only.
        for piece in [1 << 20, 4 << 10] {
            let bytes = vec![1; piece];
            while rest >= piece as u64 && file.write_all(&bytes).is_ok() {
                rest -= piece as u64;
            }
        }
        path
    }

    /// Fills the disk of a node to the last byte, and what it gives up of its reserve as well.
    fn fill_up(&self, node: usize) -> PathBuf {
        let path = self.fill(node, 0);
        self.await_storage(node, "full");
        let mut file = fs::OpenOptions::new().append(true).open(&path).expect("it is there");
        while file.write_all(&[1; 4 << 10]).is_ok() {}
        path
    }

    #[track_caller]
    fn await_storage(&self, node: usize, state: &str) {
        until(SOON, &format!("the disk of node{node} is {state}"), || {
            (self.cluster.view(node)?["storage"]["state"] == state).then_some(())
        });
    }

    /// Asks a node itself.
    #[track_caller]
    fn get(&self, node: usize, path: &str) -> Response {
        let response = self.cluster.nodes[node].send(&Request::get(path));
        let response = response.expect("the node answers");
        assert!(response.is_ok(), "{path}: {} {}", response.status, response.text());
        response
    }

    /// Asks a node itself for new work, which it must refuse for want of room.
    #[track_caller]
    fn assert_refused(&self, node: usize) {
        let to = self.cluster.nodes[node].address();
        let refused = self.cluster.client.submit_once(to, SHORT).expect("the node answers");
        assert_eq!((refused.status, refused.code().as_str()), (503, "disk-full"));
        assert_eq!(refused.header("retry-after"), Some("10"));
        assert!(refused.text().contains("free some"), "it names a way out: {}", refused.text());
    }

    /// How many runs a node shows that is asked itself.
    #[track_caller]
    fn runs_seen(&self, node: usize) -> usize {
        let runs = self.get(node, "/v1/runs").json();
        runs["items"].as_array().map_or(0, Vec::len)
    }

    #[track_caller]
    fn run_some(&self) {
        let client = &self.cluster.client;
        let runs: Vec<String> = (0..RUNS).map(|_| client.submit(SHORT)).collect();
        runs.iter().for_each(|run| assert_eq!(client.await_end(run), "succeeded"));
    }

    /// How much a node has applied.
    fn applied(&self, node: usize) -> u64 {
        let view = until(SOON, "the node answers", || self.cluster.view(node));
        view["applied_index"].as_u64().expect("it is a number")
    }
}

/// What an ordinary user can still have of a file system, in bytes.
fn left(folder: &Path) -> u64 {
    let output = std::process::Command::new("stat")
        .args(["--file-system", "--format=%a %S"])
        .arg(folder)
        .output()
        .expect("there is stat");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().map(|n| n.parse::<u64>().expect("stat prints numbers")).product()
}

fn make_room(ballast: &Path) {
    fs::remove_file(ballast).expect("it is there");
}

#[test]
fn new_work_is_refused_before_a_disk_is_full_and_what_runs_is_completed() {
    let Some(site) = Site::start(1) else { return };
    let client = &site.cluster.client;
    let (held, doomed) = (client.submit(LONG_THEN_NEXT), client.submit(LONG_THEN_NEXT));
    site.cluster.await_start(&held, "long");
    site.cluster.await_start(&doomed, "long");
    let ballast = site.fill(0, LOW_BYTES_LEFT);
    site.await_storage(0, "low");
    site.assert_refused(0);
    let metrics = site.get(0, "/metrics").text();
    assert!(metrics.contains("quorate_storage_state 1.0"), "{metrics}");
    assert!(metrics.contains("quorate_log_sync_seconds_total "), "{metrics}");

    let cancel = Request::post(format!("/v1/runs/{doomed}/cancel"));
    assert!(client.try_ask(&cancel, SOON).expect("a cancel passes").is_ok());
    assert_eq!(client.await_end(&doomed), "cancelled");
    site.cluster.ledger.release("go");
    assert_eq!(client.await_end(&held), "succeeded", "reports and assignments pass");

    make_room(&ballast);
    site.await_storage(0, "ok");
    site.run_some();
    assert_right(&site.cluster, vec![]);
}

#[test]
fn a_leader_without_room_steps_aside_answers_reads_and_comes_back() {
    let Some(site) = Site::start(3) else { return };
    site.run_some();
    let old = site.cluster.await_leader();
    let ballast = site.fill_up(old);
    let new = site.cluster.await_leader_but(old);
    site.run_some();
    let behind = site.applied(old);
    assert!(behind < site.applied(new), "what it cannot store it does not acknowledge");
    assert_eq!(site.runs_seen(old), 2 * RUNS, "the leader answers what it cannot know");
    let stale = site.get(old, "/v1/runs?stale=true").json();
    assert_eq!(stale["items"].as_array().map(Vec::len), Some(RUNS), "what it has itself");

    make_room(&ballast);
    until(SOON, "the node catches up", || (site.applied(old) >= site.applied(new)).then_some(()));
    site.run_some();
    let submits = seen("runs", site.cluster.client.acknowledged().len(), 3 * RUNS);
    assert_right(&site.cluster, vec![submits]);
}

#[test]
fn a_follower_without_room_takes_nobody_down_not_even_itself() {
    let Some(mut site) = Site::start(3) else { return };
    let leader = site.cluster.await_leader();
    let follower = (leader + 1) % 3;
    let ballast = site.fill_up(follower);
    site.run_some();
    assert_eq!(site.cluster.leader(), Some(leader), "nobody is disturbed");
    // It does not start without any, and then not for long.
    site.cluster.nodes[follower].kill();
    let making_room = thread::spawn(move || {
        thread::sleep(Duration::from_secs(1));
        make_room(&ballast);
    });
    site.cluster.nodes[follower].restart();
    making_room.join().expect("there was something to remove");
    assert!(site.cluster.nodes[follower].log().contains("no start: the disk is full"));
    until(SOON, "the node catches up", || {
        (site.applied(follower) >= site.applied(leader)).then_some(())
    });
    assert_right(&site.cluster, vec![]);
}

#[test]
fn a_single_node_without_room_answers_reads_refuses_writes_and_comes_back() {
    let Some(mut site) = Site::start(1) else { return };
    site.run_some();
    for restart in [false, true] {
        // With what the reserve leaves, it starts again as well.
        let ballast = if restart { site.fill(0, 0) } else { site.fill_up(0) };
        if restart {
            site.await_storage(0, "full");
            site.cluster.nodes[0].kill();
            site.cluster.nodes[0].restart();
            site.await_storage(0, "full");
            site.cluster.await_voters(1);
        }
        site.assert_refused(0);
        assert!(site.runs_seen(0) >= RUNS);
        make_room(&ballast);
        site.await_storage(0, "ok");
        site.run_some();
    }
    assert_right(&site.cluster, vec![]);
}

/// What runs on a worker whose disk is full is reported from memory; what does not run yet goes
/// to others, and to it again once there is room.
#[test]
fn a_worker_without_room_reports_what_runs_and_begins_nothing() {
    let Some(site) = Site::start_with(3, true) else { return };
    let client = &site.cluster.client;
    let leader = site.cluster.await_leader();
    let held = until(SOON, "a follower's worker has a task", || {
        let run = client.submit(LONG_THEN_NEXT);
        site.cluster.await_start(&run, "long");
        (site.cluster.worker_of(&run, "long") != leader).then_some(run)
    });
    let full = site.cluster.worker_of(&held, "long");
    let ballast = site.fill_up(full);
    until(SOON, "its worker knows", || {
        let metrics = site.get(full, "/metrics").text();
        metrics.contains("quorate_worker_disk_full 1.0").then_some(())
    });
    let of_full = client.task(&held, "long")["worker"].clone();
    let is_its = |run: &String| {
        client.get(&format!("/v1/runs/{run}/tasks/short/attempts/1"))["worker"] == of_full
    };
    let submit_some = || -> Vec<String> {
        let runs: Vec<String> = (0..4 * RUNS).map(|_| client.submit(SHORT)).collect();
        runs.iter().for_each(|run| assert_eq!(client.await_end(run), "succeeded"));
        runs
    };
    assert!(!submit_some().iter().any(is_its), "it is given nothing");
    site.cluster.ledger.release("go");
    assert_eq!(client.await_end(&held), "succeeded", "{}", client.explain(&held));
    assert_eq!(site.cluster.ledger.starts(&held, "long"), 1);

    make_room(&ballast);
    until(SOON, "it is given work again", || submit_some().iter().any(is_its).then_some(()));
    site.cluster.await_quiet();
    assert_right(&site.cluster, vec![]);
}

/// A disk that fills up under load, to the last byte and in no time: nobody gets to hold
/// anything back before.
#[test]
fn a_disk_that_fills_up_under_load_loses_nothing_of_what_was_acknowledged() {
    let Some(site) = Site::start(3) else { return };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                submit_on(&site.cluster.client, || SHORT.to_owned(), &stop);
            });
        }
        let _stopping = StopOnDrop(&stop);
        for _ in 0..3 {
            let victim = site.cluster.await_leader();
            let ballast = site.fill_up(victim);
            site.cluster.await_leader_but(victim);
            make_room(&ballast);
            site.await_storage(victim, "ok");
        }
    });
    site.cluster.await_quiet();
    site.cluster.await_voters(3);
    let submits = seen("runs", site.cluster.client.acknowledged().len(), 20);
    assert_right(&site.cluster, vec![submits]);
}
