//! A file that only takes room, to be given up when there is none: so a node that has run full
//! can still note its votes, end what is under way, write the snapshot that lets its log be
//! shortened, and start again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::FallocateFlags;

const FILE: &str = "reserve";

/// What is kept in reserve, in bytes: some frames of the log, and a snapshot of moderate size.
const RESERVE_BYTES: u64 = 16 << 20;

/// The reserve of a data directory.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    /// How much it holds. What is there from an earlier start is not known until it is made.
    held: Mutex<u64>,
}

impl Reserve {
    pub(super) fn in_dir(dir: &Path) -> Self {
        let path = dir.join(FILE);
        let held = fs::metadata(&path).map_or(0, |found| found.len());
        Self { path, held: Mutex::new(held) }
    }

    /// What giving it up would free, in bytes.
    pub(super) fn bytes_held(&self) -> u64 {
        *self.held()
    }

    /// Sees to it that it is there. If it cannot be, the node does without.
    pub(super) fn make(&self) {
        let mut held = self.held();
        if *held == RESERVE_BYTES {
            return;
        }
        match allocate(&self.path) {
            Ok(()) => *held = RESERVE_BYTES,
            Err(error) => {
                tracing::debug!(%error, "no reserve on this file system");
                drop(fs::remove_file(&self.path));
                *held = 0;
            }
        }
    }

    /// Gives it up; whether there was something to give.
    pub(super) fn release(&self) -> bool {
        let mut held = self.held();
        if *held == 0 {
            return false;
        }
        *held = 0;
        let removed = fs::remove_file(&self.path);
        match &removed {
            Ok(()) => tracing::warn!("the disk is full: the reserve is given up"),
            Err(error) => tracing::warn!(%error, "the reserve cannot be given up"),
        }
        removed.is_ok()
    }

    fn held(&self) -> MutexGuard<'_, u64> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the file and has blocks allocated for all of it.
fn allocate(path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    Ok(rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn holds_what_it_gives_up() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::in_dir(dir.path());
        assert!(!reserve.release(), "there is none yet");
        reserve.make();
        let found = fs::metadata(dir.path().join(FILE)).unwrap();
        assert!(found.blocks() * 512 >= RESERVE_BYTES, "it takes room: {}", found.blocks());
        assert_eq!(reserve.bytes_held(), RESERVE_BYTES);

        let again = Reserve::in_dir(dir.path());
        assert_eq!(again.bytes_held(), RESERVE_BYTES, "after a restart as well");
        assert!(again.release() && !again.release());
        assert!(!dir.path().join(FILE).exists());
    }
}
