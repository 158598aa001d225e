//! F2: whatever lies where the log should be, it is read, repaired or refused, and what was read
//! is read again the next time.

use std::path::Path;
use std::sync::Arc;

use quorate_fuzz::Fuzz;
use quorate_raft::wal::{OpenError, Wal, WalOptions};

use crate::model::{Model, Step};
use crate::sim_disk::{Image, SimDisk};

/// All in one segment, and almost all reads from disk.
const ONE_SEGMENT: WalOptions = WalOptions { segment_bytes: 1 << 20, cache_bytes: 100 };

/// The name of the first segment.
const FILE: &str = "0000000000000001.wal";

/// Bytes of a segment before its first frame, and of a frame before its records.
const HEAD_BYTES: usize = 64;
const FRAME_HEAD_BYTES: usize = 16;

fn open(disk: &SimDisk) -> Result<Wal, OpenError> {
    Wal::open(Arc::new(disk.clone()), ONE_SEGMENT)
}

/// The first byte says whether checksums are put right; the first segment follows.
fn read_segment(input: &[u8]) -> String {
    let Some((&mode, bytes)) = input.split_first() else { return "nothing".to_owned() };
    let mut bytes = bytes.to_vec();
    if mode % 2 == 1 {
        seal(&mut bytes);
    }
    let disk = SimDisk::new(Image::from([(FILE.to_owned(), bytes)]));
    let wal = match open(&disk) {
        Ok(wal) => wal,
        Err(OpenError::Broken { .. }) => return "broken".to_owned(),
        Err(OpenError::Missing { .. }) => return "missing".to_owned(),
        Err(OpenError::Foreign { .. }) => return "of another node".to_owned(),
        Err(OpenError::Version { .. }) => return "of a later version".to_owned(),
        Err(error) => panic!("{error}"),
    };
    let mut model = Model::of(&wal);
    let found = model.entries.len();
    let indexes = model.entries.keys().copied();
    let first = indexes.clone().next().unwrap_or(0);
    assert!(indexes.eq(first..first + found as u64), "entries are missing in between");
    go_on(wal, &mut model);
    let again = open(&disk).expect("a log that was open opens again");
    assert_eq!(Model::of(&again), model.visible(), "it is another log the next time");
    if found == 0 { "an empty log".to_owned() } else { "a log with entries".to_owned() }
}

/// Takes what it finds for its own, and adds to it.
fn go_on(wal: Wal, model: &mut Model) {
    let is_at_the_end = model.last.is_some_and(|last| last.index > u64::MAX / 2);
    if is_at_the_end {
        return drop(wal);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for step in [Step::Vote, Step::Append(vec![9, 300])] {
        let ended = runtime.block_on(model.step(&step, &wal));
        ended.expect("both are made durable").recv().unwrap().unwrap();
    }
    drop(wal);
}

/// Gives the head and every frame of a segment the checksums that they should have there.
fn seal(bytes: &mut [u8]) {
    let Some((head, frames)) = bytes.split_at_mut_checked(HEAD_BYTES) else { return };
    let number: [u8; 8] = head[12..20].try_into().unwrap();
    let (fields, crc) = head.split_at_mut(HEAD_BYTES - 4);
    crc.copy_from_slice(&crc32c::crc32c(fields).to_le_bytes());
    let mut start = 0;
    while let Some(head) = frames.get(start..start + FRAME_HEAD_BYTES) {
        let length = u32::from_le_bytes(head[4..8].try_into().unwrap()) as usize;
        let end = start + FRAME_HEAD_BYTES + length;
        let Some(frame) = frames.get_mut(start..end) else { return };
        let place = crc32c::crc32c(&number);
        let place = crc32c::crc32c_append(place, &((HEAD_BYTES + start) as u64).to_le_bytes());
        let crc = crc32c::crc32c_append(place, &frame[FRAME_HEAD_BYTES..]);
        frame[8..12].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32c::crc32c_append(place, &frame[..12]);
        frame[12..16].copy_from_slice(&crc.to_le_bytes());
        start = end.next_multiple_of(8);
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let steps = [
        Step::Vote,
        Step::Append(vec![40, 0, 80]),
        Step::Commit,
        Step::Append(vec![100]),
        Step::Truncate(1),
        Step::Vote,
        Step::Append(vec![60, 1]),
        Step::Purge(2),
        Step::Append(vec![5]),
    ];
    let segment = |count: usize| {
        let disk = SimDisk::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (wal, mut model) = (open(&disk).unwrap(), Model::default());
        for step in &steps[..count] {
            if let Some(ended) = runtime.block_on(model.step(step, &wal)) {
                ended.recv().unwrap().unwrap();
            }
        }
        drop(wal);
        let mut bytes = disk.image().remove(FILE).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 9;
        bytes.truncate(end.next_multiple_of(8));
        bytes
    };
    let lengths = [0, 2, 3, 6, steps.len()];
    let both = |count| [0, 1].map(|mode| [&[mode], segment(count).as_slice()].concat());
    lengths.into_iter().flat_map(both).collect()
}

#[test]
fn no_segment_makes_the_log_panic_or_change_its_mind() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz/segment");
    let demanded = &["a log with entries", "an empty log", "broken"];
    Fuzz { corpus, seeds: seeds(), demanded }.run(read_segment);
}
