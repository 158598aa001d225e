//! Carries out what was planned, and says of each fault whether it came about.
//!
//! The nemesis knows no more than a person at the machines would: which processes it started,
//! and what they say of themselves.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::deed::{Deed, Outcome};
use super::plan::{Fault, Part, Round, Who};
use super::tools::{Clocks, Quota, Tracer};
use crate::harness::disk::Disk;
use crate::harness::network::processes_in;
use crate::harness::node::{Process, signal};
use crate::harness::seed::Seed;
use crate::harness::switch::Link;
use crate::harness::wait::within;
use crate::harness::{Cluster, Request, SOON};

/// Between two looks at what is under way.
const STEP: Duration = Duration::from_millis(20);

/// What a node whose storage failed exits with: see `quorate help exit-codes`.
const STORAGE_FAILED: i32 = 10;

/// How long a node whose disk has failed may live on.
const FAIL_STOP: Duration = Duration::from_secs(5);

/// How to end a fault.
#[derive(Debug)]
enum Undo {
    Nothing,
    /// Start these hosts' processes again.
    Start(Vec<usize>),
    /// SIGCONT to one that was stopped.
    Thaw(usize),
    /// SIGCONT to processes that are not ours.
    Continue(Vec<u32>),
    /// Heal links.
    Join(BTreeSet<(u8, u8)>),
    /// Let the sun shine.
    Clear,
    /// Look at what a failed sync did, and start the node again.
    AfterSyncError(usize, Tracer),
    /// Stop making syncs slow.
    Hasten(Tracer),
    /// Plug the disk in again, and start the node.
    Replug(usize),
    /// Make room, and start the node if it went down.
    Empty(usize, PathBuf),
    /// Put a clock right.
    SetRight(usize),
    /// Give the CPU back.
    Lift(Quota),
}

/// A fault under way.
#[derive(Debug)]
struct Ongoing {
    deed: usize,
    until: Instant,
    undo: Undo,
    /// When links are next cut or healed, for one that comes and goes.
    flap: Option<(Instant, Duration)>,
}

/// A fault that could not be begun.
struct NotDone(Outcome);

impl NotDone {
    fn skipped(why: impl Into<String>) -> Self {
        Self(Outcome::Skipped(why.into()))
    }

    fn unclear(why: impl Into<String>) -> Self {
        Self(Outcome::Indeterminate(why.into()))
    }
}

/// What makes the trouble.
#[derive(Debug)]
pub(super) struct Nemesis<'a> {
    cluster: &'a mut Cluster,
    disks: &'a [Disk],
    clocks: Result<&'a Clocks, String>,
    chance: Seed,
    began: Instant,
    /// Hosts that something is done to now.
    busy: BTreeSet<usize>,
    cuts: BTreeSet<(u8, u8)>,
    weather: Link,
    deeds: Vec<Deed>,
    /// What a node did that it must not do under a fault.
    wrongs: Vec<String>,
}

impl<'a> Nemesis<'a> {
    /// A nemesis of a cluster whose nodes lie on `disks`, if there are any.
    pub(super) fn new(
        cluster: &'a mut Cluster,
        disks: &'a [Disk],
        clocks: Result<&'a Clocks, String>,
        chance: Seed,
    ) -> Self {
        Self {
            cluster,
            disks,
            clocks,
            chance,
            began: Instant::now(),
            busy: BTreeSet::new(),
            cuts: BTreeSet::new(),
            weather: Link::default(),
            deeds: Vec::new(),
            wrongs: Vec::new(),
        }
    }

