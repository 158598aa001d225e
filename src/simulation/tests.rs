//! Many seeds, each in a process of its own: some counters of the libraries live as long as one.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::verdict::{Verdict, judge};

/// Says which seed a process is to run.
const SEED: &str = "QUORATE_SIMULATION_SEED";

/// How many seeds to run, and the first.
const SEEDS: &str = "QUORATE_SIMULATION_SEEDS";
const FIRST: &str = "QUORATE_SIMULATION_FIRST";

/// Seeds that are run where nobody asks for more: two minutes on two slow cores.
const SEEDS_DEFAULT: u64 = 60;

/// What at least one of so many seeds must have met, or they prove nothing.
const DEMANDED: [&str; 18] = [
    "leaders",
    "expiries",
    "registrations",
    "resumptions",
    "stale reports refused",
    "snapshots taken",
    "snapshots installed",
    "purges",
    "storage failures",
    "lease kills",
    "tasks taken over",
    "retries",
    "removals",
    "acknowledged",
    "unknown",
    "repeats answered",
    "cancels",
    "processes",
];

/// Before each line that a seed's process tells.
const MARK: &str = "simulated:";

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("it is a number"))
}

/// One seed, in this process: the one that it was started for, or the first.
#[test]
fn a_seed_keeps_every_promise() {
    let seed = number(SEED).unwrap_or(1);
    let dir = tempfile::tempdir().unwrap();
    let Verdict { violation, hash, lines, simulated, took, counts } = judge(seed, dir.path());
    say(format_args!("\n{MARK} hash {hash}"));
    say(format_args!("{MARK} lines {lines}"));
    say(format_args!("{MARK} simulated {}", simulated.as_millis()));
    say(format_args!("{MARK} took {}", took.as_millis()));
    counts.iter().for_each(|(name, count)| say(format_args!("{MARK} {name} {count}")));
    if let Some(violation) = violation {
        panic!("seed {seed}: {violation}");
    }
}

/// To standard output itself, past the test harness: this is shown also if all is well.
fn say(what: std::fmt::Arguments<'_>) {
    writeln!(std::io::stdout(), "{what}").unwrap();
}

/// What a process tells of its seed.
type Told = BTreeMap<String, u64>;

/// Runs a seed in a new process.
fn run(seed: u64) -> Result<Told, String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "simulation::tests::a_seed_keeps_every_promise"]);
    command.args(["--test-threads=1", "--nocapture"]).env(SEED, seed.to_string());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let panics = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "{panics}\nto see it again: {SEED}={seed} QUORATE_SIMULATION_SHOW=1 cargo test \
             --bin quorate -- --exact simulation::tests::a_seed_keeps_every_promise --nocapture"
        ));
    }
    let told = text.lines().filter_map(|line| line.strip_prefix(MARK)?.rsplit_once(' '));
    Ok(told.map(|(name, count)| (name.trim().to_owned(), count.parse().unwrap())).collect())
}

#[test]
fn the_same_seed_is_the_same_run_in_another_process() {
    for seed in [3, 14] {
        let (one, other) = (run(seed).unwrap(), run(seed).unwrap());
        let same = |name| one[name] == other[name];
        assert!(
            same("hash") && same("lines"),
            "seed {seed} has two traces; does RUSTFLAGS stand in for .cargo/config.toml?"
        );
        assert!(one["lines"] > 10, "a trace that says nothing is equal to any");
    }
}

#[test]
fn many_seeds_keep_every_promise() {
    let (count, first) = (number(SEEDS).unwrap_or(SEEDS_DEFAULT), number(FIRST).unwrap_or(1));
    let (begun, next) = (Instant::now(), AtomicU64::new(first));
    let (told, failed) = (Mutex::new(Told::new()), Mutex::new(Vec::new()));
    let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&seed| seed < first + count);
    let work = || {
        while let Some(seed) = take() {
            match run(seed) {
                Ok(one) => add(&mut told.lock().unwrap(), one),
                Err(failure) => failed.lock().unwrap().push(failure),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let (told, failed) = (told.into_inner().unwrap(), failed.into_inner().unwrap());
    report(count, begun.elapsed(), &told);
    assert!(failed.is_empty(), "{} of {count} seeds failed:\n{}", failed.len(), failed.join("\n"));
    let missed = DEMANDED.iter().find(|name| told.get(**name).is_none_or(|&count| count == 0));
    assert!(missed.is_none() || count < SEEDS_DEFAULT, "no seed met {missed:?}");
}

fn add(sum: &mut Told, one: Told) {
    for (name, count) in one.into_iter().filter(|(name, _)| name != "hash") {
        *sum.entry(name).or_default() += count;
    }
}

fn report(count: u64, took: Duration, told: &Told) {
    let seconds = |name| told.get(name).map_or(0.0, |&ms| Duration::from_millis(ms).as_secs_f64());
    say(format_args!(
        "\n{count} seeds in {:.0} s, {:.1} a second; {:.0} simulated seconds, {:.1} for each \
         second of a core",
        took.as_secs_f64(),
        count as f64 / took.as_secs_f64(),
        seconds("simulated"),
        seconds("simulated") / seconds("took").max(0.001),
    ));
    let counts = told.iter().filter(|(name, _)| *name != "simulated" && *name != "took");
    counts.for_each(|(name, count)| say(format_args!("{count:>9}  {name}")));
}
