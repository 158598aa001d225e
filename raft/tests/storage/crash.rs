//! Power cuts and damage: nothing acknowledged is lost, and nothing wrong is believed.

use std::sync::Arc;

use proptest::prelude::*;
use quorate_raft::wal::record::Position;
use quorate_raft::wal::{OpenError, Wal, WalOptions};

use crate::model::{Model, Step, steps};
use crate::sim_disk::{Image, SimDisk, random};

/// A few frames to a segment, and almost all reads from disk.
const SMALL: WalOptions = WalOptions { segment_bytes: 700, cache_bytes: 100 };

fn open(disk: &SimDisk) -> Result<Wal, OpenError> {
    Wal::open(Arc::new(disk.clone()), SMALL)
}

/// What was done to a log, and when it was said to be durable.
struct History {
    disk: SimDisk,
    /// After each step, from before the first.
    models: Vec<Model>,
    /// The time on the disk by which so many steps were acknowledged.
    acknowledged: Vec<(usize, usize)>,
    committed: Vec<Position>,
}

/// Takes the steps, a group of them at a time before waiting for the disk.
fn run(disk: SimDisk, steps: &[Step], group: usize) -> History {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let wal = open(&disk).unwrap();
    let mut model = Model::default();
    let mut history =
        History { disk, models: vec![model.clone()], acknowledged: vec![], committed: vec![] };
    for (at, group) in steps.chunks(group).scan(0, |at, group| {
        *at += group.len();
        Some((*at, group))
    }) {
        let mut ended = Vec::new();
        for step in group {
            ended.extend(runtime.block_on(model.step(step, &wal)));
            history.models.push(model.visible());
            history.committed.extend(model.last.filter(|_| matches!(step, Step::Commit)));
            assert_eq!(Model::of(&wal), model.visible(), "before it is durable");
        }
        for ended in ended {
            ended.recv().unwrap().unwrap();
        }
        history.acknowledged.push((history.disk.time(), at));
    }
    drop(wal);
    history
}

impl History {
    /// How many steps were acknowledged by `time`.
    fn acknowledged_by(&self, time: usize) -> usize {
        let by = self.acknowledged.iter().rev().find(|(at, _)| *at <= time);
        by.map_or(0, |(_, steps)| *steps)
    }

