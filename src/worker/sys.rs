//! The system calls that std has no word for. All `unsafe` of the worker is here.
//!
//! Each wrapper takes and gives owned or borrowed descriptors and plain values, so that
//! nothing outside can misuse it. What a call is for is said where it is used.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use quorate_raft::machine;

use super::lease::BootNs;

/// File descriptors that travel with one message: the two pipes of a task.
const FDS_MAX: u32 = 2;

/// What a descriptor takes in a message.
const FD_BYTES: u32 = 4;
const _: () = assert!(size_of::<RawFd>() == 4);

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

/// Leaves the session of the parent, and with it its terminal and the signals of its keys.
#[allow(unsafe_code, reason = "std cannot start a process in a session of its own")]
pub(super) fn own_session() -> io::Result<()> {
    // SAFETY: takes and touches no memory.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Has the kernel hand orphaned descendants to this process, which then can see and kill them.
#[allow(unsafe_code, reason = "std has no prctl")]
pub(super) fn become_subreaper() -> io::Result<()> {
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
pub(super) fn shrug_off(signals: &[i32]) -> io::Result<()> {
    signals.iter().try_for_each(|&signal| catch(signal, on_signal))
}

/// A descriptor that is readable once a child has ended. To be asked for once in a process.
#[allow(unsafe_code, reason = "std has no eventfd")]
pub(super) fn child_fd() -> io::Result<OwnedFd> {
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

/// A timer on `CLOCK_BOOTTIME`, readable once it has gone off.
#[allow(unsafe_code, reason = "std has no timerfd")]
pub(super) fn timer_fd() -> io::Result<OwnedFd> {
    let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
    // SAFETY: the answer is checked, then owned by nobody else.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::timerfd_create(libc::CLOCK_BOOTTIME, flags))?)) }
}

/// Sets a [`timer_fd`] to go off at an instant, or never.
#[allow(unsafe_code, reason = "std has no timerfd")]
pub(super) fn set_timer(timer: BorrowedFd<'_>, at: Option<BootNs>) -> io::Result<()> {
    // An all-zero time disarms, so an instant of zero becomes the one after it.
    let nanos = at.map_or(0, |at| at.0.clamp(1, i64::MAX.unsigned_abs())).cast_signed();
    let value = libc::timespec { tv_sec: nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 };
    let interval = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let time = libc::itimerspec { it_interval: interval, it_value: value };
    let flags = libc::TFD_TIMER_ABSTIME;
    // SAFETY: `time` lives through the call; the old value is not asked for.
    check(unsafe {
        libc::timerfd_settime(timer.as_raw_fd(), flags, &raw const time, ptr::null_mut())
    })
    .map(drop)
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
pub(super) fn poll<const N: usize>(wanted: [Poll<'_>; N], timeout_ms: i32) -> [bool; N] {
    let mut fds =
        wanted.map(|Poll { fd, events }| libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
    // SAFETY: `fds` is an array of N; the descriptors are borrowed through the call. A
    // failure (EINTR) leaves every `revents` zero: nothing is ready.
    unsafe { libc::poll(fds.as_mut_ptr(), N as libc::nfds_t, timeout_ms) };
    fds.map(|fd| fd.revents != 0)
}

/// Signals every process of a group; 0 only looks. `false` if the group is empty.
#[allow(unsafe_code, reason = "std cannot signal a group")]
pub(super) fn signal_group(group: u32, signal: i32) -> io::Result<bool> {
    assert!(group > 1, "group {group} would be everybody, or init");
    // SAFETY: takes and touches no memory.
    found(unsafe { libc::kill(-group.cast_signed(), signal) })
}

/// Signals one process; 0 only looks. `false` if there is none.
#[allow(unsafe_code, reason = "std can kill its own children only")]
pub(super) fn signal_process(pid: u32, signal: i32) -> io::Result<bool> {
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
pub(super) struct Reaped {
    pub(super) pid: u32,
    /// As `wait` gives it.
    pub(super) status: i32,
    /// Of the child and of those it waited for, in microseconds.
    pub(super) user_us: u64,
    /// See `user_us`.
    pub(super) system_us: u64,
    /// Greatest resident set in KiB.
    pub(super) memory_kib_max: u64,
}

/// What [`reap`] finds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Children {
    /// One had ended.
    Reaped(Reaped),
    /// All live.
    Alive,
    /// There is none at all.
    None,
}

/// Reaps one child that has ended, whichever.
#[allow(unsafe_code, reason = "std waits for one known child, and tells nothing of its use")]
pub(super) fn reap() -> Children {
    let mut status = 0;
    // SAFETY: rusage is plain numbers; both places are valid for the answer.
    let (pid, usage) = unsafe {
        let mut usage: libc::rusage = mem::zeroed();
        (libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage), usage)
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
        Err(_) => Children::None,
    }
}

fn micros(time: libc::timeval) -> u64 {
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_usec.unsigned_abs()
}

/// Two ends of a socket that keeps the bounds of messages. Neither blocks.
#[allow(unsafe_code, reason = "std has stream and datagram pairs only")]
pub(super) fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds: [RawFd; 2] = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: `fds` has room for two; they are owned by nobody else.
    unsafe {
        check(libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()))?;
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

/// Room for the header and the descriptors of one message, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

#[allow(unsafe_code, reason = "CMSG_SPACE is arithmetic, but declared unsafe")]
const CONTROL_BYTES: usize = {
    // SAFETY: computes a size.
    let bytes = unsafe { libc::CMSG_SPACE(FD_BYTES * FDS_MAX) as usize };
    assert!(bytes <= 64, "the control buffer holds the descriptors of a message");
    bytes
};

/// Sends one message whole, with copies of descriptors.
#[allow(unsafe_code, reason = "std cannot pass descriptors")]
pub(super) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let fds_count = u32::try_from(fds.len()).unwrap_or(u32::MAX);
    assert!(fds_count <= FDS_MAX, "a message carries the pipes of one task");
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 64]);
    // SAFETY: `message` points at `part` and `control`, which outlive the call; the control
    // buffer is large enough (asserted above) and aligned, so CMSG_FIRSTHDR is not null.
    let sent = unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if !fds.is_empty() {
            let fds_bytes = FD_BYTES * fds_count;
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(fds_bytes) as usize;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(fds_bytes) as usize;
            let place = libc::CMSG_DATA(header).cast::<RawFd>();
            for (at, fd) in fds.iter().enumerate() {
                place.add(at).write_unaligned(fd.as_raw_fd());
            }
        }
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    check_size(sent).map(drop)
}

/// Receives one message whole, and the descriptors that came with it. No bytes: the end.
#[allow(unsafe_code, reason = "std cannot receive descriptors")]
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = Control([0; 64]);
    let mut fds = Vec::new();
    // SAFETY: `message` points at `part` and `control`, which outlive the call. The kernel
    // fills the control buffer with whole headers; each descriptor in it is new and ours.
    let (received, flags) = unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_BYTES;
        let received = check_size(libc::recvmsg(
            socket.as_raw_fd(),
            &raw mut message,
            libc::MSG_CMSG_CLOEXEC,
        ))?;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if !header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS {
            let bytes = (*header).cmsg_len - libc::CMSG_LEN(0) as usize;
            let place = libc::CMSG_DATA(header).cast::<RawFd>();
            for at in 0..bytes / size_of::<RawFd>() {
                fds.push(OwnedFd::from_raw_fd(place.add(at).read_unaligned()));
            }
        }
        (received, message.msg_flags)
    };
    if flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut off"));
    }
    Ok((received, fds))
}

/// The descriptor on which the agent passes the keeper its end of the socket.
pub(super) fn stdin_as_socket() -> io::Result<OwnedFd> {
    io::stdin().as_fd().try_clone_to_owned()
}

fn check(answer: i32) -> io::Result<i32> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn check_size(answer: isize) -> io::Result<usize> {
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}
