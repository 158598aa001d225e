//! The machines of the simulation: clocks that are wrong, disks that forget.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_raft::Store;
use quorate_raft::machine::{Connecting, Machine, Stream};
use quorate_raft::wal::disk::Disk;
use tokio::runtime::{Handle, Id};

use super::dice::Dice;
use super::disk::SimDisk;
use super::store::SimStore;

/// When the simulation begins, since the Unix epoch: the first of January 2026.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// A billionth, of which the rate of a clock is counted.
const PPB: u128 = 1_000_000_000;

/// All machines. Clones are the same ones.
#[derive(Clone, Debug)]
pub(super) struct Machines(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    dice: Dice,
    hosts: BTreeMap<String, Hardware>,
    /// Which host runs in which runtime. A host that starts anew gets a new one.
    runtimes: HashMap<Id, String>,
    /// Since the simulation began; where none of its hosts runs.
    elapsed: Duration,
}

#[derive(Debug)]
struct Hardware {
    /// What the clock showed when the simulation began.
    boottime: Duration,
    /// How far it goes in a second, in nanoseconds.
    rate: u64,
    /// How far the wall clock is ahead, in seconds.
    wall_ahead_s: i64,
    disks: BTreeMap<String, SimDisk>,
    stores: BTreeMap<String, SimStore>,
}

impl Machines {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            dice: Dice::new(seed),
            hosts: BTreeMap::new(),
            runtimes: HashMap::new(),
            elapsed: Duration::ZERO,
        })))
    }

    /// Adds a machine whose clock gains `ppm` millionths.
    pub(super) fn add(&self, host: &str, ppm: i64) {
        let mut inner = self.lock();
        let boottime = inner.dice.ms(1_000..=100_000_000);
        let rate = 1_000_000_000_u64.saturating_add_signed(ppm * 1_000);
        let (disks, stores) = Default::default();
        let hardware = Hardware { boottime, rate, wall_ahead_s: 0, disks, stores };
        inner.hosts.insert(host.to_owned(), hardware);
    }

    /// What runs in this runtime runs on this machine.
    pub(super) fn enter(&self, host: &str) {
        self.lock().runtimes.insert(Handle::current().id(), host.to_owned());
    }

    pub(super) fn set_elapsed(&self, elapsed: Duration) {
        self.lock().elapsed = elapsed;
    }

    pub(super) fn elapsed(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_else(|| self.lock().elapsed)
    }

    /// What the clock of a machine shows.
    pub(super) fn boottime(&self, host: &str) -> Duration {
        let elapsed = self.elapsed();
        self.lock().hosts[host].boottime(elapsed)
    }

    pub(super) fn set_wall_clock(&self, host: &str, ahead_s: i64) {
        self.with(host, |hardware| hardware.wall_ahead_s = ahead_s);
    }

    /// The disks of a machine.
    pub(super) fn disks(&self, host: &str) -> Vec<SimDisk> {
        self.lock().hosts[host].disks.values().cloned().collect()
    }

    /// Leaves on all disks what a power cut leaves.
    pub(super) fn cut_power(&self, host: &str) {
        let mut inner = self.lock();
        let Inner { dice, hosts, .. } = &mut *inner;
        let hardware = &hosts[host];
        hardware.disks.values().for_each(SimDisk::cut_power);
        hardware.stores.values().for_each(|store| store.cut_power(dice));
    }

    /// Puts empty disks into a machine.
    pub(super) fn replace_disks(&self, host: &str) {
        self.with(host, |hardware| {
            hardware.disks.clear();
            hardware.stores.clear();
        });
    }

    fn with<T>(&self, host: &str, change: impl FnOnce(&mut Hardware) -> T) -> T {
        change(self.lock().hosts.get_mut(host).expect("the machine was added"))
    }

    /// The machine that runs what calls this.
    fn here(&self) -> Option<String> {
        let runtime = Handle::try_current().ok()?.id();
        self.lock().runtimes.get(&runtime).cloned()
    }

    fn on_this<T>(&self, look: impl FnOnce(&mut Hardware) -> T) -> T {
        let host = self.here().expect("every runtime has entered a machine");
        self.with(&host, look)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hardware {
    fn boottime(&self, elapsed: Duration) -> Duration {
        let passed = elapsed.as_nanos() * u128::from(self.rate) / PPB;
        self.boottime + Duration::from_nanos(u64::try_from(passed).unwrap_or(u64::MAX))
    }
}

impl Machine for Machines {
    fn boottime(&self) -> Duration {
        let elapsed = self.elapsed();
        self.on_this(|hardware| hardware.boottime(elapsed))
    }

    fn wall_clock(&self) -> Duration {
        let true_time = EPOCH + self.elapsed();
        let ahead_s = self.on_this(|hardware| hardware.wall_ahead_s);
        Duration::from_secs(true_time.as_secs().saturating_add_signed(ahead_s))
            + Duration::from_nanos(true_time.subsec_nanos().into())
    }

    fn random(&self) -> u64 {
        self.lock().dice.roll()
    }

    fn connect(&self, address: &str) -> Connecting {
        let address = address.to_owned();
        Box::pin(async move {
            let (host, port) = address.split_once(':').ok_or(io::ErrorKind::InvalidInput)?;
            let port: u16 = port.parse().map_err(io::Error::other)?;
            let stream = turmoil::net::TcpStream::connect((host, port)).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn disk(&self, dir: &Path) -> io::Result<Arc<dyn Disk>> {
        let seed = self.random();
        let name = dir.to_string_lossy().into_owned();
        let disk = self.on_this(|hardware| {
            hardware.disks.entry(name).or_insert_with(|| SimDisk::new(seed)).clone()
        });
        Ok(Arc::new(disk))
    }

    fn store(&self, dir: &Path) -> Arc<dyn Store> {
        let name = dir.to_string_lossy().into_owned();
        Arc::new(self.on_this(|hardware| hardware.stores.entry(name).or_default().clone()))
    }
}
