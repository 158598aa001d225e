//! A data folder that is not as the node left it is refused, with a word about what to do.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::node::Process;
use crate::harness::{Cluster, Options, SOON};
use crate::tasks::SHORT;

/// The way out that every refusal of lost data names.
const ASIDE: &str = "join again as a new node";

/// A node with some runs behind it, killed.
fn killed() -> Cluster {
    let mut cluster = Cluster::start(1, &Options::default());
    run_some(&cluster, 20);
    cluster.nodes[0].kill();
    cluster
}

fn run_some(cluster: &Cluster, count: usize) {
    let runs: Vec<String> = (0..count).map(|_| cluster.client.submit(SHORT)).collect();
    runs.iter().for_each(|run| assert_eq!(cluster.client.await_end(run), "succeeded"));
}

fn home(cluster: &Cluster) -> PathBuf {
    cluster.nodes[0].setup.home.clone()
}

/// The files of the log, oldest first.
fn segments(home: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.join("wal")).expect("the log is a folder");
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.expect("it can be listed").path()).collect();
    files.sort();
    files
}

/// A whole folder put back from an old copy fits together: the node cannot know. The leader
/// that has its word for what is missing does, and is not harmed.
#[test]
fn refuses_a_folder_that_was_rolled_back_whole() {
    let mut cluster = Cluster::start(3, &Options::default());
    let leader = cluster.await_leader();
    let victim = (0..3).find(|&node| node != leader).expect("one leads");
    run_some(&cluster, 5);
    cluster.nodes[victim].power_off();
    let (now, old) = (cluster.nodes[victim].setup.home.clone(), cluster.folder().join("old"));
    copy_folder(&now, &old);
    cluster.nodes[victim].restart();
    cluster.await_voters(3);
    run_some(&cluster, 20);
    cluster.digests();
    cluster.nodes[victim].power_off();
    fs::remove_dir_all(&now).expect("the folder can be removed");
    copy_folder(&old, &now);
    let before = cluster.nodes[victim].log().len();
    // It may serve for a moment, until it meets the leader.
    if cluster.nodes[victim].try_restart().is_ok() {
        let status = cluster.nodes[victim].exited(SOON).expect("the node stops by itself");
        assert!(!status.success());
    }
    let said = cluster.nodes[victim].log().split_off(before);
    assert!(said.contains("is an old copy") && said.contains(ASIDE), "{said}");
    assert_eq!(cluster.leader(), Some(leader), "the leader is not harmed");
    run_some(&cluster, 5);
}

/// Starts the node, which must refuse, and tell where and how to go on.
#[track_caller]
fn assert_refused(cluster: &mut Cluster, words: &[&str]) {
    let said = cluster.nodes[0].try_restart().expect_err("such a folder is refused");
    for word in words {
        assert!(said.contains(word), "it does not say {word:?}: {said}");
    }
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "{} can be copied", from.display());
}

#[test]
fn refuses_a_log_with_a_flipped_bit_in_the_middle() {
    let mut cluster = killed();
    let file = segments(&home(&cluster)).remove(0);
    let mut bytes = fs::read(&file).expect("a segment is readable");
    // Segments are filled up with zeros: the middle of what is written, not of the file.
    let written = bytes.iter().rposition(|&byte| byte != 0).expect("something is written");
    bytes[written / 2] ^= 0x10;
    fs::write(&file, bytes).expect("a segment is writable");
    assert_refused(&mut cluster, &["is broken at byte", ASIDE]);
}

#[test]
fn refuses_an_emptied_log_beside_an_identity() {
    let mut cluster = killed();
    let wal = home(&cluster).join("wal");
    fs::remove_dir_all(&wal).expect("the log can be removed");
    fs::create_dir(&wal).expect("an empty one can be made");
    assert_refused(&mut cluster, &["missing or empty", ASIDE]);
}

#[test]
fn refuses_a_log_that_was_rolled_back() {
    let mut cluster = killed();
    let (wal, old) = (home(&cluster).join("wal"), cluster.folder().join("old-wal"));
    copy_folder(&wal, &old);
    cluster.nodes[0].restart();
    cluster.await_voters(1);
    run_some(&cluster, 20);
    // The floor is raised at a start at the latest.
    cluster.nodes[0].restart();
    cluster.await_voters(1);
    cluster.nodes[0].kill();
    fs::remove_dir_all(&wal).expect("the log can be removed");
    copy_folder(&old, &wal);
    assert_refused(&mut cluster, &["an old copy", ASIDE]);
}

#[test]
fn refuses_a_log_of_another_node() {
    let mut cluster = killed();
    let other = killed();
    let (ours, theirs) = (home(&cluster).join("wal"), home(&other).join("wal"));
    fs::remove_dir_all(&ours).expect("the log can be removed");
    copy_folder(&theirs, &ours);
    assert_refused(&mut cluster, &["belongs to node 1 of cluster", "put each"]);
}

#[test]
fn refuses_a_folder_that_another_process_uses() {
    let mut cluster = Cluster::start(1, &Options::default());
    let mut setup = cluster.nodes[0].setup.clone();
    setup.listen.set_port(0);
    setup.name = "twin".to_owned();
    // Wait for no start: it must not come to that.
    let twin = Process::try_start(setup);
    let said = twin.expect_err("one folder is one node");
    assert!(said.contains("use"), "{said}");
    run_some(&cluster, 1);
    cluster.nodes[0].kill();
}

#[test]
fn cuts_off_a_record_that_was_half_written() {
    let mut cluster = killed();
    let last = segments(&home(&cluster)).pop().expect("there is a segment");
    let mut bytes = fs::read(&last).expect("a segment is readable");
    let written = bytes.iter().rposition(|&byte| byte != 0).expect("something is written") + 1;
    // As a cut in the middle of a write leaves it: a head that promises more than there is.
    let torn = [0xff, 0x01, 0x00, 0x00, 0xde, 0xad, 0xbe, 0xef, 0x07];
    bytes.truncate(written);
    bytes.extend_from_slice(&torn);
    fs::write(&last, bytes).expect("a segment is writable");
    cluster.nodes[0].restart();
    cluster.await_voters(1);
    run_some(&cluster, 1);
    assert_eq!(cluster.runs().len(), 21, "what was acknowledged is still there");
}
