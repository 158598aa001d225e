//! Timers on `CLOCK_BOOTTIME`.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::check;
use crate::worker::lease::BootNs;

/// A timer on `CLOCK_BOOTTIME`, readable once it has gone off.
#[allow(unsafe_code, reason = "std has no timerfd")]
pub(in crate::worker) fn timer_fd() -> io::Result<OwnedFd> {
    let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
    // SAFETY: the answer is checked, then owned by nobody else.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::timerfd_create(libc::CLOCK_BOOTTIME, flags))?)) }
}

/// Sets a [`timer_fd`] to go off at an instant, or never.
#[allow(unsafe_code, reason = "std has no timerfd")]
pub(in crate::worker) fn set_timer(timer: BorrowedFd<'_>, at: Option<BootNs>) -> io::Result<()> {
    let time = once(at);
    let flags = libc::TFD_TIMER_ABSTIME;
    // SAFETY: `time` lives through the call; the old value is not asked for.
    check(unsafe {
        libc::timerfd_settime(timer.as_raw_fd(), flags, &raw const time, ptr::null_mut())
    })
    .map(drop)
}

fn once(at: Option<BootNs>) -> libc::itimerspec {
    // An all-zero time disarms, so an instant of zero becomes the one after it.
    let nanos = at.map_or(0, |at| at.0.clamp(1, i64::MAX.unsigned_abs())).cast_signed();
    let value = libc::timespec { tv_sec: nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 };
    let interval = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    libc::itimerspec { it_interval: interval, it_value: value }
}

/// A timer that kills this process. The kernel sees to that by itself: also if the process is
/// stopped, frozen, or busy for good.
#[derive(Debug)]
pub(in crate::worker) struct KillTimer(libc::timer_t);

impl KillTimer {
    /// One that is not set. Forked processes do not inherit it.
    #[allow(unsafe_code, reason = "std has no POSIX timers")]
    pub(in crate::worker) fn new() -> io::Result<Self> {
        // SAFETY: all zeros is a sigevent; `timer` is a valid place for the answer.
        unsafe {
            let mut event: libc::sigevent = mem::zeroed();
            event.sigev_notify = libc::SIGEV_SIGNAL;
            event.sigev_signo = libc::SIGKILL;
            let mut timer: libc::timer_t = ptr::null_mut();
            let clock = libc::CLOCK_BOOTTIME;
            check(libc::timer_create(clock, &raw mut event, &raw mut timer))?;
            Ok(Self(timer))
        }
    }

    /// Sets it to an instant, or to never.
    #[allow(unsafe_code, reason = "std has no POSIX timers")]
    pub(in crate::worker) fn set(&self, at: Option<BootNs>) -> io::Result<()> {
        let time = once(at);
        // SAFETY: the timer exists as long as this; `time` lives through the call.
        check(unsafe {
            libc::timer_settime(self.0, libc::TIMER_ABSTIME, &raw const time, ptr::null_mut())
        })
        .map(drop)
    }
}
