//! The tasks that a keeper has started: a process group each.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use quorate_model::{DurationMs, Usage};

use super::super::lease::BootNs;
use super::super::sys::{self, Reaped};
use super::survivors::{Kin, Ledger, Slot, Strays};
use super::wire::{Cause, Exit, Key, MARKER, Spawn, Status};

/// How soon to look again whether a killed group is gone. Its members are handed to the
/// keeper and announce their end; this is for those that are slow to die.
const RECHECK: DurationMs = DurationMs(20);

/// How long a child without an environment holds up the end of a task. It is one that becomes
/// another program just then, which takes no time, or a daemon that hides, of any task.
const UNSURE_MAX: DurationMs = DurationMs(200);

/// All that runs, by the id of its group.
#[derive(Debug)]
pub(super) struct Groups {
    running: BTreeMap<u32, Group>,
    ledger: Ledger,
    strays: Strays,
}

/// A task.
///
/// ```text
/// started ──────────────── first process ends ──► whole group killed ──► empty: Exited
///    └─ asked to stop ──── first process ends ──► the others may take the rest of the
///         (SIGTERM)   └──► time is up: SIGKILL    time they were given ──► empty: Exited
/// ```
#[derive(Debug)]
struct Group {
    key: Key,
    marker: String,
    slot: Slot,
    started: BootNs,
    /// Set once it was asked to stop: who asked, and when patience ends.
    stop: Option<(Cause, BootNs)>,
    /// Set once its first process has ended, with when.
    left: Option<(Status, Usage, BootNs)>,
}

