//! Power cuts and failures: the identity is the one before or the one after, and never broken.

use super::*;
use crate::sim_disk::{SimDisk, random};

const CHANGES: u64 = 5;

fn record(incarnation: u64) -> Record {
    let floor = incarnation.checked_sub(1);
    Record { cluster: ClusterId(0xfeed), node: 3, incarnation, floor }
}

/// The incarnation that a disk holds; 0 if there is no identity.
#[track_caller]
fn found_on(disk: &SimDisk, when: &str) -> u64 {
    let found = read(disk).unwrap_or_else(|error| panic!("{when}: {error}"));
    let incarnation = found.map_or(0, |found| found.incarnation);
    assert!(found.is_none_or(|found| found == record(incarnation)), "{when}: {found:?}");
    incarnation
}

#[test]
fn wherever_the_power_is_cut_no_change_is_half_made_or_lost() {
    let disk = SimDisk::default();
    let mut made = vec![(0, 0)];
    for incarnation in 1..=CHANGES {
        write(&disk, &record(incarnation)).unwrap();
        made.push((disk.time(), incarnation));
    }
    let mut images = 0;
    for time in 0..=disk.time() {
        let least = made.iter().rev().find(|(at, _)| *at <= time).map_or(0, |(_, last)| *last);
        for image in disk.cut_at(time, &mut random(time as u64)) {
            let found = found_on(&SimDisk::new(image), &format!("cut at {time}"));
            assert!((least..=least + 1).contains(&found), "cut at {time}: {found} after {least}");
            images += 1;
        }
    }
    assert!(images > 100, "{images}");
}

#[test]
fn whatever_fails_the_next_start_finds_a_sound_identity_and_makes_it_durable() {
    let sound = SimDisk::default();
    (1..=CHANGES).for_each(|incarnation| write(&sound, &record(incarnation)).unwrap());
    assert!(sound.tries() > 20, "{}", sound.tries());
    for failing in 1..=sound.tries() {
        let (disk, when) = (SimDisk::default(), format!("try {failing} failed"));
        disk.fail_try(failing);
        let failed = (1..=CHANGES).find(|&next| write(&disk, &record(next)).is_err());
        let last = failed.expect("one of them fails") - 1;
        disk.fail_try(0);
        for image in disk.cut_at(disk.time(), &mut random(failing as u64)) {
            let found = found_on(&SimDisk::new(image), &when);
            assert!((last..=last + 1).contains(&found), "{when}: {found} after {last}");
        }
        // Each start makes a change, whatever it found.
        let next = found_on(&disk, &when) + 1;
        write(&disk, &record(next)).unwrap();
        for image in disk.cut_at(disk.time(), &mut random(failing as u64)) {
            let when = format!("{when}, and the node came back");
            assert_eq!(found_on(&SimDisk::new(image), &when), next, "{when}");
        }
    }
}

#[test]
fn an_identity_without_room_is_the_one_before() {
    let disk = SimDisk::default();
    write(&disk, &record(1)).unwrap();
    disk.fill(true);
    let refused = io::Error::from(write(&disk, &record(2)).unwrap_err());
    assert!(crate::storage::is_full(&refused), "{refused}");
    assert_eq!(found_on(&disk, "without room"), 1);
    disk.fill(false);
    write(&disk, &record(2)).unwrap();
    assert_eq!(found_on(&disk, "with room"), 2);
}
