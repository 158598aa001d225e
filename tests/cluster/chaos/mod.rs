//! Faults, composed from a seed, under load; and the judge looks at all that came of it.
//!
//! `scripts/chaos` runs the same for longer; the seed it prints repeats its choices.

mod deed;
mod nemesis;
mod plan;
mod shape;
mod tools;
mod workload;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::cluster::folder;
use crate::harness::disk::Disk;
use crate::harness::network::Network;
use crate::harness::node::Process;
use crate::harness::seed::Seed;
use crate::harness::{Cluster, Gate, Options, compulsory, skip};
use crate::judge::{Coverage, History, Mark, Verdict, judge};
use crate::load::StopOnDrop;
use crate::verdict::seen;
use crate::verify::verify;
use deed::{Deed, Outcome, tally};
use nemesis::Nemesis;
use plan::{Choice, Kind, Plan};
use tools::Clocks;
use workload::{CLIENTS, watch, work};

/// How long to go on, in seconds; for `scripts/chaos`.
const SECONDS: &str = "QUORATE_TESTS_CHAOS_SECONDS";

/// The kinds of faults to choose from, with commas; for `scripts/chaos`.
const FAULTS: &str = "QUORATE_TESTS_CHAOS_FAULTS";

/// A file for the verdict; for `scripts/chaos`.
const VERDICT: &str = "QUORATE_TESTS_CHAOS_VERDICT";

/// Nodes with a vote.
const NODES: usize = 3;

/// Workers without one.
const WORKERS: usize = 2;

/// Before the first fault and after the last, work goes on undisturbed for so long, and
/// must.
const CALM: Duration = Duration::from_secs(3);

/// Attempts that must begin in a calm second.
const STARTS_PER_CALM_SECOND: usize = 2;

/// What was done, and what is known after it.
#[derive(Debug)]
struct Story {
    seed: Seed,
    lasted: Duration,
    deeds: Vec<Deed>,
    history: History,
    verdict: Verdict,
}

/// The choices of a test: those of the environment, or its own.
fn given<T>(name: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(read(&text).unwrap_or_else(|| panic!("{name} cannot be {text:?}")))
}

/// Disks for the nodes, or none and why: the faults that need them are skipped then.
fn disks(place: &Path) -> Result<Vec<Disk>, String> {
    (0..NODES).map(|number| Disk::create(place, &format!("disk{number}"))).collect()
}

/// Harms a cluster at work, heals it, waits until all is done, and judges.
#[track_caller]
fn play(network: Network, seed: &Seed, lasts: Duration, kinds: &[Choice]) -> Story {
    let began = Instant::now();
    let place = folder();
    // Declared before the cluster: what is mounted goes after what uses it.
    let disks = disks(place.path()).unwrap_or_default();
    let clocks = Clocks::create(place.path());
    let homes = disks.iter().map(|disk| disk.folder().join("data")).collect();
    let env = clocks.as_ref().map(Clocks::env).unwrap_or_default();
    let options = Options { slots: 4, homes, env, ..Options::default() };
    let mut cluster = Cluster::start_nodes(Gate::alone(), folder(), Some(network), NODES, &options);
    for worker in 0..WORKERS {
        cluster.start_worker(&format!("w{worker}"), &["--slots", "4"]);
    }
    let addresses: Vec<SocketAddr> = cluster.nodes.iter().map(Process::address).collect();
    let (client, stop) = (cluster.client.clone(), AtomicBool::new(false));
    let mut plan = Plan::new(seed.clone(), kinds, NODES, WORKERS);
    let mut chance = seed.clone();
    let (deeds, wrongs, calm, looks) = thread::scope(|scope| {
        let (client, stop) = (&client, &stop);
        for _ in 0..CLIENTS {
            let chance = Seed::new(chance.below(1 << 30) as u64);
            scope.spawn(move || work(client, chance, stop));
        }
        let (watched, at_random) = (&addresses, chance.clone());
        let watcher = scope.spawn(move || watch(client, watched, at_random, stop));
        let stopping = StopOnDrop(stop);
        let before = calm(&cluster);
        let until = Instant::now() + lasts;
        let mut nemesis =
            Nemesis::new(&mut cluster, &disks, clocks.as_ref().map_err(Clone::clone), chance);
        while Instant::now() < until {
            nemesis.play(&plan.next());
        }
        let (deeds, wrongs) = nemesis.finish();
        cluster.await_voters(NODES);
        let after = calm(&cluster);
        drop(stopping);
        (deeds, wrongs, [before, after], watcher.join().expect("the watcher does not panic"))
    });

    cluster.await_voters(NODES);
    cluster.await_quiet();
    let mut history = cluster.history();
    history.observations = looks.tasks;
    if deeds.iter().any(|deed| matches!(deed.planned.fault.kind(), Kind::Clock)) {
        // Entries bear the time of the leader, and no later one goes back: once a clock was put
        // forward, the log may be ahead of the ledger.
        let tasks = history.runs.iter_mut().flat_map(|run| run.tasks.values_mut());
        tasks.flat_map(|task| &mut task.attempts).for_each(|attempt| attempt.assigned_ms = 0);
    }
    let (refuted, proven) = verify(&mut cluster);
    history.wrongs = [wrongs, refuted].concat();
    history.coverage = coverage(&history, &deeds, calm, looks.terms.len(), lasts);
    history.coverage.push(seen("proofs by verify", proven, NODES + 1));
    let verdict = judge(&history);
    Story { seed: seed.clone(), lasted: began.elapsed(), deeds, history, verdict }
}

