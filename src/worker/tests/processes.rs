//! Processes that die, or stop, at the wrong moment.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use quorate_model::{Containment, DurationMs, Epoch, Json, Outcome, WorkerId};
use serde_json::json;

use super::fixture::*;
use crate::protocol::{FromWorker, ToWorker};
use crate::worker::attempt::memo_of;
use crate::worker::keeper::{Invocation, Keeper, Key, Note, Order, Spawn, Term};
use crate::worker::lease::BootNs;
use crate::worker::{Worker, WorkerHandle, sys};

/// The lease of a [`worker_process`](super::worker_process).
const LEASE: DurationMs = DurationMs(2_000);

/// What a machine that is busy with other tests may take on top of a deadline.
const MARGIN: Duration = Duration::from_secs(1);

/// Runs a worker in `dir` that has one task to do, under a leader that always says yes: what
/// the file `script` in there says.
pub(super) fn be_a_worker(dir: &Path, containment: Containment) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (servers, mut lines) = lines();
        let mut options = options(dir.join("worker"), servers);
        options.keeper.containment = containment;
        let _worker = Worker::start(options).unwrap();
        let mut line = lines.recv().await.unwrap();
        line.next().await;
        let (worker, epoch) = (WorkerId(1), Epoch(10));
        line.say(ToWorker::Registered { worker, epoch, lease: LEASE }).await;
        // Its workspace is lent again.
        line.start(task(dispatch(9, 1, 10), "echo c=1 > $QUORATE_OUTPUT")).await;
        assert!(matches!(line.outcome().await, Outcome::Succeeded { .. }));
        let script = fs::read_to_string(dir.join("script")).unwrap();
        line.start(task(dispatch(0, 1, 11), &script)).await;
        line.keep_up().await;
    });
}

/// A worker that is a process, and whose task runs.
struct WorkerProcess {
    dir: tempfile::TempDir,
    child: Child,
    /// An argument of every process of the task.
    token: String,
}

impl WorkerProcess {
    /// Its task has a child, and a daemon that has nothing to do with it any more: neither
    /// group, nor session, nor environment. All ignore SIGTERM.
    async fn stubborn(containment: Containment) -> Self {
        let token = token();
        let daemon = format!("setsid env -i /bin/sh -c \"trap '' TERM; exec sleep {token}\" &");
        let script = format!("trap '' TERM\nsleep {token} &\n{daemon}\nsleep {token}");
        Self::start(&script, token, 3, containment).await
    }

