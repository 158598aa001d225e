//! What goes wrong, and when: chosen by the seed from the menu, one fault over another.

use std::time::Duration;

use super::cluster::Cluster;
use super::dice::Dice;
use super::master::Order;

/// Between the beginnings of two faults, in milliseconds.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 200..=4_000;

/// How long a fault lasts, in milliseconds: some longer than any lease.
const LASTS_MS: [u64; 6] = [100, 400, 1_000, 2_500, 5_000, 12_000];

/// How far a wall clock is set wrong, in seconds.
const CLOCK_JUMPS_S: [i64; 4] = [-3_600, -60, 60, 3_600];

/// Something to be put right.
#[derive(Debug)]
struct Fault {
    until: Duration,
    cure: Cure,
}

#[derive(Debug)]
enum Cure {
    /// Links that drop messages, or hold them back.
    Links(Vec<(String, String)>),
    /// Links that are cut and mended again and again.
    Flapping {
        links: Vec<(String, String)>,
        is_cut: bool,
        next: Duration,
    },
    /// Links that are slow.
    Slow(Vec<(String, String)>),
    Start(String),
    /// A host that was removed from the cluster, to come back as a new one.
    Anew(String),
    FastDisk(String),
    WallClock(String),
}

/// The one that does it.
pub(super) struct Nemesis {
    dice: Dice,
    next: Duration,
    faults: Vec<Fault>,
    /// Chances of each kind, so that each seed has an emphasis of its own.
    weights: Vec<(Kind, u64)>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Network(Disturbance),
    CrashMaster,
    CrashAllMasters,
    KillWorker,
    KillKeeper,
    SlowDisk,
    BrokenDisk,
    WallClock,
    Transfer,
    Remove,
    Shutdown,
}

/// What may happen to links.
#[derive(Clone, Copy, Debug)]
enum Disturbance {
    /// Two groups do not hear each other.
    Halves,
    /// One host is not heard by some, or does not hear them.
    OneWay,
    /// Two groups hear each other only through one host that is in both.
    Bridge,
    /// Each master hears its neighbours only.
    Ring,
    /// Two groups hear each other now and then.
    Flapping,
    /// Between two groups everything comes late, and at once.
    Hold,
    /// Between two groups everything takes long, and comes out of order.
    Slow,
}

const KINDS: [Kind; 17] = [
    Kind::Network(Disturbance::Halves),
    Kind::Network(Disturbance::OneWay),
    Kind::Network(Disturbance::Bridge),
    Kind::Network(Disturbance::Ring),
    Kind::Network(Disturbance::Flapping),
    Kind::Network(Disturbance::Hold),
    Kind::Network(Disturbance::Slow),
    Kind::CrashMaster,
    Kind::CrashAllMasters,
    Kind::KillWorker,
    Kind::KillKeeper,
    Kind::SlowDisk,
    Kind::BrokenDisk,
    Kind::WallClock,
    Kind::Transfer,
    Kind::Remove,
    Kind::Shutdown,
];

impl Nemesis {
    pub(super) fn new(mut dice: Dice, begin: Duration) -> Self {
        let weights = KINDS.map(|kind| (kind, dice.pick(&[0, 1, 1, 4]))).to_vec();
        Self { dice, next: begin, faults: Vec::new(), weights }
    }

    /// Does what is due, good and bad.
    pub(super) fn step(&mut self, cluster: &mut Cluster) {
        let now = cluster.sim.elapsed();
        self.cure_due(cluster, now);
        self.flap(cluster, now);
        for name in cluster.masters.removed() {
            let until = now + self.dice.ms(100..=3_000);
            self.faults.push(Fault { until, cure: Cure::Anew(name) });
        }
        if now >= self.next {
            self.next = now + self.dice.ms(PAUSE_MS);
            self.strike(cluster, now);
        }
    }

    /// Puts everything right.
    pub(super) fn heal(&mut self, cluster: &mut Cluster) {
        let now = cluster.sim.elapsed();
        cluster.stop_what_fails();
        self.faults.iter_mut().for_each(|fault| fault.until = now);
        self.cure_due(cluster, now);
        cluster.masters.removed().iter().for_each(|host| cluster.replace(host));
        for host in cluster.hosts() {
            cluster.start(&host);
        }
    }

