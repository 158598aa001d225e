//! What keeps a task together: found out once, when a keeper starts, the strongest first.
//!
//! | | what dies with the keeper, and so when the lease is over | by |
//! |---|---|---|
//! | `pidns` | every process of a task | the kernel alone |
//! | `cgroup` | the same | the kernel, told by a process that watches the keeper |
//! | `pgroup` | what the cell can still find and kill | the cell |

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use quorate_model::Containment;

use super::super::sys::{self, FileLimit, Fork, Namespaces, Poll};
use super::cell::{self, FromCell};
use super::wire::{MESSAGE_BYTES_MAX, decode};

/// How long a first cell may take to open. It takes a millisecond.
const OPEN_MAX: Duration = Duration::from_secs(5);

/// Where control groups of the second kind are, alone or beside the first.
const CGROUP_ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// How to open cells.
#[derive(Debug)]
pub(super) struct Walls {
    namespaces: Namespaces,
    cgroup: Option<Cgroup>,
    /// What tasks get back: this process may have more.
    files: FileLimit,
}

/// A control group of this keeper's own.
#[derive(Debug)]
struct Cgroup {
    path: PathBuf,
    watcher: u32,
    /// Never written: its end tells the watcher that the keeper is dead.
    _alive: OwnedFd,
}

/// An open cell, from outside.
#[derive(Debug)]
pub(super) struct Opened {
    /// The process.
    pub(super) pid: u32,
    /// To talk to it.
    pub(super) socket: OwnedFd,
}

impl Walls {
    /// Finds out what can be had here, up to `wanted`, by opening a first cell.
    ///
    /// # Errors
    ///
    /// If not even the weakest can be had.
    pub(super) fn find(wanted: Containment, files: FileLimit) -> io::Result<(Self, Opened)> {
        if wanted == Containment::Pidns {
            for namespaces in [Namespaces::Pid, Namespaces::PidAndUser] {
                match (Self { namespaces, cgroup: None, files }).try_out() {
                    Ok(found) => return Ok(found),
                    Err(error) => tracing::debug!(?namespaces, %error, "no PID namespaces"),
                }
            }
            tracing::warn!("no PID namespaces can be had: tasks are contained by other means");
        }
        let namespaces = Namespaces::None;
        if wanted != Containment::Pgroup {
            let walls = Cgroup::create().map(|own| Self { namespaces, cgroup: Some(own), files });
            match walls.and_then(Self::try_out) {
                Ok(found) => return Ok(found),
                Err(error) => tracing::warn!(%error, "no control group can be had: if the \
                    keeper is killed, tasks may outlive their lease"),
            }
        }
        Self { namespaces, cgroup: None, files }.try_out()
    }

    /// What it is called.
    pub(super) fn containment(&self) -> Containment {
        match (self.namespaces, &self.cgroup) {
            (Namespaces::Pid | Namespaces::PidAndUser, _) => Containment::Pidns,
            (Namespaces::None, Some(_)) => Containment::Cgroup,
            (Namespaces::None, None) => Containment::Pgroup,
        }
    }

    fn try_out(self) -> io::Result<(Self, Opened)> {
        let opened = self.open()?;
        let ready = Poll::readable(opened.socket.as_fd());
        let ready = sys::poll(&[ready], i32::try_from(OPEN_MAX.as_millis()).unwrap_or(i32::MAX));
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let heard = if ready[0] {
            sys::receive(opened.socket.as_fd(), &mut buffer).map(|(size, _)| size)
        } else {
            Err(io::ErrorKind::TimedOut.into())
        };
        match heard.and_then(|size| decode(&buffer[..size])) {
            Ok(FromCell::Open { flaw }) => {
                if let Some(flaw) = flaw {
                    tracing::warn!(flaw, "in /proc, tasks see processes that are not theirs");
                }
                Ok((self, opened))
            }
            Ok(_) | Err(_) => {
                let _ = sys::signal_process(opened.pid, libc::SIGKILL);
                sys::wait_and_reap();
                Err(io::Error::other("a process in a cell does not come up"))
            }
        }
    }