    /// Carries out a round, and leaves the cluster alone for a while.
    pub(super) fn play(&mut self, round: &Round) {
        let mut ongoing: Vec<Ongoing> = Vec::new();
        for planned in &round.faults {
            let at = self.began.elapsed();
            let (begun, hit_leader) = self.begin(&planned.fault);
            let (outcome, undo) = match begun {
                Ok(undo) => (Outcome::Installed, undo),
                Err(NotDone(outcome)) => (outcome, Undo::Nothing),
            };
            self.deeds.push(Deed { at, planned: *planned, outcome, hit_leader });
            let flap = planned.fault.period().map(|period| (Instant::now() + period, period));
            let (deed, until) = (self.deeds.len() - 1, Instant::now() + planned.lasts);
            ongoing.push(Ongoing { deed, until, undo, flap });
        }
        while let Some(next) = ongoing.iter().map(|one| one.until).min() {
            self.flap(&mut ongoing);
            if next > Instant::now() {
                thread::sleep(STEP.min(next - Instant::now()));
                continue;
            }
            let (over, still) = ongoing.into_iter().partition(|one| one.until <= next);
            ongoing = still;
            for Ongoing { deed, undo, .. } in over {
                if let Err(NotDone(outcome)) = self.end(undo) {
                    self.deeds[deed].outcome = outcome;
                }
            }
        }
        self.busy.clear();
        thread::sleep(round.rest);
        self.find_the_fallen();
    }

    /// Whoever ended by itself, though nothing was wrong with its disk, must not have.
    fn find_the_fallen(&mut self) {
        for host in 0..self.hosts() {
            if let Some(status) = self.process(host).exited(Duration::ZERO) {
                let tail = self.process(host).log_tail();
                self.wrongs.push(format!("a process ended by itself: {status}\n{tail}"));
                self.start(&[host]);
            }
        }
    }

    /// Ends whatever may still be wrong; answers what was done, and what nodes did wrong.
    pub(super) fn finish(mut self) -> (Vec<Deed>, Vec<String>) {
        self.cuts.clear();
        self.weather = Link::default();
        self.draw_links();
        self.find_the_fallen();
        let down: Vec<usize> = (0..self.hosts()).filter(|&at| !self.process(at).is_up()).collect();
        self.start(&down);
        (self.deeds, self.wrongs)
    }

    fn hosts(&self) -> usize {
        self.cluster.nodes.len() + self.cluster.workers.len()
    }

    fn process(&mut self, host: usize) -> &mut Process {
        let nodes = self.cluster.nodes.len();
        match host.checked_sub(nodes) {
            None => &mut self.cluster.nodes[host],
            Some(worker) => &mut self.cluster.workers[worker],
        }
    }

    /// The host of whoever's turn it is, which nothing else is done to; whether it leads.
    fn victim(&mut self, who: Who) -> Result<(usize, bool), NotDone> {
        let leader = self.cluster.leader();
        let host = match who {
            Who::Leader => leader.unwrap_or_else(|| self.chance.below(self.cluster.nodes.len())),
            Who::Node(node) => node,
            Who::Worker(worker) => self.cluster.nodes.len() + worker,
        };
        if !self.busy.insert(host) {
            return Err(NotDone::skipped("something else is done to its victim"));
        }
        Ok((host, leader == Some(host)))
    }

    fn begin(&mut self, fault: &Fault) -> (Result<Undo, NotDone>, bool) {
        let who = match *fault {
            Fault::Kill(who)
            | Fault::KillHost(who)
            | Fault::Pause(who, _)
            | Fault::Cut(who, ..)
            | Fault::PowerCut(who)
            | Fault::SyncError(who, _)
            | Fault::DiskGone(who)
            | Fault::SlowSync(who, _)
            | Fault::DiskFull(who)
            | Fault::ClockJump(who, _)
            | Fault::CpuQuota(who, _) => who,
            Fault::Replace(node) => Who::Node(node),
            Fault::Transfer => return (self.transfer(), true),
            Fault::RollingRestart => return (self.restart_all(), true),
            Fault::KillAll => return (self.kill_all(), true),
            Fault::PowerCutAll => {
                let all: Vec<usize> = (0..self.cluster.nodes.len()).collect();
                return (self.cut_power(&all), true);
            }
            Fault::Weather(link) => {
                self.weather = link;
                self.draw_links();
                return (Ok(Undo::Clear), false);
            }
        };
        match self.victim(who) {
            Ok((host, leads)) => (self.harm(fault, host), leads),
            Err(not_done) => (Err(not_done), false),
        }
    }

