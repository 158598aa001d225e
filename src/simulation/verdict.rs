//! One seed, from the first fault to the verdict.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use quorate_model::RunId;
use quorate_raft::machine;

use super::cluster::Cluster;
use super::dice::Dice;
use super::faults::Nemesis;
use super::invariants::Invariants;
use super::machines::Machines;
use super::trace::Trace;

/// How long anything may go wrong, in milliseconds.
const DANGER_MS: std::ops::RangeInclusive<u64> = 10_000..=40_000;

/// How long, once all is well, nothing may begin or end while something is left to do: the
/// longest task, the longest wait for a retry and the longest lease come to less.
const STALL_MAX: Duration = Duration::from_secs(30);

/// How long the last order of an operator may take: longer than anybody waits for one.
const ORDERS_MAX: Duration = Duration::from_secs(10);

/// How long after the first quiet second a cluster that is well may be without a leader.
const LEADER_MAX: Duration = Duration::from_secs(15);

/// What came of a seed.
#[derive(Debug)]
pub(super) struct Verdict {
    /// What was violated, if anything.
    pub(super) violation: Option<String>,
    /// Equal for equal seeds.
    pub(super) hash: u64,
    pub(super) lines: u64,
    pub(super) simulated: Duration,
    pub(super) took: Duration,
    pub(super) counts: BTreeMap<&'static str, u64>,
}

/// Runs a seed in the empty directory `dir`.
pub(super) fn judge(seed: u64, dir: &Path) -> Verdict {
    std::env::set_current_dir(dir).expect("the directory is there");
    let begun = Instant::now();
    let mut dice = Dice::new(seed);
    let machines = Machines::new(dice.roll());
    let (trace, _guard) = Trace::start(&machines);
    machine::simulate(Rc::new(machines.clone()));
    let mut cluster = Cluster::new(dice.roll(), machines, &mut dice);
    let mut run = Run { invariants: Invariants::default(), nemesis: None };
    let outcome = run.go(&mut cluster, &mut dice);
    let (hash, lines) = trace.hash();
    let mut counts = trace.counts();
    let asked = cluster.oracle.counts();
    counts.extend([
        ("terms", run.invariants.terms() as u64),
        ("processes", cluster.processes.begun()),
        ("acknowledged", asked.acknowledged),
        ("unknown", asked.unknown),
        ("failed for certain", asked.refused),
        ("repeats answered", asked.replayed),
        ("cancels", asked.cancels),
    ]);
    Verdict {
        violation: outcome.err().map(|what| format!("{what} (at {:?})", cluster.sim.elapsed())),
        hash,
        lines,
        simulated: cluster.sim.elapsed(),
        took: begun.elapsed(),
        counts,
    }
}

struct Run {
    invariants: Invariants,
    nemesis: Option<Nemesis>,
}

impl Run {
    fn go(&mut self, cluster: &mut Cluster, dice: &mut Dice) -> Result<(), String> {
        let end = cluster.sim.elapsed() + dice.ms(DANGER_MS);
        let begin = dice.ms(0..=4_000);
        self.nemesis = Some(Nemesis::new(Dice::new(dice.roll()), begin));
        while cluster.sim.elapsed() < end {
            self.step(cluster)?;
        }
        cluster.masters.close();
        let mut nemesis = self.nemesis.take().expect("it was set above");
        nemesis.heal(cluster);
        self.wait(cluster, ORDERS_MAX, "the end of the last order", |cluster| {
            cluster.masters.are_left_alone()
        })?;
        // What was stopped or removed by an order that was under way.
        nemesis.heal(cluster);
        tracing::info!("all is put right");
        self.wait(cluster, LEADER_MAX, "a leader", |cluster| {
            cluster.masters.nodes().values().any(|node| node.leadership().borrow().leads)
        })?;
        nemesis.cripple(cluster);
        let mut left = cluster.oracle.acknowledged();
        while !left.is_empty() {
            let before = (left.len(), cluster.processes.begun());
            let what = format!("the end of one of {} runs", left.len());
            self.wait(cluster, STALL_MAX, &what, |cluster| {
                let nodes = cluster.masters.nodes();
                let ended = |&run: &RunId| nodes.values().any(|node| has_ended(node, run));
                left.retain(|run| !ended(run));
                (left.len(), cluster.processes.begun()) != before
            })?;
        }
        Ok(())
    }

    fn step(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        cluster.step();
        if let Some(nemesis) = &mut self.nemesis {
            nemesis.step(cluster);
        }
        self.invariants.check(cluster)
    }

    fn wait(
        &mut self,
        cluster: &mut Cluster,
        most: Duration,
        what: &str,
        mut is_so: impl FnMut(&Cluster) -> bool,
    ) -> Result<(), String> {
        let deadline = cluster.sim.elapsed() + most;
        let mut ticks: u64 = 0;
        while !ticks.is_multiple_of(50) || !is_so(cluster) {
            if cluster.sim.elapsed() > deadline {
                return Err(format!("{what} did not come within {most:?}"));
            }
            self.step(cluster)?;
            ticks += 1;
        }
        Ok(())
    }
}

fn has_ended(node: &quorate_raft::Node, run: RunId) -> bool {
    let live = node.with_state(|state| state.runs().get(&run).map(|run| run.has_ended()));
    live.unwrap_or_else(|| node.history().get(run).is_ok_and(|found| found.is_some()))
}
