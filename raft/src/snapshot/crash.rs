//! Power cuts, failures and damage: a snapshot that has its name is whole, or refused.

use openraft::vote::RaftLeaderId as _;
use quorate_model::command::MintNodeId;
use quorate_model::{Command, Entry, IdempotencyKey, LogIndex, Request, State, UnixMs};

use super::*;
use crate::sim_disk::{Image, SimDisk, random};
use crate::types::LeaderId;

/// Snapshots that are taken one after the other; two are kept.
const TAKEN: u64 = 4;

/// The state at `index`, not like any other.
fn state_at(index: u64) -> State {
    let mut state = State::default();
    let key = IdempotencyKey { key: format!("key {index}"), request_hash: index };
    let request = Request { key: Some(key), command: Command::MintNodeId(MintNodeId {}) };
    let entry = Entry { proposed_at: UnixMs(1_000 + index), requests: vec![request] };
    state.apply(LogIndex(index), entry);
    state
}

fn meta_at(index: u64) -> SnapshotMeta {
    let last_log_id = Some(LogId { leader_id: LeaderId::new(1, 1), index });
    SnapshotMeta { last_log_id, ..SnapshotMeta::default() }
}

fn open(disk: &SimDisk) -> io::Result<SnapshotStore> {
    SnapshotStore::open_on(Arc::new(disk.clone()))
}

/// Takes the snapshot at `index`, and removes what it makes needless.
fn take(store: &SnapshotStore, index: u64) -> io::Result<()> {
    store.write(&meta_at(index), &state_at(index))?;
    store.retain().map(drop)
}

fn read(file: &SnapshotFile) -> io::Result<(u64, State)> {
    let mut reader = SnapshotReader::open(file)?;
    let index = reader.meta()?.last_log_id.map_or(0, |id| id.index);
    let state = reader.state()?;
    reader.end()?;
    Ok((index, state))
}

/// Checks that every snapshot on a disk is whole, and that the newest is that at `least` or a
/// later one; answers which it is.
#[track_caller]
fn assert_whole(disk: &SimDisk, least: u64, when: &str) -> u64 {
    let store = open(disk).unwrap_or_else(|error| panic!("{when}: {error}"));
    let mut newest = 0;
    for (LogIndex(index), file) in store.list().unwrap() {
        let (found, state) = read(&file).unwrap_or_else(|error| panic!("{when}: {error}"));
        assert_eq!(found, index, "{when}");
        assert_eq!(state, state_at(index), "{when}");
        newest = newest.max(index);
    }
    assert!(newest >= least, "{when}: the newest is at {newest}");
    assert!(disk.image().keys().all(|name| name.ends_with(SUFFIX)), "{when}: leftovers");
    newest
}

#[test]
fn wherever_the_power_is_cut_the_newest_snapshot_is_whole() {
    let disk = SimDisk::default();
    let store = open(&disk).unwrap();
    let mut taken = vec![(disk.time(), 0)];
    for index in 1..=TAKEN {
        take(&store, index).unwrap();
        taken.push((disk.time(), index));
    }
    let mut images = 0;
    for time in 0..=disk.time() {
        let least = taken.iter().rev().find(|(at, _)| *at <= time).map_or(0, |(_, index)| *index);
        for image in disk.cut_at(time, &mut random(time as u64)) {
            assert_whole(&SimDisk::new(image), least, &format!("cut at {time}"));
            images += 1;
        }
    }
    assert!(images > 150, "{images}");
}

#[test]
fn whatever_fails_the_snapshots_before_are_whole() {
    let sound = SimDisk::default();
    let store = open(&sound).unwrap();
    (1..=TAKEN).for_each(|index| take(&store, index).unwrap());
    let mut failures = 0;
    for failing in 1..=sound.tries() {
        let disk = SimDisk::default();
        disk.fail_try(failing);
        let mut last = 0;
        if let Ok(store) = open(&disk) {
            let failed = (1..=TAKEN).find(|&index| {
                let taken = store.write(&meta_at(index), &state_at(index));
                last = if taken.is_ok() { index } else { last };
                taken.is_err() || store.retain().is_err()
            });
            failures += usize::from(failed.is_some());
        }
        let when = format!("try {failing} failed");
        disk.fail_try(0);
        for image in disk.cut_at(disk.time(), &mut random(failing as u64)) {
            assert_whole(&SimDisk::new(image), last, &when);
        }
        // The process comes back on what the operating system still has in memory, and relies
        // on what it finds.
        let found = assert_whole(&disk, last, &when);
        for image in disk.cut_at(disk.time(), &mut random(failing as u64)) {
            assert_whole(&SimDisk::new(image), found, &format!("{when}, and the node came back"));
        }
    }
    assert!(failures > 15, "{failures}");
}

#[test]
fn a_snapshot_without_room_leaves_nothing_behind() {
    let disk = SimDisk::default();
    let store = open(&disk).unwrap();
    take(&store, 1).unwrap();
    disk.fill(true);
    let refused = store.write(&meta_at(2), &state_at(2)).unwrap_err();
    assert!(crate::storage::is_full(&refused), "{refused}");
    assert_eq!(assert_whole(&disk, 1, "without room"), 1);
    disk.fill(false);
    take(&store, 2).unwrap();
}

fn one_snapshot() -> (String, Vec<u8>) {
    let disk = SimDisk::default();
    take(&open(&disk).unwrap(), 7).unwrap();
    disk.image().pop_first().unwrap()
}

fn read_bytes(name: &str, bytes: Vec<u8>) -> io::Result<(u64, State)> {
    let store = open(&SimDisk::new(Image::from([(name.to_owned(), bytes)])))?;
    read(&store.list()?.remove(0).1)
}

#[test]
fn every_shorter_file_is_refused() {
    let (name, bytes) = one_snapshot();
    assert!(read_bytes(&name, bytes.clone()).is_ok());
    for length in 0..bytes.len() {
        assert!(read_bytes(&name, bytes[..length].to_vec()).is_err(), "{length} bytes");
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let (name, bytes) = one_snapshot();
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(read_bytes(&name, bytes).is_err(), "bit {bit}");
    }
}
