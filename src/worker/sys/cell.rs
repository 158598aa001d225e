//! What makes the process of a cell: the one inside which a task runs.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::check;

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug)]
pub(in crate::worker) enum Fork {
    /// The new process.
    Child,
    /// The old one, and the id of the new.
    Parent(u32),
}

/// Namespaces that a new process gets of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Namespaces {
    /// None.
    None,
    /// Of processes and of mounts. Needs privileges.
    Pid,
    /// Of users too, which makes up for the privileges.
    PidAndUser,
}

/// Forks this process, which must have one thread only.
#[allow(unsafe_code, reason = "std cannot fork")]
pub(in crate::worker) fn fork(namespaces: Namespaces) -> io::Result<Fork> {
    let own = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
    let flags = match namespaces {
        Namespaces::None => 0,
        Namespaces::Pid => own,
        Namespaces::PidAndUser => own | libc::CLONE_NEWUSER,
    };
    // SAFETY: without CLONE_VM this is fork, on a copy of the same stack; with one thread, the
    // copy holds no lock of another. All further arguments are null.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0) };
    match u32::try_from(pid) {
        Ok(0) => Ok(Fork::Child),
        Ok(pid) => Ok(Fork::Parent(pid)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// The user and the group of this process, before it is in a namespace that knows neither.
#[allow(unsafe_code, reason = "std does not tell them")]
pub(in crate::worker) fn user_and_group() -> (u32, u32) {
    // SAFETY: take and touch no memory.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Says who this process is in its new user namespace: who it was before.
pub(in crate::worker) fn keep_identity((user, group): (u32, u32)) -> io::Result<()> {
    // Who may not change groups may say which it has.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// Has the kernel kill this process when its parent dies, of whatever.
#[allow(unsafe_code, reason = "std has no prctl")]
pub(in crate::worker) fn die_with_parent() -> io::Result<()> {
    // SAFETY: this option takes an integer.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) }).map(drop)
}

/// Shows in `/proc` the processes of this namespace, and changes no mount for anyone else.
#[allow(unsafe_code, reason = "std has no mount")]
pub(in crate::worker) fn mount_own_proc() -> io::Result<()> {
    let (proc, path) = (c"proc".as_ptr(), c"/proc".as_ptr());
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: the texts are constants; null stands for what does not matter.
    unsafe {
        // What is mounted on a private mount stays in this namespace. All others stay shared:
        // a task that mounts something does it for the machine, as it would without a cell.
        check(libc::mount(ptr::null(), path, ptr::null(), libc::MS_PRIVATE, ptr::null()))?;
        check(libc::mount(proc, path, proc, flags, ptr::null()))?;
    }
    Ok(())
}

/// Closes every descriptor that was inherited, but stdin, stdout, stderr and one.
#[allow(unsafe_code, reason = "std closes only what it opened")]
pub(in crate::worker) fn close_all_but(kept: BorrowedFd<'_>) {
    let kept = kept.as_raw_fd().unsigned_abs();
    // SAFETY: this is a fork: whoever owned these descriptors in it never runs again.
    unsafe {
        if kept > 3 {
            libc::syscall(libc::SYS_close_range, 3, kept - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, kept + 1, u32::MAX, 0);
    }
}
