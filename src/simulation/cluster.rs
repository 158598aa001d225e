//! The cluster under simulation: its hosts, what is done to them, and what is looked at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use quorate_raft::ClusterId;
use turmoil::Sim;

use super::dice::Dice;
use super::disk::SimDisk;
use super::machines::Machines;
use super::master::{Masters, PORT};
use super::oracle::Oracle;
use super::processes::Processes;
use crate::seeds::Seeds;
use crate::worker::keeper::simulated::Keepers;
use crate::worker::{Profile, Worker, WorkerOptions};

/// How often the hosts take turns, and how fine the network's time is. Each host's own timers
/// are exact within it. Most of what a seed takes is turns in which nobody has anything to do.
const TICK: Duration = Duration::from_millis(2);

/// How long a message takes on a good network.
const LATENCY_MS: [u64; 2] = [1, 5];

/// Segments under way on one connection; more would be a fault of the simulator.
const SEGMENTS_MAX: usize = 1 << 20;

/// How much of a second a clock may gain or lose for what is promised to hold, in millionths:
/// half of what a leader allows each side.
const DRIFT_ALLOWED_PPM: u64 = 5_000;

/// The cluster, and the network between its hosts.
pub(super) struct Cluster {
    pub(super) sim: Sim<'static>,
    pub(super) machines: Machines,
    pub(super) masters: Masters,
    pub(super) processes: Processes,
    pub(super) oracle: Oracle,
    pub(super) worker_names: Vec<String>,
    keepers: Keepers,
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
            .enable_tokio_io()
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
        let processes = Processes::default();
        let keepers = Keepers::install(processes.clone());
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
            let worker = Host {
                name: name.clone(),
                slots: u32::try_from(dice.within(2..=6)).expect("it is small"),
                seeds: seeds.clone(),
                machines: machines.clone(),
            };
            sim.host(name.clone(), move || worker.clone().run());
        }
        Self { sim, machines, masters, processes, oracle, worker_names, keepers }
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
        self.keepers.step(self.sim.elapsed(), |host| self.machines.boottime(host));
    }

    /// Stops a host as if its plug had been pulled, or only its process killed.
    pub(super) fn crash(&mut self, host: &str, power: bool) {
        tracing::info!(host, power, "crash");
        self.masters.forget(host);
        self.sim.crash(host);
        if power {
            self.keepers.kill(host);
            self.machines.cut_power(host);
        }
    }

    /// Kills the keeper of a worker, and with it all that it holds.
    pub(super) fn kill_keeper(&mut self, host: &str) {
        tracing::info!(host, "the keeper is killed");
        self.keepers.kill(host);
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

    /// Stops the hosts that run though their disk is broken: their nodes may be on the way
    /// down, and it would be too late to start them when they are.
    pub(super) fn stop_what_fails(&mut self) {
        for host in self.hosts() {
            if self.machines.disks(&host).iter().any(SimDisk::is_broken) {
                self.crash(&host, true);
            }
        }
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
struct Host {
    name: String,
    slots: u32,
    seeds: Vec<String>,
    machines: Machines,
}

impl Host {
    async fn run(self) -> turmoil::Result {
        self.machines.enter(&self.name);
        let name = self.name.parse().expect("this is a name");
        let profile = Profile { name, labels: BTreeMap::new(), slots: self.slots };
        let seeds = Arc::new(Seeds::new(self.seeds, ClusterId::NONE));
        let _worker = Worker::start(WorkerOptions::new(self.name, profile, seeds))?;
        std::future::pending().await
    }
}