    /// Leaves faults for good that a cluster must be able to live with: a minority of the
    /// masters, and all workers but one, are dead, deaf or dumb.
    pub(super) fn cripple(&mut self, cluster: &mut Cluster) {
        let mut masters = cluster.masters.names.clone();
        let mut workers = cluster.worker_names.clone();
        let minority = if cluster.masters.are_all_voters() { (masters.len() - 1) / 2 } else { 0 };
        let mut lost = Vec::new();
        for (names, most) in [(&mut masters, minority), (&mut workers, workers_lost_max(cluster))] {
            for _ in 0..self.dice.within(0..=most as u64) {
                lost.push(names.remove(self.dice.index(names.len())));
            }
        }
        for host in lost {
            let state = self.dice.pick(&["dead", "deaf", "dumb"]);
            tracing::info!(host, state, "for good");
            for other in cluster.hosts().iter().filter(|other| **other != host) {
                match state {
                    "deaf" => cluster.sim.partition_oneway(other.as_str(), host.as_str()),
                    "dumb" => cluster.sim.partition_oneway(host.as_str(), other.as_str()),
                    _ => {}
                }
            }
            if state == "dead" {
                cluster.crash(&host, true);
            }
        }
    }

    fn cure_due(&mut self, cluster: &mut Cluster, now: Duration) {
        for fault in self.faults.extract_if(.., |fault| fault.until <= now) {
            match fault.cure {
                Cure::Links(links) | Cure::Flapping { links, .. } => mend(cluster, &links),
                Cure::Slow(links) => set_latency(cluster, &links, Duration::from_millis(5)),
                Cure::Start(host) => cluster.start(&host),
                Cure::Anew(host) => cluster.replace(&host),
                Cure::FastDisk(host) => {
                    let disks = cluster.machines.disks(&host);
                    disks.iter().for_each(|disk| disk.slow_down(Duration::ZERO));
                }
                Cure::WallClock(host) => cluster.machines.set_wall_clock(&host, 0),
            }
        }
    }

    fn flap(&mut self, cluster: &mut Cluster, now: Duration) {
        for fault in &mut self.faults {
            let Cure::Flapping { links, is_cut, next } = &mut fault.cure else { continue };
            if *next > now {
                continue;
            }
            *is_cut = !*is_cut;
            *next = now + self.dice.ms(20..=800);
            if *is_cut {
                cut(cluster, links);
            } else {
                mend(cluster, links);
            }
        }
    }

    fn strike(&mut self, cluster: &mut Cluster, now: Duration) {
        let total: u64 = self.weights.iter().map(|(_, weight)| weight).sum();
        if total == 0 {
            return;
        }
        let mut at = self.dice.within(0..=total - 1);
        let kind = self.weights.iter().find(|(_, weight)| {
            let found = at < *weight;
            at = at.saturating_sub(*weight);
            found
        });
        let Some(&(kind, _)) = kind else { return };
        let until = now + Duration::from_millis(self.dice.pick(&LASTS_MS));
        tracing::info!(?kind, until = until.as_secs_f64(), "fault");
        let cures = self.inflict(kind, cluster, now);
        self.faults.extend(cures.into_iter().map(|cure| Fault { until, cure }));
    }

