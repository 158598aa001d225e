//! The keeper of a simulated machine: the same words over the same kind of socket, by the same
//! rules, over processes that are entries in a table.
//!
//! It lives outside of the host whose agent it serves, as a real one does: the agent may die
//! and come back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use quorate_model::{Containment, DurationMs, Usage};

use super::wire::{MESSAGE_BYTES_MAX, VERSION, decode, encode};
use super::{Cause, Exit, Key, LEAD, Note, Order, Spawn, Status, Term};
use crate::simulation::processes::{Processes, Running};
use crate::worker::attempt::dispatch_of;
use crate::worker::lease::BootNs;
use crate::worker::sys;

thread_local! {
    static KEEPERS: RefCell<Option<Keepers>> = const { RefCell::new(None) };
}

/// The keepers of all machines. Clones are the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Keepers(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    processes: Processes,
    keepers: BTreeMap<String, Keeper>,
    /// For what the agents say. Kept: at every tick of every machine somebody listens.
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Keeper {
    host: String,
    agent: Option<OwnedFd>,
    /// The lease, and whether it is over.
    term: Option<(Term, bool)>,
    held: BTreeMap<Key, Held>,
}

#[derive(Debug)]
struct Held {
    memo: Vec<u8>,
    /// The ends to read.
    pipes: Vec<OwnedFd>,
    /// While it runs.
    task: Option<Task>,
    exit: Option<Exit>,
}

#[derive(Debug)]
struct Task {
    _running: Running,
    /// The ends to write.
    _pipes: Vec<OwnedFd>,
    ends_at: Duration,
    end: (Status, Cause),
    /// Whether it ends at once when it is asked to.
    is_polite: bool,
}

/// A connection to the keeper of the worker in `dir`; `None` where nothing is simulated.
pub(super) fn connect(dir: &Path) -> Option<io::Result<OwnedFd>> {
    let keepers = KEEPERS.with_borrow(Clone::clone)?;
    let host = dir.file_name()?.to_string_lossy().into_owned();
    Some(sys::message_pair().map(|(ours, theirs)| {
        let mut inner = keepers.0.borrow_mut();
        let keeper = inner.keepers.entry(host.clone()).or_insert_with(|| Keeper {
            host,
            agent: None,
            term: None,
            held: BTreeMap::new(),
        });
        keeper.welcome(theirs);
        ours
    }))
}

impl Keepers {
    /// From now on agents in this thread find these keepers.
    pub(crate) fn install(processes: Processes) -> Self {
        let (keepers, buffer) = (BTreeMap::new(), vec![0; MESSAGE_BYTES_MAX]);
        let this = Self(Rc::new(RefCell::new(Inner { processes, keepers, buffer })));
        KEEPERS.set(Some(this.clone()));
        this
    }

    /// Kills a keeper, and with it all that it holds.
    pub(crate) fn kill(&self, host: &str) {
        self.0.borrow_mut().keepers.remove(host);
    }

    /// Lets every keeper do what is due. `elapsed` is the time of the simulation, `boottime`
    /// what the clock of a machine shows.
    pub(crate) fn step(&self, elapsed: Duration, boottime: impl Fn(&str) -> Duration) {
        let mut inner = self.0.borrow_mut();
        let Inner { processes, keepers, buffer } = &mut *inner;
        for (host, keeper) in keepers.iter_mut() {
            let nanos = boottime(host).as_nanos();
            let now = BootNs(u64::try_from(nanos).expect("a simulation is short"));
            keeper.obey(buffer, processes, elapsed, now);
            keeper.tick(elapsed, now);
        }
        // One that was told to end, or that nobody needs, does.
        keepers.retain(|_, keeper| keeper.is_needed());
    }
}

impl Keeper {
    fn is_needed(&self) -> bool {
        let holds = self.term.is_some_and(|(_, is_over)| !is_over);
        self.agent.is_some() || holds || self.held.values().any(|held| held.task.is_some())
    }

    fn welcome(&mut self, agent: OwnedFd) {
        let (version, containment) = (VERSION, Containment::Pidns);
        let term = self.term.filter(|(_, is_over)| !is_over).map(|(term, _)| term);
        say(&agent, &Note::Welcome { version, containment, term }, &[]);
        for (&key, held) in &self.held {
            let (memo, exit) = (held.memo.clone(), held.exit);
            say(&agent, &Note::Held { key, memo, exit }, &held.pipes);
        }
        say(&agent, &Note::Ready, &[]);
        self.agent = Some(agent);
    }

    fn obey(&mut self, buffer: &mut [u8], processes: &Processes, elapsed: Duration, now: BootNs) {
        while let Some(agent) = &self.agent {
            match sys::receive(agent.as_fd(), buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok((0, _)) | Err(_) => self.agent = None,
                Ok((size, fds)) => {
                    let order = decode(&buffer[..size]).expect("both speak the same");
                    self.carry_out(order, fds, processes, elapsed, now);
                }
            }
        }
    }

