//! The machine under a node: clocks, randomness, threads, the network and the disks.
//!
//! All that no seed can decide comes through here. A [simulation](simulate) keeps a whole
//! cluster in one thread and gives it machines of its own making, so that the same seed is the
//! same run, byte for byte; everywhere else this is the operating system.

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read as _};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinError;

use crate::history::{SledStore, Store};
use crate::wal::disk::{Directory, Disk};

/// Items that simulated work may give at once: there is no other thread to take them meanwhile.
const SIMULATED_ITEMS_MAX: usize = 1024;

/// A connection, before anything is said on it.
pub trait Stream: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin> Stream for S {}

/// A connection that is being made.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// What a simulation puts in the place of the operating system. It must know itself which of
/// its nodes is asking.
pub trait Machine {
    /// Time since some instant; nobody can set it back.
    fn boottime(&self) -> Duration;
    /// Time since the Unix epoch, as people have set it.
    fn wall_clock(&self) -> Duration;
    /// The next random number.
    fn random(&self) -> u64;
    /// Connects to `host:port`.
    fn connect(&self, address: &str) -> Connecting;
    /// The disk on which the log in `dir` lies.
    ///
    /// # Errors
    ///
    /// As the operating system would say.
    fn disk(&self, dir: &Path) -> io::Result<Arc<dyn Disk>>;
    /// Where the history of finished runs in `dir` lies.
    fn store(&self, dir: &Path) -> Arc<dyn Store>;
}

thread_local! {
    static SIMULATED: RefCell<Option<Rc<dyn Machine>>> = const { RefCell::new(None) };
}

/// From now on everything in this thread runs on `machine`.
pub fn simulate(machine: Rc<dyn Machine>) {
    SIMULATED.set(Some(machine));
}

/// The machine of the simulation, in one.
#[must_use]
pub fn simulated() -> Option<Rc<dyn Machine>> {
    SIMULATED.with_borrow(Clone::clone)
}

/// Time since the Unix epoch, as people have set it. May jump.
pub(crate) fn wall_clock() -> Duration {
    simulated().map_or_else(
        || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        |machine| machine.wall_clock(),
    )
}

/// A random number, for jitter: not fit for secrets.
#[must_use]
pub fn random() -> u64 {
    simulated().map_or_else(|| RandomState::new().hash_one(()), |machine| machine.random())
}

/// Bytes that nobody can guess.
///
/// # Errors
///
/// If the operating system has none.
pub(crate) fn secret() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    match simulated() {
        Some(machine) => bytes[..8].copy_from_slice(&machine.random().to_le_bytes()),
        None => File::open("/dev/urandom")?.read_exact(&mut bytes)?,
    }
    Ok(bytes)
}

/// Connects to `host:port`, without delay for small messages.
pub(crate) async fn connect(address: &str) -> io::Result<Box<dyn Stream>> {
    let simulated = simulated().map(|machine| machine.connect(address));
    if let Some(connecting) = simulated {
        return connecting.await;
    }
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

/// The directory at `path`, which is made, durably, if it is not there.
pub(crate) fn disk(path: &Path) -> io::Result<Arc<dyn Disk>> {
    match simulated() {
        Some(machine) => machine.disk(path),
        None => Ok(Arc::new(Directory::open(path)?)),
    }
}

/// The store in the directory at `path`, which is made if it is not there.
pub(crate) fn store(path: &Path) -> Result<Arc<dyn Store>, crate::HistoryError> {
    match simulated() {
        Some(machine) => Ok(machine.store(path)),
        None => Ok(Arc::new(SledStore::open(path)?)),
    }
}

/// Does work that waits for a disk or takes long, where it holds up nobody. A simulation does
/// it on the spot: it takes no time there.
///
/// # Errors
///
/// If it panicked, or the runtime ends.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if simulated().is_some() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}

/// Does work as [`blocking`] does, and receives what it gives meanwhile, with `ahead` items
/// given before they are asked for. It ends when the receiver is gone.
pub(crate) fn blocking_series<T: Send + 'static>(
    ahead: usize,
    work: impl FnOnce(&mut dyn FnMut(T) -> io::Result<()>) -> io::Result<()> + Send + 'static,
) -> mpsc::Receiver<io::Result<T>> {
    let is_simulated = simulated().is_some();
    let (give, items) = mpsc::channel(if is_simulated { SIMULATED_ITEMS_MAX } else { ahead });
    let run = move || {
        let put = |item| {
            let put = if is_simulated {
                give.try_send(item).is_ok()
            } else {
                give.blocking_send(item).is_ok()
            };
            if put { Ok(()) } else { Err(io::Error::other("nobody takes it any more")) }
        };
        if let Err(error) = work(&mut |item| put(Ok(item))) {
            // If the receiver is gone, this is why.
            let _ = put(Err(error));
        }
    };
    if is_simulated {
        run();
    } else {
        tokio::task::spawn_blocking(run);
    }
    items
}

/// A thread that waits for a disk, or what stands for it in a simulation.
pub(crate) struct Thread(Option<std::thread::JoinHandle<()>>);

impl Thread {
    /// Starts one that does `work`, which may use no timer and no network.
    pub(crate) fn start(
        name: &str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<Self> {
        if simulated().is_some() {
            tokio::spawn(work);
            return Ok(Self(None));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let thread = std::thread::Builder::new().name(name.to_owned());
        Ok(Self(Some(thread.spawn(move || runtime.block_on(work))?)))
    }

    /// Waits until its work is done. A simulated one is not waited for: there, only a crash
    /// ends what holds it.
    pub(crate) fn join(self) {
        if let Some(thread) = self.0 {
            // It can only have panicked, and has said so.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").finish_non_exhaustive()
    }
}