    fn inflict(&mut self, kind: Kind, cluster: &mut Cluster, now: Duration) -> Vec<Cure> {
        let names = cluster.masters.names.clone();
        let master = names[self.dice.index(names.len())].clone();
        match kind {
            Kind::Network(how) => vec![self.disturb(how, cluster, now)],
            Kind::CrashMaster => {
                cluster.crash(&master, true);
                vec![Cure::Start(master)]
            }
            Kind::CrashAllMasters => {
                names.iter().for_each(|name| cluster.crash(name, true));
                names.into_iter().map(Cure::Start).collect()
            }
            Kind::KillWorker => {
                let worker =
                    cluster.worker_names[self.dice.index(cluster.worker_names.len())].clone();
                cluster.crash(&worker, self.dice.percent(50));
                vec![Cure::Start(worker)]
            }
            Kind::KillKeeper => {
                let worker = self.dice.index(cluster.worker_names.len());
                let worker = cluster.worker_names[worker].clone();
                cluster.kill_keeper(&worker);
                Vec::new()
            }
            Kind::SlowDisk => {
                let by = self.dice.ms(10..=900);
                cluster.machines.disks(&master).iter().for_each(|disk| disk.slow_down(by));
                vec![Cure::FastDisk(master)]
            }
            Kind::BrokenDisk => {
                let after = self.dice.within(0..=20);
                cluster.machines.disks(&master).iter().for_each(|disk| disk.fail_after(after));
                vec![Cure::Start(master)]
            }
            Kind::WallClock => {
                cluster.machines.set_wall_clock(&master, self.dice.pick(&CLOCK_JUMPS_S));
                vec![Cure::WallClock(master)]
            }
            Kind::Transfer => {
                cluster.masters.order(&master, Order::Transfer);
                Vec::new()
            }
            Kind::Remove => {
                let other = names[self.dice.index(names.len())].clone();
                if other != master && names.len() >= 3 {
                    cluster.masters.order(&master, Order::Remove(other));
                }
                Vec::new()
            }
            Kind::Shutdown => {
                cluster.masters.order(&master, Order::Shutdown);
                vec![Cure::Start(master)]
            }
        }
    }

    /// Disturbs the network.
    fn disturb(&mut self, how: Disturbance, cluster: &mut Cluster, now: Duration) -> Cure {
        let links = self.links(how, cluster);
        match how {
            Disturbance::OneWay => {
                let outward = self.dice.percent(50);
                for (a, b) in &links {
                    let (from, to) = if outward { (a, b) } else { (b, a) };
                    cluster.sim.partition_oneway(from.as_str(), to.as_str());
                }
                Cure::Links(links)
            }
            Disturbance::Hold => {
                links.iter().for_each(|(a, b)| cluster.sim.hold(a.as_str(), b.as_str()));
                Cure::Links(links)
            }
            Disturbance::Slow => {
                set_latency(cluster, &links, self.dice.ms(20..=700));
                Cure::Slow(links)
            }
            Disturbance::Flapping => Cure::Flapping { links, is_cut: false, next: now },
            Disturbance::Halves | Disturbance::Bridge | Disturbance::Ring => {
                cut(cluster, &links);
                Cure::Links(links)
            }
        }
    }

    /// The links that are concerned.
    fn links(&mut self, how: Disturbance, cluster: &Cluster) -> Vec<(String, String)> {
        let hosts = cluster.hosts();
        let group = self.dice.some(&(0..hosts.len()).collect::<Vec<_>>());
        let one = self.dice.index(hosts.len());
        let masters = cluster.masters.names.len();
        let are_apart = |a: usize, b: usize| group.contains(&a) != group.contains(&b);
        let is_concerned = |a: usize, b: usize| match how {
            Disturbance::OneWay => a == one && b != one && group.contains(&b),
            Disturbance::Bridge => a < b && a != one && b != one && are_apart(a, b),
            Disturbance::Ring => a < b && b < masters && b - a > 1 && b - a < masters - 1,
            Disturbance::Halves | Disturbance::Flapping | Disturbance::Hold | Disturbance::Slow => {
                a < b && are_apart(a, b)
            }
        };
        let pairs = (0..hosts.len()).flat_map(|a| (0..hosts.len()).map(move |b| (a, b)));
        let pairs = pairs.filter(|&(a, b)| is_concerned(a, b));
        pairs.map(|(a, b)| (hosts[a].clone(), hosts[b].clone())).collect()
    }
}

/// How many workers may be lost.
fn workers_lost_max(cluster: &Cluster) -> usize {
    cluster.worker_names.len() - 1
}

fn cut(cluster: &mut Cluster, links: &[(String, String)]) {
    links.iter().for_each(|(a, b)| cluster.sim.partition(a.as_str(), b.as_str()));
}

/// Lets links work again, and lets go of what they held back.
fn mend(cluster: &mut Cluster, links: &[(String, String)]) {
    for (a, b) in links {
        cluster.sim.release(a.as_str(), b.as_str());
        cluster.sim.repair(a.as_str(), b.as_str());
    }
}

fn set_latency(cluster: &mut Cluster, links: &[(String, String)], to: Duration) {
    for (a, b) in links {
        cluster.sim.set_link_max_message_latency(a.as_str(), b.as_str(), to);
    }
}
