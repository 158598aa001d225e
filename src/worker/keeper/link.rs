//! The agent's end of its keeper.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Weak};

use tokio::io::Interest;
use tokio::net::UnixStream;

use super::super::sys;
use super::wire::{MESSAGE_BYTES_MAX, Note, Order, decode, encode};

/// How to start a keeper.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The executable.
    pub(crate) path: PathBuf,
    /// Its arguments; the directory is told by `--dir` after them.
    pub(crate) arguments: Vec<OsString>,
}

impl Default for Program {
    /// This very executable, also after its file was replaced: an agent and a keeper of
    /// different versions would not understand each other.
    fn default() -> Self {
        Self { path: "/proc/self/exe".into(), arguments: vec!["keeper".into()] }
    }
}

/// A keeper. It kills everything and ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// No stream: it keeps the bounds of messages, and is read and written by [`sys`] only.
    socket: Arc<UnixStream>,
    child: Option<Child>,
    buffer: Vec<u8>,
}

impl Keeper {
    /// Starts one. It can be used once it says [`Note::Ready`].
    pub(crate) fn start(program: &Program, dir: &Path) -> io::Result<Self> {
        let (ours, theirs) = sys::message_pair()?;
        let mut command = Command::new(&program.path);
        command.arg0("quorate").args(&program.arguments).arg("--dir").arg(dir);
        command.stdin(theirs).stdout(Stdio::null());
        let child = command.spawn()?;
        let socket = Arc::new(UnixStream::from_std(StdUnixStream::from(ours))?);
        tracing::debug!(pid = child.id(), "started a keeper");
        Ok(Self { socket, child: Some(child), buffer: vec![0; MESSAGE_BYTES_MAX] })
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
    pub(crate) async fn next(&mut self) -> io::Result<Option<Note>> {
        let Self { socket, buffer, .. } = self;
        let receive = || sys::receive(socket.as_fd(), &mut *buffer);
        let received = socket.async_io(Interest::READABLE, receive).await;
        match received {
            Ok((0, _)) => Ok(None),
            Ok((size, _)) => decode(&self.buffer[..size]).map(Some),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The keeper's process, to wait for, once this has let go of it. It ends only after
    /// everything that it started is gone.
    pub(crate) fn let_go(mut self) -> Option<Child> {
        self.child.take()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Closing the socket makes it end; somebody has to reap it, and nobody may wait here.
        if let Some(mut child) = self.child.take() {
            std::thread::spawn(move || child.wait());
        }
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
