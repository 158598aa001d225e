//! F3: a snapshot, from a disk or from another node.

use std::fs;
use std::io;
use std::path::Path;

use openraft::vote::RaftLeaderId as _;
use quorate_fuzz::Fuzz;
use quorate_model::command::MintNodeId;
use quorate_model::{Command, Entry, IdempotencyKey, LogIndex, Request, State, UnixMs};

use super::{corpus, seal_frames};
use crate::codec;
use crate::snapshot::{SnapshotReader, SnapshotStore};
use crate::types::{LeaderId, LogId, SnapshotMeta};

/// Bytes before the first section.
const PREFIX_BYTES: usize = 12;

/// The first byte says whether checksums are put right; a file follows.
fn read_snapshot(input: &[u8]) -> String {
    let Some((&mode, bytes)) = input.split_first() else { return "nothing".to_owned() };
    let mut bytes = bytes.to_vec();
    if let Some(sections) = bytes.get_mut(PREFIX_BYTES..).filter(|_| mode % 2 == 1) {
        seal_frames(sections);
    }
    let dir = tempfile::tempdir().expect("a directory");
    match read_file(dir.path(), &bytes) {
        Ok(records) => format!("a snapshot with {} records", records.min(1)),
        Err(error) => format!("{:?}", error.kind()),
    }
}

fn read_file(dir: &Path, bytes: &[u8]) -> io::Result<usize> {
    fs::write(dir.join("00000000000000000009-1.snapshot"), bytes)?;
    let store = SnapshotStore::open(dir)?;
    let (_, file) = store.list()?.pop().expect("the file that was written");
    let mut reader = SnapshotReader::open(&file)?;
    reader.meta()?;
    let state = reader.state()?;
    let mut written = Vec::new();
    codec::encode_into(&state, &mut written)?;
    let length = written.len() as u64;
    let again: State = codec::decode_from(&mut written.as_slice(), length)?;
    assert_eq!(again, state, "it says something else when it is written again");
    let mut records = 0;
    while reader.next_record()?.is_some() {
        records += 1;
    }
    reader.end()?;
    Ok(records)
}

fn some_state() -> State {
    let mut state = State::default();
    let request = |number: u64| Request {
        key: Some(IdempotencyKey { key: format!("key {number}"), request_hash: number }),
        command: Command::MintNodeId(MintNodeId {}),
    };
    let requests = (0..3).map(request).collect();
    state.apply(LogIndex(9), Entry { proposed_at: UnixMs(1_000), requests });
    state
}

fn seeds() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a directory");
    let store = SnapshotStore::open(dir.path()).expect("a store");
    let last_log_id = Some(LogId { leader_id: LeaderId::new(1, 1), index: 9 });
    let meta = SnapshotMeta { last_log_id, ..SnapshotMeta::default() };
    let file = store.write(&meta, &some_state()).expect("a snapshot");
    let bytes = fs::read(file.path()).expect("it was written");
    (0..2).map(|mode| [&[mode], bytes.as_slice()].concat()).collect()
}

#[test]
fn no_snapshot_makes_a_node_panic() {
    let demanded = &["a snapshot with", "InvalidData", "UnexpectedEof"];
    Fuzz { corpus: corpus("snapshot"), seeds: seeds(), demanded }.run(read_snapshot);
}
