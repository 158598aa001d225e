//! The process of a cell: parent and reaper of all that a task starts.
//!
//! It is forked off the keeper, takes one task after another, and tells how each ended once
//! nothing is left of it. In a PID namespace it is the first process: nothing gets away from
//! it, and when it dies the kernel kills the rest. Elsewhere it is the subreaper: orphans are
//! handed to it, and it kills them; should it die itself, they are handed to the keeper.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};

use quorate_model::{Containment, DurationMs, Usage};
use serde::{Deserialize, Serialize};

use super::super::lease::BootNs;
use super::super::sys::{self, Children, Poll, Reaped};
use super::drain;
use super::peer::is_passing;
use super::wire::{Invocation, MESSAGE_BYTES_MAX, Status, decode, encode};

/// What the keeper says to a cell.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToCell {
    /// Start a task; the ends to write of its stdout and its stderr come along. There is none.
    Start(Invocation),
    /// Ask it to stop: SIGTERM to every process of it.
    Stop,
}

/// What a cell says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromCell {
    /// It is set up. Said once, first.
    Open {
        /// What does not work, if something does not that tasks can do without.
        flaw: Option<String>,
    },
    /// The task could not be started, for this reason.
    Failed(String),
    /// The task has ended, and nothing is left of it.
    Ended {
        /// What its first process left.
        status: Status,
        /// What it used.
        usage: Usage,
    },
}

/// The inside of a cell.
struct Cell {
    socket: OwnedFd,
    /// Readable once a child has ended.
    children: File,
    containment: Containment,
    task: Option<Task>,
}

struct Task {
    pid: u32,
    started: BootNs,
    is_stopping: bool,
    /// Set once its first process has ended.
    left: Option<(Status, Usage)>,
}

/// The keeper is gone, or has no use for this cell any more.
struct Gone;

/// Lives in a cell until the keeper hangs up. Nothing runs then.
pub(super) fn live(
    socket: OwnedFd,
    containment: Containment,
    flaw: Option<String>,
) -> io::Result<()> {
    let children = File::from(sys::child_fd()?);
    let mut cell = Cell { socket, children, containment, task: None };
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    let mut is_open = cell.tell(&FromCell::Open { flaw });
    while is_open.is_ok() {
        let wanted = [Poll::readable(cell.socket.as_fd()), Poll::readable(cell.children.as_fd())];
        let ready = sys::poll(&wanted, -1);
        if ready[1] {
            is_open = cell.reap();
        }
        if ready[0] && is_open.is_ok() {
            is_open = cell.obey(&mut buffer);
        }
    }
    cell.kill_all();
    Ok(())
}

impl Cell {
    fn obey(&mut self, buffer: &mut [u8]) -> Result<(), Gone> {
        let (size, pipes) = match sys::receive(self.socket.as_fd(), buffer) {
            Ok((0, _)) => return Err(Gone),
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if is_passing(&error) => return Ok(()),
            Err(_) => return Err(Gone),
        };
        match decode(&buffer[..size]) {
            Ok(ToCell::Start(program)) => match start(program, pipes) {
                Ok(task) => self.task = Some(task),
                Err(error) => return self.tell(&FromCell::Failed(error.to_string())),
            },
            Ok(ToCell::Stop) => {
                if let Some(task) = &mut self.task {
                    task.is_stopping = true;
                    self.signal_all(libc::SIGTERM);
                }
            }
            Err(_) => return Err(Gone),
        }
        Ok(())
    }

    /// Reaps every child that has ended.
    fn reap(&mut self) -> Result<(), Gone> {
        drain(&mut self.children);
        loop {
            match sys::reap() {
                Children::Reaped(child) => self.note(child),
                Children::Alive if self.is_left_over() => self.kill_all(),
                Children::Alive => return Ok(()),
                Children::None => return self.settle(),
            }
        }
    }

    /// Whether what lives has no right to: the first process of the task has ended by itself.
    /// Of a task that was asked to stop, the others may take the time that they were given.
    fn is_left_over(&self) -> bool {
        self.task.as_ref().is_none_or(|task| task.left.is_some() && !task.is_stopping)
    }

    fn note(&mut self, child: Reaped) {
        let Some(task) = self.task.as_mut().filter(|task| task.pid == child.pid) else { return };
        let status = ExitStatus::from_raw(child.status);
        let status = match (status.signal(), status.code()) {
            (Some(signal), _) => Status::Signal(signal),
            (None, code) => Status::Code(code.expect("a reaped process has ended one way")),
        };
        task.left = Some((status, usage(&child, task.started)));
    }

    /// Nothing runs any more.
    fn settle(&mut self) -> Result<(), Gone> {
        match self.task.take().and_then(|task| task.left) {
            Some((status, usage)) => self.tell(&FromCell::Ended { status, usage }),
            None => Ok(()),
        }
    }

    /// Kills everything, and returns when it is gone.
    fn kill_all(&mut self) {
        loop {
            self.signal_all(libc::SIGKILL);
            match sys::wait_and_reap() {
                Some(child) => self.note(child),
                None => return,
            }
        }
    }

    /// Signals every process of the task.
    fn signal_all(&self, signal: i32) {
        match self.containment {
            Containment::Pidns => sys::signal_namespace(signal),
            Containment::Cgroup | Containment::Pgroup => signal_below(std::process::id(), signal),
        }
    }

    fn tell(&self, note: &FromCell) -> Result<(), Gone> {
        let message = encode(note).expect("a note is small, and has an encoding");
        // The keeper takes every note before it says more, so there is room.
        sys::send(self.socket.as_fd(), &message, &[]).map_err(|_| Gone)
    }
}

fn start(program: Invocation, pipes: Vec<OwnedFd>) -> io::Result<Task> {
    let Invocation { argv, env, directory } = program;
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
    let Ok([stdout, stderr]) = <[OwnedFd; 2]>::try_from(pipes) else {
        return Err(invalid("two pipes were expected"));
    };
    let [program, arguments @ ..] = argv.as_slice() else {
        return Err(invalid("there is no program"));
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(env).current_dir(directory);
    // A group of its own, so that a script that signals its group does not hit this process. No
    // pre_exec and no change of user: with these, std forks instead of posix_spawn.
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0);
    let started = sys::boottime();
    let pid = command.spawn()?.id();
    Ok(Task { pid, started, is_stopping: false, left: None })
}

/// What a task has used that began at `started`, by what its process has.
pub(super) fn usage(child: &Reaped, started: BootNs) -> Usage {
    let wall = sys::boottime().since(started).as_millis();
    Usage {
        wall: DurationMs(u64::try_from(wall).unwrap_or(u64::MAX)),
        user_us: child.user_us,
        system_us: child.system_us,
        memory_kib_max: child.memory_kib_max,
    }
}

/// Signals all descendants of a process. One that is started meanwhile may be missed: whoever
/// must be sure does it again.
fn signal_below(pid: u32, signal: i32) {
    for child in children(pid) {
        signal_below(child, signal);
        // It is gone, or it is another user's.
        let _ = sys::signal_process(child, signal);
    }
}

/// The children of a process, zombies included.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children = children.collect::<Vec<_>>().join(" ");
    children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
