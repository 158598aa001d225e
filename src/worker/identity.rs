//! Who this worker is, to the cluster and to people.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use quorate_model::{Name, WorkerId};

/// The file with the id.
const FILE: &str = "worker-id";

/// What a worker registers as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    /// For people.
    pub(crate) name: Name,
    /// Matched against the `runs_on` of tasks.
    pub(crate) labels: BTreeMap<Name, String>,
    /// How many tasks at once.
    pub(crate) slots: u32,
}

/// The id that the cluster gave, kept over restarts: a worker that comes back under it says
/// that what it was assigned before runs no more, and nobody waits for its old lease.
///
/// Not synced: after a power cut a worker without its id is a new one, which costs a lease.
#[derive(Debug)]
pub(crate) struct Identity {
    path: PathBuf,
    known: Option<WorkerId>,
}

impl Identity {
    /// Reads it from `dir`. What a power cut left of the file counts as no id.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let known = match fs::read(&path) {
            Ok(bytes) => {
                let known = whole(&bytes);
                if known.is_none() {
                    let path = path.display();
                    tracing::warn!(%path, "the file holds no worker id: this worker will be a new one");
                }
                known
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { path, known })
    }

    /// The id, if there is one.
    pub(crate) fn known(&self) -> Option<WorkerId> {
        self.known
    }

    /// Keeps the id that the cluster gave.
    pub(crate) fn learn(&mut self, worker: WorkerId) {
        if self.known.replace(worker) == Some(worker) {
            return;
        }
        let temporary = self.path.with_extension("new");
        let written = fs::write(&temporary, format!("{worker}\n"));
        if let Err(error) = written.and_then(|()| fs::rename(&temporary, &self.path)) {
            tracing::warn!(%error, "the worker's id is not kept: a restart will make it a new one");
        }
    }

    /// The cluster does not know the id.
    pub(crate) fn forget(&mut self) {
        self.known = None;
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "the worker's old id cannot be removed");
        }
    }
}

/// The id in a file that was written to its end: the beginning of one is another's.
fn whole(bytes: &[u8]) -> Option<WorkerId> {
    std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_id_until_told_to_forget_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut identity = Identity::open(dir.path()).unwrap();
        assert_eq!(identity.known(), None);
        identity.learn(WorkerId(17));
        let mut identity = Identity::open(dir.path()).unwrap();
        assert_eq!(identity.known(), Some(WorkerId(17)));
        identity.forget();
        assert_eq!(Identity::open(dir.path()).unwrap().known(), None);
    }

    #[test]
    fn what_a_power_cut_left_of_the_file_is_no_id() {
        let dir = tempfile::tempdir().unwrap();
        for left in [&b""[..], b"w1", b"\0\0\0\0", b"\xff\n"] {
            fs::write(dir.path().join(FILE), left).unwrap();
            assert_eq!(Identity::open(dir.path()).unwrap().known(), None, "{left:?}");
        }
    }
}
