//! The keeper: the process that starts tasks, and sees to it that none outlives its lease.
//!
//! A child of the worker (the *agent*): the same binary, but one thread, no tokio, little
//! memory, and a session of its own. It outlives its agent:
//!
//! ```text
//!   agent ◄────── socket ──────► keeper ──┬──► cell ──► a task and all that it starts
//!   (may die, and come back)     kill     ├──► cell ──► ...
//!                                timer    └──► cell      (idle)
//! ```
//! - It starts a task only under a lease that holds, and asks all to stop, then kills them,
//!   when the lease ends without a renewal.
//! - Should it not get to that, being stopped, frozen or starved, the kernel kills it at the
//!   end of the lease by a timer that is set before any task starts, and [cells](cell) die
//!   with their keeper. No code of ours has to run for that.
//! - It says that a task has ended only when nothing is left of it.
//! - When the agent is gone it goes on until the lease is over. The next agent finds it by its
//!   socket and is told what runs, what has ended, and under which lease.
//! - It holds a lock in its directory all its life. A new keeper waits for that lock and
//!   kills what it finds left before it says that it is ready, so what it starts never
//!   overlaps with what another had started.
//!
//! What it does *not* do: it decides nothing, knows nothing of the cluster, and reads no
//! output; it only holds the pipes, so that a task can go on writing while no agent reads.

mod cell;
mod cells;
mod containment;
#[cfg(test)]
mod fuzz;
mod link;
mod peer;
#[cfg(test)]
pub(crate) mod simulated;
mod survivors;
mod wire;

use std::fs::{File, TryLockError};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use quorate_model::{Containment, DurationMs, mutant};

use super::lease::BootNs;
use super::sys::{self, Children, KillTimer, Poll};
use cells::{Cells, News};
use peer::{Gone, Peer};

pub(crate) use link::{Keeper, Line, Program, Said};
pub(crate) use wire::{
    Cause, Exit, Invocation, Key, MARKER, Note, Order, Spawn, Status, Term, VERSION,
};

/// Held by a keeper while it lives.
const LOCK: &str = "keeper.lock";

/// Where it listens for agents.
const SOCKET: &str = "keeper.sock";

/// The directory below which every task runs, next to the lock.
pub(crate) const WORKSPACES: &str = "workspaces";

/// How long before the kernel kills this process it kills what runs by itself: so the exits
/// are not lost, and a keeper that is well lives on.
const LEAD: DurationMs = DurationMs(100);

/// How often to try for the lock of another keeper, in milliseconds.
const LOCK_RETRY_MS: i32 = 10;

/// How often to look again, once everything was killed, whether it is gone, in milliseconds.
const END_RECHECK_MS: i32 = 20;

