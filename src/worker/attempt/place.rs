//! Where an attempt lives on disk.
//!
//! ```text
//! attempts/<run>/<task index>-<attempt>/work/        where it runs; removed afterwards
//!                                       script       what it runs, if that is long; ditto
//!                                       output       what it puts out; ditto
//!                                       log          stdout and stderr, if there was any
//!                                       artifacts/   the files that are kept, if any
//! ```
//! Names are built from ids only. A directory that would be empty is not kept: an attempt
//! without one, in a run that has one, printed nothing.

use std::fs;
use std::io;
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

/// The directory with every attempt of a run on this worker.
pub(crate) fn run_directory(attempts: &Path, run: RunId) -> PathBuf {
    attempts.join(run.to_string())
}
