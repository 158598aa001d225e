//! Where an attempt lives on disk.
//!
//! ```text
//! attempts/<run>/<task index>-<attempt>
//! ├── work        where it runs; removed afterwards
//! ├── script      what it runs, if that is long; ditto
//! ├── output      what it puts out; ditto
//! ├── log         stdout and stderr, if there was any
//! └── artifacts   the files that are kept, if any
//! ```
//! Names are built from ids only. A directory that would be empty is not kept: an attempt
//! without one, in a run that has one, printed nothing.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use quorate_model::{Attempt, RunId, TaskId};

/// The directory of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    directory: PathBuf,
}

impl Place {
    /// The place of an attempt among all `attempts` of a worker.
    pub(crate) fn of(attempts: &Path, task: TaskId, attempt: Attempt) -> Self {
        let name = format!("{}-{}", task.index, attempt.0);
        Self { directory: run_directory(attempts, task.run).join(name) }
    }

    /// Creates it, without anything an earlier one may have left.
    pub(crate) fn create(&self) -> io::Result<()> {
        match fs::create_dir(&self.directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&self.directory)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_dir_all(&self.directory)?;
                fs::create_dir(&self.directory)?;
            }
            Err(error) => return Err(error),
        }
        fs::create_dir(self.work())
    }

    /// Removes what is not kept, if the task has left no files; that is quick. Else `false`.
    pub(crate) fn clear_if_empty(&self) -> bool {
        match fs::remove_dir(self.work()) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => false,
            removed => {
                self.clear_rest(removed);
                true
            }
        }
    }

    /// Removes what is not kept. May take long where a task has left a large tree.
    pub(crate) fn clear(&self) {
        self.clear_rest(fs::remove_dir_all(self.work()));
    }

    fn clear_rest(&self, work: io::Result<()>) {
        if let Err(error) = work
            && error.kind() != io::ErrorKind::NotFound
        {
            let path = self.directory.display();
            tracing::warn!(%path, %error, "a working directory is left behind");
        }
        // Only a directory with nothing to keep is empty by now, and only that goes.
        if fs::remove_dir(&self.directory).is_err() {
            let _ = fs::remove_file(self.output());
            let _ = fs::remove_file(self.script());
            let _ = fs::remove_dir(&self.directory);
        }
    }

    /// Where it runs.
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

    /// What it prints.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// What is kept of its files.
    pub(crate) fn artifacts(&self) -> PathBuf {
        self.directory.join("artifacts")
    }
}

/// Opens a file in a place, where a task may have put anything under its name: never through
/// a link, and without waiting for the other end of a pipe.
pub(crate) fn open_plain(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
}

/// The directory with every attempt of a run on this worker.
pub(crate) fn run_directory(attempts: &Path, run: RunId) -> PathBuf {
    attempts.join(run.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn place(dir: &tempfile::TempDir) -> Place {
        let place = Place::of(dir.path(), TaskId::default(), Attempt(1));
        place.create().unwrap();
        place
    }

    #[test]
    fn keeps_only_what_there_is_to_keep() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(&dir);
        fs::write(place.output(), "a=1").unwrap();
        assert!(place.clear_if_empty());
        assert!(!place.directory.exists() && run_directory(dir.path(), RunId::default()).exists());

        place.create().unwrap();
        fs::write(place.log(), "x").unwrap();
        fs::write(place.work().join("left"), "x").unwrap();
        assert!(!place.clear_if_empty());
        place.clear();
        assert!(place.log().exists() && !place.work().exists());
    }

    #[test]
    fn begins_empty() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(place(&dir).work().join("old"), "x").unwrap();
        let again = place(&dir);
        assert_eq!(fs::read_dir(again.work()).unwrap().count(), 0);
    }

    #[test]
    fn opens_neither_links_nor_pipes() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "x").unwrap();
        symlink(&file, &link).unwrap();
        assert!(open_plain(File::options().read(true), &file).is_ok());
        assert!(open_plain(File::options().read(true), &link).is_err());
        assert!(open_plain(File::options().read(true), dir.path()).is_err());
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(open_plain(File::options().read(true), &pipe).is_err());
        assert!(open_plain(File::options().append(true), &pipe).is_err());
    }
}
