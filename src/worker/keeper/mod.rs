//! The keeper: the process that starts tasks, and sees to it that none outlives its lease.
//!
//! A child of the worker (the *agent*): the same binary, but one thread, no tokio, little
//! memory, and a session of its own. That makes it cheap to start tasks from (a large parent
//! is slow to fork), keeps signals meant for the agent away from tasks, and lets the keeper
//! act on the lease when the agent is busy, stopped or dead:
//!
//! - it starts a task only under a lease that holds, and asks all to stop, then kills them,
//!   when the lease ends without a renewal;
//! - it says that a task has ended only when nothing is left of its process group, nor of
//!   what the task moved to other groups, as far as that can be known by environment;
//! - it kills everything and ends when the agent is gone;
//! - it holds a lock in its directory all its life. A new keeper waits for that lock and
//!   kills what it finds left before it says that it is ready, so what a restarted agent
//!   starts never overlaps with what the one before it had started.
//!
//! What it does *not* do: it decides nothing, knows nothing of the cluster, and reads no
//! output; the pipes belong to the agent. Killing by a timer of the kernel, so that not even
//! a stopped keeper lets a task live on, takes PID namespaces and is not built yet; the place
//! for it is [`groups`], and a keeper that outlives its agent would listen where this one
//! inherits a socket.

mod groups;
mod link;
mod survivors;
mod wire;

use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use quorate_model::Epoch;

use super::lease::BootNs;
use super::sys::{self, Children, Poll};
use groups::Groups;
use wire::{MESSAGE_BYTES_MAX, decode, encode};

pub(crate) use link::{Keeper, Line, Program};
pub(crate) use wire::{Cause, Exit, Key, Note, Order, Spawn, Status};

/// Held by a keeper while it lives.
const LOCK: &str = "keeper.lock";

/// The directory with the attempts, next to the lock.
pub(crate) const ATTEMPTS: &str = "attempts";

/// How often to try for the lock of another keeper, in milliseconds.
const LOCK_RETRY_MS: i32 = 10;

/// How often to look again, once everything was killed, whether it is gone, in milliseconds.
const END_RECHECK_MS: i32 = 20;

/// Signals that are meant for a whole service and must not end its keeper, which ends when
/// the agent does.
const DEAF_TO: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Keeps the tasks of the worker in `dir`, an absolute path, until the agent at the other
/// end of stdin is gone.
pub(crate) fn run(dir: &Path) -> ExitCode {
    match Loop::new(dir).map(Loop::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(dir = %dir.display(), %error, "the keeper cannot work");
            ExitCode::FAILURE
        }
    }
}

/// The lease as the keeper enforces it.
#[derive(Clone, Copy, Debug)]
struct Term {
    epoch: Epoch,
    warning: BootNs,
    deadline: BootNs,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Holds,
    Warned,
    Over,
}

struct Loop {
    socket: OwnedFd,
    /// What the agent was too slow to take: at most one note per task.
    unsent: VecDeque<Vec<u8>>,
    /// Readable once a child has ended.
    children: File,
    timer: File,
    /// What the timer is set to.
    armed: Option<BootNs>,
    term: Option<Term>,
    groups: Groups,
    /// Locked until this process is gone.
    _lock: File,
    buffer: Vec<u8>,
}

/// The agent is gone.
struct AgentGone;

impl Loop {
    fn new(dir: &Path) -> io::Result<Self> {
        // It fails where this process leads a group already, and then nothing is needed.
        let _ = sys::own_session();
        sys::become_subreaper()?;
        sys::shrug_off(&DEAF_TO)?;
        let children = File::from(sys::child_fd()?);
        let timer = File::from(sys::timer_fd()?);
        let socket = sys::stdin_as_socket()?;
        let lock = lock(dir, &socket)?;
        let attempts = dir.join(ATTEMPTS);
        survivors::kill(dir, &attempts.to_string_lossy());
        let groups = Groups::new(dir)?;
        let (unsent, buffer) = (VecDeque::new(), vec![0; MESSAGE_BYTES_MAX]);
        let (armed, term) = (None, None);
        Ok(Self { socket, unsent, children, timer, armed, term, groups, _lock: lock, buffer })
    }

    fn run(mut self) {
        self.tell(&Note::Ready);
        loop {
            self.arm();
            let socket = Poll::readable(self.socket.as_fd()).writable_too(!self.unsent.is_empty());
            let (children, timer) = (self.children.as_fd(), self.timer.as_fd());
            let wanted = [socket, Poll::readable(children), Poll::readable(timer)];
            let [socket, child, time] = sys::poll(wanted, -1);
            if child {
                self.reap();
            }
            if socket && (self.flush().is_err() || self.obey().is_err()) {
                break;
            }
            if time {
                drain(&mut self.timer);
                self.armed = None;
            }
            self.tick();
        }
        self.end();
    }