    async fn start(script: &str, token: String, count: usize, containment: Containment) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("script"), script).unwrap();
        let program = this_program("worker::tests::worker_process");
        let mut command = Command::new(program.path);
        command.args(program.arguments).arg("--worker").arg(dir.path());
        command.arg("--contain").arg(containment.text());
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let process = Self { dir, child, token };
        let what = format!("its task runs in {}", containment.text());
        until(&what, || process.sleepers().len() == count).await;
        process
    }

    /// All that sleep on its behalf.
    fn sleepers(&self) -> Vec<u32> {
        sleepers(&self.token)
    }

    fn any_lives(&self) -> bool {
        !self.sleepers().is_empty()
    }

    fn signal(&self, signal: i32) {
        assert!(sys::signal_process(self.child.id(), signal).unwrap());
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn keeper(&self) -> u32 {
        keeper_in(&self.dir.path().join("worker"))
    }

    /// The worker that comes after it, in this process.
    async fn next(&self) -> (WorkerHandle, Line) {
        let (servers, mut lines) = lines();
        let worker = Worker::start(options(self.dir.path().join("worker"), servers)).unwrap();
        let line = tokio::time::timeout(PATIENCE, lines.recv()).await.unwrap().unwrap();
        (worker, line)
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Accepts that a worker goes on under its old registration.
async fn resume(line: &mut Line) {
    let (worker, epoch) = (WorkerId(1), Epoch(10));
    assert_eq!(line.next().await, Some(FromWorker::Resume { worker, epoch }));
    line.say(ToWorker::Registered { worker, epoch, lease: LEASE }).await;
}

/// The outcome of the task of the script. That of the one before may be told once more.
async fn outcome_of_script(line: &mut Line) -> Outcome {
    loop {
        let (sequence, report) = line.report().await;
        line.say(ToWorker::Recorded { sequence }).await;
        if report.task.index == 0 {
            return report.outcome;
        }
    }
}

/// T14: an agent dies and comes back; its task notices nothing.
#[tokio::test]
async fn the_next_agent_takes_over_what_a_killed_one_had_started() {
    let token = token();
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let script = format!(
        "echo '::output a=1'; echo b=2 > $QUORATE_OUTPUT; sleep {token} & \
         until [ -e {} ]; do sleep 0.01; done; echo '::output c=3'",
        go.display()
    );
    let mut process = WorkerProcess::start(&script, token, 1, Containment::Pidns).await;
    process.kill();
    let (_worker, mut line) = process.next().await;
    resume(&mut line).await;
    assert!(process.any_lives());
    // A leader that does not know better asks again, and nothing happens.
    line.start(task(dispatch(0, 1, 11), "exit 9")).await;
    fs::write(&go, "").unwrap();
    let outputs = Some(Json::new(&json!({ "a": "1", "b": "2", "c": "3" })));
    assert_eq!(outcome_of_script(&mut line).await, Outcome::Succeeded { outputs });
    assert!(!process.any_lives(), "what it left behind dies with it");
    line.start(task(dispatch(1, 1, 12), "true")).await;
    assert_eq!(line.outcome().await, Outcome::Succeeded { outputs: None });
}

/// T10: a task ends while there is no agent.
#[tokio::test]
async fn what_ended_while_no_agent_was_there_is_reported_by_the_next() {
    let token = token();
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let wait = format!("until [ -e {} ]; do sleep 0.01; done", go.display());
    let script = format!("sleep {token} & {wait}; seq 20000; echo '::output a=1'");
    let mut process = WorkerProcess::start(&script, token, 1, Containment::Pidns).await;
    process.kill();
    fs::write(&go, "").unwrap();
    // It prints more than a pipe holds, and waits for the next agent to read on.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (_worker, mut line) = process.next().await;
    resume(&mut line).await;
    let outputs = Some(Json::new(&json!({ "a": "1" })));
    assert_eq!(outcome_of_script(&mut line).await, Outcome::Succeeded { outputs });
}

/// An agent is told of an attempt that has ended and of the next one of the same task, which
/// runs: the end of the first is not taken for the second's, so that it is not begun again.
/// Seed 21 of the simulation came to that.
#[tokio::test]
async fn what_has_ended_of_a_task_does_not_hide_what_runs_of_it() {
    let token = token();
    let dir = tempfile::tempdir().unwrap();
    let [ends, runs_on] = ["ends", "runs-on"].map(|name| dir.path().join(name));
    let until_there = |file: &Path| format!("until [ -e {} ]; do sleep 0.01; done", file.display());
    let first = format!("sleep {token} & {}", until_there(&ends));
    let mut process = WorkerProcess::start(&first, token, 1, Containment::Pidns).await;
    process.kill();
    fs::write(&ends, "").unwrap();
    until("the first attempt has ended", || !process.any_lives()).await;

    // An agent in between, which does not live long enough to have the first one forgotten.
    let worker_dir = process.dir.path().join("worker");
    let mut keeper = Keeper::find_or_start(&keeper_program(), &worker_dir).unwrap();
    while note(&mut keeper).await != Note::Ready {}
    let second = format!("sleep {} & {}", process.token, until_there(&runs_on));
    let argv = ["/bin/sh", "-c", &second].map(str::to_owned).to_vec();
    start(&keeper, 1_000, Epoch(10), argv, memo_of(dispatch(0, 2, 12), 1_000)).await;
    until("the second attempt runs", || process.sleepers().len() == 1).await;
    let runs = process.sleepers();
    drop(keeper);

    let (_worker, mut line) = process.next().await;
    resume(&mut line).await;
    assert_eq!(outcome_of_script(&mut line).await, Outcome::Succeeded { outputs: None });
    // A leader that does not know better asks again, and nothing happens.
    line.start(task(dispatch(0, 2, 12), "exit 9")).await;
    line.start(task(dispatch(1, 1, 13), "true")).await;
    assert_eq!(line.outcome().await, Outcome::Succeeded { outputs: None });
    assert_eq!(process.sleepers(), runs);
    fs::write(&runs_on, "").unwrap();
    let outputs = None;
    assert_eq!(outcome_of_script(&mut line).await, Outcome::Succeeded { outputs });
    assert!(!process.any_lives());
}

/// T7: an agent is killed and does not come back; its tasks end with its lease.
#[tokio::test]
async fn nothing_outlives_the_lease_of_a_killed_agent() {
    for containment in Containment::ALL {
        let mut process = WorkerProcess::stubborn(containment).await;
        let keeper = process.keeper();
        process.kill();
        let killed = Instant::now();
        until("its tasks are killed", || !process.any_lives()).await;
        let taken = killed.elapsed();
        assert!(taken < Duration::from_millis(LEASE.0) + MARGIN, "{containment:?}: {taken:?}");
        until("its keeper ends", || !is_alive(&keeper.to_string())).await;
        let (_worker, mut line) = process.next().await;
        let Some(FromWorker::Register { last, .. }) = line.next().await else { panic!() };
        assert_eq!(last.map(|last| last.epoch), Some(Epoch(10)));
    }
}

/// T6: the agent hangs; the keeper kills the tasks before the lease is over for the leader.
#[tokio::test]
async fn a_stopped_agent_does_not_keep_its_tasks_alive() {
    for containment in Containment::ALL {
        let process = WorkerProcess::stubborn(containment).await;
        process.signal(libc::SIGSTOP);
        let stopped = Instant::now();
        until("its tasks are killed", || !process.any_lives()).await;
        // The last renewal was sent before it was stopped.
        let taken = stopped.elapsed();
        assert!(taken < Duration::from_millis(LEASE.0) + MARGIN, "{containment:?}: {taken:?}");
        process.signal(libc::SIGCONT);
    }
}

/// R8: agent, keeper and task are all stopped; the kernel kills them by itself.
#[tokio::test]
async fn with_everything_stopped_the_kernel_ends_the_tasks_when_the_lease_ends() {
    let process = WorkerProcess::stubborn(Containment::Pidns).await;
    let keeper = process.keeper();
    let mut all = vec![process.child.id(), keeper];
    all.extend(process.sleepers());
    let cells = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
    all.extend(cells.split_ascii_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
    for pid in all {
        assert!(sys::signal_process(pid, libc::SIGSTOP).unwrap());
    }
    let stopped = Instant::now();
    until("its tasks are killed", || !process.any_lives()).await;
    let taken = stopped.elapsed();
    assert!(taken < Duration::from_millis(LEASE.0) + MARGIN, "{taken:?}");
    assert!(!is_alive(&keeper.to_string()));
    process.signal(libc::SIGCONT);
}

/// The keeper is killed while nobody is there to notice: its tasks die with it where the
/// single-execution promise is given.
#[tokio::test]
async fn nothing_outlives_a_killed_keeper() {
    for containment in [Containment::Pidns, Containment::Cgroup] {
        let mut process = WorkerProcess::stubborn(containment).await;
        let keeper = process.keeper();
        process.signal(libc::SIGSTOP);
        process.kill();
        assert!(sys::signal_process(keeper, libc::SIGKILL).unwrap());
        let killed = Instant::now();
        until("its tasks are dead", || !process.any_lives()).await;
        assert!(killed.elapsed() < MARGIN, "{containment:?}: {:?}", killed.elapsed());
    }
}

/// T7: without namespaces and control groups, whoever is stopped when the keeper is killed
/// outlives it; the next keeper finds and kills what carries the mark of the worker.
#[tokio::test]
async fn what_outlives_a_killed_keeper_is_found_before_the_next_worker_registers() {
    let token = token();
    let script = format!("setsid sleep {token} & sleep {token}");
    let mut process = WorkerProcess::start(&script, token, 2, Containment::Pgroup).await;
    let keeper = process.keeper();
    let cell = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
    for pid in cell.split_ascii_whitespace() {
        assert!(sys::signal_process(pid.parse().unwrap(), libc::SIGKILL).unwrap());
    }
    assert!(sys::signal_process(keeper, libc::SIGKILL).unwrap());
    process.signal(libc::SIGSTOP);
    process.kill();
    let (_worker, _line) = process.next().await;
    assert!(!process.any_lives(), "it connects before everything is dead");
}

/// The keeper is killed under a healthy agent: the attempts are lost, the registration is not.
#[tokio::test]
async fn a_killed_keeper_is_replaced_and_its_attempts_are_lost() {
    let (world, mut line) = World::registered(LONG).await;
    line.start(world.noting(dispatch(0, 1, 11), "sleep 73")).await;
    until("it runs", || world.written().len() == 1).await;
    let keeper = keeper_in(&world.worker_dir());
    assert!(sys::signal_process(keeper, libc::SIGKILL).unwrap());
    assert_eq!(line.outcome().await, Outcome::Lost);
    line.start(task(dispatch(0, 2, 12), "true")).await;
    assert_eq!(line.outcome().await, Outcome::Succeeded { outputs: None });
}

/// T29: whatever a task does to get away, nothing of it is left when it is said to be stopped.
#[tokio::test]
async fn a_task_is_stopped_with_all_that_it_has_started() {
    for containment in Containment::ALL {
        let token = token();
        let mut world = World::new_with(LONG, containment);
        let mut line = world.register(None, 10).await;
        let daemon = format!("(setsid env -i /bin/sh -c \"trap '' TERM; sleep {token}\" &)");
        let script = format!("trap '' TERM; {daemon}; sleep {token}");
        let at = dispatch(0, 1, 11);
        line.start(task(at, &script)).await;
        let what = format!("it runs in {}", containment.text());
        until(&what, || sleepers(&token).len() == 2).await;
        line.stop(at).await;
        assert_eq!(line.outcome().await, Outcome::Stopped, "{containment:?}");
        assert_eq!(sleepers(&token), [0; 0], "{containment:?}");

        // One that ends by itself takes its daemons along.
        let at = dispatch(0, 2, 12);
        line.start(task(at, &format!("{daemon}; exit 3"))).await;
        assert_eq!(line.outcome().await, Outcome::Exited { code: 3 }, "{containment:?}");
        assert_eq!(sleepers(&token), [0; 0], "{containment:?}");
    }
}

/// In a namespace, the numbers of processes fit what `/proc` shows.
#[tokio::test]
async fn a_task_sees_its_own_processes() {
    let (_world, mut line) = World::registered(LONG).await;
    let script = "read name < /proc/$$/comm; echo \"::output name=$name\"; \
        echo \"::output count=$(ls /proc | grep -c '^[0-9]*$')\"";
    line.start(task(dispatch(0, 1, 11), script)).await;
    let Outcome::Succeeded { outputs } = line.outcome().await else { panic!() };
    let outputs = outputs.unwrap().value();
    assert_eq!(outputs["name"], "bash");
    let count: u32 = outputs["count"].as_str().unwrap().parse().unwrap();
    assert!(count < 10, "{count}");
}

/// R6, once more where it counts: the keeper looks at the lease when it starts a task.
#[tokio::test]
async fn a_keeper_starts_nothing_without_a_lease_that_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut keeper = start_keeper(&dir).await;
    let refused = |key| Note::Refused { key: Key(key), reason: "the lease is over".to_owned() };
    spawn(&keeper, 1, 10).await;
    assert_eq!(note(&mut keeper).await, refused(1), "no lease yet");

    let now = sys::boottime();
    lend(&keeper, 10, now.after(LONG)).await;
    spawn(&keeper, 2, 9).await;
    assert_eq!(note(&mut keeper).await, refused(2), "another epoch");
    spawn(&keeper, 3, 10).await;
    assert!(matches!(note(&mut keeper).await, Note::Exited(exit) if exit.key == Key(3)));

    lend(&keeper, 10, now.after(DurationMs(200))).await;
    let over = Note::Over { epoch: Epoch(10) };
    assert_eq!(note(&mut keeper).await, over);
    spawn(&keeper, 4, 10).await;
    assert_eq!(note(&mut keeper).await, refused(4), "it has ended");
    lend(&keeper, 10, now.after(LONG)).await;
    assert_eq!(note(&mut keeper).await, over, "what has ended is not revived");
    spawn(&keeper, 5, 10).await;
    assert_eq!(note(&mut keeper).await, refused(5), "what has ended is not revived");
    lend(&keeper, 11, now.after(LONG)).await;
    spawn(&keeper, 6, 11).await;
    assert!(matches!(note(&mut keeper).await, Note::Exited(exit) if exit.key == Key(6)));
    keeper.end().await;
}

/// What is said to be given back is not taken up again by an agent that comes after a crash:
/// the leader may have given it away by then.
#[tokio::test]
async fn a_later_agent_does_not_go_on_under_a_registration_that_was_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let keeper = start_keeper(&dir).await;
    lend(&keeper, 10, sys::boottime().after(LONG)).await;
    drop(keeper);
    let mut next = Keeper::find_or_start(&keeper_program(), dir.path()).unwrap();
    let Note::Welcome { term, .. } = note(&mut next).await else { panic!() };
    assert_eq!(term.map(|term| term.epoch), Some(Epoch(10)));
    next.send(&Order::Revoke, &[]).await.unwrap();
    drop(next);
    // By that one, or by the next: it is not needed any more, and may be about to end.
    let (last, welcome) = loop {
        let mut last = Keeper::find_or_start(&keeper_program(), dir.path()).unwrap();
        if let Ok(Some((welcome, _))) = last.next().await {
            break (last, welcome);
        }
    };
    assert!(matches!(welcome, Note::Welcome { term: None, .. }), "{welcome:?}");
    last.end().await;
}

/// And it is not in the hands of the keeper any more by the time that it is said: an agent that
/// is killed in that moment is followed by one that asks the keeper.
#[tokio::test]
async fn what_a_worker_says_that_it_gives_back_its_keeper_does_not_hold() {
    let (mut world, mut line) = World::registered(LONG).await;
    let worker = world.worker.take().unwrap();
    let stopping = tokio::spawn(worker.stop(Duration::ZERO));
    // The first word may be overtaken by the last, where nothing runs.
    let mut said = line.next().await;
    if said == Some(FromWorker::Leaving) {
        said = line.next().await;
    }
    assert_eq!(said, Some(FromWorker::Release));
    let mut next = Keeper::find_or_start(&keeper_program(), &world.worker_dir()).unwrap();
    let welcome = note(&mut next).await;
    assert!(matches!(welcome, Note::Welcome { term: None, .. }), "{welcome:?}");
    drop((next, line));
    stopping.await.unwrap();
}

/// Ten thousand tasks leave nothing behind: no process, no descriptor, no memory worth a word.
#[tokio::test]
async fn a_keeper_does_not_grow_with_what_it_starts() {
    const STARTS: u64 = 10_000;
    const AT_ONCE: u64 = 4;
    let dir = tempfile::tempdir().unwrap();
    let mut keeper = start_keeper(&dir).await;
    lend(&keeper, 10, sys::boottime().after(DurationMs(600_000))).await;
    let pid = keeper_in(dir.path());
    let mut before = None;
    for key in 0..STARTS {
        spawn(&keeper, key, 10).await;
        if key < AT_ONCE {
            continue;
        }
        let Note::Exited(exit) = note(&mut keeper).await else { panic!() };
        keeper.send(&Order::Forget(vec![exit.key]), &[]).await.unwrap();
        if key == STARTS / 10 {
            before = Some(footprint(pid));
        }
    }
    let (files, children, memory_kib) = footprint(pid);
    let (files_before, children_before, memory_before) = before.unwrap();
    assert!(files <= files_before + 2 * AT_ONCE, "{files_before} files, then {files}");
    assert!(children <= children_before.max(AT_ONCE + 1), "{children_before}, then {children}");
    assert!(memory_kib <= memory_before + 1_024, "{memory_before} KiB, then {memory_kib}");
    keeper.end().await;
}

/// Descriptors, children, and resident memory in KiB of a process.
fn footprint(pid: u32) -> (u64, u64, u64) {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = memory.trim().trim_end_matches(" kB").parse().unwrap();
    (files, children.split_ascii_whitespace().count() as u64, memory)
}

async fn start_keeper(dir: &tempfile::TempDir) -> Keeper {
    let program = keeper_program();
    let mut keeper = Keeper::start(&program, dir.path()).unwrap();
    let welcome = note(&mut keeper).await;
    let Note::Welcome { term: None, .. } = welcome else { panic!("{welcome:?}") };
    assert_eq!(note(&mut keeper).await, Note::Ready);
    keeper
}

pub(super) async fn note(keeper: &mut Keeper) -> Note {
    tokio::time::timeout(PATIENCE, keeper.next()).await.unwrap().unwrap().unwrap().0
}

pub(super) async fn lend(keeper: &Keeper, epoch: u64, deadline: BootNs) {
    let (worker, epoch, warning) = (WorkerId(1), Epoch(epoch), deadline);
    let term = Term { worker, epoch, span: LONG, warning, deadline };
    keeper.send(&Order::Lease(term), &[]).await.unwrap();
}

/// Asks for a task that does nothing.
pub(super) async fn spawn(keeper: &Keeper, key: u64, epoch: u64) {
    start(keeper, key, Epoch(epoch), vec!["/bin/true".to_owned()], Vec::new()).await;
}

/// Asks for a task that does what `argv` says.
async fn start(keeper: &Keeper, key: u64, epoch: Epoch, argv: Vec<String>, memo: Vec<u8>) {
    let program = Invocation { argv, env: Vec::new(), directory: "/".to_owned() };
    let (key, forget) = (Key(key), Vec::new());
    let ((read, write), other) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let fds = [write.as_fd(), other.1.as_fd(), read.as_fd(), other.0.as_fd()];
    let spawn = Spawn { key, epoch, program, memo, forget };
    keeper.send(&Order::Start(spawn), &fds).await.unwrap();
}

/// The keeper of the worker in a directory: it is told that, and it leads a session.
fn keeper_in(dir: &Path) -> u32 {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let dir = dir.to_str().unwrap();
    let mut keepers = processes_with(dir);
    // Its cells have the same arguments; they are its children.
    let parents: Vec<_> = keepers.iter().map(|pid| (*pid, parent(*pid))).collect();
    keepers.retain(|pid| {
        let parent = parents.iter().find(|(child, _)| child == pid).unwrap().1;
        !parents.iter().any(|(pid, _)| *pid == parent)
    });
    assert_eq!(keepers.len(), 1, "one keeper in {dir}");
    keepers[0]
}

fn parent(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_ascii_whitespace().nth(1).and_then(|pid| pid.parse().ok()).unwrap_or(0)
}
