//! The file behind the outbox: records appended, each `length u32 | CRC32C u32 | bincode`,
//! little-endian, after a magic of 8 bytes.
//!
//! A torn tail is cut on opening, and so is anything after a broken record: between two
//! syncs a power cut may leave any of it, and no one was told that it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_model::command::ReportTask;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Outbox;

const FILE: &str = "outbox";
const MAGIC: &[u8; 8] = b"QOUTBOX1";
const HEAD_BYTES: usize = 8;

/// An empty outbox gives its space back once its file is this large. Smaller, and it would
/// be cut after nearly every task; larger, and a restart would read more for nothing.
const KEEP_BYTES_MAX: u64 = 64 * 1024;

/// How long a report may wait for its answer before it is synced: several round trips to
/// a quorum, so that no disk is bothered while the cluster is well.
const SYNC_AFTER: Duration = Duration::from_millis(25);

#[derive(Serialize, Deserialize)]
enum Record {
    Added { sequence: u64, report: ReportTask },
    Recorded { sequence: u64 },
}

/// The file. Belongs to the agent's thread, which may wait for a disk.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    bytes: u64,
    /// Reports in the file without a later record that they are recorded.
    held: BTreeSet<u64>,
    /// When the file is to be synced.
    sync_due: Option<Instant>,
}

impl Journal {
    /// Opens the file in `dir` and reads what is pending in it.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, BTreeMap<u64, ReportTask>)> {
        let path = dir.join(FILE);
        let pending = match fs::read(&path) {
            Ok(bytes) => read(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let (file, bytes) = rewrite(dir, &path, &pending)?;
        let held = pending.keys().copied().collect();
        Ok((Self { file, bytes, held, sync_due: None }, pending))
    }

    /// Writes a report down, and which others are recorded by now.
    ///
    /// # Errors
    ///
    /// If the file cannot be written: the report is in memory only.
    pub(crate) fn append(
        &mut self,
        sequence: u64,
        report: &ReportTask,
        outbox: &Outbox,
    ) -> io::Result<()> {
        let recorded: Vec<_> =
            self.held.iter().copied().filter(|&held| !outbox.is_pending(held)).collect();
        if recorded.len() == self.held.len() && self.bytes > KEEP_BYTES_MAX {
            self.clear()?;
        }
        let mut bytes = Vec::new();
        for sequence in recorded {
            if self.held.remove(&sequence) {
                encode(&Record::Recorded { sequence }, &mut bytes)?;
            }
        }
        encode(&Record::Added { sequence, report: report.clone() }, &mut bytes)?;
        self.file.write_all_at(&bytes, self.bytes)?;
        self.bytes += bytes.len() as u64;
        self.held.insert(sequence);
        self.sync_due.get_or_insert_with(|| Instant::now() + SYNC_AFTER);
        Ok(())
    }

    /// Writes down every report that could not be when it was added.
    ///
    /// # Errors
    ///
    /// If it still cannot: what is left is in memory only.
    pub(crate) fn catch_up(&mut self, outbox: &Outbox) -> io::Result<()> {
        for (sequence, report) in outbox.pending() {
            if !self.held.contains(&sequence) {
                self.append(sequence, &report, outbox)?;
            }
        }
        Ok(())
    }

    /// When to call [`take_unsynced`](Self::take_unsynced).
    pub(crate) fn sync_due(&self) -> Option<Instant> {
        self.sync_due
    }

    /// The file, if there is still a reason to sync it; to be synced where waiting is fine.
    pub(crate) fn take_unsynced(&mut self, outbox: &Outbox) -> Option<io::Result<File>> {
        self.sync_due = None;
        let waits = self.held.iter().any(|&held| outbox.is_pending(held));
        waits.then(|| self.file.try_clone())
    }

    /// Empties the file, if nothing is pending: for a graceful end.
    ///
    /// # Errors
    ///
    /// If the file cannot be cut. Then some reports are sent once more, to be refused.
    pub(crate) fn close(mut self, outbox: &Outbox) -> io::Result<()> {
        if outbox.len() == 0 { self.clear() } else { self.file.sync_data() }
    }

    fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(MAGIC.len() as u64)?;
        self.bytes = MAGIC.len() as u64;
        self.held.clear();
        Ok(())
    }
}

/// Replaces the file by one with nothing but what is pending.
fn rewrite(
    dir: &Path,
    path: &PathBuf,
    pending: &BTreeMap<u64, ReportTask>,
) -> io::Result<(File, u64)> {
    let mut bytes = MAGIC.to_vec();
    for (&sequence, report) in pending {
        encode(&Record::Added { sequence, report: report.clone() }, &mut bytes)?;
    }
    let temporary = dir.join("outbox.new");
    let file = File::create(&temporary)?;
    file.write_all_at(&bytes, 0)?;
    if !pending.is_empty() {
        file.sync_data()?;
    }
    fs::rename(&temporary, path)?;
    if !pending.is_empty() {
        File::open(dir)?.sync_all()?;
    }
    Ok((file, bytes.len() as u64))
}

fn encode(record: &Record, into: &mut Vec<u8>) -> io::Result<()> {
    let payload = bincode::serde::encode_to_vec(record, bincode::config::standard());
    let payload = payload.map_err(io::Error::other)?;
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
    into.extend_from_slice(&payload);
    Ok(())
}