    /// Checks that a log which holds `image` knows all that had been acknowledged by `time`,
    /// and nothing but a prefix of the steps.
    fn check(&self, image: &Image, time: usize) {
        let disk = SimDisk::new(image.clone());
        let wal = open(&disk).unwrap_or_else(|error| panic!("cut at {time}: {error}"));
        let found = Model::of(&wal);
        let least = self.acknowledged_by(time);
        let matching = self.models[least..].contains(&found);
        assert!(matching, "cut at {time}, {least} steps acknowledged: {found:?}");
        if let Some(committed) = wal.committed() {
            assert!(self.committed.contains(&committed), "{committed:?} was never committed");
            assert!(found.last.is_some_and(|last| last.index >= committed.index));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn loses_nothing_acknowledged_wherever_the_power_is_cut(
        steps in steps(1..40), group in 1..6_usize, seed: u64,
    ) {
        let history = run(SimDisk::default(), &steps, group);
        let mut random = random(seed);
        for time in 0..=history.disk.time() {
            for image in history.disk.cut_at(time, &mut random) {
                history.check(&image, time);
            }
        }
    }

    #[test]
    fn recovers_from_a_power_cut_while_it_recovers(
        steps in steps(10..30), at in 0..1000_usize, seed: u64,
    ) {
        let history = run(SimDisk::default(), &steps, 3);
        let time = history.disk.time() * at / 1000;
        let mut random = random(seed);
        for image in history.disk.cut_at(time, &mut random) {
            let second = SimDisk::new(image);
            drop(open(&second).unwrap());
            for again in 0..=second.time() {
                for image in second.cut_at(again, &mut random) {
                    history.check(&image, time);
                }
            }
        }
    }

    #[test]
    fn goes_on_after_a_repair(steps in steps(5..30), seed: u64) {
        let history = run(SimDisk::default(), &steps, 2);
        let mut random = random(seed);
        let time = usize::try_from(random()).unwrap() % history.disk.time();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for image in history.disk.cut_at(time, &mut random) {
            let disk = SimDisk::new(image);
            let wal = open(&disk).unwrap();
            let mut model = Model::of(&wal);
            for step in [Step::Append(vec![9, 90, 9]), Step::Vote, Step::Append(vec![300])] {
                if let Some(ended) = runtime.block_on(model.step(&step, &wal)) {
                    ended.recv().unwrap().unwrap();
                }
            }
            drop(wal);
            prop_assert_eq!(Model::of(&open(&disk).unwrap()), model.visible());
        }
    }
}

/// Some of everything, over several segments, with an entry at the end.
fn well_used() -> History {
    let mut steps = vec![Step::Vote];
    for _ in 0..6 {
        steps.extend([
            Step::Append(vec![40, 0, 80]),
            Step::Commit,
            Step::Vote,
            Step::Append(vec![100]),
            Step::Truncate(1),
            Step::Append(vec![60]),
            Step::Purge(2),
        ]);
    }
    steps.extend([Step::Append(vec![1]), Step::Vote, Step::Vote, Step::Append(vec![77])]);
    run(SimDisk::default(), &steps, 1)
}

#[test]
fn takes_the_last_frame_whole_or_not_at_all() {
    let history = well_used();
    let [.., before, after] = history.models.as_slice() else { panic!("there are many steps") };
    let image = history.disk.image();
    let (name, bytes) = image.last_key_value().unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let whole = end.next_multiple_of(8);
    // The frame of the last entry: its head, its record of 107 bytes, and padding.
    let start = whole - (16_usize + 107).next_multiple_of(8);
    for cut in start..=whole {
        for filled in [false, true] {
            let mut bytes = bytes.clone();
            bytes.truncate(cut);
            bytes.resize(if filled { whole + 100 } else { cut }, 0);
            let mut image = image.clone();
            image.insert(name.clone(), bytes);
            let found = Model::of(&open(&SimDisk::new(image)).unwrap());
            let expected = if cut >= end && (filled || cut == whole) { after } else { before };
            assert_eq!(&found, expected, "cut at {cut} of {start} to {whole}");
        }
    }
}

#[test]
fn repairs_or_refuses_every_flipped_bit() {
    let history = well_used();
    let [.., before, after] = history.models.as_slice() else { panic!("there are many steps") };
    let image = history.disk.image();
    let (last, bytes) = image.last_key_value().unwrap();
    let frames = bytes.windows(4).filter(|window| window == b"QFrm").count();
    assert!(frames >= 4, "damage before the tail of the last segment is tried too");
    let (mut flips, mut refused, mut repaired) = (0, 0, 0);
    for (name, bytes) in &image {
        for bit in 0..bytes.len() * 8 {
            let mut image = image.clone();
            image.get_mut(name).unwrap()[bit / 8] ^= 1 << (bit % 8);
            flips += 1;
            match open(&SimDisk::new(image)) {
                Err(OpenError::Broken { .. } | OpenError::Missing { .. }) => refused += 1,
                Err(error) => panic!("bit {bit} of {name}: {error}"),
                Ok(wal) => {
                    let found = Model::of(&wal);
                    if found == *before {
                        assert_eq!(name, last, "only the tail is repaired");
                        repaired += 1;
                    } else {
                        assert_eq!(found, *after, "bit {bit} of {name}");
                    }
                }
            }
        }
    }
    assert!(flips > 10_000 && refused > 1000 && repaired > 500, "{flips} {refused} {repaired}");
}

#[test]
fn refuses_a_log_with_a_segment_missing() {
    let image = well_used().disk.image();
    assert!(image.len() >= 3, "there are several segments");
    for name in image.keys().rev().skip(1) {
        let mut image = image.clone();
        image.remove(name);
        let error = open(&SimDisk::new(image)).unwrap_err();
        assert!(matches!(error, OpenError::Missing { .. }), "{error}");
        assert!(error.to_string().contains("set the whole data directory aside"), "{error}");
    }
}

#[test]
fn refuses_segments_that_changed_places() {
    let image = well_used().disk.image();
    let names: Vec<_> = image.keys().cloned().collect();
    let mut swapped = image.clone();
    swapped.insert(names[0].clone(), image[&names[1]].clone());
    let error = open(&SimDisk::new(swapped)).unwrap_err();
    assert!(error.to_string().contains("another segment, renamed"), "{error}");
}
