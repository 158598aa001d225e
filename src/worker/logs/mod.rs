//! What attempts wrote: captured while they run, read by range at any time, removed in the end.
//!
//! Nothing of this goes through the cluster's log. A reader asks for a range, and may wait for
//! it to be written; nobody reads a whole file.

mod capture;
mod retention;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate_api::backend::{Chunk, READ_BYTES_MAX, READ_WAIT_MAX, Read, ReadError, ReadFrom};
use quorate_model::{Attempt, RunId, TaskId};
use tokio::sync::Notify;

use super::attempt::{Place, artifacts, open_plain, run_directory};

pub(crate) use capture::Capture;
pub(crate) use retention::{Retention, keep_tidy};

/// How much is read at once while looking for the last lines.
const TAIL_STEP_BYTES: u64 = 64 * 1024;

/// A log that is being written.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    bytes: AtomicU64,
    has_ended: AtomicBool,
    changed: Notify,
}

impl Follow {
    fn grown(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Release);
        self.changed.notify_waiters();
    }

    fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits until there are more bytes than `beyond`, or there will be none.
    async fn beyond(&self, beyond: u64) {
        loop {
            let changed = self.changed.notified();
            let is_beyond = self.bytes.load(Ordering::Acquire) > beyond;
            if is_beyond || self.has_ended.load(Ordering::Acquire) {
                return;
            }
            changed.await;
        }
    }
}

/// What the attempts of this worker wrote.
#[derive(Debug)]
pub(crate) struct Logs {
    attempts: PathBuf,
    running: Mutex<HashMap<(TaskId, Attempt), Arc<Follow>>>,
}

impl Logs {
    /// Those in the directory `attempts`.
    pub(crate) fn new(attempts: PathBuf) -> Self {
        Self { attempts, running: Mutex::default() }
    }

    /// An attempt is about to write, or may be: readers wait for it.
    pub(crate) fn begin(&self, task: TaskId, attempt: Attempt) -> Arc<Follow> {
        self.with_running(|running| Arc::clone(running.entry((task, attempt)).or_default()))
    }

    /// It has written all that it will.
    pub(crate) fn end(&self, task: TaskId, attempt: Attempt) {
        if let Some(follow) = self.with_running(|running| running.remove(&(task, attempt))) {
            follow.end();
        }
    }

    /// Whether an attempt of this run is under way.
    fn is_running(&self, run: RunId) -> bool {
        self.with_running(|running| running.keys().any(|(task, _)| task.run == run))
    }

