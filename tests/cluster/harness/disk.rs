//! A disk that can lose its power: a file system in an image, mounted through a loop device.
//!
//! What a process has written lies in the page cache of that file system; what it has made
//! durable lies in the image. A copy of the image is what a power cut would have left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
