//! The agent's end of its keeper.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Weak};

use tokio::io::Interest;
use tokio::net::UnixStream;

use quorate_model::Containment;

use super::super::sys;
use super::SOCKET;
use super::peer::is_passing;
use super::wire::{MESSAGE_BYTES_MAX, Note, Order, decode, encode};

/// How to start a keeper.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The executable.
    pub(crate) path: PathBuf,
    /// Its arguments; directory and containment are told by `--dir` and `--containment` after
    /// them.
    pub(crate) arguments: Vec<OsString>,
    /// How it is to hold the processes of a task together, if that can be had.
    pub(crate) containment: Containment,
}

impl Default for Program {
    /// This very executable, also after its file was replaced, and the strongest containment.
    fn default() -> Self {
        let containment = Containment::Pidns;
        Self { path: "/proc/self/exe".into(), arguments: vec!["keeper".into()], containment }
    }
}

/// A keeper, as long as this agent is connected to it. It goes on when this is dropped, until
/// the lease is over.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// No stream: it keeps the bounds of messages, and is read and written by [`sys`] only.
    socket: Arc<UnixStream>,
    buffer: Vec<u8>,
}

/// Whether nobody listens, rather than that somebody cannot be reached for the moment.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// What a keeper said, and the descriptors that came along.
pub(crate) type Said = (Note, Vec<OwnedFd>);

impl Keeper {
    /// Connects to the one that an earlier agent left in `dir`, or starts one there. It can be
    /// used once it says [`Note::Ready`].
    pub(crate) fn find_or_start(program: &Program, dir: &Path) -> io::Result<Self> {
        #[cfg(test)]
        if let Some(socket) = super::simulated::connect(dir) {
            return Self::over(socket?);
        }
        match sys::connect(dir, SOCKET) {
            Ok(socket) => {
                tracing::info!("found the keeper of an earlier agent");
                Self::over(socket)
            }
            Err(error) if is_absence(&error) => Self::start(program, dir),
            Err(error) => Err(error),
        }
    }

    /// Starts one.
    pub(crate) fn start(program: &Program, dir: &Path) -> io::Result<Self> {
        let (ours, theirs) = sys::message_pair()?;
        let mut command = Command::new(&program.path);
        command.arg0("quorate").args(&program.arguments);
        command.arg("--containment").arg(program.containment.text()).arg("--dir").arg(dir);
        command.stdin(theirs).stdout(Stdio::null());
        let mut child = command.spawn()?;
        tracing::debug!(pid = child.id(), "started a keeper");
        // It may outlive this process; if not, somebody has to reap it, and nobody waits for it.
        std::thread::spawn(move || child.wait());
        Self::over(ours)
    }

    fn over(socket: OwnedFd) -> io::Result<Self> {
        let socket = Arc::new(UnixStream::from_std(StdUnixStream::from(socket))?);
        Ok(Self { socket, buffer: vec![0; MESSAGE_BYTES_MAX] })
    }

    /// A line to it for orders that must not wait.
    pub(crate) fn line(&self) -> Line {
        Line(Arc::downgrade(&self.socket))
    }

    /// Gives an order, and descriptors with it.
    ///
    /// # Errors
    ///
    /// If the order is too large, or the keeper is gone.
    pub(crate) async fn send(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let message = encode(order)?;
        // Nearly always there is room, and no need to ask for readiness first.
        match sys::send(self.socket.as_fd(), &message, fds) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return sent,
        }
        let again = || sys::send(self.socket.as_fd(), &message, fds);
        self.socket.async_io(Interest::WRITABLE, again).await
    }

    /// What it says next; `None` when it is gone. May be dropped and called again.
    ///
    /// # Errors
    ///
    /// If what it says makes no sense, or cannot be received.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Said>> {
        let Self { socket, buffer, .. } = self;
        let receive = || loop {
            match sys::receive(socket.as_fd(), &mut *buffer) {
                // Should it be gone, what it said last is still there to be heard.
                Err(error) if is_passing(&error) => {}
                received => break received,
            }
        };
        match socket.async_io(Interest::READABLE, receive).await? {
            (0, _) => Ok(None),
            (size, fds) => Ok(Some((decode(&self.buffer[..size])?, fds))),
        }
    }

    /// Has it kill everything and end, and returns when it has.
    pub(crate) async fn end(mut self) {
        if let Err(error) = self.send(&Order::End, &[]).await {
            tracing::debug!(%error, "the keeper is gone before it was told to go");
        }
        while let Ok(Some(_)) = self.next().await {}
    }
}

/// Gives orders to a keeper from any thread, without waiting.
#[derive(Clone, Debug)]
pub(crate) struct Line(Weak<UnixStream>);

impl Line {
    /// Gives an order now, or not at all.
    ///
    /// # Errors
    ///
    /// If the keeper is gone, or has been stopped and takes nothing more.
    pub(crate) fn send(&self, order: &Order) -> io::Result<()> {
        let socket = self.0.upgrade().ok_or(io::ErrorKind::BrokenPipe)?;
        sys::send(socket.as_fd(), &encode(order)?, &[])
    }
}