    /// Carries out everything that the agent has said.
    fn obey(&mut self) -> Result<(), AgentGone> {
        loop {
            let (size, pipes) = match sys::receive(self.socket.as_fd(), &mut self.buffer) {
                Ok((0, _)) => return Err(AgentGone),
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "the agent cannot be heard");
                    return Err(AgentGone);
                }
            };
            match decode(&self.buffer[..size]) {
                Ok(Order::Lease { epoch, warning, deadline }) => {
                    self.extend(Term { epoch, warning, deadline, phase: Phase::Holds });
                }
                Ok(Order::Start(spawn)) => self.start(spawn, pipes),
                Ok(Order::Stop { key, grace }) => self.groups.stop(key, grace, sys::boottime()),
                Ok(Order::KillAll) => self.groups.kill_all(),
                Err(error) => {
                    tracing::error!(%error, "the agent speaks in another tongue");
                    return Err(AgentGone);
                }
            }
        }
    }

    /// Takes over a renewed lease, unless it is one that is over: then tasks may be dead
    /// already, and the agent has to register anew.
    fn extend(&mut self, new: Term) {
        let now = sys::boottime();
        let is_over = |old: &Term| old.phase == Phase::Over || old.deadline <= now;
        if !self.term.as_ref().is_some_and(|old| old.epoch == new.epoch && is_over(old)) {
            self.term = Some(new);
        }
    }

    fn start(&mut self, spawn: Spawn, pipes: Vec<OwnedFd>) {
        let key = spawn.key;
        let holds = |term: Term| term.epoch == spawn.epoch && sys::boottime() < term.deadline;
        let refused = if self.term.is_some_and(holds) {
            self.groups.start(spawn, pipes).err().map(|error| error.to_string())
        } else {
            Some("the lease is over".to_owned())
        };
        if let Some(reason) = refused {
            self.tell(&Note::Refused { key, reason });
        }
    }

    /// Does what time asks for.
    fn tick(&mut self) {
        let now = sys::boottime();
        if let Some(term) = &mut self.term {
            if term.phase == Phase::Holds && term.warning <= now {
                term.phase = Phase::Warned;
                if !self.groups.is_empty() {
                    tracing::warn!("no renewal: tasks are asked to stop before the lease ends");
                }
                self.groups.stop_all(term.deadline);
            }
            if term.phase == Phase::Warned && term.deadline <= now {
                term.phase = Phase::Over;
                if !self.groups.is_empty() {
                    tracing::warn!("the lease is over: killing what runs");
                }
                self.groups.kill_all();
            }
        }
        if self.groups.due(now).is_some() {
            for exit in self.groups.tick(now) {
                self.tell(&Note::Exited(exit));
            }
        }
    }

    /// Sets the timer to when [`tick`](Self::tick) is next needed.
    fn arm(&mut self) {
        let lease = self.term.and_then(|term| match term.phase {
            Phase::Holds => Some(term.warning),
            Phase::Warned => Some(term.deadline),
            Phase::Over => None,
        });
        let groups = if self.groups.is_empty() { None } else { self.groups.due(sys::boottime()) };
        let next = lease.into_iter().chain(groups).min();
        if next != self.armed {
            sys::set_timer(self.timer.as_fd(), next).expect("a timer takes any instant");
            self.armed = next;
        }
    }

    /// Reaps every child that has ended, tasks and strays alike.
    fn reap(&mut self) {
        drain(&mut self.children);
        loop {
            match sys::reap() {
                Children::Reaped(child) => {
                    if let Some(exit) = self.groups.reaped(child, sys::boottime()) {
                        self.tell(&Note::Exited(exit));
                    }
                }
                // No task runs: what still lives belongs to none that could vouch for it.
                Children::Alive if self.groups.is_empty() => return self.groups.kill_strays(),
                Children::Alive | Children::None => return,
            }
        }
    }

    fn tell(&mut self, note: &Note) {
        self.unsent.push_back(encode(note).expect("a note is small, and has an encoding"));
        // If the agent is gone, that is noticed where it is listened to.
        let _ = self.flush();
    }

    /// Sends what waits, as far as the agent takes it.
    fn flush(&mut self) -> Result<(), AgentGone> {
        while let Some(message) = self.unsent.front() {
            match sys::send(self.socket.as_fd(), message, &[]) {
                Ok(()) => drop(self.unsent.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(AgentGone),
            }
        }
        Ok(())
    }

    /// Kills everything, and returns when it is gone.
    fn end(mut self) {
        if !self.groups.is_empty() {
            tracing::warn!("the agent is gone: killing what runs");
        }
        loop {
            self.groups.kill_all();
            drain(&mut self.children);
            loop {
                match sys::reap() {
                    Children::Reaped(_) => {}
                    Children::Alive => break,
                    Children::None => return,
                }
            }
            sys::poll([Poll::readable(self.children.as_fd())], END_RECHECK_MS);
        }
    }
}

/// Empties a descriptor that tells only that something happened.
fn drain(fd: &mut File) {
    let mut buffer = [0; 1024];
    while fd.read(&mut buffer).is_ok_and(|read| read == buffer.len()) {}
}

/// Waits until no other keeper lives in this directory.
fn lock(dir: &Path, agent: &OwnedFd) -> io::Result<File> {
    let file = File::options().write(true).create(true).truncate(false).open(dir.join(LOCK))?;
    let mut has_waited = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if has_waited => {}
            Err(TryLockError::WouldBlock) => {
                tracing::info!("waiting for the keeper before this one to end");
                has_waited = true;
            }
        }
        // The agent says nothing before it was told that the keeper is ready.
        if let [true] = sys::poll([Poll::readable(agent.as_fd())], LOCK_RETRY_MS) {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the agent is gone"));
        }
    }
}
