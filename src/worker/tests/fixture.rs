//! The leader that a test plays, and what it needs to see.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use quorate_api::backend::{Chunk, Read, ReadError, ReadFrom};
use quorate_model::command::ReportTask;
use quorate_model::{
    Attempt, Containment, Dispatch, DurationMs, Epoch, FencingToken, Json, Outcome, RunId,
    StopReason, TaskId, WorkerId,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::protocol::{FromWorker, StartTask, ToWorker};
use crate::worker::{Link, Profile, Program, Servers, Worker, WorkerHandle, WorkerOptions};

/// The longest that any test waits for something that must come.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A lease that does not matter.
pub(super) const LONG: DurationMs = DurationMs(60_000);

/// What follows `flag` on the command line, if this process was started with it.
pub(super) fn argument_after(flag: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != flag).nth(1)
}

/// This program, to run one "test". What is told after it is no business of the test harness.
pub(super) fn this_program(test: &str) -> Program {
    let arguments = ["--exact", test, "--test-threads=1", "--nocapture", "--"];
    let arguments = arguments.map(Into::into).to_vec();
    Program { path: "/proc/self/exe".into(), arguments, containment: Containment::Pidns }
}

/// This program, to be a keeper.
pub(super) fn keeper_program() -> Program {
    this_program("worker::tests::keeper_process")
}

/// Waits until something is so.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Servers that all lead to the test.
struct Lines(mpsc::UnboundedSender<Line>);

#[async_trait]
impl Servers for Lines {
    fn addresses(&self) -> Vec<String> {
        vec!["a".to_owned(), "b".to_owned()]
    }

    async fn connect(&self, address: &str) -> io::Result<Link> {
        let (to_leader, said) = mpsc::channel(64);
        let (say, from_leader) = mpsc::channel(64);
        let line = Line { address: address.to_owned(), said, say, answers_renewals: true };
        self.0.send(line).map_err(io::Error::other)?;
        Ok(Link { to_leader, from_leader })
    }
}

/// The leader's end of a connection.
pub(super) struct Line {
    /// Whom the worker meant to reach.
    pub(super) address: String,
    said: mpsc::Receiver<FromWorker>,
    say: mpsc::Sender<ToWorker>,
    /// Whether [`next`](Self::next) answers renewals, or drops them.
    pub(super) answers_renewals: bool,
}

impl Line {
    pub(super) async fn say(&self, word: ToWorker) {
        self.say.send(word).await.expect("the worker hung up");
    }

    /// What the worker says next, renewals aside; `None` if it hangs up.
    pub(super) async fn next(&mut self) -> Option<FromWorker> {
        loop {
            let said = tokio::time::timeout(PATIENCE, self.said.recv()).await;
            let said = said.expect("the worker says nothing")?;
            let FromWorker::Renew { sent_at, .. } = said else { return Some(said) };
            if self.answers_renewals {
                self.say(ToWorker::Renewed { sent_at }).await;
            }
        }
    }

    /// When the next renewal was sent, by the worker's clock.
    pub(super) async fn renewal(&mut self) -> u64 {
        let said = tokio::time::timeout(PATIENCE, self.said.recv()).await;
        let said = said.unwrap().unwrap();
        let FromWorker::Renew { sent_at, .. } = said else { panic!("no renewal: {said:?}") };
        sent_at
    }

    pub(super) async fn start(&self, start: StartTask) {
        self.say(ToWorker::Start(Box::new(start))).await;
    }

    pub(super) async fn stop(&self, dispatch: Dispatch) {
        self.say(ToWorker::Stop { dispatch, reason: StopReason::Cancelled }).await;
    }

    /// The next thing that the worker says, which must be a report.
    pub(super) async fn report(&mut self) -> (u64, ReportTask) {
        let said = self.next().await.expect("the worker hung up");
        let FromWorker::Report { sequence, report } = said else { panic!("no report: {said:?}") };
        (sequence, report)
    }

    /// The outcome of an attempt, which is recorded then.
    pub(super) async fn outcome(&mut self) -> Outcome {
        let (sequence, report) = self.report().await;
        self.say(ToWorker::Recorded { sequence }).await;
        report.outcome
    }

    /// What a read comes to. A report that comes before the answer is swallowed.
    pub(super) async fn read(&mut self, read: Read) -> Result<Chunk, ReadError> {
        self.say(ToWorker::Read { request: 5, read }).await;
        loop {
            let said = self.next().await.expect("the worker hung up");
            if let FromWorker::ReadDone { request: 5, result } = said {
                return result;
            }
        }
    }

    /// Goes on answering renewals, until the worker hangs up, and swallows all else.
    pub(super) async fn keep_up(mut self) {
        while self.next().await.is_some() {}
    }
}

/// A worker and the leader that it believes in.
pub(super) struct World {
    /// The worker's directory is in it.
    pub(super) dir: tempfile::TempDir,
    pub(super) worker: Option<WorkerHandle>,
    lines: mpsc::UnboundedReceiver<Line>,
    sender: mpsc::UnboundedSender<Line>,
    pub(super) lease: DurationMs,
    containment: Containment,
}

impl World {
    /// A worker that has not registered yet.
    pub(super) fn new(lease: DurationMs) -> Self {
        Self::new_with(lease, Containment::Pidns)
    }

    /// One that contains its tasks like this.
    pub(super) fn new_with(lease: DurationMs, containment: Containment) -> Self {
        let (sender, lines) = mpsc::unbounded_channel();
        let dir = tempfile::tempdir().unwrap();
        let mut world = Self { dir, worker: None, lines, sender, lease, containment };
        world.start_worker();
        world
    }

