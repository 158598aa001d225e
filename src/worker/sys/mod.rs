//! The system calls that std has no word for. All `unsafe` of the worker is here.
//!
//! Each wrapper takes and gives owned or borrowed descriptors and plain values, so that
//! nothing outside can misuse it. What a call is for is said where it is used.

mod cell;
mod process;
mod socket;
mod timer;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use quorate_raft::machine;

use super::lease::BootNs;

pub(super) use cell::*;
pub(super) use process::*;
pub(super) use socket::*;
pub(super) use timer::*;

/// Nanoseconds of `CLOCK_BOOTTIME`: it counts through a suspend, and nobody can set it.
#[allow(unsafe_code, reason = "std reads CLOCK_MONOTONIC only, which stops in a suspend")]
pub(super) fn boottime() -> BootNs {
    if let Some(machine) = machine::simulated() {
        return BootNs(u64::try_from(machine.boottime().as_nanos()).unwrap_or(u64::MAX));
    }
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for the answer.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    assert_eq!(answer, 0, "every Linux since 2.6.39 has CLOCK_BOOTTIME");
    let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    BootNs(seconds * 1_000_000_000 + nanos)
}

/// What a descriptor is waited for, and whether it came.
pub(super) struct Poll<'a> {
    fd: BorrowedFd<'a>,
    events: i16,
}

impl<'a> Poll<'a> {
    /// Waits for something to read, or for the end.
    pub(super) fn readable(fd: BorrowedFd<'a>) -> Self {
        Self { fd, events: libc::POLLIN }
    }

    /// The same, and for room to write where `also` is set.
    pub(super) fn writable_too(self, also: bool) -> Self {
        Self { events: if also { self.events | libc::POLLOUT } else { self.events }, ..self }
    }
}

/// Waits until one of the descriptors is ready or `timeout_ms` is over (-1: for ever), and
/// says which are.
#[allow(unsafe_code, reason = "std has no poll")]
pub(super) fn poll(wanted: &[Poll<'_>], timeout_ms: i32) -> Vec<bool> {
    let fd =
        |poll: &Poll<'_>| libc::pollfd { fd: poll.fd.as_raw_fd(), events: poll.events, revents: 0 };
    let mut fds: Vec<_> = wanted.iter().map(fd).collect();
    // SAFETY: `fds` has as many as is said; the descriptors are borrowed through the call. A
    // failure (EINTR) leaves every `revents` zero: nothing is ready.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) };
    fds.iter().map(|fd| fd.revents != 0).collect()
}

/// The descriptor on which the agent passes the keeper its end of the socket. Nothing is left
/// on stdin.
#[allow(unsafe_code, reason = "std cannot replace stdin")]
pub(super) fn take_stdin() -> io::Result<OwnedFd> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let null = File::open("/dev/null")?;
    // SAFETY: both descriptors are open; nobody owns the one that is replaced.
    check(unsafe { libc::dup2(null.as_raw_fd(), 0) })?;
    Ok(socket)
}

fn check(answer: i32) -> io::Result<i32> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn check_size(answer: isize) -> io::Result<usize> {
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}
