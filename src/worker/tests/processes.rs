//! Processes that die, or stop, at the wrong moment.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use quorate_model::{DurationMs, Epoch, Outcome, WorkerId};

use super::fixture::*;
use crate::protocol::ToWorker;
use crate::worker::keeper::{Keeper, Key, Note, Order, Spawn};
use crate::worker::lease::BootNs;
use crate::worker::{Worker, sys};

/// The lease of a [`worker_process`](super::worker_process).
const LEASE: DurationMs = DurationMs(2_000);

/// Runs a worker in `dir` that has one task to do, for ever, under a leader that always says
/// yes.
pub(super) fn be_a_worker(dir: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (servers, mut lines) = lines();
        let _worker = Worker::start(options(dir.join("worker"), servers)).unwrap();
        let mut line = lines.recv().await.unwrap();
        line.next().await;
        let (worker, epoch) = (WorkerId(1), Epoch(10));
        line.say(ToWorker::Registered { worker, epoch, lease: LEASE }).await;
        let note = format!("echo $$ >> {0}/pids; sleep 71 & echo $! >> {0}/pids", dir.display());
        let setsid = format!("setsid sh -c 'echo $$ >> {}/pids; exec sleep 72' &", dir.display());
        let script = format!("trap '' TERM; {note}; {setsid} while :; do sleep 0.05; done");
        line.start(task(dispatch(0, 1, 11), &script)).await;
        line.keep_up().await;
    });
}

/// A worker that is a process, and whose task runs.
struct WorkerProcess {
    dir: tempfile::TempDir,
    child: Child,
    pids: Vec<String>,
}