impl Groups {
    /// None yet.
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let (ledger, strays) = (Ledger::create(dir)?, Strays::new());
        Ok(Self { running: BTreeMap::new(), ledger, strays })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Starts a task in a group of its own.
    pub(super) fn start(&mut self, spawn: Spawn, pipes: Vec<OwnedFd>) -> io::Result<()> {
        let Spawn { key, epoch: _, argv, env, directory, marker } = spawn;
        let Ok([stdout, stderr]) = <[OwnedFd; 2]>::try_from(pipes) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "two pipes were expected"));
        };
        let [program, arguments @ ..] = argv.as_slice() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no program"));
        };
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(env).env(MARKER, &marker).current_dir(directory);
        // No pre_exec and no change of user: with these, std forks instead of posix_spawn.
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0);
        let started = sys::boottime();
        let pid = command.spawn()?.id();
        let slot = self.ledger.note(pid, started);
        let group = Group { key, marker, slot, started, stop: None, left: None };
        self.running.insert(pid, group);
        Ok(())
    }

    /// Asks a task to stop, and kills it after `grace`.
    pub(super) fn stop(&mut self, key: Key, grace: DurationMs, now: BootNs) {
        let found = self.running.iter_mut().find(|(_, group)| group.key == key);
        if let Some((&pid, group)) = found {
            group.ask(pid, Cause::Stopped, now.after(grace));
        }
    }

    /// Asks every task to stop by `deadline`.
    pub(super) fn stop_all(&mut self, deadline: BootNs) {
        for (&pid, group) in &mut self.running {
            group.ask(pid, Cause::LeaseOver, deadline);
        }
    }

    /// Kills every task, and whatever else is a child of this process.
    pub(super) fn kill_all(&mut self) {
        for (&pid, group) in &mut self.running {
            if group.left.is_none() || group.stop.is_some() {
                let cause = group.stop.map_or(Cause::LeaseOver, |(cause, _)| cause);
                group.stop = Some((cause, BootNs(0)));
            }
            signal(pid, libc::SIGKILL);
        }
        self.kill_strays();
    }

    /// Kills the children that belong to no task.
    pub(super) fn kill_strays(&self) {
        for pid in self.strays.list() {
            if !self.running.contains_key(&pid) {
                // A child that is not reaped keeps its id: this hits nobody else.
                let _ = sys::signal_process(pid, libc::SIGKILL);
            }
        }
    }

    /// Takes in that a child has ended. The exit of its task, if nothing is left of it.
    pub(super) fn reaped(&mut self, child: Reaped, now: BootNs) -> Option<Exit> {
        let group = self.running.get_mut(&child.pid)?;
        let wall = now.since(group.started).as_millis();
        let usage = Usage {
            wall: DurationMs(u64::try_from(wall).unwrap_or(u64::MAX)),
            user_us: child.user_us,
            system_us: child.system_us,
            memory_kib_max: child.memory_kib_max,
        };
        let status = ExitStatus::from_raw(child.status);
        let status = match (status.signal(), status.code()) {
            (Some(signal), _) => Status::Signal(signal),
            (None, code) => Status::Code(code.expect("a reaped process has ended one way")),
        };
        group.left = Some((status, usage, now));
        self.settle(child.pid, now)
    }

    /// The exits of tasks of which nothing is left, now that time has passed or a stray has
    /// ended. Kills those whose time is up.
    pub(super) fn tick(&mut self, now: BootNs) -> Vec<Exit> {
        let pids: Vec<_> = self.running.keys().copied().collect();
        for (&pid, group) in &self.running {
            if group.left.is_none() && group.stop.is_some_and(|(_, until)| until <= now) {
                signal(pid, libc::SIGKILL);
            }
        }
        pids.into_iter().filter_map(|pid| self.settle(pid, now)).collect()
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(super) fn due(&self, now: BootNs) -> Option<BootNs> {
        let due = self.running.values().filter_map(|group| match (&group.left, group.stop) {
            (Some(_), _) => Some(now.after(RECHECK)),
            (None, Some((_, until))) if until <= now => Some(now.after(RECHECK)),
            (None, stop) => stop.map(|(_, until)| until),
        });
        due.min()
    }

    /// Removes a task whose first process has ended, if nothing else is left of it; else has
    /// the rest killed, at once or when its time is up.
    fn settle(&mut self, pid: u32, now: BootNs) -> Option<Exit> {
        let group = self.running.get(&pid)?;
        let (status, usage, ended) = group.left?;
        let is_patient = group.stop.is_some_and(|(_, until)| now < until);
        // The id cannot be another's by now: it is taken while the group has members, and
        // ids are not handed out again that fast.
        let others = signal(pid, if is_patient { 0 } else { libc::SIGKILL });
        if others {
            return None;
        }
        match self.kill_strays_of(&group.marker) {
            Kin::Own | Kin::Ending => return None,
            Kin::Unsure if now < ended.after(UNSURE_MAX) => return None,
            Kin::Unsure | Kin::Other => {}
        }
        let group = self.running.remove(&pid)?;
        self.ledger.strike(group.slot);
        let cause = group.stop.map_or(Cause::Itself, |(cause, _)| cause);
        Some(Exit { key: group.key, status, cause, usage })
    }

    /// Kills the children of this process that a task left in other groups. The closest kin
    /// that there was.
    fn kill_strays_of(&self, marker: &str) -> Kin {
        let entry = format!("{MARKER}={marker}");
        let mut closest = Kin::Other;
        for pid in self.strays.list() {
            if self.running.contains_key(&pid) {
                continue;
            }
            let kin = Kin::of(pid, &entry);
            closest = closest.max(kin);
            if kin == Kin::Own {
                let _ = sys::signal_process(pid, libc::SIGKILL);
            }
        }
        closest
    }
}

impl Group {
    fn ask(&mut self, pid: u32, cause: Cause, until: BootNs) {
        if self.left.is_some() && self.stop.is_none() {
            return; // It ended of itself, and the rest of it is being killed.
        }
        // Asked twice, it gets the shorter time; what it ends of is the first.
        let (cause, until) = self.stop.map_or((cause, until), |(c, u)| (c, u.min(until)));
        let is_first = self.stop.replace((cause, until)).is_none();
        if is_first && self.left.is_none() {
            signal(pid, libc::SIGTERM);
        }
    }
}

/// Signals a group. Whether it has members; one that may not be signalled has.
fn signal(group: u32, signal: i32) -> bool {
    sys::signal_group(group, signal).unwrap_or_else(|error| {
        tracing::error!(group, signal, %error, "a process group cannot be signalled");
        true
    })
}