/// Signals that are meant for a whole service and must not end its keeper.
const DEAF_TO: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Keeps the tasks of the worker in `dir`, an absolute path, for the agent at the other end of
/// stdin and those that come after it, contained as well as can be had up to `wanted`.
pub(crate) fn run(dir: &Path, wanted: Containment) -> ExitCode {
    match Loop::new(dir, wanted).map(Loop::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(dir = %dir.display(), %error, "the keeper cannot work");
            ExitCode::FAILURE
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Holds,
    Warned,
    Over,
}

struct Loop {
    /// `None` while there is none.
    agent: Option<Peer>,
    listener: OwnedFd,
    /// Readable once a child has ended.
    children: File,
    timer: File,
    /// What the timer is set to.
    armed: Option<BootNs>,
    kill_timer: KillTimer,
    term: Option<(Term, Phase)>,
    cells: Cells,
    /// Locked until this process is gone.
    _lock: File,
}

/// Why the keeper ends.
enum End {
    /// It was told to, or nobody needs it any more.
    Asked,
    /// It cannot keep what it promises.
    Unsound(io::Error),
}

impl Loop {
    fn new(dir: &Path, wanted: Containment) -> io::Result<Self> {
        // It fails where this process leads a group already, and then nothing is needed.
        let _ = sys::own_session();
        sys::become_subreaper()?;
        sys::shrug_off(&DEAF_TO)?;
        let files = sys::raise_file_limit()?;
        let children = File::from(sys::child_fd()?);
        let timer = File::from(sys::timer_fd()?);
        let agent = sys::take_stdin()?;
        let lock = lock(dir, &agent)?;
        survivors::kill(dir, &dir.join(WORKSPACES).to_string_lossy());
        let cells = Cells::new(dir, wanted, files)?;
        let mut keeper = Self {
            agent: None,
            listener: sys::listen(dir, SOCKET)?,
            children,
            timer,
            armed: None,
            kill_timer: KillTimer::new()?,
            term: None,
            cells,
            _lock: lock,
        };
        keeper.welcome(agent);
        Ok(keeper)
    }

    fn run(mut self) {
        let end = loop {
            match self.turn() {
                Ok(()) if self.is_needed() => {}
                Ok(()) => break End::Asked,
                Err(end) => break end,
            }
        };
        if let End::Unsound(error) = end {
            tracing::error!(%error, "the keeper kills everything and ends");
        }
        self.end();
    }

    /// Waits until something happens, and deals with it.
    fn turn(&mut self) -> Result<(), End> {
        self.arm();
        let (children, timer) = (self.children.as_fd(), self.timer.as_fd());
        let mut wanted = vec![Poll::readable(children), Poll::readable(timer)];
        wanted.push(Poll::readable(self.listener.as_fd()));
        wanted.extend(self.agent.as_ref().map(Peer::poll));
        let before_cells = wanted.len();
        let (pids, sockets): (Vec<u32>, Vec<_>) = self.cells.sockets().unzip();
        wanted.extend(sockets.into_iter().map(Poll::readable));
        let ready = sys::poll(&wanted, -1);

        // What a cell says comes before its end.
        let talking = pids.iter().zip(&ready[before_cells..]).filter(|(_, is_ready)| **is_ready);
        for (pid, _) in talking {
            self.hear(*pid);
        }
        if ready[0] {
            self.reap()?;
        }
        if ready[1] {
            drain(&mut self.timer);
            self.armed = None;
        }
        if self.agent.is_some() && ready[3] {
            self.obey()?;
        }
        if ready[2] {
            self.accept();
        }
        self.tick();
        Ok(())
    }

    /// Whether there is an agent, or may be one again before the lease is over, or something
    /// runs.
    fn is_needed(&self) -> bool {
        let is_over = self.term.is_none_or(|(_, phase)| phase == Phase::Over);
        self.agent.is_some() || !is_over || !self.cells.are_quiet()
    }

    fn accept(&mut self) {
        match sys::accept(self.listener.as_fd()) {
            // The one before is dead: they share a lock.
            Ok(socket) => self.welcome(socket),
            Err(error) => tracing::warn!(%error, "a connection is not taken"),
        }
    }

    /// Tells a new agent all that it must know.
    fn welcome(&mut self, socket: OwnedFd) {
        let mut agent = Peer::new(socket);
        match self.introduce(&mut agent) {
            Ok(()) => self.agent = Some(agent),
            // It must know of all or of nothing: what it does not know of, it would start again.
            Err(error) => tracing::error!(%error, "an agent cannot be told what runs"),
        }
    }

    fn introduce(&self, agent: &mut Peer) -> io::Result<()> {
        let (version, containment) = (wire::VERSION, self.cells.containment());
        let term = self.term.filter(|(_, phase)| *phase != Phase::Over).map(|(term, _)| term);
        agent.tell(&Note::Welcome { version, containment, term }, &[])?;
        for (key, held) in self.cells.held() {
            let (memo, exit) = (held.memo.clone(), held.exit);
            agent.tell(&Note::Held { key, memo, exit }, &held.pipes)?;
        }
        agent.tell(&Note::Ready, &[])
    }

    /// Carries out everything that the agent has said.
    fn obey(&mut self) -> Result<(), End> {
        while let Some(agent) = &mut self.agent {
            match agent.next() {
                Ok(Some((Order::End, _))) => return Err(End::Asked),
                Ok(Some((order, fds))) => self.carry_out(order, fds),
                Ok(None) => break,
                Err(Gone) => {
                    self.agent = None;
                    if !self.cells.are_quiet() {
                        tracing::warn!("the agent is gone: tasks run on while the lease holds");
                    }
                }
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, order: Order, fds: Vec<OwnedFd>) {
        match order {
            Order::Lease(term) => self.extend(term),
            Order::Start(spawn) => self.start(spawn, fds),
            Order::Stop { key, grace } => self.cells.stop(key, grace, sys::boottime()),
            Order::KillAll | Order::End => self.cells.kill_all(),
            Order::Revoke => self.revoke(),
            Order::Forget(keys) => self.cells.forget(&keys),
        }
    }

    /// Takes over a renewed lease, unless it is one that is over: then tasks may be dead
    /// already, and the agent has to register anew.
    fn extend(&mut self, new: Term) {
        let now = sys::boottime();
        let is_over = |(old, phase): (Term, Phase)| phase == Phase::Over || over_at(&old) <= now;
        let is_revival = self.term.is_some_and(|old| old.0.epoch == new.epoch && is_over(old));
        if (is_revival && !mutant::is("M21")) || over_at(&new) <= now {
            // It holds as far as the agent knows, by a moment: it must not go on like that.
            return self.tell(&Note::Over { epoch: new.epoch });
        }
        self.term = Some((new, Phase::Holds));
        // Set before anything starts under it; the kernel does the rest.
        if !mutant::is("M1") {
            self.kill_timer.set(Some(new.deadline)).expect("a timer takes any instant");
        }
    }

    fn revoke(&mut self) {
        self.cells.kill_all();
        if let Some((_, phase)) = &mut self.term {
            *phase = Phase::Over;
        }
    }

    fn start(&mut self, spawn: Spawn, pipes: Vec<OwnedFd>) {
        let (key, now) = (spawn.key, sys::boottime());
        self.cells.forget(&spawn.forget);
        let holds = |(term, phase): (Term, Phase)| {
            let is_own = term.epoch == spawn.epoch || mutant::is("M4");
            let is_over = phase == Phase::Over || over_at(&term) <= now;
            is_own && (!is_over || mutant::is("M3"))
        };
        let refused = if self.term.is_some_and(holds) {
            self.cells.start(spawn, pipes).err().map(|error| error.to_string())
        } else {
            Some("the lease is over".to_owned())
        };
        if let Some(reason) = refused {
            self.tell(&Note::Refused { key, reason });
        }
    }

    fn hear(&mut self, pid: u32) {
        match self.cells.hear(pid) {
            Some(News::Refused(key, reason)) => self.tell(&Note::Refused { key, reason }),
            Some(News::Exited(exit)) => self.tell(&Note::Exited(exit)),
            None => {}
        }
    }

    /// Does what time asks for.
    fn tick(&mut self) {
        let now = sys::boottime();
        let mut ended = None;
        if let Some((term, phase)) = &mut self.term {
            if *phase == Phase::Holds && warn_at(term) <= now {
                *phase = Phase::Warned;
                if !self.cells.are_quiet() {
                    tracing::warn!("no renewal: tasks are asked to stop before the lease ends");
                }
                self.cells.stop_all(over_at(term));
            }
            if *phase == Phase::Warned && over_at(term) <= now {
                *phase = Phase::Over;
                if !self.cells.are_quiet() {
                    tracing::warn!("the lease is over: killing what runs");
                }
                self.cells.kill_all();
                ended = Some(term.epoch);
            }
        }
        if let Some(epoch) = ended {
            self.tell(&Note::Over { epoch });
        }
        if self.cells.due(now).is_some() {
            for exit in self.cells.tick(now) {
                self.tell(&Note::Exited(exit));
            }
        }
        if self.cells.are_quiet() && self.term.is_some_and(|(_, phase)| phase == Phase::Over) {
            self.kill_timer.set(None).expect("a timer takes any instant");
        }
    }

    /// Sets the timer to when [`tick`](Self::tick) is next needed.
    fn arm(&mut self) {
        let lease = self.term.and_then(|(term, phase)| match phase {
            Phase::Holds => Some(warn_at(&term)),
            Phase::Warned => Some(over_at(&term)),
            Phase::Over => None,
        });
        let next = lease.into_iter().chain(self.cells.due(sys::boottime())).min();
        if next != self.armed {
            sys::set_timer(self.timer.as_fd(), next).expect("a timer takes any instant");
            self.armed = next;
        }
    }

    /// Reaps every child that has ended.
    fn reap(&mut self) -> Result<(), End> {
        drain(&mut self.children);
        while let Children::Reaped(child) = sys::reap() {
            self.cells.reaped(child).map_err(End::Unsound)?;
        }
        Ok(())
    }

    fn tell(&mut self, note: &Note) {
        if let Some(agent) = &mut self.agent {
            // If it is gone, that is noticed where it is listened to.
            let _ = agent.tell(note, &[]);
        }
    }

    /// Kills everything, and returns when it is gone.
    fn end(mut self) {
        loop {
            self.cells.close_all();
            drain(&mut self.children);
            loop {
                match sys::reap() {
                    // Sound or not, it is the end.
                    Children::Reaped(child) => drop(self.cells.reaped(child)),
                    Children::Alive => break,
                    Children::None => return,
                }
            }
            if self.cells.are_gone() {
                return;
            }
            sys::poll(&[Poll::readable(self.children.as_fd())], END_RECHECK_MS);
        }
    }
}

/// When the lease is over for what this process does by itself.
fn over_at(term: &Term) -> BootNs {
    term.deadline.before(LEAD)
}

/// When tasks are asked to stop; at the latest, when they are killed.
fn warn_at(term: &Term) -> BootNs {
    term.warning.min(over_at(term))
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
        if sys::poll(&[Poll::readable(agent.as_fd())], LOCK_RETRY_MS) == [true] {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the agent is gone"));
        }
    }
}
