//! A disk that can lose its power: a file system in an image, mounted through a loop device.
//!
//! What a process has written lies in the page cache of that file system; what it has made
//! durable lies in the image. A copy of the image is what a power cut would have left.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::sys;

/// Room enough for a test; the image is sparse.
const SIZE: &str = "200M";

/// Tries to copy an image between two writes of the kernel.
const COPIES_MAX: u32 = 50;

/// A mounted image.
#[derive(Debug)]
pub(crate) struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// Makes an empty disk and mounts it in `folder`.
    ///
    /// # Errors
    ///
    /// If that cannot be had here, and why.
    pub(crate) fn create(folder: &Path, name: &str) -> Result<Self, String> {
        let (image, mount) = (folder.join(format!("{name}.img")), folder.join(name));
        fs::create_dir_all(&mount).map_err(|error| error.to_string())?;
        let path = text(&image);
        run("truncate", &["-s", SIZE, path])?;
        run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", path])?;
        let disk = Self { image, mount };
        disk.mount()?;
        Ok(disk)
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.mount
    }

    /// Remembers what a power cut at this instant would leave. Whoever writes to the disk must
    /// be frozen.
    ///
    /// # Errors
    ///
    /// If the kernel never paused in writing.
    pub(crate) fn freeze_frame(&self) -> Result<PathBuf, String> {
        let frame = self.image.with_extension("frame");
        for _ in 0..COPIES_MAX {
            run("cp", &["--sparse=always", text(&self.image), text(&frame)])?;
            // Equal after the copy was complete: nothing was written while it was made.
            if run("cmp", &["-s", text(&self.image), text(&frame)]).is_ok() {
                return Ok(frame);
            }
        }
        Err("the image changes faster than it can be copied".to_owned())
    }

    /// Puts the disk back to what a power cut had left. Nothing may use it any more.
    ///
    /// # Errors
    ///
    /// If it cannot be mounted.
    pub(crate) fn restore(&self, frame: &Path) -> Result<(), String> {
        run("umount", &[text(&self.mount)])?;
        fs::rename(frame, &self.image).map_err(|error| error.to_string())?;
        self.mount()
    }

    /// Takes the disk away under whoever uses it: from here on everything that is written or
    /// synced fails, and what was not synced is lost. [`replug`](Self::replug) brings it back.
    ///
    /// # Errors
    ///
    /// If the file system cannot do that.
    pub(crate) fn pull(&self) -> io::Result<()> {
        sys::shut_down(&fs::File::open(&self.mount)?)
    }

    /// Mounts it anew, with what had been synced. Nothing may use it any more.
    ///
    /// # Errors
    ///
    /// If it cannot be mounted.
    pub(crate) fn replug(&self) -> Result<(), String> {
        // A copy: whoever runs in a mount namespace of its own may hold on to the one that is
        // gone, and the same image would come up in the same state.
        self.restore(&self.freeze_frame()?)
    }

    /// Fills it to the last byte, with a file that is to be removed.
    ///
    /// # Errors
    ///
    /// If anything but the lack of room ends that.
    pub(crate) fn fill(&self) -> io::Result<PathBuf> {
        let path = self.mount.join("ballast");
        let mut file = fs::File::create(&path)?;
        // Large pieces first: the last blocks are had by small ones.
        for piece in [1 << 20, 4 << 10] {
            let bytes = vec![1; piece];
            loop {
                match file.write_all(&bytes) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        file.sync_all()?;
        Ok(path)
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", text(&self.image), text(&self.mount)])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that is just being killed may still use it.
        drop(run("umount", &["-l", text(&self.mount)]));
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are plain text")
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{program} {}: {said}", arguments.join(" ")))
}

/// The method itself: without this, a power cut that loses nothing would prove nothing.
#[test]
fn a_power_cut_keeps_what_was_synced_and_loses_what_was_not() {
    let folder = super::cluster::folder();
    let disk = match Disk::create(folder.path(), "disk") {
        Ok(disk) => disk,
        Err(reason) => return super::skip(&reason),
    };
    let (synced, written) = (disk.folder().join("synced"), disk.folder().join("written"));
    fs::write(&synced, "kept").expect("a disk takes files");
    let file = fs::File::open(&synced).expect("it is there");
    file.sync_all().expect("a disk can be synced");
    fs::File::open(disk.folder()).and_then(|dir| dir.sync_all()).expect("so can its folder");
    fs::write(&written, "lost").expect("a disk takes files");
    drop(file);
    let frame = disk.freeze_frame().expect("nobody writes");
    disk.restore(&frame).expect("nobody uses it");
    assert_eq!(fs::read_to_string(&synced).expect("what was synced is there"), "kept");
    assert_eq!(fs::read_to_string(&written).unwrap_or_default(), "");
}

#[test]
fn a_disk_that_is_pulled_fails_every_sync_and_keeps_what_was_synced() {
    let folder = super::cluster::folder();
    let disk = match Disk::create(folder.path(), "disk") {
        Ok(disk) => disk,
        Err(reason) => return super::skip(&reason),
    };
    let path = disk.folder().join("synced");
    let mut file = fs::File::create(&path).expect("a disk takes files");
    file.write_all(b"kept").and_then(|()| file.sync_all()).expect("a disk can be synced");
    fs::File::open(disk.folder()).and_then(|dir| dir.sync_all()).expect("so can its folder");
    disk.pull().expect("ext4 can be taken down");
    assert!(file.write_all(b"more").and_then(|()| file.sync_all()).is_err());
    drop(file);
    disk.replug().expect("nobody uses it");
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "kept");
}

#[test]
fn a_disk_can_be_filled_and_emptied() {
    let folder = super::cluster::folder();
    let disk = match Disk::create(folder.path(), "disk") {
        Ok(disk) => disk,
        Err(reason) => return super::skip(&reason),
    };
    let ballast = disk.fill().expect("it ends full");
    let full = fs::write(disk.folder().join("one"), "byte");
    assert_eq!(full.expect_err("there is no room").kind(), io::ErrorKind::StorageFull);
    fs::remove_file(ballast).expect("it is there");
    fs::write(disk.folder().join("one"), "byte").expect("there is room");
}