    /// Opens a cell. It dies with this process, or with what it is told last by its socket.
    pub(super) fn open(&self) -> io::Result<Opened> {
        let (ours, theirs) = sys::message_pair()?;
        let me = sys::user_and_group();
        match sys::fork(self.namespaces)? {
            Fork::Parent(pid) => Ok(Opened { pid, socket: ours }),
            Fork::Child => {
                let lived = self.enter(me, &theirs);
                let lived = lived.and_then(|flaw| cell::live(theirs, self.containment(), flaw));
                end(if lived.is_ok() { 0 } else { 1 })
            }
        }
    }

    /// Sets up a process that was just forked. What does not work, if tasks can do without.
    fn enter(&self, me: (u32, u32), socket: &OwnedFd) -> io::Result<Option<String>> {
        let mut flaw = None;
        if self.containment() == Containment::Pidns {
            // Should the keeper be dead already, the socket tells.
            sys::die_with_parent()?;
        } else {
            sys::become_subreaper()?;
        }
        sys::close_all_but(socket.as_fd());
        if self.namespaces == Namespaces::PidAndUser {
            sys::keep_identity(me)?;
        }
        if self.containment() == Containment::Pidns {
            flaw = sys::mount_own_proc().err().map(|error| error.to_string());
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.enter()?;
        }
        sys::own_session()?;
        sys::set_file_limit(self.files)?;
        Ok(flaw)
    }

    /// The process that watches this one, if one must.
    pub(super) fn watcher(&self) -> Option<u32> {
        self.cgroup.as_ref().map(|cgroup| cgroup.watcher)
    }

    /// Kills every cell and all that is in them by one word to the kernel, if that can be.
    pub(super) fn tear_down(&self) -> bool {
        self.cgroup.as_ref().is_some_and(Cgroup::kill)
    }
}

impl Cgroup {
    /// Makes one below that of this process, and a watcher that kills it when this process dies.
    fn create() -> io::Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let own = own.ok_or_else(|| io::Error::other("there are no control groups v2"))?;
        let name = format!("quorate-keeper-{}", std::process::id());
        let path = |root: &str| Path::new(root).join(own);
        let found =
            CGROUP_ROOTS.into_iter().map(path).find(|path| path.join("cgroup.procs").exists());
        let found = found.ok_or_else(|| io::Error::other("control groups v2 are not mounted"))?;
        let path = found.join(name);
        fs::create_dir(&path)?;
        if !path.join("cgroup.kill").exists() {
            let _ = fs::remove_dir(&path);
            return Err(io::Error::other(
                "the kernel has no cgroup.kill; 5.14 is the first with it",
            ));
        }
        let (watched, alive) = sys::message_pair()?;
        match sys::fork(Namespaces::None)? {
            Fork::Parent(watcher) => Ok(Self { path, watcher, _alive: alive }),
            Fork::Child => watch(&watched, &path),
        }
    }

    /// Moves this process, and so all that it starts, into it.
    fn enter(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), "0")
    }

    fn kill(&self) -> bool {
        let killed = fs::write(self.path.join("cgroup.kill"), "1");
        if let Err(error) = &killed {
            tracing::error!(%error, "a control group cannot be killed");
        }
        killed.is_ok()
    }
}

/// Waits for the end of the keeper, then kills what is in its control group.
fn watch(keeper: &OwnedFd, path: &Path) -> ! {
    sys::close_all_but(keeper.as_fd());
    // It fails where this leads a group, which a forked process does not.
    let _ = sys::own_session();
    while sys::poll(&[Poll::readable(keeper.as_fd())], -1) != [true] {}
    let _ = fs::write(path.join("cgroup.kill"), "1");
    // What is killed leaves the group a moment later.
    while fs::remove_dir(path).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy) {
        std::thread::sleep(Duration::from_millis(5));
    }
    end(0)
}

/// Ends a process that was forked: what it was forked off goes on elsewhere.
#[allow(clippy::exit, reason = "to return would be to live the keeper's life twice")]
fn end(code: i32) -> ! {
    process::exit(code)
}
