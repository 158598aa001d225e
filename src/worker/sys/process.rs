//! Signals, children, and what a process may ask for itself.

use std::io;
use std::mem;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use super::check;

/// Leaves the session of the parent, and with it its terminal and the signals of its keys.
#[allow(unsafe_code, reason = "std cannot start a process in a session of its own")]
pub(in crate::worker) fn own_session() -> io::Result<()> {
    // SAFETY: takes and touches no memory.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Has the kernel hand orphaned descendants to this process, which then can see and kill them.
#[allow(unsafe_code, reason = "std has no prctl")]
pub(in crate::worker) fn become_subreaper() -> io::Result<()> {
    // SAFETY: this option takes an integer.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(drop)
}

/// Where [`on_child`] tells that a child has changed.
static CHILDREN: AtomicI32 = AtomicI32::new(-1);

/// Does nothing, but keeps a signal from its default. What is caught is reset in a program that
/// is started; what is blocked or ignored would not be.
extern "C" fn on_signal(_: libc::c_int) {}

#[allow(unsafe_code, reason = "a signal handler may do no more than system calls")]
extern "C" fn on_child(_: libc::c_int) {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: `one` is 8 bytes, which is what an eventfd takes; the descriptor is never closed.
    // Whatever was interrupted finds errno as it left it.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(CHILDREN.load(Ordering::Relaxed), one.as_ptr().cast(), one.len());
        *libc::__errno_location() = errno;
    }
}

/// Lets signals that would end this process pass by.
pub(in crate::worker) fn shrug_off(signals: &[i32]) -> io::Result<()> {
    signals.iter().try_for_each(|&signal| catch(signal, on_signal))
}

/// A descriptor that is readable once a child has ended. To be asked for once in a process;
/// a forked one asks for its own.
#[allow(unsafe_code, reason = "std has no eventfd")]
pub(in crate::worker) fn child_fd() -> io::Result<OwnedFd> {
    // SAFETY: the answer is checked, then owned by nobody else.
    let (ours, handlers) = unsafe {
        let fd = check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?;
        let ours = OwnedFd::from_raw_fd(fd);
        let handlers = ours.try_clone()?;
        (ours, handlers)
    };
    CHILDREN.store(handlers.into_raw_fd(), Ordering::Relaxed);
    catch(libc::SIGCHLD, on_child)?;
    Ok(ours)
}

#[allow(unsafe_code, reason = "std has no signal handlers")]
fn catch(signal: i32, handler: extern "C" fn(libc::c_int)) -> io::Result<()> {
    // SAFETY: all zeros is an empty mask and no flags; the handlers above do only what may be
    // done in one.
    check(unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
        libc::sigaction(signal, &raw const action, ptr::null_mut())
    })
    .map(drop)
}

/// Signals every process of the PID namespace but this, its first.
#[allow(unsafe_code, reason = "std cannot signal")]
pub(in crate::worker) fn signal_namespace(signal: i32) {
    // Anywhere else this would be every process of the machine.
    assert_eq!(std::process::id(), 1, "only the first process of a namespace may");
    // SAFETY: takes and touches no memory. There may be nobody to hear it.
    unsafe { libc::kill(-1, signal) };
}

/// Signals one process; 0 only looks. `false` if there is none.
#[allow(unsafe_code, reason = "std can kill its own children only")]
pub(in crate::worker) fn signal_process(pid: u32, signal: i32) -> io::Result<bool> {
    assert!(pid > 1, "process {pid} would be a group, or init");
    // SAFETY: takes and touches no memory.
    found(unsafe { libc::kill(pid.cast_signed(), signal) })
}

fn found(answer: i32) -> io::Result<bool> {
    match check(answer) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A child that has ended and is reaped.
#[derive(Clone, Copy, Debug)]
pub(in crate::worker) struct Reaped {
    pub(in crate::worker) pid: u32,
    /// As `wait` gives it.
    pub(in crate::worker) status: i32,
    /// Of the child and of those it waited for, in microseconds.
    pub(in crate::worker) user_us: u64,
    /// See `user_us`.
    pub(in crate::worker) system_us: u64,
    /// Greatest resident set in KiB.
    pub(in crate::worker) memory_kib_max: u64,
}

/// What [`reap`] finds.
#[derive(Clone, Copy, Debug)]
pub(in crate::worker) enum Children {
    /// One had ended.
    Reaped(Reaped),
    /// All live.
    Alive,
    /// There is none at all.
    None,
}

/// Reaps one child that has ended, whichever.
pub(in crate::worker) fn reap() -> Children {
    wait(libc::WNOHANG)
}

/// Waits until a child ends, and reaps it; none if there is none.
pub(in crate::worker) fn wait_and_reap() -> Option<Reaped> {
    loop {
        match wait(0) {
            Children::Reaped(child) => return Some(child),
            Children::Alive => {} // A signal came in between.
            Children::None => return None,
        }
    }
}

#[allow(unsafe_code, reason = "std waits for one known child, and tells nothing of its use")]
fn wait(options: i32) -> Children {
    let mut status = 0;
    // SAFETY: rusage is plain numbers; both places are valid for the answer.
    let (pid, usage) = unsafe {
        let mut usage: libc::rusage = mem::zeroed();
        (libc::wait4(-1, &raw mut status, options, &raw mut usage), usage)
    };
    match u32::try_from(pid) {
        Ok(0) => Children::Alive,
        Ok(pid) => Children::Reaped(Reaped {
            pid,
            status,
            user_us: micros(usage.ru_utime),
            system_us: micros(usage.ru_stime),
            memory_kib_max: usage.ru_maxrss.unsigned_abs(),
        }),
        Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {
            Children::Alive
        }
        Err(_) => Children::None,
    }
}

fn micros(time: libc::timeval) -> u64 {
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_usec.unsigned_abs()
}

/// How many descriptors this process may have open: what it has now, and the most that it may
/// ask for.
#[derive(Clone, Copy, Debug)]
pub(in crate::worker) struct FileLimit(libc::rlimit);

/// Asks for as many descriptors as there may be. What it was before.
#[allow(unsafe_code, reason = "std has no setrlimit")]
pub(in crate::worker) fn raise_file_limit() -> io::Result<FileLimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    let before = FileLimit(limit);
    set_file_limit(FileLimit(libc::rlimit { rlim_cur: limit.rlim_max, ..limit }))?;
    Ok(before)
}

/// Sets it back, for programs that expect no more descriptors than they can select from.
#[allow(unsafe_code, reason = "std has no setrlimit")]
pub(in crate::worker) fn set_file_limit(FileLimit(limit): FileLimit) -> io::Result<()> {
    // SAFETY: `limit` lives through the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}
