//! What is durable when, and what happens when the disk says no.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use quorate_raft::wal::record::{Ballot, Entry, EntryKind, PAYLOAD_BYTES_MAX, Position};
use quorate_raft::wal::{Wal, WalError, WalOptions};

use crate::model::Model;
use crate::sim_disk::SimDisk;

/// Longer than any of this takes, on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(20);

fn open(disk: &SimDisk) -> Wal {
    Wal::open(Arc::new(disk.clone()), WalOptions::default()).unwrap()
}

fn entry(index: u64, payload_bytes: usize) -> Entry {
    let position = Position { term: 1, node: 1, index };
    Entry { position, kind: EntryKind::Normal, payload: Bytes::from(vec![7; payload_bytes]) }
}

const BALLOT: Ballot = Ballot { term: 4, node: 2, committed: false };

#[tokio::test]
async fn syncs_once_for_all_that_is_queued() {
    let disk = SimDisk::default();
    let wal = open(&disk);
    let before = disk.syncs();
    disk.hold(true);
    let (sender, ended) = mpsc::channel();
    for index in 0..500 {
        let sender = sender.clone();
        let done = move |result| sender.send((index, result)).unwrap();
        wal.append(vec![entry(index, 100)], done).await.unwrap();
    }
    assert!(ended.try_recv().is_err(), "nothing is done while the disk syncs");
    assert_eq!(wal.read(0..1000, usize::MAX).unwrap().len(), 500, "but all can be read");
    disk.hold(false);
    for index in 0..500 {
        let (done, result) = ended.recv_timeout(DEADLINE).unwrap();
        assert_eq!(done, index, "in the order of the queue");
        result.unwrap();
    }
    assert!(disk.syncs() - before <= 2, "{} syncs for 500 appends", disk.syncs() - before);
}

#[tokio::test]
async fn a_failed_sync_ends_all_writing() {
    let disk = SimDisk::default();
    let wal = open(&disk);
    wal.save_ballot(BALLOT).await.unwrap();
    let mut fatal = wal.fatal();
    assert_eq!(*fatal.borrow_and_update(), None);

    let failing = disk.syncs() + 1;
    disk.fail_sync(failing);
    let (sender, ended) = mpsc::channel();
    wal.append(vec![entry(0, 10)], move |result| sender.send(result).unwrap()).await.unwrap();
    let result = ended.recv_timeout(DEADLINE).unwrap();
    assert!(matches!(result, Err(WalError::Failed(_))), "{result:?}");

    tokio::time::timeout(DEADLINE, fatal.changed()).await.unwrap().unwrap();
    let cause = fatal.borrow().clone().unwrap();
    assert!(cause.contains("0000000000000001.wal failed"), "{cause}");
    let later = Ballot { term: 5, ..BALLOT };
    assert!(matches!(wal.save_ballot(later).await, Err(WalError::Failed(_))));
    assert!(wal.append(vec![entry(1, 10)], |_| ()).await.is_err());
    drop(wal);
    assert_eq!(disk.syncs(), failing, "a failed sync is not tried again");

    let kept = disk.cut_at(disk.time(), &mut || 0).remove(0);
    assert_eq!(Model::of(&open(&SimDisk::new(kept))).ballot, Some(BALLOT));
}

#[tokio::test]
async fn keeps_what_is_committed_over_a_restart_without_a_sync() {
    let disk = SimDisk::default();
    let wal = open(&disk);
    let (sender, ended) = mpsc::channel();
    wal.append(vec![entry(0, 10), entry(1, 10)], move |result| sender.send(result).unwrap())
        .await
        .unwrap();
    ended.recv_timeout(DEADLINE).unwrap().unwrap();
    let before = disk.syncs();
    wal.save_committed(entry(1, 0).position).await.unwrap();
    wal.save_ballot(BALLOT).await.unwrap();
    assert_eq!(disk.syncs() - before, 1, "the sync of the vote");
    drop(wal);
    assert_eq!(open(&disk).committed(), Some(entry(1, 0).position));
}

#[tokio::test]
async fn splits_what_is_too_large_for_one_frame_or_one_segment() {
    let disk = SimDisk::default();
    let options = WalOptions { segment_bytes: 6 << 20, cache_bytes: 1 << 20 };
    let wal = Wal::open(Arc::new(disk.clone()), options).unwrap();
    let entries: Vec<_> = (0..5).map(|index| entry(index, 3 << 20)).collect();
    let (sender, ended) = mpsc::channel();
    wal.append(entries.clone(), move |result| sender.send(result).unwrap()).await.unwrap();
    ended.recv_timeout(DEADLINE).unwrap().unwrap();
    assert_eq!(wal.read(0..5, usize::MAX).unwrap(), entries);
    assert_eq!(wal.read(1..5, 1).unwrap(), entries[1..2], "at least one, whatever its size");
    drop(wal);
    assert_eq!(open(&disk).read(0..5, usize::MAX).unwrap(), entries);
}

#[tokio::test]
async fn refuses_an_entry_that_is_too_large_or_out_of_place() {
    let wal = open(&SimDisk::default());
    let error = wal.append(vec![entry(0, PAYLOAD_BYTES_MAX + 1)], |_| ()).await.unwrap_err();
    assert!(matches!(error, WalError::TooLarge { .. }), "{error}");
    let gap = wal.append(vec![entry(0, 1), entry(2, 1)], |_| ()).await.unwrap_err();
    assert_eq!(gap.to_string(), "entry 2 cannot follow entry 0");
    assert_eq!(wal.last(), None, "nothing of it was taken");
    let (sender, ended) = mpsc::channel();
    let largest = entry(0, PAYLOAD_BYTES_MAX);
    wal.append(vec![largest.clone()], move |result| sender.send(result).unwrap()).await.unwrap();
    ended.recv_timeout(DEADLINE).unwrap().unwrap();
    assert_eq!(wal.read(0..1, 0).unwrap(), [largest; 0]);
}

#[tokio::test]
async fn deletes_segments_once_all_in_them_is_purged() {
    let disk = SimDisk::default();
    let options = WalOptions { segment_bytes: 4096, cache_bytes: 0 };
    let wal = Wal::open(Arc::new(disk.clone()), options).unwrap();
    for index in 0..100 {
        let (sender, ended) = mpsc::channel();
        let done = move |result| sender.send(result).unwrap();
        wal.append(vec![entry(index, 300)], done).await.unwrap();
        ended.recv_timeout(DEADLINE).unwrap().unwrap();
    }
    wal.save_ballot(BALLOT).await.unwrap();
    let before = disk.image().len();
    wal.purge(entry(90, 0).position).await.unwrap();
    // Files go after the purge is acknowledged; closing waits for the writer.
    drop(wal);
    let after = disk.image().len();
    assert!(before >= 8 && after <= 3, "{before} segments, then {after}");
    let wal = Wal::open(Arc::new(disk), options).unwrap();
    assert_eq!(wal.read(0..1000, usize::MAX).unwrap().len(), 9);
    assert_eq!(wal.ballot(), Some(BALLOT));
}
