//! What only an ioctl does: the unsafe part of the harness, all of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;

/// Makes a network card whose cable ends here, by this name. What its host sends is read from
/// the file, a frame at a time; what is written to the file arrives there. Gone once the file
/// is closed.
///
/// # Errors
///
/// If there is no such device here, or no right to use it.
pub(super) fn make_card(name: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI;
    attach(&file, name, libc::c_short::try_from(flags).expect("two low bits"))?;
    Ok(file)
}

#[expect(unsafe_code, reason = "the kernel has no other way to name such a card than an ioctl")]
fn attach(file: &File, name: &str, flags: libc::c_short) -> io::Result<()> {
    // SAFETY: a request without a name and flags is all zeros, which every field of it allows.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::other(format!("{name} is too long for a card")));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: the file is open, and the request lives until the call returns.
    match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `EXT4_IOC_SHUTDOWN`, and its flag for a journal that is not written out first.
const SHUT_DOWN: libc::Ioctl = 0x8004_587d;
const WITHOUT_JOURNAL: u32 = 2;

/// Takes a file system down under whoever uses it.
#[expect(unsafe_code, reason = "only an ioctl takes a file system down")]
pub(super) fn shut_down(root: &File) -> io::Result<()> {
    let how = WITHOUT_JOURNAL;
    // SAFETY: the folder is open, and the kernel reads the flag before the call returns.
    match unsafe { libc::ioctl(root.as_raw_fd(), SHUT_DOWN, &raw const how) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
