//! Nodes are killed or frozen at random under load, and the judge looks at all that came of it.
//!
//! `scripts/chaos` runs the same for longer; the seed it prints repeats its choices.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::client::Client;
use crate::harness::cluster::folder;
use crate::harness::node::Process;
use crate::harness::seed::Seed;
use crate::harness::{Cluster, Gate, Options, Request, compulsory};
use crate::judge::{History, Mark, Observation, Verdict, judge};
use crate::load::{StopOnDrop, submit_on};
use crate::tasks::{failing, task};
use crate::verdict::seen;

/// How long to go on, in seconds; for `scripts/chaos`.
const SECONDS: &str = "QUORATE_TESTS_CHAOS_SECONDS";

/// DAGs that run at once.
const DAGS: usize = 20;

/// Between two faults.
const HARM_EVERY: Duration = Duration::from_secs(2);

/// A DAG with a fan-out, a join and sometimes a task that fails at first; some 0.2 to 1 s.
fn dag(seed: &mut Seed) -> String {
    let mut tasks = vec![task("first", &[], seed.below(6))];
    let width = 1 + seed.below(3);
    let branches: Vec<String> = (0..width).map(|branch| format!("branch{branch}")).collect();
    for branch in &branches {
        tasks.push(match seed.below(4) {
            0 => failing(branch, &["first"], 1, 2),
            _ => task(branch, &["first"], seed.below(10)),
        });
    }
    let branches: Vec<&str> = branches.iter().map(String::as_str).collect();
    tasks.push(task("join", &branches, seed.below(6)));
    tasks.concat()
}

/// Looks at the tasks of recent runs through every node, at whatever it has applied.
fn watch(
    client: &Client,
    nodes: &[SocketAddr],
    mut seed: Seed,
    stop: &AtomicBool,
) -> Vec<Observation> {
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let runs = client.acknowledged();
        let recent = &runs[runs.len().saturating_sub(DAGS)..];
        if recent.is_empty() {
            thread::sleep(Duration::from_millis(20));
            continue;
        }
        let run = &recent[seed.below(recent.len())];
        let node = nodes[seed.below(nodes.len())];
        let request = Request::get(format!("/v1/runs/{run}/tasks?stale=true&limit=1000"))
            .patience(Duration::from_millis(300));
        if let Ok(response) = request.send(node)
            && response.is_ok()
        {
            let index = response.header("quorate-index").and_then(|index| index.parse().ok());
            let index = index.expect("a run was changed by some entry");
            let items = response.json()["items"].take();
            let tasks = items.as_array().into_iter().flatten();
            seen.extend(tasks.map(|task| observed(index, run, task)));
        }
        thread::sleep(Duration::from_millis(2));
    }
    seen
}

fn observed(index: u64, run: &str, task: &Value) -> Observation {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Observation {
        index,
        run: run.to_owned(),
        task: text(&task["id"]),
        state: text(&task["state"]),
        attempts: task["attempts_begun"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
    }
}

/// What is done to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// SIGKILL, and started again within a second.
    Kill,
    /// SIGSTOP for up to twice its lease, then SIGCONT.
    Freeze,
}

/// What was done to the cluster.
#[derive(Debug, Default)]
struct Harm {
    faults: usize,
    leaders: usize,
}

/// Harms a node every two seconds, one at a time.
fn harm_on(cluster: &mut Cluster, fault: Fault, seed: &mut Seed, deadline: Instant) -> Harm {
    let mut harm = Harm::default();
    while Instant::now() < deadline {
        let next = Instant::now() + HARM_EVERY;
        let (chance, leader) = (seed.below(cluster.nodes.len()), cluster.leader());
        // Every third at least is a leader: chance alone can pass it by.
        let victim = leader.filter(|_| harm.faults % 3 == 1).unwrap_or(chance);
        harm.faults += 1;
        harm.leaders += usize::from(leader == Some(victim));
        match fault {
            // Alone it leaves its tasks to the next process; some die with all that they had.
            Fault::Kill => {
                match harm.faults % 3 {
                    0 => cluster.nodes[victim].power_off(),
                    _ => cluster.nodes[victim].kill(),
                }
                thread::sleep(Duration::from_millis(100 * seed.below(8) as u64));
                cluster.nodes[victim].restart();
            }
            Fault::Freeze => {
                cluster.nodes[victim].freeze();
                thread::sleep(Duration::from_millis(100 * seed.below(40) as u64));
                cluster.nodes[victim].thaw();
            }
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    harm
}

/// Runs DAGs on three nodes and harms these meanwhile; answers what is known in the end.
#[track_caller]
fn history_of(fault: Fault, duration: Duration, seed: &mut Seed) -> History {
    let options = Options { slots: 12, ..Options::default() };
    let mut cluster = Cluster::start_in(Gate::alone(), folder(), 3, &options);
    let addresses: Vec<SocketAddr> = cluster.nodes.iter().map(Process::address).collect();
    let (client, stop) = (cluster.client.clone(), AtomicBool::new(false));
    let (harm, observations) = thread::scope(|scope| {
        let (client, stop) = (&client, &stop);
        for _ in 0..DAGS {
            let mut seed = Seed::new(seed.below(1 << 30) as u64);
            scope.spawn(move || submit_on(client, || dag(&mut seed), stop));
        }
        let (watched, chance) = (&addresses, seed.clone());
        let watcher = scope.spawn(move || watch(client, watched, chance, stop));
        let stopping = StopOnDrop(stop);
        let harm = harm_on(&mut cluster, fault, seed, Instant::now() + duration);
        drop(stopping);
        (harm, watcher.join().expect("the watcher does not panic"))
    });

    cluster.await_voters(3);
    cluster.await_quiet();
    let mut history = cluster.history();
    history.observations = observations;
    // A node may take a while to be back, and a frozen one is frozen for up to four seconds.
    let faults = usize::try_from(duration.as_secs() / 4).unwrap_or(usize::MAX);
    history.coverage = vec![
        seen("faults", harm.faults, faults),
        seen("leaders harmed", harm.leaders, 1),
        seen("attempts lost with their workers", history.losses(), 1),
        seen("runs", history.runs.len(), DAGS),
        seen("looks at tasks", history.observations.len(), 50),
    ];
    history
}

#[track_caller]
fn lose_and_double_nothing(fault: Fault, seconds: u64) {
    let mut seed = Seed::choose();
    let given = std::env::var(SECONDS).ok().and_then(|text| text.parse().ok());
    let seconds = given.unwrap_or(seconds);
    let history = history_of(fault, Duration::from_secs(seconds), &mut seed);
    let verdict = judge(&history);
    let covered = history.coverage.iter().map(|one| format!("{} {}", one.seen, one.what));
    let line = format!(
        "{fault:?} for {seconds} s, {}: {}, {} starts: {verdict}\n",
        seed.repeat(),
        covered.collect::<Vec<_>>().join(", "),
        history.ledger.iter().filter(|line| line.mark == Mark::Began).count(),
    );
    drop(std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()));
    assert_eq!(verdict, Verdict::Pass, "{}\n{verdict}", seed.repeat());
}

#[test]
fn nodes_killed_at_random_under_load_lose_and_double_nothing() {
    lose_and_double_nothing(Fault::Kill, if compulsory() { 30 } else { 16 });
}

#[test]
fn nodes_frozen_at_random_under_load_lose_and_double_nothing() {
    lose_and_double_nothing(Fault::Freeze, if compulsory() { 24 } else { 12 });
}
