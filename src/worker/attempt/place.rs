//! What is kept of an attempt on disk.
//!
//! ```text
//! attempts/<run>/<task index>-<attempt>
//! ├── log         stdout and stderr, if there was any
//! └── artifacts   the files that are kept, if any
//! ```
//! Names are built from ids only. A directory that would be empty is not made: an attempt
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

    /// Makes that of its run.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        let run = self.directory.parent().expect("it is in the directory of its run");
        match fs::create_dir(run) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(run),
            made => made,
        }
    }

    /// Makes it, when there is something to keep.
    pub(crate) fn create(&self) -> io::Result<()> {
        fs::create_dir_all(&self.directory)
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