    fn harm(&mut self, fault: &Fault, host: usize) -> Result<Undo, NotDone> {
        match *fault {
            Fault::Kill(_) => {
                self.process(host).kill();
                Ok(Undo::Start(vec![host]))
            }
            Fault::KillHost(_) => {
                self.process(host).power_off();
                Ok(Undo::Start(vec![host]))
            }
            Fault::Pause(_, part) => self.pause(host, part),
            Fault::Cut(_, shape, _) => {
                let links = shape.links(
                    number(host),
                    number(self.cluster.nodes.len()),
                    number(self.hosts()),
                );
                self.cuts.extend(&links);
                self.draw_links();
                Ok(Undo::Join(links))
            }
            Fault::PowerCut(_) => self.cut_power(&[host]),
            Fault::SyncError(_, nth) => {
                let tracer = self.trace(host, &format!("error=EIO:when={nth}"))?;
                Ok(Undo::AfterSyncError(host, tracer))
            }
            Fault::SlowSync(_, delay) => {
                let how = format!("delay_enter={}", delay.as_micros());
                Ok(Undo::Hasten(self.trace(host, &how)?))
            }
            Fault::DiskGone(_) => {
                self.disk(host)?.pull().map_err(|error| NotDone::skipped(error.to_string()))?;
                Ok(Undo::Replug(host))
            }
            Fault::DiskFull(_) => {
                let ballast = self.disk(host)?.fill();
                Ok(Undo::Empty(host, ballast.map_err(|error| NotDone::unclear(error.to_string()))?))
            }
            Fault::ClockJump(_, seconds) => self.set_clock(host, seconds),
            Fault::CpuQuota(_, percent) => {
                let processes = self.processes(host);
                Quota::limit(&processes, percent).map(Undo::Lift).map_err(NotDone::skipped)
            }
            Fault::Replace(_) => self.replace(host),
            Fault::KillAll
            | Fault::PowerCutAll
            | Fault::Weather(_)
            | Fault::Transfer
            | Fault::RollingRestart => unreachable!("these have no single victim"),
        }
    }

    fn end(&mut self, undo: Undo) -> Result<(), NotDone> {
        match undo {
            Undo::Nothing => Ok(()),
            Undo::Start(hosts) => {
                self.start(&hosts);
                Ok(())
            }
            Undo::Thaw(host) => {
                self.process(host).thaw();
                Ok(())
            }
            Undo::Continue(processes) => {
                // Those that were killed meanwhile are no loss.
                signal("CONT", &processes);
                Ok(())
            }
            Undo::Join(links) => {
                self.cuts.retain(|link| !links.contains(link));
                self.draw_links();
                Ok(())
            }
            Undo::Clear => {
                self.weather = Link::default();
                self.draw_links();
                Ok(())
            }
            Undo::AfterSyncError(host, tracer) => self.after_sync_error(host, &tracer),
            Undo::Hasten(tracer) => match tracer.hits() {
                0 => Err(NotDone::unclear("nothing was synced meanwhile")),
                _ => Ok(()),
            },
            Undo::Replug(host) => self.replug(host),
            Undo::Empty(host, ballast) => {
                let emptied = std::fs::remove_file(ballast);
                self.reap(host);
                self.start_if_down(host);
                emptied.map_err(|error| NotDone::unclear(error.to_string()))
            }
            Undo::SetRight(host) => self.set_clock(host, 0).map(drop),
            Undo::Lift(quota) => {
                drop(quota);
                Ok(())
            }
        }
    }

    fn flap(&mut self, ongoing: &mut [Ongoing]) {
        for one in ongoing {
            let (Some((next, period)), Undo::Join(links)) = (&mut one.flap, &one.undo) else {
                continue;
            };
            if *next <= Instant::now() {
                *next += *period;
                match links.is_subset(&self.cuts) {
                    true => self.cuts.retain(|link| !links.contains(link)),
                    false => self.cuts.extend(links),
                }
                self.draw_links();
            }
        }
    }