    /// A worker that has registered as w1 under epoch 10.
    pub(super) async fn registered(lease: DurationMs) -> (Self, Line) {
        let mut world = Self::new(lease);
        let line = world.register(None, 10).await;
        (world, line)
    }

    pub(super) fn options(&self) -> WorkerOptions {
        let mut options = options(self.worker_dir(), Arc::new(Lines(self.sender.clone())));
        options.keeper.containment = self.containment;
        options
    }

    pub(super) fn start_worker(&mut self) {
        self.worker = Some(Worker::start(self.options()).unwrap());
    }

    pub(super) fn worker_dir(&self) -> PathBuf {
        self.dir.path().join("worker")
    }

    /// Where tasks write that they have run.
    pub(super) fn ledger(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }

    /// What is written there, a line each.
    pub(super) fn written(&self) -> Vec<String> {
        lines_of(&self.ledger())
    }

    /// A path outside the worker's directory for tasks to use.
    pub(super) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// The next connection of the worker.
    pub(super) async fn line(&mut self) -> Line {
        let line = tokio::time::timeout(PATIENCE, self.lines.recv()).await;
        line.expect("the worker does not connect").unwrap()
    }

    /// Lets the worker register, which must ask for `id`; it gets w1, or keeps that.
    pub(super) async fn register(&mut self, id: Option<WorkerId>, epoch: u64) -> Line {
        let mut line = self.line().await;
        let said = line.next().await.unwrap();
        let FromWorker::Register { last, .. } = said else { panic!("no registration: {said:?}") };
        assert_eq!(last.map(|last| last.worker), id);
        let (epoch, lease) = (Epoch(epoch), self.lease);
        line.say(ToWorker::Registered { worker: WorkerId(1), epoch, lease }).await;
        line
    }

    /// Lets the worker resume on a new connection.
    pub(super) async fn resume(&mut self, epoch: u64) -> Line {
        let mut line = self.line().await;
        let (worker, epoch) = (WorkerId(1), Epoch(epoch));
        assert_eq!(line.next().await, Some(FromWorker::Resume { worker, epoch }));
        line.say(ToWorker::Registered { worker, epoch, lease: self.lease }).await;
        line
    }

    /// A task that notes its attempt in the ledger, then runs `script`.
    pub(super) fn noting(&self, dispatch: Dispatch, script: &str) -> StartTask {
        let ledger = self.ledger();
        let note = format!("echo $QUORATE_TASK:$QUORATE_ATTEMPT >> {}\n", ledger.display());
        task(dispatch, &(note + script))
    }
}

/// How a worker of a test is set up.
pub(super) fn options(dir: PathBuf, servers: Arc<dyn Servers>) -> WorkerOptions {
    let (name, labels) = ("test".parse().unwrap(), BTreeMap::new());
    let profile = Profile { name, labels, slots: 4 };
    WorkerOptions {
        keeper: keeper_program(),
        kill_after: DurationMs(300),
        ..WorkerOptions::new(dir, profile, servers)
    }
}

/// An unlimited supply of connections for [`options`], and where they arrive.
pub(super) fn lines() -> (Arc<dyn Servers>, mpsc::UnboundedReceiver<Line>) {
    let (sender, lines) = mpsc::unbounded_channel();
    (Arc::new(Lines(sender)), lines)
}

/// The lines of a file, none if there is no file.
pub(super) fn lines_of(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(ToOwned::to_owned).collect()
}

/// An attempt under epoch 10.
pub(super) fn dispatch(index: u32, attempt: u32, token: u64) -> Dispatch {
    Dispatch {
        task: TaskId { run: RunId(Uuid::from_u128(7)), index },
        attempt: Attempt(attempt),
        token: FencingToken(token),
        worker: WorkerId(1),
        epoch: Epoch(10),
    }
}

/// A task of kind `run`.
pub(super) fn task(dispatch: Dispatch, script: &str) -> StartTask {
    with_params(dispatch, &json!({ "run": script }))
}

pub(super) fn with_params(dispatch: Dispatch, params: &Value) -> StartTask {
    StartTask {
        dispatch,
        workflow: "etl".parse().unwrap(),
        id: format!("t{}", dispatch.task.index).parse().unwrap(),
        kind: "run".parse().unwrap(),
        params: Json::new(params),
        env: BTreeMap::new(),
        artifacts: Vec::new(),
    }
}

/// A read of what an attempt prints.
pub(super) fn log_of(dispatch: Dispatch, from: ReadFrom, wait: u64) -> Read {
    Read {
        task: dispatch.task,
        attempt: dispatch.attempt,
        artifact: None,
        from,
        bytes_max: 10_000,
        wait: DurationMs(wait),
    }
}

/// Whether a process is there, and no zombie.
pub(super) fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')').is_some_and(|(_, fields)| !fields.trim_start().starts_with('Z'))
    })
}

/// Something to sleep on for a day, which no other process here does.
pub(super) fn token() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("86400.{:07}{:04}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// All processes that sleep on this.
pub(super) fn sleepers(token: &str) -> Vec<u32> {
    let mut sleepers = processes_with("sleep");
    sleepers.retain(|pid| arguments(*pid).last().is_some_and(|last| last == token));
    sleepers
}

fn arguments(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Every process that was told this, as an argument of its own, zombies aside.
pub(super) fn processes_with(argument: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| arguments(*pid).iter().any(|word| word == argument)).collect()
}
