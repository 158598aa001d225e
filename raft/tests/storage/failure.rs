//! A disk that fails, and one that is full: what is acknowledged after it, and what is lost.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use quorate_raft::wal::record::{Ballot, Position};
use quorate_raft::wal::{OpenError, Wal, WalError, WalOptions};

use crate::model::{Model, Step};
use crate::sim_disk::{SimDisk, random};

/// A few frames to a segment: it is made, ended and deleted all the time.
const SMALL: WalOptions = WalOptions { segment_bytes: 700, cache_bytes: 100 };

/// Longer than any of this takes, on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(20);

fn open(disk: &SimDisk) -> Result<Wal, OpenError> {
    Wal::open(Arc::new(disk.clone()), SMALL)
}

/// Some of everything, over several segments.
fn steps() -> Vec<Step> {
    let round = [
        Step::Vote,
        Step::Append(vec![40, 0, 80]),
        Step::Commit,
        Step::Append(vec![100]),
        Step::Truncate(1),
        Step::Append(vec![60, 200]),
        Step::Purge(3),
    ];
    round.iter().cycle().take(6 * round.len()).cloned().collect()
}

/// What became of some steps.
struct Run {
    /// After each step, from before the first.
    models: Vec<Model>,
    /// How many steps were acknowledged, and with them all before.
    acknowledged: usize,
    /// Whether a step was not.
    has_failed: bool,
}

/// Takes the steps one after the other, until the log fails.
fn run(wal: &Wal, mut model: Model, steps: &[Step]) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut run = Run { models: vec![model.visible()], acknowledged: 0, has_failed: false };
    for (at, step) in steps.iter().enumerate() {
        let ended = runtime.block_on(model.step(step, wal));
        run.models.push(model.visible());
        match ended.map(|ended| ended.recv()) {
            None => {}
            Some(Ok(Ok(()))) => run.acknowledged = at + 1,
            Some(Ok(Err(_)) | Err(_)) => {
                run.has_failed = true;
                break;
            }
        }
    }
    run
}

/// After a failure nothing is acknowledged, and nothing is tried.
fn assert_dead(wal: Wal, disk: &SimDisk) {
    let fatal = wal.fatal();
    assert!(fatal.borrow().is_some());
    let tries = disk.tries();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let vote = Ballot { term: 99, node: 1, committed: false };
        assert!(matches!(wal.save_ballot(vote).await, Err(WalError::Failed(_))));
        assert!(wal.append(Vec::new(), |_| panic!("acknowledged")).await.is_err());
        assert!(wal.save_committed(Position { term: 1, node: 1, index: 0 }).await.is_err());
    });
    drop(wal);
    assert_eq!(disk.tries(), tries, "what has failed is not tried again, nor anything else");
}

/// Whatever write, sync, new name or deletion fails: nothing is acknowledged from then on, and
/// nothing that was acknowledged is lost, be the power cut at once or after the process has
/// come back on what the operating system still had in memory.
#[test]
fn whatever_fails_is_the_last_thing_that_is_tried_and_loses_nothing() {
    let sound = SimDisk::default();
    drop(run(&open(&sound).unwrap(), Model::default(), &steps()));
    let (tries, mut failures) = (sound.tries(), 0);
    assert!(tries > 100, "{tries}");
    for failing in 1..=tries {
        let disk = SimDisk::default();
        disk.fail_try(failing);
        let first = match open(&disk) {
            Ok(wal) => {
                let first = run(&wal, Model::default(), &steps());
                // What nobody waits for may fail after the last step.
                if first.has_failed {
                    failures += 1;
                    assert_dead(wal, &disk);
                }
                first
            }
            Err(OpenError::Io { .. }) => {
                failures += 1;
                Run { models: vec![Model::default()], acknowledged: 0, has_failed: true }
            }
            Err(error) => panic!("try {failing}: {error}"),
        };
        assert_keeps(&disk, &first, &format!("try {failing} failed"));
        disk.fail_try(0);

        let wal = open(&disk).unwrap_or_else(|error| panic!("try {failing} failed: {error}"));
        let found = Model::of(&wal);
        assert!(first.models[first.acknowledged..].contains(&found), "try {failing} failed");
        let second = run(&wal, found, &[Step::Append(vec![50]), Step::Vote, Step::Append(vec![9])]);
        assert_eq!((second.acknowledged, second.has_failed), (3, false), "try {failing} failed");
        assert_keeps(&disk, &second, &format!("try {failing} failed, and the node came back"));
    }
    assert!(failures > tries / 2, "{failures} of {tries} were seen by a step");
}

/// Checks that a power cut now leaves all that was acknowledged.
#[track_caller]
fn assert_keeps(disk: &SimDisk, run: &Run, when: &str) {
    for image in disk.cut_at(disk.time(), &mut random(disk.time() as u64)) {
        let wal = open(&SimDisk::new(image)).unwrap_or_else(|error| panic!("{when}: {error}"));
        let found = Model::of(&wal);
        assert!(run.models[run.acknowledged..].contains(&found), "{when}: {found:?}");
    }
}

#[test]
fn a_log_without_room_waits_and_then_goes_on() {
    let disk = SimDisk::default();
    let wal = open(&disk).unwrap();
    let before = run(&wal, Model::default(), &steps());
    assert!(!before.has_failed);
    let mut model = Model::of(&wal);
    disk.fill(true);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.extend(runtime.block_on(model.step(&Step::Append(vec![100]), &wal)));
    }
    let last = waiting.pop().unwrap();
    // There was a little room left in the segment; beyond that nothing is acknowledged.
    let early = waiting.iter().filter(|one| matches!(one.try_recv(), Ok(Ok(())))).count();
    assert!(early < 10, "{early} of 19 in a segment of 700 bytes");
    let silence = last.recv_timeout(Duration::from_millis(300));
    assert_eq!(silence.unwrap_err(), mpsc::RecvTimeoutError::Timeout);
    assert!(wal.fatal().borrow().is_none(), "a disk that is full is not broken");
    for image in disk.cut_at(disk.time(), &mut random(7)) {
        let found = Model::of(&open(&SimDisk::new(image)).unwrap());
        assert!(found.entries.len() < model.entries.len());
    }

    disk.fill(false);
    last.recv_timeout(DEADLINE).unwrap().unwrap();
    drop(wal);
    assert_eq!(Model::of(&open(&disk).unwrap()), model.visible());
}

#[test]
fn a_log_that_is_closed_waits_for_room_no_longer() {
    let disk = SimDisk::default();
    let wal = open(&disk).unwrap();
    disk.fill(true);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut model = Model::default();
    let ended = runtime.block_on(model.step(&Step::Append(vec![2000]), &wal)).unwrap();
    drop(wal);
    assert!(ended.recv().unwrap().is_err(), "it is not acknowledged");
    assert_eq!(Model::of(&open(&disk).unwrap()).last, None);
}
