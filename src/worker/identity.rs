//! Who this worker is, to the cluster and to people.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use quorate_model::{Name, Registration};

/// The file with the registration.
const FILE: &str = "registration";

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

/// The registration that the cluster gave last, kept over restarts: a worker that names it
/// when it comes back says that what it was assigned under it runs no more, and nobody waits
/// for its old lease.
///
/// Not synced: after a power cut a worker without it is a new one, which costs a lease.
#[derive(Debug)]
pub(crate) struct Identity {
    path: PathBuf,
    known: Option<Registration>,
}

impl Identity {
    /// Reads it from `dir`. What a power cut left of the file counts as none.
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
                    tracing::warn!(%path, "the file holds no registration: this is a new worker");
                }
                known
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { path, known })
    }

    /// The registration, if there is one.
    pub(crate) fn known(&self) -> Option<Registration> {
        self.known
    }

    /// Keeps the registration that the cluster gave.
    pub(crate) fn learn(&mut self, given: Registration) {
        if self.known.replace(given) == Some(given) {
            return;
        }
        let temporary = self.path.with_extension("new");
        let written = fs::write(&temporary, format!("{} {}\n", given.worker, given.epoch));
        if let Err(error) = written.and_then(|()| fs::rename(&temporary, &self.path)) {
            tracing::warn!(%error, "the registration is not kept: a restart makes a new worker");
        }
    }

    /// The cluster does not know it, or gave a newer one that was never heard of.
    pub(crate) fn forget(&mut self) {
        self.known = None;
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "the worker's old registration cannot be removed");
        }
    }
}

/// What is in a file that was written to its end: the beginning of a number is another one.
fn whole(bytes: &[u8]) -> Option<Registration> {
    let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (worker, epoch) = line.split_once(' ')?;
    Some(Registration { worker: worker.parse().ok()?, epoch: epoch.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use quorate_model::{Epoch, WorkerId};

    use super::*;

    #[test]
    fn keeps_the_registration_until_told_to_forget_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut identity = Identity::open(dir.path()).unwrap();
        assert_eq!(identity.known(), None);
        let given = Registration { worker: WorkerId(17), epoch: Epoch(20) };
        identity.learn(given);
        let mut identity = Identity::open(dir.path()).unwrap();
        assert_eq!(identity.known(), Some(given));
        identity.forget();
        assert_eq!(Identity::open(dir.path()).unwrap().known(), None);
    }

    #[test]
    fn what_a_power_cut_left_of_the_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        for left in [&b""[..], b"w1 e2", b"w1\n", b"\0\0\0\0", b"\xff\n"] {
            fs::write(dir.path().join(FILE), left).unwrap();
            assert_eq!(Identity::open(dir.path()).unwrap().known(), None, "{left:?}");
        }
    }
}
