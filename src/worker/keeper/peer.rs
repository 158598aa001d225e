//! The keeper's end of its agent.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::super::sys::{self, Poll};
use super::wire::{MESSAGE_BYTES_MAX, Note, Order, decode, encode};

/// An agent that is connected, or was.
#[derive(Debug)]
pub(super) struct Peer {
    socket: OwnedFd,
    /// What it was too slow to take: at most a few notes per task.
    unsent: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    buffer: Vec<u8>,
}

/// Whether a socket has more to say behind this error. One whose other end died with notes that
/// it had not read says so once, and only then gives what was said last.
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionReset)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// The agent is gone, or speaks in another tongue.
#[derive(Debug)]
pub(super) struct Gone;

impl Peer {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, unsent: VecDeque::new(), buffer: vec![0; MESSAGE_BYTES_MAX] }
    }

    /// To wait for what it says, and for room if there is need of it.
    pub(super) fn poll(&self) -> Poll<'_> {
        Poll::readable(self.socket.as_fd()).writable_too(!self.unsent.is_empty())
    }

    /// Tells it something, now or when it has room, with copies of descriptors.
    ///
    /// # Errors
    ///
    /// If there are no descriptors for the copies.
    pub(super) fn tell(&mut self, note: &Note, fds: &[OwnedFd]) -> io::Result<()> {
        let message = encode(note)?;
        if self.unsent.is_empty() {
            let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
            match sys::send(self.socket.as_fd(), &message, &borrowed) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // That is noticed where it is listened to, after what it said last.
                Err(error) if is_gone(&error) => return Ok(()),
                sent => return sent,
            }
        }
        let copies: io::Result<Vec<_>> = fds.iter().map(OwnedFd::try_clone).collect();
        self.unsent.push_back((message, copies?));
        Ok(())
    }

    /// Sends what waits, as far as the agent takes it.
    fn flush(&mut self) -> Result<(), Gone> {
        while let Some((message, fds)) = self.unsent.front() {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
            match sys::send(self.socket.as_fd(), message, &fds) {
                Ok(()) => drop(self.unsent.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }

    /// What it says next, with the descriptors that come along; nothing if it says nothing.
    pub(super) fn next(&mut self) -> Result<Option<(Order, Vec<OwnedFd>)>, Gone> {
        // Should it be gone, what it said last is still there to be heard.
        let _ = self.flush();
        loop {
            match sys::receive(self.socket.as_fd(), &mut self.buffer) {
                Ok((0, _)) => return Err(Gone),
                Ok((size, fds)) => match decode(&self.buffer[..size]) {
                    Ok(order) => return Ok(Some((order, fds))),
                    Err(error) => {
                        tracing::error!(%error, "the agent speaks in another tongue");
                        return Err(Gone);
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    tracing::debug!(%error, "the agent cannot be heard");
                    return Err(Gone);
                }
            }
        }
    }
}
