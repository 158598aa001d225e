//! Finding processes that outlived whoever should have killed them.
//!
//! Where there are PID namespaces or control groups nothing does. Elsewhere a keeper killed by
//! SIGKILL may leave something behind. It is found in two ways: by the cells that it had noted
//! in a file, and by the [`MARKER`] in the environment of what ran in them, which a process
//! keeps whatever group or session it moves to. (One that clears its environment is not found:
//! that is why `pgroup` promises less.)

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::lease::BootNs;
use super::super::sys;
use super::wire::MARKER;

/// The file with the cells that are open.
const FILE: &str = "keeper.cells";

/// A boot id, and zeros.
const HEADER_BYTES: usize = 64;

/// A process and when it was started, both little-endian u64; zeros for none.
const RECORD_BYTES: usize = 16;

/// `/proc` tells start times in hundredths of a second, rounded down; a process is taken for
/// the one that was noted if it started within this of it.
const START_SLACK_NS: u64 = 30_000_000;

/// Nanoseconds per unit of the start time in `/proc/PID/stat` (USER_HZ is 100 on every
/// architecture that Linux still has).
const TICK_NS: u64 = 10_000_000;

/// How often nothing must be found, one look after another.
const CLEAN_LOOKS_MIN: u32 = 2;

/// How long to wait before looking again whether killed processes are gone.
const RECHECK: Duration = Duration::from_millis(5);

/// The open cells, written down for the next keeper. Never synced: it matters
/// only as long as the machine stays up.
#[derive(Debug)]
pub(super) struct Ledger {
    file: File,
    free: BTreeSet<u64>,
    records: u64,
}

/// Where a cell is written down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot(u64);

impl Ledger {
    /// Begins an empty one.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).open(dir.join(FILE))?;
        let mut header = boot_id();
        header.resize(HEADER_BYTES, 0);
        file.write_all_at(&header, 0)?;
        Ok(Self { file, free: BTreeSet::new(), records: 0 })
    }

    /// Notes a cell. A failure is not worth failing the task: the markers are still there.
    pub(super) fn note(&mut self, pid: u32, started: BootNs) -> Slot {
        let slot = self.free.pop_first().unwrap_or_else(|| {
            self.records += 1;
            self.records - 1
        });
        self.write(slot, pid, started);
        Slot(slot)
    }

    /// Strikes it out.
    pub(super) fn strike(&mut self, slot: Slot) {
        self.write(slot.0, 0, BootNs(0));
        self.free.insert(slot.0);
    }

    fn write(&self, slot: u64, pid: u32, started: BootNs) {
        let mut record = [0; RECORD_BYTES];
        record[..8].copy_from_slice(&u64::from(pid).to_le_bytes());
        record[8..].copy_from_slice(&started.0.to_le_bytes());
        let offset = HEADER_BYTES as u64 + slot * RECORD_BYTES as u64;
        if let Err(error) = self.file.write_all_at(&record, offset) {
            tracing::warn!(%error, "a cell is not written down");
        }
    }
}

/// Kills what an earlier keeper in `dir` left, and waits until it is gone. Its tasks had
/// their outputs below `attempts`.
pub(super) fn kill(dir: &Path, attempts: &str) {
    let path = dir.join(FILE);
    if !path.exists() {
        return; // There was no keeper before.
    }
    let noted = read_noted(&path).unwrap_or_default();
    let mut killed = BTreeSet::new();
    // One look can miss a process that is just becoming another program.
    let mut clean_looks = 0;
    while clean_looks < CLEAN_LOOKS_MIN {
        let found = survivors(&noted, attempts);
        clean_looks = if found.is_empty() { clean_looks + 1 } else { 0 };
        for &pid in &found {
            if killed.insert(pid) {
                tracing::warn!(pid, "killing a process that outlived its keeper");
            }
            // It is gone, or it will be found again.
            let _ = sys::signal_process(pid, libc::SIGKILL);
        }
        std::thread::sleep(RECHECK);
    }
}