/// Lets the cluster work in peace; answers how many attempts began.
fn calm(cluster: &Cluster) -> usize {
    let starts = || cluster.ledger.lines().iter().filter(|line| line.mark == Mark::Began).count();
    let before = starts();
    thread::sleep(CALM);
    starts() - before
}

/// J13: what must have been seen for a pass to mean anything.
fn coverage(
    history: &History,
    deeds: &[Deed],
    [before, after]: [usize; 2],
    terms: usize,
    lasts: Duration,
) -> Vec<Coverage> {
    let of = |column: usize| tally(deeds).values().map(|counts| counts[column]).sum::<usize>();
    let seconds = usize::try_from(lasts.as_secs()).unwrap_or(usize::MAX);
    let needed = STARTS_PER_CALM_SECOND * usize::try_from(CALM.as_secs()).unwrap_or(usize::MAX);
    let mut coverage = vec![
        // One that could not be had here is no fault of the test; one that may not have bitten is.
        seen("faults installed of those not skipped", of(0), (of(0) + of(2)).div_ceil(2)),
        seen("faults installed", of(0), seconds / 15),
        seen("starts before the first fault", before, needed),
        seen("starts after the last fault", after, needed),
        seen("runs", history.runs.len(), CLIENTS),
        seen("looks at tasks", history.observations.len(), 50),
    ];
    // Twice may hit a worker that has nothing to do, or a node in the moment before it leads.
    let done = || deeds.iter().filter(|deed| deed.outcome == Outcome::Installed);
    if done().filter(|deed| deed.planned.fault.takes_tasks()).count() > 2 {
        coverage.push(seen("attempts lost with their workers", history.losses(), 1));
    }
    if done().filter(|deed| deed.hit_leader && deed.planned.fault.unseats()).count() > 2 {
        coverage.push(seen("terms with a leader", terms, 2));
    }
    coverage
}

impl Story {
    /// Everything that a person wants to know, the verdict last and on one line.
    fn tell(&self) -> String {
        let mut lines: Vec<String> = self.deeds.iter().map(ToString::to_string).collect();
        for (kind, [installed, skipped, unclear]) in tally(&self.deeds) {
            lines.push(format!(
                "{:<12} {installed:>3} installed {skipped:>3} skipped {unclear:>3} indeterminate",
                kind.word()
            ));
        }
        for Coverage { what, seen, needed } in &self.history.coverage {
            lines.push(format!("{seen:>6} {what} (of {needed} needed)"));
        }
        if self.verdict != Verdict::Pass {
            lines.push(self.verdict.to_string());
        }
        lines.push(self.line());
        lines.join("\n") + "\n"
    }

    /// The verdict with its counts.
    fn line(&self) -> String {
        let word = match &self.verdict {
            Verdict::Pass => "pass".to_owned(),
            Verdict::Fail(reasons) => format!("VIOLATION ({})", reasons.len()),
            Verdict::Unknown(reasons) => format!("unknown ({})", reasons.len()),
        };
        let installed: Vec<String> = tally(&self.deeds)
            .into_iter()
            .map(|(kind, [installed, ..])| format!("{installed} {}", kind.word()))
            .collect();
        let starts = self.history.ledger.iter().filter(|line| line.mark == Mark::Began).count();
        format!(
            "{word}: {}, {:.0} s, {} runs, {starts} starts, {} lost attempts; faults: {}",
            self.seed.repeat(),
            self.lasted.as_secs_f64(),
            self.history.runs.len(),
            self.history.losses(),
            installed.join(", "),
        )
    }
}

#[test]
fn faults_composed_at_random_lose_and_double_nothing() {
    let network = match Network::create(u8::try_from(NODES + WORKERS).expect("they are few")) {
        Ok(network) => network,
        Err(reason) => return skip(&reason),
    };
    let seed = Seed::choose();
    let seconds = given(SECONDS, |text| text.parse().ok());
    let seconds = seconds.unwrap_or_else(|| if compulsory() { 90 } else { 25 });
    let kinds = given(FAULTS, Kind::list).unwrap_or_else(Kind::all);
    let story = play(network, &seed, Duration::from_secs(seconds), &kinds);
    let told = story.tell();
    drop(std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes()));
    if let Ok(path) = std::env::var(VERDICT) {
        std::fs::write(path, story.line()).expect("the verdict can be written");
    }
    assert_eq!(story.verdict, Verdict::Pass, "{}", story.line());
}
