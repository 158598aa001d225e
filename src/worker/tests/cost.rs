//! What it costs to contain a task.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use quorate_model::{Containment, DurationMs};

use super::fixture::*;
use super::processes::{lend, note, spawn};
use crate::worker::keeper::{Keeper, Note, Order};
use crate::worker::sys;

/// Tasks of one round.
const STARTS: u64 = 400;

/// Rounds of each kind, in turn, so that a busy machine is so for both.
const ROUNDS: usize = 5;

/// What a task may take more than a plain start of the same program.
const EXTRA_MAX: Duration = Duration::from_micros(500);

/// A `true` that is contained takes little more CPU than one that is not. Measured where
/// nothing else adds to it: in a process of its own.
#[test]
fn to_contain_a_task_costs_little() {
    let program = this_program("worker::tests::cost_process");
    let mut command = Command::new(program.path);
    let output = command.args(program.arguments).arg("--measure").arg("cpu").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let figure = text.lines().find_map(|line| line.split_once("a start takes ")).map(|(_, it)| it);
    let figure = figure.unwrap_or_else(|| panic!("{output:?}"));
    writeln!(std::io::stderr(), "a start takes {figure}").unwrap();
    let numbers = figure.split(' ').filter_map(|word| word.parse().ok());
    let [plain, contained]: [u64; 2] = numbers.collect::<Vec<_>>().try_into().unwrap();
    assert!(plain > 0 && contained > 0, "{figure}");
    let extra = Duration::from_micros(contained.saturating_sub(plain));
    assert!(extra <= EXTRA_MAX, "{figure}");
}

/// Prints the medians of all rounds.
pub(super) fn measure() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut plain, mut contained) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plain.push(cpu_of(|| (0..STARTS).for_each(|_| start_plainly())));
        contained.push(cpu_of(|| runtime.block_on(start_contained())));
    }
    let median = |mut rounds: Vec<Duration>| {
        rounds.sort_unstable();
        rounds[ROUNDS / 2].as_micros() / u128::from(STARTS)
    };
    let (plain, contained) = (median(plain), median(contained));
    let figure = format!("a start takes {plain} µs of CPU, contained {contained} µs");
    writeln!(std::io::stdout(), "{figure}").unwrap();
}

/// What this process and its children that have ended spend on something.
fn cpu_of(work: impl FnOnce()) -> Duration {
    let before = cpu_spent();
    work();
    cpu_spent() - before
}

fn cpu_spent() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace();
    // User and system time of this process, then of its children, in hundredths of a second.
    let ticks: u64 = fields.skip(11).take(4).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}

fn start_plainly() {
    let ((_out, stdout), (_err, stderr)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let mut command = Command::new("/bin/true");
    command.env_clear().stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0);
    assert!(command.status().unwrap().success());
}

async fn start_contained() {
    let dir = tempfile::tempdir().unwrap();
    let mut keeper = Keeper::start(&keeper_program(), dir.path()).unwrap();
    let welcome = note(&mut keeper).await;
    assert!(matches!(welcome, Note::Welcome { containment: Containment::Pidns, .. }));
    assert_eq!(note(&mut keeper).await, Note::Ready);
    lend(&keeper, 10, sys::boottime().after(DurationMs(600_000))).await;
    for key in 0..STARTS {
        spawn(&keeper, key, 10).await;
        let Note::Exited(exit) = note(&mut keeper).await else { panic!() };
        keeper.send(&Order::Forget(vec![exit.key]), &[]).await.unwrap();
    }
    keeper.end().await;
    // It is reaped by a thread, and counts from then on.
    let keeper = dir.path().to_str().unwrap();
    until("it is reaped", || children_of_this().is_empty()).await;
    assert!(processes_with(keeper).is_empty());
}

fn children_of_this() -> String {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let children = |thread: std::fs::DirEntry| {
        std::fs::read_to_string(thread.path().join("children")).unwrap_or_default()
    };
    threads.map(children).collect()
}