/// Every process that is noted or marked.
fn survivors(noted: &[(u32, BootNs)], attempts: &str) -> Vec<u32> {
    let prefix = format!("{MARKER}={attempts}/");
    processes().filter(|&pid| is_noted(pid, noted) || is_marked(pid, &prefix)).collect()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether this is the process that was noted, and not another that has its id now.
fn is_noted(pid: u32, noted: &[(u32, BootNs)]) -> bool {
    let Some(&(_, noted_at)) = noted.iter().find(|(group, _)| *group == pid) else { return false };
    let Some(stat) = Stat::of(pid) else { return false };
    !stat.is_ending && stat.started.0.abs_diff(noted_at.0) <= START_SLACK_NS
}

/// Whether the environment of a process has an entry that begins so.
fn is_marked(pid: u32, prefix: &str) -> bool {
    // Unreadable: another user's, or gone.
    environ(pid).is_ok_and(|environ| has_entry(&environ, prefix))
}

fn environ(pid: u32) -> io::Result<Vec<u8>> {
    fs::read(format!("/proc/{pid}/environ"))
}

fn has_entry(environ: &[u8], prefix: &str) -> bool {
    environ.split(|&byte| byte == 0).any(|entry| entry.starts_with(prefix.as_bytes()))
}

fn read_noted(path: &PathBuf) -> io::Result<Vec<(u32, BootNs)>> {
    let bytes = fs::read(path)?;
    let (header, records) = bytes.split_at_checked(HEADER_BYTES).unwrap_or_default();
    if header.is_empty() || !header.starts_with(&boot_id()) {
        return Ok(Vec::new());
    }
    let (records, _) = records.as_chunks::<RECORD_BYTES>();
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
    let records = records.iter().map(|record| (number(&record[..8]), number(&record[8..])));
    let noted = records.filter_map(|(group, at)| Some((u32::try_from(group).ok()?, BootNs(at))));
    Ok(noted.filter(|(group, _)| *group > 1).collect())
}

/// Tells this boot of the machine from others: process ids and times mean nothing in another.
fn boot_id() -> Vec<u8> {
    fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim_ascii().to_vec()
}

/// What `/proc/PID/stat` says.
struct Stat {
    /// It is a zombie, or about to be.
    is_ending: bool,
    started: BootNs,
}

/// The kernel's `PF_EXITING`, in the flags of a process.
const FLAG_EXITING: u64 = 4;

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name comes in parentheses and may hold anything, more of them included. Behind
        // it, the state is the first field, the flags are the seventh, the start the twentieth.
        let (_, fields) = text.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next()?;
        let flags: u64 = fields.nth(5)?.parse().ok()?;
        let ticks: u64 = fields.nth(12)?.parse().ok()?;
        let is_ending = matches!(state, "Z" | "X") || flags & FLAG_EXITING != 0;
        Some(Self { is_ending, started: BootNs(ticks * TICK_NS) })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn knows_a_process_by_id_and_start_time() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let (pid, now) = (child.id(), sys::boottime());
        assert!(is_noted(pid, &[(pid, now)]));
        assert!(!is_noted(pid, &[(pid, BootNs(now.0 - 2_000_000_000))]), "an id used again");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn kills_what_is_noted_and_what_is_marked_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let attempts = dir.path().join("attempts").to_str().unwrap().to_owned();
        let mut ledger = Ledger::create(dir.path()).unwrap();
        let mut noted = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        ledger.note(noted.id(), sys::boottime());
        let marker = format!("{attempts}/r/0-1/output");
        let mut marked = Command::new("sleep").arg("60").env(MARKER, marker).spawn().unwrap();
        let mut other = Command::new("sleep").arg("60").env(MARKER, "/x").spawn().unwrap();
        let ended = ledger.note(other.id(), sys::boottime());
        ledger.strike(ended);

        let waits = std::thread::spawn(move || {
            noted.wait().unwrap();
            marked.wait().unwrap();
        });
        kill(dir.path(), &attempts);
        waits.join().unwrap();
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn notes_of_another_boot_mean_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::create(dir.path()).unwrap();
        ledger.note(77, BootNs(5));
        assert_eq!(read_noted(&dir.path().join(FILE)).unwrap(), [(77, BootNs(5))]);
        ledger.file.write_all_at(b"another boot", 0).unwrap();
        assert_eq!(read_noted(&dir.path().join(FILE)).unwrap(), []);
    }
}
