//! The tasks that a keeper holds, and the cells that they run in.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use quorate_model::{Containment, DurationMs, Usage};

use super::super::lease::BootNs;
use super::super::sys::{self, FileLimit, Reaped};
use super::cell::{FromCell, ToCell, children, usage};
use super::containment::{Opened, Walls};
use super::peer::is_passing;
use super::survivors::{Ledger, Slot};
use super::wire::{Cause, Exit, Invocation, Key, MESSAGE_BYTES_MAX, Spawn, Status, decode, encode};

/// Cells that are kept open while they have nothing to do. To open one costs as much as to
/// start a program in it; more than are busy at once on most machines would only take memory.
const IDLE_MAX: usize = 16;

/// How soon to look again whether what was killed is gone, where the kernel does not tell.
const RECHECK: DurationMs = DurationMs(20);

/// All cells and tasks.
#[derive(Debug)]
pub(super) struct Cells {
    walls: Walls,
    cells: BTreeMap<u32, Cell>,
    held: BTreeMap<Key, Held>,
    /// Tasks whose cell was killed, and which may have left orphans to this process.
    dying: Vec<Exit>,
    ledger: Ledger,
    buffer: Vec<u8>,
}

/// A cell, from outside.
#[derive(Debug)]
struct Cell {
    /// `None` once it was told to close.
    socket: Option<OwnedFd>,
    /// What is in it.
    task: Option<Task>,
    /// What all tasks took that ended in it, in microseconds of user and of system time.
    spent_us: (u64, u64),
    slot: Slot,
}

/// A task that runs.
///
/// ```text
/// started ──────────────── first process ends ──► the rest is killed ──► empty: Exited
///    └─ asked to stop ──── first process ends ──► the others may take the rest of the
///         (SIGTERM)   └──► time is up: cell killed   time they were given ──► empty: Exited
/// ```
#[derive(Debug)]
struct Task {
    key: Key,
    started: BootNs,
    /// Set once it was asked to stop: who asked, and when patience ends.
    stop: Option<(Cause, BootNs)>,
    /// Its cell was killed.
    is_killed: bool,
}

/// What the next agent will have to know of a task.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) memo: Vec<u8>,
    /// The ends to read of its stdout and its stderr.
    pub(super) pipes: [OwnedFd; 2],
    /// Set once it has ended.
    pub(super) exit: Option<Exit>,
}

/// What a cell has said.
pub(super) enum News {
    /// Its task was not started.
    Refused(Key, String),
    /// Its task has ended.
    Exited(Exit),
}

impl Cells {
    /// Finds out how to contain tasks.
    pub(super) fn new(dir: &Path, wanted: Containment, files: FileLimit) -> io::Result<Self> {
        let ledger = Ledger::create(dir)?;
        let (walls, first) = Walls::find(wanted, files)?;
        let (cells, held) = (BTreeMap::new(), BTreeMap::new());
        let buffer = vec![0; MESSAGE_BYTES_MAX];
        let mut new = Self { walls, cells, held, dying: Vec::new(), ledger, buffer };
        new.insert(first);
        Ok(new)
    }

    pub(super) fn containment(&self) -> Containment {
        self.walls.containment()
    }

    /// Whether no task runs.
    pub(super) fn are_quiet(&self) -> bool {
        self.dying.is_empty() && self.cells.values().all(|cell| cell.task.is_none())
    }

    /// Whether there is no cell, and nothing that came out of one.
    pub(super) fn are_gone(&self) -> bool {
        self.cells.is_empty() && !self.kill_strays()
    }

    /// What later agents need to know.
    pub(super) fn held(&self) -> impl Iterator<Item = (Key, &Held)> {
        self.held.iter().map(|(key, held)| (*key, held))
    }

    /// Lets go of what has ended.
    pub(super) fn forget(&mut self, keys: &[Key]) {
        for key in keys {
            if self.held.get(key).is_some_and(|held| held.exit.is_some()) {
                self.held.remove(key);
            }
        }
    }

