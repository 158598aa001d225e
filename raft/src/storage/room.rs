//! How much room a file system has, and what is to be made of it.

use std::io;
use std::path::Path;

/// The part of a disk, in percent, that is kept free of new work.
const LOW_PERCENT: u64 = 10;

/// On a small disk that part is too little: the work that goes on needs some segments of the
/// log, and two snapshots.
const LOW_BYTES_MIN: u64 = 64 << 20;

/// On a large disk it is more than the work that goes on can use.
const LOW_BYTES_MAX: u64 = 16 << 30;

/// The part of a disk, in percent, that only what is under way may use.
const FULL_PERCENT: u64 = 2;

/// What is under way when a node steps aside fits in here: the entries in flight, and what
/// history and a snapshot of moderate size take.
const FULL_BYTES_MIN: u64 = 32 << 20;

/// The same for large disks.
const FULL_BYTES_MAX: u64 = 1 << 30;

/// A limit that was crossed is left again only with so much more room, in percent of it: a
/// node does not step to and fro for every file that comes and goes.
const LEAVE_PERCENT: u64 = 125;

/// How much of a file system is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What an ordinary user could have of it at most, in bytes.
    pub bytes_total: u64,
    /// What is left of that, in bytes; a reserve that can be given up counts as left.
    pub bytes_free: u64,
}

/// What may be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Nothing but what is under way.
    Full,
    /// What ends work.
    Low,
    /// Everything.
    Ample,
}

impl Usage {
    /// Of the file system of `dir`. As `df` reckons: what is left to an ordinary user.
    ///
    /// # Errors
    ///
    /// If the file system does not tell.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(dir)?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let used = found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(found.f_frsize);
        Ok(Self { bytes_total: used.saturating_add(free), bytes_free: free })
    }

    /// What may be begun, given what was before.
    #[must_use]
    pub fn room(self, before: Room) -> Room {
        let part = |percent: u64| self.bytes_total / 100 * percent;
        let full = part(FULL_PERCENT).clamp(FULL_BYTES_MIN, FULL_BYTES_MAX);
        let low = part(LOW_PERCENT).clamp(LOW_BYTES_MIN, LOW_BYTES_MAX);
        let is_below = |limit: u64, was_below: bool| {
            let limit = if was_below { limit / 100 * LEAVE_PERCENT } else { limit };
            self.bytes_free < limit
        };
        if is_below(full, before == Room::Full) {
            Room::Full
        } else if is_below(low, before < Room::Ample) {
            Room::Low
        } else {
            Room::Ample
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn room(bytes_total: u64, bytes_free: u64, before: Room) -> Room {
        Usage { bytes_total, bytes_free }.room(before)
    }

    #[test]
    fn a_disk_is_low_at_nine_tenths() {
        assert_eq!(room(100 * GIB, 11 * GIB, Room::Ample), Room::Ample);
        assert_eq!(room(100 * GIB, 9 * GIB, Room::Ample), Room::Low);
        assert_eq!(room(100 * GIB, GIB / 2, Room::Ample), Room::Full);
    }

    #[test]
    fn small_disks_keep_more_and_large_ones_less() {
        assert_eq!(room(200 * MIB, 60 * MIB, Room::Ample), Room::Low);
        assert_eq!(room(200 * MIB, 30 * MIB, Room::Ample), Room::Full);
        assert_eq!(room(10_000 * GIB, 20 * GIB, Room::Ample), Room::Ample);
        assert_eq!(room(10_000 * GIB, 2 * GIB, Room::Ample), Room::Low);
    }

    #[test]
    fn a_limit_is_left_with_some_more_room_only() {
        assert_eq!(room(100 * GIB, 11 * GIB, Room::Low), Room::Low);
        assert_eq!(room(100 * GIB, 13 * GIB, Room::Low), Room::Ample);
        assert_eq!(room(200 * MIB, 36 * MIB, Room::Full), Room::Full);
        assert_eq!(room(200 * MIB, 42 * MIB, Room::Full), Room::Low);
        assert_eq!(room(200 * MIB, 100 * MIB, Room::Full), Room::Ample);
    }

    #[test]
    fn the_file_system_tells() {
        let usage = Usage::of(Path::new("/")).unwrap();
        assert!(0 < usage.bytes_free && usage.bytes_free < usage.bytes_total, "{usage:?}");
        assert!(Usage::of(Path::new("/no such place")).is_err());
    }
}