/// The reports that are pending by what the file says, as far as it is whole.
fn read(bytes: &[u8]) -> BTreeMap<u64, ReportTask> {
    let mut pending = BTreeMap::new();
    let mut rest = bytes.strip_prefix(MAGIC).unwrap_or_default();
    while let Some((record, after)) = decode(rest) {
        match record {
            Record::Added { sequence, report } => drop(pending.insert(sequence, report)),
            Record::Recorded { sequence } => drop(pending.remove(&sequence)),
        }
        rest = after;
    }
    if !rest.is_empty() {
        tracing::warn!(bytes = rest.len(), "cut a torn tail off the outbox");
    }
    pending
}

fn decode(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let (length, crc) = head.split_at(4);
    let length = u32::from_le_bytes(length.try_into().ok()?);
    let crc = u32::from_le_bytes(crc.try_into().ok()?);
    let (payload, rest) = rest.split_at_checked(length as usize)?;
    if crc32c::crc32c(payload) != crc {
        return None;
    }
    let decoded = bincode::serde::decode_from_slice(payload, bincode::config::standard());
    decoded.ok().map(|(record, _)| (record, rest))
}

#[cfg(test)]
mod tests {
    use quorate_model::{Attempt, Epoch, FencingToken, Outcome, TaskId, Usage, WorkerId};

    use super::*;

    fn report(token: u64) -> ReportTask {
        ReportTask {
            task: TaskId::default(),
            attempt: Attempt(1),
            token: FencingToken(token),
            worker: WorkerId(1),
            epoch: Epoch(1),
            outcome: Outcome::Exited { code: 3 },
            usage: Usage::default(),
        }
    }

    fn add(outbox: &Outbox, journal: &mut Journal, token: u64) -> u64 {
        let sequence = outbox.add(report(token));
        journal.append(sequence, &report(token), outbox).unwrap();
        sequence
    }

    fn tokens(outbox: &Outbox) -> Vec<u64> {
        outbox.send_all_again();
        std::iter::from_fn(|| outbox.next_to_send()).map(|(_, report)| report.token.0).collect()
    }

    #[test]
    fn keeps_what_is_not_recorded_over_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, mut journal) = Outbox::open(dir.path()).unwrap();
        let first = add(&outbox, &mut journal, 1);
        add(&outbox, &mut journal, 2);
        outbox.recorded(first);
        let third = add(&outbox, &mut journal, 3);
        drop((outbox, journal));

        let (outbox, mut journal) = Outbox::open(dir.path()).unwrap();
        assert_eq!(tokens(&outbox), [2, 3]);
        assert!(add(&outbox, &mut journal, 4) > third, "numbers are never used twice");
    }

    #[test]
    fn writes_down_later_what_could_not_be_written_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, mut journal) = Outbox::open(dir.path()).unwrap();
        add(&outbox, &mut journal, 1);
        // The journal cannot write to what is open for reading only, as to a disk that is full.
        let sound =
            std::mem::replace(&mut journal.file, File::open(dir.path().join(FILE)).unwrap());
        let sequence = outbox.add(report(2));
        assert!(journal.append(sequence, &report(2), &outbox).is_err());
        assert!(journal.catch_up(&outbox).is_err());
        journal.file = sound;
        journal.catch_up(&outbox).unwrap();
        assert_eq!(tokens(&outbox), [1, 2], "and all are still sent");
        drop((outbox, journal));
        let (outbox, _) = Outbox::open(dir.path()).unwrap();
        assert_eq!(tokens(&outbox), [1, 2]);
    }

    #[test]
    fn every_torn_tail_leaves_the_records_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, mut journal) = Outbox::open(dir.path()).unwrap();
        add(&outbox, &mut journal, 1);
        let whole = journal.bytes;
        add(&outbox, &mut journal, 2);
        let bytes = fs::read(dir.path().join(FILE)).unwrap();
        for cut in 0..bytes.len() {
            let kept = read(&bytes[..cut]).len();
            assert_eq!(kept, usize::from(cut as u64 >= whole), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(read(&flipped).len() < 2, "a flipped bit at {at} goes unseen");
        }
    }

    #[test]
    fn gives_space_back_once_nothing_is_pending() {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, mut journal) = Outbox::open(dir.path()).unwrap();
        for token in 0..2_000 {
            let sequence = add(&outbox, &mut journal, token);
            outbox.recorded(sequence);
        }
        assert!(journal.bytes < 2 * KEEP_BYTES_MAX, "{} bytes", journal.bytes);
        journal.close(&outbox).unwrap();
        assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().len(), MAGIC.len() as u64);
    }

    #[test]
    fn asks_for_a_sync_only_while_a_report_waits() {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, mut journal) = Outbox::open(dir.path()).unwrap();
        let first = add(&outbox, &mut journal, 1);
        assert!(journal.sync_due().is_some());
        outbox.recorded(first);
        assert!(journal.take_unsynced(&outbox).is_none());
        add(&outbox, &mut journal, 2);
        journal.take_unsynced(&outbox).unwrap().unwrap().sync_data().unwrap();
        assert!(journal.sync_due().is_none());
    }
}
