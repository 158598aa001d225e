//! What faults are made with, where the kernel of a plain machine does not do it by itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::harness::node::signal;
use crate::harness::wait::within;

/// How long `strace` may take until it has hold of a process, or has let go of it.
const STRACE: Duration = Duration::from_secs(10);

/// Files and groups made so far; part of their names.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A process whose system calls are tampered with, as long as this lives.
#[derive(Debug)]
pub(super) struct Tracer {
    strace: Child,
    log: PathBuf,
}

impl Tracer {
    /// Tampers with the syncs of a process: `how` is what `strace --inject` takes.
    ///
    /// # Errors
    ///
    /// If that cannot be had here, and why.
    pub(super) fn attach(pid: u32, how: &str, folder: &Path) -> Result<Self, String> {
        let log = folder.join(format!("strace{}", MADE.fetch_add(1, Ordering::Relaxed)));
        let syncs = "fdatasync,fsync,sync_file_range";
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-e", &format!("trace={syncs}")])
            .args(["-e", &format!("inject={syncs}:{how}"), "-p", &pid.to_string(), "-o"])
            .arg(&log)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("strace: {error}"))?;
        let mut tracer = Self { strace, log };
        let status = format!("/proc/{pid}/status");
        let attached = within(STRACE, || {
            let ended = tracer.strace.try_wait().ok().flatten().is_some();
            let text = fs::read_to_string(&status).unwrap_or_default();
            let traced = text.lines().any(|line| {
                line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0")
            });
            (ended || traced).then_some(traced)
        });
        match attached {
            Some(true) => Ok(tracer),
            Some(false) | None => Err("strace cannot trace here".to_owned()),
        }
    }

    /// How many calls were tampered with so far.
    pub(super) fn hits(&self) -> usize {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines()
            .filter(|line| line.contains("(INJECTED)") || line.contains("(DELAYED)"))
            .count()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Asked to end it lets go first; killed, it would leave the process stopped.
        if self.strace.try_wait().is_ok_and(|status| status.is_none()) {
            signal("TERM", &[self.strace.id()]);
        }
        let _ = within(STRACE, || self.strace.try_wait().ok().flatten());
        drop(self.strace.kill());
        drop(self.strace.wait());
    }
}

/// The library that lies about the time, as Debian installs it.
const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
];

/// Wall clocks that can be put forward and back, one for each process.
#[derive(Debug)]
pub(super) struct Clocks {
    library: &'static str,
    folder: PathBuf,
}

impl Clocks {
    /// Prepares them in `folder`.
    ///
    /// # Errors
    ///
    /// If they cannot be had here, and why.
    pub(super) fn create(folder: &Path) -> Result<Self, String> {
        let library = FAKETIME.into_iter().find(|path| Path::new(path).exists());
        let library = library.ok_or("libfaketime (Debian: faketime) is not installed")?;
        let clocks = Self { library, folder: folder.join("clocks") };
        fs::create_dir_all(&clocks.folder).map_err(|error| error.to_string())?;
        Ok(clocks)
    }

    /// What a process has to be started with; `{}` stands for its name.
    pub(super) fn env(&self) -> Vec<(String, String)> {
        let file = self.folder.join("{}").display().to_string();
        let pairs = [
            ("LD_PRELOAD", self.library),
            ("FAKETIME_TIMESTAMP_FILE", &file),
            // The file is read again after a second.
            ("FAKETIME_CACHE_DURATION", "1"),
            // Only the wall clock may jump; the others are monotonic by contract.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// Has the clock of a process be off by so many seconds.
    pub(super) fn set(&self, process: &str, seconds: i64) -> io::Result<()> {
        fs::write(self.folder.join(process), format!("{seconds:+}\n"))
    }
}

/// The place of CPU limits, in the order of preference: the old hierarchy, then the one.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup"];

/// How long a share of a core is measured.
const QUOTA_PERIOD_US: u32 = 50_000;

/// A limit to the CPU that some processes have together. Lifted when this is dropped.
#[derive(Debug)]
pub(super) struct Quota {
    root: &'static Path,
    group: PathBuf,
}

impl Quota {
    /// Gives the processes, and what comes of them, so many percent of a core.
    ///
    /// # Errors
    ///
    /// If that cannot be had here, and why.
    pub(super) fn limit(processes: &[u32], percent: u32) -> Result<Self, String> {
        let quota_us = QUOTA_PERIOD_US / 100 * percent;
        let old = Path::new(CGROUPS[0]).join("cpu.cfs_quota_us").exists();
        let root = Path::new(CGROUPS[usize::from(!old)]);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let group = root.join(format!("quorate-test-{}-{made}", std::process::id()));
        let set_up = || -> io::Result<()> {
            fs::create_dir(&group)?;
            if old {
                fs::write(group.join("cpu.cfs_period_us"), QUOTA_PERIOD_US.to_string())?;
                fs::write(group.join("cpu.cfs_quota_us"), quota_us.to_string())
            } else {
                fs::write(group.join("cpu.max"), format!("{quota_us} {QUOTA_PERIOD_US}"))
            }
        };
        let set_up = set_up();
        let quota = Self { root, group };
        set_up.map_err(|error| format!("no CPU limits in {}: {error}", root.display()))?;
        // One that has gone meanwhile needs no limit.
        processes.iter().for_each(|&pid| move_to(&quota.group, pid));
        Ok(quota)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let _ = within(STRACE, || {
            let text = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
            for pid in text.lines().filter_map(|line| line.parse().ok()) {
                move_to(self.root, pid);
            }
            fs::remove_dir(&self.group).is_ok().then_some(())
        });
    }
}

/// One that has gone meanwhile needs no place.
fn move_to(group: &Path, pid: u32) {
    drop(fs::write(group.join("cgroup.procs"), pid.to_string()));
}
