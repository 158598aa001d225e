//! The cluster under simulation: its hosts, what is done to them, and what is looked at.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use quorate_model::Epoch;
use quorate_raft::ClusterId;
use turmoil::Sim;

use super::dice::Dice;
use super::disk::SimDisk;
use super::machines::Machines;
use super::master::{Masters, PORT};
use super::oracle::Oracle;
use super::processes::{Killed, Processes};
use crate::seeds::Seeds;
use crate::worker::Profile;
use crate::worker::simulated::{Lease, Setup, Simulated};

/// How often the hosts take turns.
const TICK: Duration = Duration::from_millis(1);

/// How long a message takes on a good network.
const LATENCY_MS: [u64; 2] = [1, 5];

/// Segments under way on one connection; more would be a fault of the simulator.
const SEGMENTS_MAX: usize = 1 << 20;

/// How much of a second a clock may gain or lose for what is promised to hold, in millionths:
/// half of what a leader allows each side.
const DRIFT_ALLOWED_PPM: u64 = 5_000;

/// Workers that run, by their hosts.
#[derive(Clone, Debug, Default)]
pub(super) struct Workers(Arc<Mutex<BTreeMap<String, Lease>>>);

impl Workers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Lease>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cluster, and the network between its hosts.
pub(super) struct Cluster {
    pub(super) sim: Sim<'static>,
    pub(super) machines: Machines,
    pub(super) masters: Masters,
    pub(super) processes: Processes,
    pub(super) oracle: Oracle,
    pub(super) worker_names: Vec<String>,
    workers: Workers,
    /// The last lease that each machine's kernel was told of.
    terms: BTreeMap<String, (Epoch, Duration)>,
}

impl Cluster {
    /// Sets up as many hosts as chance has it.
    pub(super) fn new(seed: u64, machines: Machines, dice: &mut Dice) -> Self {
        let master_names: Vec<String> =
            (1..=dice.pick(&[1, 3, 3, 3, 5])).map(|n| format!("m{n}")).collect();
        let worker_names: Vec<String> = (1..=dice.within(1..=5)).map(|n| format!("w{n}")).collect();
        let mut sim = turmoil::Builder::new()
            .epoch(UNIX_EPOCH)
            .rng_seed(seed)
            .tick_duration(TICK)
            .simulation_duration(Duration::MAX)
            .min_message_latency(Duration::from_millis(LATENCY_MS[0]))
            .max_message_latency(Duration::from_millis(LATENCY_MS[1]))
            .tcp_capacity(SEGMENTS_MAX)
            .build();
        let oracle = Oracle::new(dice.roll());
        let lease = dice.ms(1_500..=6_000);
        let masters = Masters::new(
            machines.clone(),
            oracle.clone(),
            lease,
            master_names.clone(),
            dice.roll(),
        );
        let (processes, workers) = (Processes::default(), Workers::default());
        for name in master_names {
            machines.add(&name, 0);
            let masters = masters.clone();
            sim.host(name.clone(), move || masters.clone().run(name.clone()));
        }
        let seeds: Vec<String> =
            masters.names.iter().map(|name| format!("{name}:{PORT}")).collect();
        for name in &worker_names {
            let ppm = i64::try_from(dice.within(0..=2 * DRIFT_ALLOWED_PPM)).expect("it is small");
            machines.add(name, ppm - i64::try_from(DRIFT_ALLOWED_PPM).expect("it is small"));
            let worker = Worker {
                name: name.clone(),
                slots: u32::try_from(dice.within(2..=6)).expect("it is small"),
                seeds: seeds.clone(),
                machines: machines.clone(),
                processes: processes.clone(),
                workers: workers.clone(),
            };
            sim.host(name.clone(), move || worker.clone().run());
        }
        let terms = BTreeMap::new();
        Self { sim, machines, masters, processes, oracle, worker_names, workers, terms }
    }

    /// Every host.
    pub(super) fn hosts(&self) -> Vec<String> {
        self.masters.names.iter().chain(&self.worker_names).cloned().collect()
    }

    /// Lets a tick pass, on all hosts and in all kernels.
    pub(super) fn step(&mut self) {
        self.machines.set_elapsed(self.sim.elapsed());
        if let Err(error) = self.sim.step() {
            panic!("a host failed: {error}");
        }
        self.machines.set_elapsed(self.sim.elapsed());
        self.enforce_leases();
    }

    /// Does what the timer in the kernel of each worker's machine does.
    fn enforce_leases(&mut self) {
        for (name, lease) in self.workers.lock().iter() {
            let Some((epoch, deadline)) = lease.deadline() else { continue };
            let term = self.terms.entry(name.clone()).or_insert((epoch, deadline));
            if term.0 != epoch || term.1 < deadline {
                *term = (epoch, deadline);
            }
        }
        for (name, &(_, deadline)) in &self.terms {
            if self.machines.boottime(name) >= deadline {
                self.processes.kill(name, Killed::LeaseOver, |_| true);
            }
        }
    }

    /// Stops a host as if its plug had been pulled, or only its process killed.
    pub(super) fn crash(&mut self, host: &str, power: bool) {
        tracing::info!(host, power, "crash");
        self.masters.forget(host);
        self.workers.lock().remove(host);
        self.sim.crash(host);
        self.processes.forget(host);
        self.terms.remove(host);
        if power {
            self.machines.cut_power(host);
        }
    }

    /// Puts empty disks into the machine of a node that was removed, and has it join anew.
    pub(super) fn replace(&mut self, host: &str) {
        self.crash(host, false);
        self.machines.replace_disks(host);
        match std::fs::remove_dir_all(host) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                panic!("the folder of {host} cannot be removed: {error}")
            }
            Ok(()) | Err(_) => {}
        }
        self.start(host);
    }

    /// Starts a host that was stopped, or that has stopped by itself.
    pub(super) fn start(&mut self, host: &str) {
        if self.sim.is_host_running(host) {
            // What was to break has not yet.
            return self.machines.disks(host).iter().for_each(SimDisk::repair);
        }
        tracing::info!(host, "start");
        if self.machines.disks(host).iter().any(SimDisk::is_failing) {
            self.machines.cut_power(host);
        }
        self.sim.bounce(host);
    }
}

/// The software of a worker's host.
#[derive(Clone, Debug)]
struct Worker {
    name: String,
    slots: u32,
    seeds: Vec<String>,
    machines: Machines,
    processes: Processes,
    workers: Workers,
}

impl Worker {
    async fn run(self) -> turmoil::Result {
        self.machines.enter(&self.name);
        let name = self.name.parse().expect("this is a name");
        let profile = Profile { name, labels: BTreeMap::new(), slots: self.slots };
        let worker = Simulated::open(Setup {
            dir: PathBuf::from(&self.name),
            host: self.name.clone(),
            is_excused: false,
            profile,
            servers: Arc::new(Seeds::new(self.seeds, ClusterId::NONE)),
            processes: self.processes,
        })?;
        self.workers.lock().insert(self.name, worker.lease());
        worker.run().await;
        Ok(())
    }
}