    fn carry_out(
        &mut self,
        order: Order,
        fds: Vec<OwnedFd>,
        processes: &Processes,
        elapsed: Duration,
        now: BootNs,
    ) {
        match order {
            Order::Lease(new) => {
                let is_over = |(old, is_over): (Term, bool)| is_over || over_at(&old) <= now;
                let is_revival =
                    self.term.is_some_and(|old| old.0.epoch == new.epoch && is_over(old));
                if !is_revival && over_at(&new) > now {
                    self.term = Some((new, false));
                } else if let Some(agent) = &self.agent {
                    say(agent, &Note::Over { epoch: new.epoch }, &[]);
                }
            }
            Order::Start(spawn) => self.start(spawn, fds, processes, elapsed, now),
            Order::Stop { key, grace } => {
                let task = self.held.get_mut(&key).and_then(|held| held.task.as_mut());
                if let Some(task) = task {
                    let grace = if task.is_polite { DurationMs(1) } else { grace };
                    let by = elapsed + Duration::from_millis(grace.0);
                    if by < task.ends_at {
                        (task.ends_at, task.end) =
                            (by, (Status::Signal(libc::SIGTERM), Cause::Stopped));
                    }
                }
            }
            Order::KillAll => self.kill_all(elapsed),
            Order::Revoke => {
                self.kill_all(elapsed);
                if let Some((_, is_over)) = &mut self.term {
                    *is_over = true;
                }
            }
            Order::Forget(keys) => keys.iter().for_each(|key| drop(self.held.remove(key))),
            Order::End => {
                self.held.clear();
                (self.term, self.agent) = (None, None);
            }
        }
    }

    fn start(
        &mut self,
        spawn: Spawn,
        mut fds: Vec<OwnedFd>,
        processes: &Processes,
        elapsed: Duration,
        now: BootNs,
    ) {
        let Spawn { key, epoch, program, memo, forget } = spawn;
        forget.iter().for_each(|key| drop(self.held.remove(key)));
        let holds =
            |(term, is_over): (Term, bool)| term.epoch == epoch && !is_over && now < over_at(&term);
        if !self.term.is_some_and(holds) {
            let reason = "the lease is over".to_owned();
            return self.tell(&Note::Refused { key, reason });
        }
        let number = |name: &str| -> u64 {
            let found = program.env.iter().find(|(known, _)| known == name);
            found.map_or(0, |(_, value)| value.parse().expect("it is a number"))
        };
        let dispatch = dispatch_of(&memo);
        if dispatch.attempt.0 > 1 {
            tracing::info!(%dispatch, "not the first attempt");
        }
        let code = i32::from(u64::from(dispatch.attempt.0) <= number("FAILS"));
        let pipes = fds.split_off(2);
        let task = Task {
            _running: processes.begin(&self.host, dispatch),
            _pipes: fds,
            ends_at: elapsed + Duration::from_millis(number("MS")),
            end: (Status::Code(code), Cause::Itself),
            is_polite: number("POLITE") == 1,
        };
        self.held.insert(key, Held { memo, pipes, task: Some(task), exit: None });
    }

    fn tick(&mut self, elapsed: Duration, now: BootNs) {
        if let Some((term, is_over)) = &mut self.term
            && !*is_over
            && over_at(term) <= now
        {
            *is_over = true;
            self.kill_all(elapsed);
        }
        let is_due = |held: &Held| held.task.as_ref().is_some_and(|task| task.ends_at <= elapsed);
        let due = self.held.iter_mut().filter(|(_, held)| is_due(held));
        let exits: Vec<Exit> = due
            .filter_map(|(&key, held)| {
                let (status, cause) = held.task.take()?.end;
                let exit = Exit { key, status, cause, usage: Usage::default() };
                held.exit = Some(exit);
                Some(exit)
            })
            .collect();
        exits.into_iter().for_each(|exit| self.tell(&Note::Exited(exit)));
    }

    fn kill_all(&mut self, elapsed: Duration) {
        for task in self.held.values_mut().filter_map(|held| held.task.as_mut()) {
            tracing::info!(host = self.host, "killed: the lease is over");
            (task.ends_at, task.end) = (elapsed, (Status::Signal(libc::SIGKILL), Cause::LeaseOver));
        }
    }

    fn tell(&self, note: &Note) {
        if let Some(agent) = &self.agent {
            say(agent, note, &[]);
        }
    }
}

/// When a keeper that is well kills what runs: a little before the kernel would.
fn over_at(term: &Term) -> BootNs {
    term.deadline.before(LEAD)
}

fn say(agent: &OwnedFd, note: &Note, pipes: &[OwnedFd]) {
    let pipes: Vec<_> = pipes.iter().map(AsFd::as_fd).collect();
    // It may be gone; that is noticed where it is listened to.
    let _ = sys::send(agent.as_fd(), &encode(note).expect("a note has an encoding"), &pipes);
}