impl WorkerProcess {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = this_program("worker::tests::worker_process");
        let mut command = Command::new(program.path);
        command.args(program.arguments).arg("--worker").arg(dir.path()).stderr(Stdio::null());
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let file = dir.path().join("pids");
        until("its task runs", || lines_of(&file).len() == 3).await;
        let pids = lines_of(&file);
        Self { dir, child, pids }
    }

    fn any_lives(&self) -> bool {
        self.pids.iter().any(|pid| is_alive(pid))
    }

    fn signal(&self, signal: i32) {
        assert!(sys::signal_process(self.child.id(), signal).unwrap());
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// T7: the agent is killed; the keeper kills the tasks, whatever group they are in.
#[tokio::test]
async fn nothing_outlives_a_killed_agent_and_the_next_one_waits_for_that() {
    let mut process = WorkerProcess::start().await;
    assert!(process.any_lives());
    process.child.kill().unwrap();
    process.child.wait().unwrap();

    let (servers, mut lines) = lines();
    let _worker = Worker::start(options(process.dir.path().join("worker"), servers)).unwrap();
    let _line = tokio::time::timeout(PATIENCE, lines.recv()).await.unwrap();
    assert!(!process.any_lives(), "it connects before everything is dead");
}

/// T6: the agent hangs; the keeper kills the tasks before the lease is over for the leader.
#[tokio::test]
async fn a_stopped_agent_does_not_keep_its_tasks_alive() {
    let process = WorkerProcess::start().await;
    process.signal(libc::SIGSTOP);
    let stopped = Instant::now();
    until("its tasks are killed", || !process.any_lives()).await;
    // The last renewal was sent before it was stopped.
    let margin = Duration::from_secs(1);
    assert!(stopped.elapsed() < Duration::from_millis(LEASE.0) + margin, "{:?}", stopped.elapsed());
    process.signal(libc::SIGCONT);
}

/// T7: agent and keeper are killed both, and nobody is left to kill; the next keeper does.
#[tokio::test]
async fn what_outlives_a_killed_keeper_is_found_before_the_next_worker_registers() {
    let mut process = WorkerProcess::start().await;
    let keeper = keeper_of(process.child.id());
    process.signal(libc::SIGSTOP);
    assert!(sys::signal_process(keeper, libc::SIGKILL).unwrap());
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    assert!(process.any_lives(), "orphans");

    let (servers, mut lines) = lines();
    let _worker = Worker::start(options(process.dir.path().join("worker"), servers)).unwrap();
    let _line = tokio::time::timeout(PATIENCE, lines.recv()).await.unwrap();
    assert!(!process.any_lives(), "it connects before everything is dead");
}

/// The keeper is killed under a healthy agent: the attempts are lost, the registration is not.
#[tokio::test]
async fn a_killed_keeper_is_replaced_and_its_attempts_are_lost() {
    let (world, mut line) = World::registered(LONG).await;
    let pids = world.path("pids");
    line.start(task(dispatch(0, 1, 11), &format!("echo $$ > {pids}; sleep 73"))).await;
    until("it runs", || lines_of(pids.as_ref()).len() == 1).await;
    let marker = world.worker_dir().canonicalize().unwrap();
    let keeper = process_with_argument(marker.to_str().unwrap());
    assert!(sys::signal_process(keeper, libc::SIGKILL).unwrap());
    assert_eq!(line.outcome().await, Outcome::Lost);
    assert!(!is_alive(&lines_of(pids.as_ref())[0]));
    line.start(task(dispatch(0, 2, 12), "true")).await;
    assert_eq!(line.outcome().await, Outcome::Succeeded { outputs: None });
}

/// R6, once more where it counts: the keeper looks at the lease when it starts a task.
#[tokio::test]
async fn a_keeper_starts_nothing_without_a_lease_that_holds() {
    let dir = tempfile::tempdir().unwrap();
    let program = this_program("worker::tests::keeper_process");
    let mut keeper = Keeper::start(&program, dir.path()).unwrap();
    assert_eq!(note(&mut keeper).await, Note::Ready);
    let over = "the lease is over".to_owned();
    spawn(&keeper, &dir, 1, 10).await;
    let refused = |key| Note::Refused { key: Key(key), reason: over.clone() };
    assert_eq!(note(&mut keeper).await, refused(1), "no lease yet");

    let now = sys::boottime();
    lend(&keeper, 10, now.after(DurationMs(60_000))).await;
    spawn(&keeper, &dir, 2, 9).await;
    assert_eq!(note(&mut keeper).await, refused(2), "another epoch");
    spawn(&keeper, &dir, 3, 10).await;
    assert!(matches!(note(&mut keeper).await, Note::Exited(exit) if exit.key == Key(3)));

    lend(&keeper, 10, now).await;
    spawn(&keeper, &dir, 4, 10).await;
    assert_eq!(note(&mut keeper).await, refused(4), "it has ended");
    lend(&keeper, 10, now.after(DurationMs(60_000))).await;
    spawn(&keeper, &dir, 5, 10).await;
    assert_eq!(note(&mut keeper).await, refused(5), "what has ended is not revived");
    lend(&keeper, 11, now.after(DurationMs(60_000))).await;
    spawn(&keeper, &dir, 6, 11).await;
    assert!(matches!(note(&mut keeper).await, Note::Exited(exit) if exit.key == Key(6)));
}

async fn note(keeper: &mut Keeper) -> Note {
    tokio::time::timeout(PATIENCE, keeper.next()).await.unwrap().unwrap().unwrap()
}

async fn lend(keeper: &Keeper, epoch: u64, deadline: BootNs) {
    let order = Order::Lease { epoch: Epoch(epoch), warning: deadline, deadline };
    keeper.send(&order, &[]).await.unwrap();
}

/// Asks for a task that does nothing.
async fn spawn(keeper: &Keeper, dir: &tempfile::TempDir, key: u64, epoch: u64) {
    let spawn = Spawn {
        key: Key(key),
        epoch: Epoch(epoch),
        argv: vec!["/bin/true".to_owned()],
        env: Vec::new(),
        directory: "/".to_owned(),
        marker: dir.path().join("output").to_str().unwrap().to_owned(),
    };
    let ((_out, stdout), (_err, stderr)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    keeper.send(&Order::Start(spawn), &[stdout.as_fd(), stderr.as_fd()]).await.unwrap();
}

fn keeper_of(agent: u32) -> u32 {
    let children = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).ok();
    let tasks = fs::read_dir(format!("/proc/{agent}/task")).unwrap().flatten();
    let children: Vec<_> = tasks.filter_map(children).collect();
    children.join(" ").split_ascii_whitespace().next().unwrap().parse().unwrap()
}

/// The process that was told this, as its last argument.
fn process_with_argument(argument: &str) -> u32 {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let suffix = format!("\0{argument}\0");
    let is_it = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| text.ends_with(suffix.as_bytes()))
    };
    pids.find(is_it).expect("there is a keeper")
}