    /// Every cell that may have something to say.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        let open = self.cells.iter().filter_map(|(pid, cell)| Some((pid, cell.socket.as_ref()?)));
        open.map(|(pid, socket)| (*pid, socket.as_fd()))
    }

    /// Starts a task.
    pub(super) fn start(&mut self, spawn: Spawn, pipes: Vec<OwnedFd>) -> io::Result<()> {
        let Spawn { key, epoch: _, program, memo, forget: _ } = spawn;
        let Ok([stdout, stderr, read_out, read_err]) = <[OwnedFd; 4]>::try_from(pipes) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "four pipe ends were expected",
            ));
        };
        let started = sys::boottime();
        self.put_in_cell(
            program,
            &[stdout, stderr],
            Task { key, started, stop: None, is_killed: false },
        )?;
        self.held.insert(key, Held { memo, pipes: [read_out, read_err], exit: None });
        Ok(())
    }

    fn put_in_cell(
        &mut self,
        program: Invocation,
        pipes: &[OwnedFd; 2],
        task: Task,
    ) -> io::Result<()> {
        let order = encode(&ToCell::Start(program))?;
        let idle = |(_, cell): &(&u32, &Cell)| cell.socket.is_some() && cell.task.is_none();
        let pid = match self.cells.iter().find(idle) {
            Some((&pid, _)) => pid,
            None => {
                let opened = self.walls.open()?;
                self.insert(opened)
            }
        };
        let cell = self.cells.get_mut(&pid).expect("it was found, or just inserted");
        let socket = cell.socket.as_ref().expect("it is open");
        sys::send(socket.as_fd(), &order, &pipes.each_ref().map(|pipe| pipe.as_fd()))?;
        cell.task = Some(task);
        Ok(())
    }

    fn insert(&mut self, opened: Opened) -> u32 {
        let Opened { pid, socket } = opened;
        let slot = self.ledger.note(pid, sys::boottime());
        let cell = Cell { socket: Some(socket), task: None, spent_us: (0, 0), slot };
        self.cells.insert(pid, cell);
        pid
    }

    /// Asks a task to stop, and kills it after `grace`.
    pub(super) fn stop(&mut self, key: Key, grace: DurationMs, now: BootNs) {
        for cell in self.cells.values_mut() {
            if cell.task.as_ref().is_some_and(|task| task.key == key) {
                cell.ask(Cause::Stopped, now.after(grace));
            }
        }
    }

    /// Asks every task to stop by `deadline`.
    pub(super) fn stop_all(&mut self, deadline: BootNs) {
        self.cells.values_mut().for_each(|cell| cell.ask(Cause::LeaseOver, deadline));
    }

    /// Kills every task.
    pub(super) fn kill_all(&mut self) {
        if self.are_quiet() {
            return;
        }
        if self.walls.tear_down() {
            // The idle cells too: nothing must be started in them.
            self.cells.values_mut().for_each(|cell| cell.socket = None);
        }
        for (&pid, cell) in &mut self.cells {
            cell.kill(pid, Cause::LeaseOver);
        }
        self.kill_strays();
    }

    /// Closes what is open, and kills what runs.
    pub(super) fn close_all(&mut self) {
        self.kill_all();
        self.cells.values_mut().for_each(|cell| cell.socket = None);
    }

    /// Takes in what a cell says.
    pub(super) fn hear(&mut self, pid: u32) -> Option<News> {
        let idle = self.idle_count();
        let cell = self.cells.get_mut(&pid)?;
        let socket = cell.socket.as_ref()?;
        let said = match sys::receive(socket.as_fd(), &mut self.buffer) {
            Ok((0, _)) => None,
            Ok((size, _)) => decode::<FromCell>(&self.buffer[..size]).ok(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) if is_passing(&error) => return None,
            Err(_) => None,
        };
        let (status, usage) = match said {
            Some(FromCell::Open { .. }) => return None,
            Some(FromCell::Ended { status, usage }) => (status, usage),
            Some(FromCell::Failed(reason)) => {
                let key = cell.task.take()?.key;
                self.held.remove(&key);
                return Some(News::Refused(key, reason));
            }
            // It ends, or it is out of its mind. What was in it is told when it is reaped.
            None => {
                cell.socket = None;
                let _ = sys::signal_process(pid, libc::SIGKILL);
                return None;
            }
        };
        let task = cell.task.take()?;
        cell.spent_us.0 += usage.user_us;
        cell.spent_us.1 += usage.system_us;
        if idle >= IDLE_MAX {
            cell.socket = None;
        }
        Some(News::Exited(self.ended(&task, status, usage)))
    }

    fn idle_count(&self) -> usize {
        self.cells.values().filter(|cell| cell.task.is_none()).count()
    }

    fn ended(&mut self, task: &Task, status: Status, usage: Usage) -> Exit {
        let cause = task.stop.map_or(Cause::Itself, |(cause, _)| cause);
        let exit = Exit { key: task.key, status, cause, usage };
        if let Some(held) = self.held.get_mut(&task.key) {
            held.exit = Some(exit);
        }
        exit
    }

    /// Takes in that a child has ended. If it was a cell with a task, that is over too.
    ///
    /// # Errors
    ///
    /// If nobody would end the tasks now if this process were killed.
    pub(super) fn reaped(&mut self, child: Reaped) -> io::Result<()> {
        if self.walls.watcher() == Some(child.pid) {
            return Err(io::Error::other("the process that watches the keeper was killed"));
        }
        let Some(cell) = self.cells.remove(&child.pid) else { return Ok(()) };
        self.ledger.strike(cell.slot);
        if let Some(task) = cell.task {
            let (user_us, system_us) = cell.spent_us;
            let mut usage = usage(&child, task.started);
            usage.user_us = usage.user_us.saturating_sub(user_us);
            usage.system_us = usage.system_us.saturating_sub(system_us);
            let exit = self.ended(&task, Status::Signal(libc::SIGKILL), usage);
            if !task.is_killed {
                tracing::error!(pid = child.pid, "a cell was killed, and its task with it");
            }
            self.dying.push(exit);
        }
        Ok(())
    }

    /// Does what time asks for: kills tasks whose time is up. The exits of those that were
    /// killed and of which nothing is left.
    pub(super) fn tick(&mut self, now: BootNs) -> Vec<Exit> {
        for (&pid, cell) in &mut self.cells {
            let due = cell.task.as_ref().and_then(|task| task.stop);
            if let Some((cause, until)) = due
                && until <= now
            {
                cell.kill(pid, cause);
            }
        }
        if self.dying.is_empty() || self.kill_strays() {
            return Vec::new();
        }
        std::mem::take(&mut self.dying)
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(super) fn due(&self, now: BootNs) -> Option<BootNs> {
        let tasks = self.cells.values().filter_map(|cell| cell.task.as_ref());
        let stops = tasks.filter(|task| !task.is_killed).filter_map(|task| task.stop);
        let stops = stops.map(|(_, until)| until);
        let dying = (!self.dying.is_empty()).then(|| now.after(RECHECK));
        stops.chain(dying).min()
    }

    /// Kills the children that belong to no cell: orphans, handed over by a cell that died.
    /// Whether there were any.
    pub(super) fn kill_strays(&self) -> bool {
        if self.containment() == Containment::Pidns {
            return false; // They died with their namespace.
        }
        let known: BTreeSet<u32> = self.cells.keys().copied().chain(self.walls.watcher()).collect();
        let strays = children(std::process::id()).into_iter().filter(|pid| !known.contains(pid));
        let mut any = false;
        for pid in strays {
            // One that is not reaped keeps its id: this hits nobody else.
            let _ = sys::signal_process(pid, libc::SIGKILL);
            any = true;
        }
        any
    }
}

impl Cell {
    fn ask(&mut self, cause: Cause, until: BootNs) {
        let (Some(task), Some(socket)) = (&mut self.task, &self.socket) else { return };
        // Asked twice, it gets the shorter time; what it ends of is the first.
        let (cause, until) = task.stop.map_or((cause, until), |(c, u)| (c, u.min(until)));
        if task.stop.replace((cause, until)).is_some() {
            return;
        }
        let order = encode(&ToCell::Stop).expect("it is small");
        // A cell that does not hear is killed when the time is up.
        let _ = sys::send(socket.as_fd(), &order, &[]);
    }

    /// Kills it, if there is a task in it.
    fn kill(&mut self, pid: u32, cause: Cause) {
        let Some(task) = &mut self.task else { return };
        task.stop.get_or_insert((cause, BootNs(0)));
        if !std::mem::replace(&mut task.is_killed, true) {
            // A child that is not reaped keeps its id: this hits nobody else.
            let _ = sys::signal_process(pid, libc::SIGKILL);
        }
    }
}
