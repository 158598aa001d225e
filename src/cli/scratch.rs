//! A folder that is gone when its work is done.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long the folder may resist being removed.
const REMOVE_DEADLINE: Duration = Duration::from_secs(2);

/// Between two tries to remove it.
const RETRY: Duration = Duration::from_millis(10);

/// A temporary folder that whole servers live in. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    dir: Option<TempDir>,
}

impl Scratch {
    /// A folder of this name and some more letters, where temporary files go.
    ///
    /// # Errors
    ///
    /// If there is no room for it.
    pub(crate) fn new(prefix: &str) -> std::io::Result<Self> {
        let dir = tempfile::Builder::new().prefix(prefix).tempdir()?;
        Ok(Self { path: dir.path().to_owned(), dir: Some(dir) })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it to the user.
    pub(crate) fn keep(&mut self) {
        if let Some(dir) = self.dir.take() {
            // It answers the path, which is known.
            drop(dir.keep());
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.dir.is_none() {
            return;
        }
        // What servers had started is killed by their keepers in the next moment, and a thread
        // of a storage engine may be at its last file. Both may write until then.
        let deadline = Instant::now() + REMOVE_DEADLINE;
        while std::fs::remove_dir_all(&self.path).is_err() && Instant::now() < deadline {
            std::thread::sleep(RETRY);
        }
    }
}