    /// Reads a range of a log or an artifact.
    ///
    /// # Errors
    ///
    /// If there is no such thing, or it cannot be read.
    pub(crate) async fn read(&self, read: Read) -> Result<Chunk, ReadError> {
        let Read { task, attempt, artifact, from, bytes_max, wait } = read;
        let place = Place::of(&self.attempts, task, attempt);
        let follow = self.with_running(|running| running.get(&(task, attempt)).cloned());
        if let (Some(follow), None) = (&follow, &artifact) {
            let beyond = if let ReadFrom::Offset(offset) = from { offset } else { 0 };
            let wait = Duration::from_millis(wait.0.min(READ_WAIT_MAX.0));
            // In time or not, what there is is read.
            let _ = tokio::time::timeout(wait, follow.beyond(beyond)).await;
        }
        // Looked at before the file: what is written in between is only not mentioned.
        let is_complete = follow.is_none_or(|follow| follow.has_ended.load(Ordering::Acquire));
        let run = run_directory(&self.attempts, task.run);
        let find_and_read = move || {
            let path = match artifact {
                None => place.log(),
                Some(path) => artifacts::find(&place.artifacts(), &path).map_err(|reason| {
                    ReadError::NotFound(format!("the artifact {path:?} {reason}"))
                })?,
            };
            match read_range(&path, from, bytes_max, is_complete) {
                Ok(chunk) => Ok(chunk),
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(ReadError::Unavailable(format!("the file cannot be read: {error}")))
                }
                // An attempt that printed nothing left no file.
                Err(_) if !is_complete || run.exists() => Ok(empty(is_complete)),
                Err(_) => Err(not_kept()),
            }
        };
        let answer = tokio::task::spawn_blocking(find_and_read).await;
        answer.unwrap_or_else(|_| Err(ReadError::Unavailable("the worker is stopping".to_owned())))
    }

    fn with_running<T>(
        &self,
        change: impl FnOnce(&mut HashMap<(TaskId, Attempt), Arc<Follow>>) -> T,
    ) -> T {
        change(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn empty(complete: bool) -> Chunk {
    Chunk { offset: 0, bytes: Vec::new(), size: 0, complete }
}

fn not_kept() -> ReadError {
    ReadError::NotFound("nothing of this run is kept on its worker any more".to_owned())
}

fn read_range(path: &Path, from: ReadFrom, bytes_max: u32, complete: bool) -> io::Result<Chunk> {
    let file = open_plain(File::options().read(true), path)?;
    let size = file.metadata()?.len();
    let offset = match from {
        ReadFrom::Offset(offset) => offset,
        ReadFrom::Tail(lines) => last_lines(&file, size, lines)?,
    };
    let there = size.saturating_sub(offset).min(u64::from(bytes_max.min(READ_BYTES_MAX)));
    let mut bytes = vec![0; usize::try_from(there).unwrap_or(0)];
    file.read_exact_at(&mut bytes, offset.min(size))?;
    Ok(Chunk { offset, bytes, size, complete })
}

/// Where the last `lines` lines of a file begin.
fn last_lines(file: &File, size: u64, lines: u64) -> io::Result<u64> {
    let mut newlines = 0;
    let mut end = size;
    while end > 0 && lines > 0 {
        let begin = end.saturating_sub(TAIL_STEP_BYTES);
        let mut block = vec![0; usize::try_from(end - begin).unwrap_or(0)];
        file.read_exact_at(&mut block, begin)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            // The newline at the very end closes the last line.
            newlines += 1;
            if newlines == lines.saturating_add(1) {
                return Ok(begin + at as u64 + 1);
            }
        }
        end = begin;
    }
    Ok(if lines == 0 { size } else { 0 })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use quorate_model::DurationMs;
    use uuid::Uuid;

    use super::*;

    fn task() -> TaskId {
        TaskId { run: RunId(Uuid::from_u128(7)), index: 3 }
    }

    fn read(from: ReadFrom, bytes_max: u32) -> Read {
        let (attempt, wait) = (Attempt(1), DurationMs(0));
        Read { task: task(), attempt, artifact: None, from, bytes_max, wait }
    }

    struct Fixture {
        _dir: tempfile::TempDir,
        logs: Arc<Logs>,
        place: Place,
    }

    fn fixture(log: &str) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::of(dir.path(), task(), Attempt(1));
        place.create().unwrap();
        fs::write(place.log(), log).unwrap();
        Fixture { logs: Arc::new(Logs::new(dir.path().to_owned())), _dir: dir, place }
    }

    async fn text(logs: &Logs, from: ReadFrom) -> (u64, String) {
        let chunk = logs.read(read(from, 1_000)).await.unwrap();
        assert!(chunk.complete);
        (chunk.offset, String::from_utf8(chunk.bytes).unwrap())
    }

    #[tokio::test]
    async fn reads_ranges() {
        let Fixture { logs, .. } = &fixture("one\ntwo\nthree\n");
        let chunk = logs.read(read(ReadFrom::Offset(4), 3)).await.unwrap();
        let expected = Chunk { offset: 4, bytes: b"two".to_vec(), size: 14, complete: true };
        assert_eq!(chunk, expected);
        assert_eq!(text(logs, ReadFrom::Offset(99)).await, (99, String::new()));
    }

    #[tokio::test]
    async fn reads_the_last_lines() {
        let Fixture { logs, .. } = &fixture("one\ntwo\nthree\n");
        assert_eq!(text(logs, ReadFrom::Tail(2)).await, (4, "two\nthree\n".into()));
        assert_eq!(text(logs, ReadFrom::Tail(99)).await, (0, "one\ntwo\nthree\n".into()));
        assert_eq!(text(logs, ReadFrom::Tail(0)).await, (14, String::new()));
        let long = "line\n".repeat(100_000);
        let Fixture { logs, .. } = &fixture(&long);
        let (offset, tail) = text(logs, ReadFrom::Tail(100)).await;
        assert_eq!((offset, tail.len()), (5 * 99_900, 500));
        let (offset, _) = text(logs, ReadFrom::Tail(20_000)).await;
        assert_eq!(offset, 5 * 80_000);
    }

    #[tokio::test]
    async fn follows_a_log_that_grows() {
        let Fixture { logs, place, .. } = &fixture("one\n");
        let follow = logs.begin(task(), Attempt(1));
        follow.grown(4);
        let mut wanted = read(ReadFrom::Offset(4), 1_000);
        wanted.wait = DurationMs(10_000);
        let waiting = tokio::spawn({
            let (logs, wanted) = (Arc::clone(logs), wanted.clone());
            async move { logs.read(wanted).await }
        });
        fs::write(place.log(), "one\ntwo\n").unwrap();
        follow.grown(8);
        let chunk = waiting.await.unwrap().unwrap();
        assert_eq!((chunk.bytes.as_slice(), chunk.complete), (b"two\n".as_slice(), false));

        wanted.from = ReadFrom::Offset(8);
        let waiting = tokio::spawn({
            let logs = Arc::clone(logs);
            async move { logs.read(wanted).await }
        });
        follow.end();
        logs.end(task(), Attempt(1));
        let chunk = waiting.await.unwrap().unwrap();
        assert_eq!((chunk.bytes.len(), chunk.complete), (0, true));
    }

    #[tokio::test]
    async fn a_log_that_does_not_grow_answers_in_time() {
        let Fixture { logs, .. } = &fixture("one\n");
        logs.begin(task(), Attempt(1)).grown(4);
        let mut wanted = read(ReadFrom::Offset(4), 1_000);
        wanted.wait = DurationMs(20);
        let chunk = logs.read(wanted).await.unwrap();
        assert_eq!((chunk.bytes.len(), chunk.complete), (0, false));
    }

    #[tokio::test]
    async fn tells_no_output_from_nothing_kept() {
        let Fixture { logs, place, .. } = &fixture("");
        fs::remove_dir_all(place.log().parent().unwrap()).unwrap();
        assert_eq!(text(logs, ReadFrom::Offset(0)).await, (0, String::new()));
        let mut other = read(ReadFrom::Offset(0), 10);
        other.task.run = RunId(Uuid::from_u128(8));
        assert!(matches!(logs.read(other).await, Err(ReadError::NotFound(_))));
    }

    #[tokio::test]
    async fn reads_artifacts_and_nothing_beside_them() {
        let Fixture { logs, place, .. } = &fixture("log");
        fs::create_dir(place.artifacts()).unwrap();
        fs::write(place.artifacts().join("a.csv"), "1,2").unwrap();
        let of = |path: &str| {
            let wanted = read(ReadFrom::Offset(0), 100);
            logs.read(Read { artifact: Some(path.to_owned()), ..wanted })
        };
        assert_eq!(of("a.csv").await.unwrap().bytes, b"1,2");
        for path in ["../log", "/etc/passwd", "b.csv", "", "a.csv/../../log"] {
            assert!(matches!(of(path).await, Err(ReadError::NotFound(_))), "{path:?}");
        }
    }
}
