//! The few things the log asks of a file system, so that tests can lose what was not synced.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A directory of files. Nothing in it is durable until it is synced: a file's bytes by
/// [`DiskFile::sync`], a file's being there or not by [`Disk::sync_directory`].
pub trait Disk: Debug + Send + Sync + 'static {
    /// The names of all files, in no order.
    ///
    /// # Errors
    ///
    /// As the operating system says; so for every method here and of [`DiskFile`].
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes an empty file; refuses if there is one.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name, in place of the file that may have it.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Those who have it open can still read it.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn delete(&self, name: &str) -> io::Result<()>;
    /// Makes all creations, deletions and new names so far durable.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn sync_directory(&self) -> io::Result<()>;
    /// What to call a file in a message.
    fn path(&self, name: &str) -> PathBuf;
    /// How long the next sync takes, where the call itself takes no time, as in a simulation.
    fn sync_time(&self) -> Option<Duration> {
        None
    }
}

/// An open file.
pub trait DiskFile: Debug + Send + Sync + 'static {
    /// How many bytes it has.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn length(&self) -> io::Result<u64>;
    /// All of its bytes.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn read_all(&self) -> io::Result<Vec<u8>>;
    /// Fills the buffer from `offset` on.
    ///
    /// # Errors
    ///
    /// As the operating system says, and if the file ends before the buffer is full.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` from `offset` on.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file to `length` bytes.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn truncate(&self, length: u64) -> io::Result<()>;
    /// Makes every write and cut so far durable.
    ///
    /// # Errors
    ///
    /// As the operating system says. What is on disk is then unknown, and a second try may
    /// report success for pages that the kernel has dropped: never try again.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the operating system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Opens `path`, which is made, durably, if it is not there.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        create_directory(path)?;
        Ok(Self { path: path.to_owned() })
    }
}

/// Makes a directory and those above it, durably, unless they are there.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    // A relative path of one component has the empty path for a parent.
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    create_directory(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    sync_directory(parent)
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.path)?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        Ok(Arc::new(options.open(self.path(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(self.path(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        sync_directory(&self.path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl DiskFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_all(&self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.length()?).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