    /// Applies cuts and weather to the switch. Clients are spared the weather.
    fn draw_links(&self) {
        let Some(network) = &self.cluster.network else { return };
        for from in 0..=network.tester() {
            for to in 0..=network.tester() {
                let outside = from == network.tester() || to == network.tester();
                let link = match (self.cuts.contains(&(from, to)), outside) {
                    (true, _) => Link::CUT,
                    (false, true) => Link::default(),
                    (false, false) => self.weather,
                };
                network.set(from, to, link);
            }
        }
    }

    fn disk(&self, host: usize) -> Result<&'a Disk, NotDone> {
        self.disks.get(host).ok_or_else(|| NotDone::skipped("it has no disk of its own"))
    }

    fn processes(&mut self, host: usize) -> Vec<u32> {
        let namespace = self.process(host).setup.namespace.clone();
        namespace.map(|namespace| processes_in(&namespace)).unwrap_or_default()
    }

    fn pause(&mut self, host: usize, part: Part) -> Result<Undo, NotDone> {
        if part == Part::Agent {
            self.process(host).freeze();
            return Ok(Undo::Thaw(host));
        }
        let on_host = self.processes(host);
        let mut found: Vec<u32> = match part {
            Part::Task => {
                let tasks = self.cluster.ledger.processes_left();
                tasks.into_iter().filter(|pid| on_host.contains(pid)).collect()
            }
            Part::Agent | Part::Keeper => {
                on_host.into_iter().filter(|&pid| is_keeper(pid)).collect()
            }
        };
        if found.is_empty() {
            return Err(NotDone::skipped("no such process runs there"));
        }
        if part == Part::Task {
            found = vec![found[self.chance.below(found.len())]];
        }
        match signal("STOP", &found) {
            true => Ok(Undo::Continue(found)),
            false => {
                signal("CONT", &found);
                Err(NotDone::unclear("it has just ended"))
            }
        }
    }

    fn kill_all(&mut self) -> Result<Undo, NotDone> {
        let all: Vec<usize> = (0..self.hosts()).collect();
        all.iter().for_each(|&host| self.process(host).kill());
        Ok(Undo::Start(self.chance.shuffled(&all)))
    }

    /// Leaves of the disks what had been synced, and of the hosts nothing.
    fn cut_power(&mut self, hosts: &[usize]) -> Result<Undo, NotDone> {
        let disks = hosts.iter().map(|&host| self.disk(host)).collect::<Result<Vec<_>, _>>()?;
        hosts.iter().for_each(|&host| self.process(host).freeze());
        let frames: Result<Vec<_>, _> = disks.iter().map(|disk| disk.freeze_frame()).collect();
        let frames = match frames {
            Ok(frames) => frames,
            Err(why) => {
                hosts.iter().for_each(|&host| self.process(host).thaw());
                return Err(NotDone::skipped(why));
            }
        };
        for ((&host, disk), frame) in hosts.iter().zip(disks).zip(&frames) {
            self.process(host).power_off();
            let restored = within(SOON, || disk.restore(frame).ok());
            assert!(restored.is_some(), "the disk of host {host} can be taken out");
        }
        Ok(Undo::Start(hosts.to_vec()))
    }

    fn trace(&mut self, host: usize, how: &str) -> Result<Tracer, NotDone> {
        let folder = self.cluster.folder().to_owned();
        let pid = self.process(host).pid().ok_or_else(|| NotDone::skipped("it is down"))?;
        Tracer::attach(pid, how, &folder).map_err(NotDone::skipped)
    }

    /// A failed sync must have ended the node.
    fn after_sync_error(&mut self, host: usize, tracer: &Tracer) -> Result<(), NotDone> {
        let hit = within(FAIL_STOP, || (tracer.hits() > 0).then_some(())).is_some();
        let ended = self.process(host).exited(if hit { FAIL_STOP } else { Duration::ZERO });
        let code = ended.and_then(|status| status.code());
        if hit && code != Some(STORAGE_FAILED) {
            let name = &self.process(host).setup.name.clone();
            self.wrongs.push(format!("I16: a sync of {name} failed, and it exited with {code:?}"));
        }
        self.process(host).kill();
        self.start(&[host]);
        if hit { Ok(()) } else { Err(NotDone::unclear("nothing was synced meanwhile")) }
    }

    fn replug(&mut self, host: usize) -> Result<(), NotDone> {
        let ended = self.process(host).exited(FAIL_STOP).is_some();
        self.process(host).power_off();
        let disk = self.disk(host)?;
        let mounted = within(SOON, || disk.replug().ok());
        assert!(mounted.is_some(), "the disk of host {host} can be plugged in again");
        self.start(&[host]);
        // One that was cut off from all work has nothing to write.
        if ended { Ok(()) } else { Err(NotDone::unclear("it wrote nothing meanwhile")) }
    }

    fn set_clock(&mut self, host: usize, seconds: i64) -> Result<Undo, NotDone> {
        let name = self.process(host).setup.name.clone();
        let clocks = self.clocks.clone().map_err(NotDone::skipped)?;
        clocks.set(&name, seconds).map_err(|error| NotDone::skipped(error.to_string()))?;
        Ok(Undo::SetRight(host))
    }

    fn transfer(&mut self) -> Result<Undo, NotDone> {
        let request = Request::post("/v1/cluster/leader").json(&serde_json::json!({}));
        match self.cluster.client.try_ask(&request, SOON) {
            Ok(answer) if answer.is_ok() => Ok(Undo::Nothing),
            Ok(answer) => Err(NotDone::skipped(answer.text())),
            Err(last) => Err(NotDone::unclear(last)),
        }
    }

    fn restart_all(&mut self) -> Result<Undo, NotDone> {
        for host in 0..self.cluster.nodes.len() {
            if !self.process(host).is_up() {
                return Err(NotDone::skipped("a node is down"));
            }
            let name = self.process(host).setup.name.clone();
            if self.process(host).try_terminate().is_none() {
                self.wrongs.push(format!("{name} does not stop when it is asked to"));
            }
            self.start(&[host]);
            let voters = self.cluster.nodes.len();
            within(SOON, || self.cluster.sees_voters(host, voters).then_some(()));
        }
        Ok(Undo::Nothing)
    }

    /// Removes a node for good and starts a fresh one in its place.
    fn replace(&mut self, host: usize) -> Result<Undo, NotDone> {
        let view = self.cluster.view(host);
        let id = view.and_then(|view| view["node"].as_u64());
        let id = id.ok_or_else(|| NotDone::skipped("it does not say who it is"))?;
        let living = (0..self.cluster.nodes.len())
            .find(|&node| node != host && self.cluster.view(node).is_some())
            .ok_or_else(|| NotDone::skipped("nobody else answers"))?;
        let request = Request::new("DELETE", format!("/v1/cluster/members/{id}"));
        match self.cluster.client.try_ask(&request, SOON) {
            // Asked again after an answer that got lost, there is no such member any more.
            Ok(answer) if answer.is_ok() || answer.status == 404 => {}
            Ok(answer) => return Err(NotDone::skipped(answer.text())),
            Err(last) => return Err(NotDone::unclear(last)),
        }
        let join = self.process(living).address().to_string();
        let process = self.process(host);
        process.power_off();
        let home = process.setup.home.clone();
        std::fs::remove_dir_all(&home).map_err(|error| NotDone::unclear(error.to_string()))?;
        process.setup.join(join);
        self.start(&[host]);
        let voters = self.cluster.nodes.len();
        within(SOON, || self.cluster.sees_voters(host, voters).then_some(()));
        Ok(Undo::Nothing)
    }

    /// Notices whether a process has ended by itself.
    fn reap(&mut self, host: usize) {
        let _ = self.process(host).exited(Duration::ZERO);
    }

    fn start_if_down(&mut self, host: usize) {
        if !self.process(host).is_up() {
            self.start(&[host]);
        }
    }

    /// Starts processes. One that does not come back is wrong, whatever was done to it.
    fn start(&mut self, hosts: &[usize]) {
        for &host in hosts {
            if let Err(said) = self.process(host).try_restart() {
                let name = self.process(host).setup.name.clone();
                self.wrongs.push(format!("{name} does not come back: {said}"));
            }
        }
    }
}

fn number(count: usize) -> u8 {
    u8::try_from(count).expect("a test has few hosts")
}

fn is_keeper(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(b"keeper")
}
