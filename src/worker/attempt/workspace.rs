//! Where attempts run: directories that are lent to one after another.
//!
//! ```text
//! workspaces/<number>
//! ├── work        the working directory, empty when an attempt starts
//! ├── script      what it runs, if that is long
//! └── output      what it puts out
//! ```
//! An attempt that leaves no files, as most do, costs no change of any directory.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_raft::machine;

/// All workspaces of a worker.
#[derive(Debug)]
pub(crate) struct Workspaces {
    directory: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Clean, and as they were made.
    free: Vec<Workspace>,
    /// Lent, or being cleaned.
    taken: BTreeSet<u32>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workspace {
    number: u32,
    directory: PathBuf,
    /// Of the working directory, when it was made.
    mode: u32,
}

impl Workspaces {
    /// Those in a directory, which need not exist yet. What is there is not trusted.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, inner: Mutex::default() }
    }

    /// Lends one that is clean.
    pub(super) fn take(&self) -> io::Result<Workspace> {
        let mut inner = self.lock();
        if let Some(workspace) = inner.free.pop() {
            inner.taken.insert(workspace.number);
            return Ok(workspace);
        }
        let is_free = |number: &u32| !inner.taken.contains(number);
        let number = (0..=u32::MAX).find(is_free).expect("there are fewer attempts than numbers");
        let directory = self.directory.join(number.to_string());
        let mut workspace = Workspace { number, directory, mode: 0 };
        workspace.renew()?;
        inner.taken.insert(number);
        Ok(workspace)
    }

    /// The one that was lent by an earlier agent, and still is.
    pub(super) fn inherit(&self, number: u32) -> Workspace {
        self.lock().taken.insert(number);
        let directory = self.directory.join(number.to_string());
        // Whatever the mode was, it is made anew afterwards.
        Workspace { number, directory, mode: 0 }
    }

    /// Takes one back. Cleaning may take long where a task has left a large tree, so that is
    /// not done here.
    pub(crate) fn give_back(self: &Arc<Self>, mut workspace: Workspace) {
        if workspace.is_clean() {
            return self.shelve(workspace);
        }
        let this = Arc::clone(self);
        let clean = machine::blocking(move || match workspace.renew() {
            Ok(()) => this.shelve(workspace),
            // Its number stays taken: nobody else is sent there.
            Err(error) => {
                let path = workspace.directory.display();
                tracing::warn!(%path, %error, "a workspace cannot be cleaned; it is left behind");
            }
        });
        tokio::spawn(clean);
    }

    fn shelve(&self, workspace: Workspace) {
        let mut inner = self.lock();
        inner.taken.remove(&workspace.number);
        inner.free.push(workspace);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change leaves it consistent: a panic elsewhere does no harm.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workspace {
    /// The name of it among all.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Where an attempt runs.
    pub(crate) fn work(&self) -> PathBuf {
        self.directory.join("work")
    }

    /// Its script, if that does not fit on a command line.
    pub(crate) fn script(&self) -> PathBuf {
        self.directory.join("script")
    }

    /// What it puts out.
    pub(crate) fn output(&self) -> PathBuf {
        self.directory.join("output")
    }

    /// Removes everything and makes it anew.
    fn renew(&mut self) -> io::Result<()> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::create_dir_all(self.work())?;
        self.mode = fs::symlink_metadata(self.work())?.mode();
        Ok(())
    }

    /// Whether the working directory is as it was made, and nothing else is there, once what
    /// every attempt may leave is gone.
    fn is_clean(&self) -> bool {
        let is_gone = |path: &Path| match fs::remove_file(path) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        let work = self.work();
        let entries =
            |directory: &Path| fs::read_dir(directory).map_or(usize::MAX, Iterator::count);
        // A link has another mode than a directory.
        fs::symlink_metadata(&work).is_ok_and(|work| work.mode() == self.mode)
            && is_gone(&self.output())
            && is_gone(&self.script())
            && entries(&work) == 0
            && entries(&self.directory) == 1
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn workspaces() -> (tempfile::TempDir, Arc<Workspaces>) {
        let dir = tempfile::tempdir().unwrap();
        let workspaces = Arc::new(Workspaces::new(dir.path().join("workspaces")));
        (dir, workspaces)
    }

    #[test]
    fn lends_each_to_one_at_a_time_and_the_clean_again() {
        let (_dir, workspaces) = workspaces();
        let (a, b) = (workspaces.take().unwrap(), workspaces.take().unwrap());
        assert_ne!(a, b);
        fs::write(a.output(), "k=v").unwrap();
        let a_again = a.clone();
        workspaces.give_back(a);
        assert!(!a_again.output().exists());
        assert_eq!(workspaces.take().unwrap(), a_again);
        assert_eq!(workspaces.take().unwrap().number, 2);
    }

    #[test]
    fn does_not_lend_what_an_earlier_agent_lent() {
        let (_dir, workspaces) = workspaces();
        workspaces.inherit(0);
        assert_eq!(workspaces.take().unwrap().number, 1);
    }

    #[tokio::test]
    async fn makes_anew_what_was_not_left_as_it_was() {
        let (dir, workspaces) = workspaces();
        let spoil: [&dyn Fn(&Workspace); 5] = [
            &|it| fs::write(it.directory.join("beside"), "x").unwrap(),
            &|it| fs::write(it.work().join("left"), "x").unwrap(),
            &|it| fs::set_permissions(it.work(), fs::Permissions::from_mode(0o700)).unwrap(),
            &|it| {
                fs::remove_dir(it.work()).unwrap();
                symlink(dir.path(), it.work()).unwrap();
            },
            &|it| fs::remove_dir_all(&it.directory).unwrap(),
        ];
        for spoil in spoil {
            let workspace = workspaces.take().unwrap();
            spoil(&workspace);
            workspaces.give_back(workspace.clone());
            let shelved = || workspaces.lock().free.contains(&workspace);
            while !shelved() {
                tokio::task::yield_now().await;
            }
            assert!(workspace.work().is_dir() && workspace.is_clean());
        }
        assert!(dir.path().exists());
    }
}
