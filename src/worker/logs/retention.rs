//! Removing what old attempts wrote.
//!
//! A worker does not know when a run has ended. It goes by the run's directory: nothing of
//! it runs here, and nothing was added for a while.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::{Duration, SystemTime};

use quorate_model::RunId;
use quorate_raft::machine;

use super::Logs;

/// How often old files are looked for: rarely, as that walks over all of them.
const INTERVAL: Duration = Duration::from_secs(15 * 60);

/// What is kept on a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention {
    /// How long after its last attempt here ended.
    pub(crate) age_max: Duration,
    /// In all. The oldest run goes first.
    pub(crate) bytes_max: u64,
}

impl Default for Retention {
    /// A week, as most questions come the next day, and 10 GiB.
    fn default() -> Self {
        Self { age_max: Duration::from_secs(7 * 24 * 3600), bytes_max: 10 << 30 }
    }
}

/// Removes old files now and then, for as long as `logs` is in use.
pub(crate) async fn keep_tidy(logs: Weak<Logs>, retention: Retention) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        let Some(logs) = logs.upgrade() else { return };
        let swept = machine::blocking(move || sweep(&logs, retention, SystemTime::now()));
        if let Ok(Err(error)) = swept.await {
            tracing::warn!(%error, "old output cannot be looked for");
        }
    }
}

/// The directory of a run, ordered by when something was last added.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    changed: SystemTime,
    path: PathBuf,
    bytes: u64,
}

fn sweep(logs: &Logs, retention: Retention, now: SystemTime) -> io::Result<()> {
    let entries = fs::read_dir(&logs.attempts)?.flatten();
    let idle = entries.filter(|entry| {
        let run = entry.file_name().to_str().and_then(|name| name.parse::<RunId>().ok());
        run.is_some_and(|run| !logs.is_running(run))
    });
    let kept: BTreeSet<Kept> = idle.filter_map(|entry| measure(entry.path()).ok()).collect();
    let mut bytes: u64 = kept.iter().map(|run| run.bytes).sum();
    for run in kept {
        let age = now.duration_since(run.changed).unwrap_or_default();
        if age <= retention.age_max && bytes <= retention.bytes_max {
            break;
        }
        tracing::info!(path = %run.path.display(), ?age, bytes = run.bytes, "removing old output");
        fs::remove_dir_all(&run.path)?;
        bytes -= run.bytes;
    }
    Ok(())
}

fn measure(path: PathBuf) -> io::Result<Kept> {
    let changed = fs::metadata(&path)?.modified()?;
    let mut bytes = 0;
    let changed = walk(&path, &mut bytes)?.max(changed);
    Ok(Kept { changed, path, bytes })
}

/// Adds up the sizes of all files below, and finds when the youngest was changed.
fn walk(directory: &Path, bytes: &mut u64) -> io::Result<SystemTime> {
    let mut changed = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(directory)?.flatten() {
        let metadata = entry.metadata()?;
        changed = changed.max(metadata.modified()?);
        if metadata.is_dir() {
            changed = changed.max(walk(&entry.path(), bytes)?);
        } else {
            *bytes += metadata.len();
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use quorate_model::{Attempt, TaskId};
    use uuid::Uuid;

    use super::*;
    use crate::worker::attempt::Place;

    fn run(number: u128) -> TaskId {
        TaskId { run: RunId(Uuid::from_u128(number)), index: 0 }
    }

    /// Runs 1, 2, 3 with 100 bytes each; changed an hour after one another, 3 last.
    fn fixture() -> (tempfile::TempDir, Logs, SystemTime) {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        for number in 1..=3_u32 {
            let place = Place::of(dir.path(), run(number.into()), Attempt(1));
            place.create().unwrap();
            fs::write(place.log(), [0; 100]).unwrap();
            let changed = now - Duration::from_secs(3600) * (4 - number);
            let directory = place.log().parent().unwrap().to_owned();
            for path in [place.log(), directory.clone(), directory.parent().unwrap().to_owned()] {
                fs::File::open(path).unwrap().set_modified(changed).unwrap();
            }
        }
        let logs = Logs::new(dir.path().to_owned());
        (dir, logs, now)
    }

    fn left(logs: &Logs) -> Vec<u128> {
        (1..=3)
            .filter(|n| super::super::run_directory(&logs.attempts, run(*n).run).exists())
            .collect()
    }

    #[test]
    fn removes_by_age() {
        let (_dir, logs, now) = fixture();
        let age_max = Duration::from_secs(2 * 3600 + 60);
        sweep(&logs, Retention { age_max, bytes_max: u64::MAX }, now).unwrap();
        assert_eq!(left(&logs), [2, 3]);
    }

    #[test]
    fn removes_the_oldest_beyond_the_size() {
        let (_dir, logs, now) = fixture();
        sweep(&logs, Retention { age_max: Duration::MAX, bytes_max: 150 }, now).unwrap();
        assert_eq!(left(&logs), [3]);
    }

    #[test]
    fn leaves_what_runs() {
        let (_dir, logs, now) = fixture();
        logs.begin(run(1), Attempt(2));
        sweep(&logs, Retention { age_max: Duration::ZERO, bytes_max: 0 }, now).unwrap();
        assert_eq!(left(&logs), [1]);
    }

    #[test]
    fn ignores_directories_that_are_not_runs() {
        let (dir, logs, now) = fixture();
        fs::create_dir(dir.path().join("mine")).unwrap();
        sweep(&logs, Retention { age_max: Duration::ZERO, bytes_max: 0 }, now).unwrap();
        assert!(dir.path().join("mine").exists());
    }
}
