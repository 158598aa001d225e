//! Sockets that keep the bounds of messages and pass descriptors.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::{check, check_size};

/// File descriptors that travel with one message: both ends of the two pipes of a task.
const FDS_MAX: u32 = 4;

/// What a descriptor takes in a message.
const FD_BYTES: u32 = 4;
const _: () = assert!(size_of::<RawFd>() == 4);

/// Two ends of a socket that keeps the bounds of messages. Neither blocks.
#[allow(unsafe_code, reason = "std has stream and datagram pairs only")]
pub(in crate::worker) fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
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
pub(in crate::worker) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
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
pub(in crate::worker) fn receive(
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

/// Connections that may wait to be accepted: there is one agent.
const BACKLOG: i32 = 4;

/// A socket for messages at `name` in `dir`, to be connected to. What was there before goes.
#[allow(unsafe_code, reason = "std listens on stream sockets only")]
pub(in crate::worker) fn listen(dir: &Path, name: &str) -> io::Result<OwnedFd> {
    match std::fs::remove_file(dir.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let socket = message_socket()?;
    let (_dir, address, length) = address(dir, name)?;
    // SAFETY: `address` lives through the call, and `length` is within it.
    unsafe {
        check(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length))?;
        check(libc::listen(socket.as_raw_fd(), BACKLOG))?;
    }
    Ok(socket)
}

/// Connects to whoever [listens](listen) at `name` in `dir`.
#[allow(unsafe_code, reason = "std connects stream sockets only")]
pub(in crate::worker) fn connect(dir: &Path, name: &str) -> io::Result<OwnedFd> {
    let socket = message_socket()?;
    let (_dir, address, length) = address(dir, name)?;
    // SAFETY: as in `listen`. A local connection is there at once, or not at all.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(socket)
}

const UCRED_BYTES: libc::socklen_t = 12;
const _: () = assert!(size_of::<libc::ucred>() == 12);

/// Takes the next connection, if it is from this user.
#[allow(
    unsafe_code,
    reason = "std has no message sockets, and does not tell who is at the other end"
)]
pub(in crate::worker) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let none = std::ptr::null_mut();
    // SAFETY: no address is asked for; the descriptor is new and ours. `ucred` is plain
    // numbers, and `length` is its size.
    let (socket, user) = unsafe {
        let fd = check(libc::accept4(listener.as_raw_fd(), none, std::ptr::null_mut(), flags))?;
        let socket = OwnedFd::from_raw_fd(fd);
        let mut peer: libc::ucred = mem::zeroed();
        let mut length = UCRED_BYTES;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
        let place = (&raw mut peer).cast();
        check(libc::getsockopt(socket.as_raw_fd(), level, option, place, &raw mut length))?;
        (socket, peer.uid)
    };
    // SAFETY: takes and touches no memory.
    if user == unsafe { libc::geteuid() } {
        return Ok(socket);
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user is at the other end"))
}

#[allow(unsafe_code, reason = "std has stream and datagram sockets only")]
fn message_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the answer is checked, then owned by nobody else.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::socket(libc::AF_UNIX, kind, 0))?)) }
}

/// The address of `name` in `dir`, good for as long as the directory's descriptor lives. By
/// way of that, as an address is 107 bytes at most, and a path may be longer.
#[allow(unsafe_code, reason = "an address is plain numbers")]
fn address(dir: &Path, name: &str) -> io::Result<(File, libc::sockaddr_un, libc::socklen_t)> {
    let dir = File::open(dir)?;
    let path = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    let path = CString::new(path.as_os_str().as_bytes())?;
    let path = path.as_bytes_with_nul();
    // SAFETY: all zeros is an address without a path.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    address.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).expect("it is 1");
    assert!(path.len() <= address.sun_path.len(), "the names of ours are short");
    for (place, byte) in address.sun_path.iter_mut().zip(path) {
        *place = byte.cast_signed();
    }
    let length = mem::offset_of!(libc::sockaddr_un, sun_path) + path.len();
    Ok((dir, address, libc::socklen_t::try_from(length).expect("an address is short")))
}
