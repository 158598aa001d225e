//! The worker: runs the tasks that a committed assignment tells it to, and reports how they
//! end until that is committed too.
//!
//! ```text
//!             connection            wishes              orders
//!   leader ◄────────────► session ──────────► agent ◄──────────► keeper ──► tasks
//!                  renews,  ▲                   │        exits    (a process of its own)
//!                  obeys    └───── outbox ◄─────┘
//! ```
//! - The [`session`] keeps the lease and talks; it waits for nothing but the network.
//! - The [`agent`] judges orders and has attempts prepared, captured and reported; it may wait
//!   for the disk, on a thread of its own.
//! - The [`keeper`] starts tasks and kills them, at the latest when the lease ends.
//!
//! A worker knows the leader by [`protocol`](crate::protocol) only, also where both live in one
//! process.

mod agent;
mod attempt;
mod identity;
pub(crate) mod keeper;
mod lease;
mod logs;
mod outbox;
mod room;
mod session;
mod standing;
mod status;
mod sys;
mod task;

#[cfg(test)]
mod tests;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use quorate_model::DurationMs;
use quorate_raft::machine;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use agent::{Agent, Setup, Wish};
use attempt::{BaseEnv, Host, Workspaces};
use identity::Identity;
use logs::Logs;
use outbox::Outbox;
use session::Session;

pub(crate) use identity::Profile;
pub(crate) use keeper::Program;
pub(crate) use logs::Retention;
pub(crate) use session::{Link, Servers};
pub(crate) use status::{Probe, WorkerStatus};
pub(crate) use task::{LOOPBACK, Network, Settings, run_child};

/// The directory of what is kept of attempts, in that of the worker.
const ATTEMPTS: &str = "attempts";

/// What the session may ask of the agent before it has to wait: enough for every slot to be
/// filled and stopped at once on a large machine.
const WISHES_MAX: usize = 4_096;

/// How long a worker that leaves waits for its last reports to be recorded.
const REPORTS_MAX: Duration = Duration::from_secs(2);

/// How long the session may take to say that the worker leaves.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// How long a task may take to end once it was asked to: what Kubernetes gives is 30 s, but
/// here a lease of 10 s may be ending.
const KILL_AFTER: DurationMs = DurationMs(5_000);

/// How a worker is set up.
pub(crate) struct WorkerOptions {
    /// Its directory; created if need be. Its path must be UTF-8.
    pub(crate) dir: PathBuf,
    /// What it registers as.
    pub(crate) profile: Profile,
    /// Where to find the leader.
    pub(crate) servers: Arc<dyn Servers>,
    /// How to start the keeper.
    pub(crate) keeper: Program,
    /// How long a task may take to end once it was asked to.
    pub(crate) kill_after: DurationMs,
    /// What is kept of finished attempts.
    pub(crate) retention: Retention,
    /// What the kinds of tasks are told.
    pub(crate) kinds: Settings,
}

impl WorkerOptions {
    /// The usual, for a worker in `dir`.
    pub(crate) fn new(
        dir: impl Into<PathBuf>,
        profile: Profile,
        servers: Arc<dyn Servers>,
    ) -> Self {
        Self {
            dir: dir.into(),
            profile,
            servers,
            keeper: Program::default(),
            kill_after: KILL_AFTER,
            retention: Retention::default(),
            kinds: Settings::default(),
        }
    }
}

/// How many tasks a worker runs at once if it is not told: two for each core, as one is often
/// waiting for a disk, a network or the next order, and at least four, as small machines wait
/// too.
pub(crate) fn default_slots() -> u32 {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(2 * cores).unwrap_or(u32::MAX).max(4)
}

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Another worker uses the directory.
    #[error("another worker runs in {0}")]
    InUse(PathBuf),
    /// The path of the directory cannot be put in an environment variable.
    #[error("the worker's directory {0} has a path that is not UTF-8")]
    NotUtf8(PathBuf),
    /// The directory cannot be used.
    #[error("the worker's directory {0} cannot be used")]
    Directory(PathBuf, #[source] io::Error),
}

/// Starts workers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worker;

/// A worker that runs. Dropping it kills its tasks; [`stop`](Self::stop) is kinder, and
/// [`detach`](Self::detach) leaves them running.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    wishes: mpsc::Sender<Wish>,
    leaving: watch::Sender<bool>,
    farewell: watch::Sender<bool>,
    session: JoinHandle<()>,
    agent: Option<oneshot::Receiver<()>>,
    probe: Probe,
    kill_after: Duration,
}

impl Worker {
    /// Starts a worker. It registers as soon as it finds a leader, and nothing is left of
    /// what an earlier worker in this directory had started.
    ///
    /// Call it in a tokio runtime with timers and I/O.
    ///
    /// # Errors
    ///
    /// If the directory cannot be used, or another worker uses it.
    pub(crate) fn start(options: WorkerOptions) -> Result<WorkerHandle, StartError> {
        let WorkerOptions { dir, profile, servers, keeper, kill_after, retention, kinds } = options;
        let failed = |error| StartError::Directory(dir.clone(), error);
        let attempts = dir.join(ATTEMPTS);
        fs::create_dir_all(&attempts).map_err(failed)?;
        // Absolute and without links: the processes of this worker are known by it.
        let dir = fs::canonicalize(&dir).map_err(failed)?;
        if dir.to_str().is_none() {
            return Err(StartError::NotUtf8(dir));
        }
        let lock = lock(&dir)?;
        let failed = |error| StartError::Directory(dir.clone(), error);
        let attempts = dir.join(ATTEMPTS);
        let identity = Identity::open(&dir).map_err(failed)?;
        let (outbox, journal) = Outbox::open(&dir).map_err(failed)?;
        let (standing, outbox, counters) = (Arc::default(), Arc::new(outbox), Arc::default());
        let logs = Arc::new(Logs::new(attempts.clone()));
        tokio::spawn(logs::keep_tidy(Arc::downgrade(&logs), retention));
        let env = BaseEnv::of_this_process();
        let kinds = task::Kinds::new(env.path(), kinds);
        let workspaces = Arc::new(Workspaces::new(dir.join(keeper::WORKSPACES)));
        let host = Host { attempts, workspaces, env, kinds, logs: Arc::clone(&logs) };
        let (wishes, wished) = mpsc::channel(WISHES_MAX);
        let (ready, containment) = watch::channel(None);
        let (leaving, is_leaving) = watch::channel(false);
        let (farewell, is_farewell) = watch::channel(false);
        let (room, full) = watch::channel(false);
        tokio::spawn(room::watch(dir.clone(), room));
        let slots = profile.slots;
        let agent = Agent::new(Setup {
            dir: dir.clone(),
            slots: slots as usize,
            keeper,
            kill_after,
            host,
            standing: Arc::clone(&standing),
            outbox: Arc::clone(&outbox),
            journal,
            ready,
            full: full.clone(),
            counters: Arc::clone(&counters),
        });
        let agent = run_agent(agent, wished, lock).map_err(failed)?;
        let session = Session {
            servers,
            profile,
            identity,
            standing: Arc::clone(&standing),
            outbox: Arc::clone(&outbox),
            logs,
            wishes: wishes.clone(),
            containment,
            full: full.clone(),
            leaving: is_leaving,
            farewell: is_farewell,
        };
        let (session, agent) = (tokio::spawn(session.run()), Some(agent));
        let kill_after = Duration::from_millis(kill_after.0);
        let probe = Probe { standing, outbox, counters, slots, full };
        Ok(WorkerHandle { wishes, leaving, farewell, session, agent, probe, kill_after })
    }
}

impl WorkerHandle {
    /// Leaves what runs to the next worker in this directory, which takes it over if it comes
    /// before the lease is over. Reports that wait are on disk.
    pub(crate) async fn detach(mut self) {
        let _ = self.wishes.send(Wish::Detach).await;
        let Some(agent) = self.agent.take() else { return };
        // Sent, or dropped, when the agent's thread ends.
        let _ = agent.await;
    }

    /// Lets tasks run on for `patience`, stops the others, has their ends recorded, gives the
    /// lease back, and returns when nothing is left.
    pub(crate) async fn stop(mut self, patience: Duration) {
        // First, so that as little as can be is given out in vain.
        self.leaving.send_replace(true);
        let (done, drained) = oneshot::channel();
        let _ = self.wishes.send(Wish::Drain { patience, done }).await;
        // Killing may take a little longer than what it is given.
        let drained = tokio::time::timeout(patience + 2 * self.kill_after, drained).await;
        if !matches!(drained, Ok(Ok(()))) {
            tracing::error!("some tasks do not end: the lease is not given back");
        } else {
            let recorded = tokio::time::timeout(REPORTS_MAX, self.probe.outbox.emptied()).await;
            if recorded.is_err() {
                tracing::warn!(reports = self.probe.outbox.len(), "leaving before all is recorded");
            }
            self.farewell.send_replace(true);
            if tokio::time::timeout(FAREWELL_MAX, &mut self.session).await.is_err() {
                tracing::warn!("leaving without a word: the leader does not answer");
            }
        }
        let Some(agent) = self.agent.take() else { return };
        drop(self);
        // Sent, or dropped, when the agent's thread ends.
        let _ = agent.await;
    }

    /// Looks at it from elsewhere.
    pub(crate) fn probe(&self) -> Probe {
        self.probe.clone()
    }
}

impl Drop for WorkerHandle {
    /// Without a session the agent has nobody to wait for, and ends.
    fn drop(&mut self) {
        self.session.abort();
    }
}

/// Makes sure that no other worker uses the directory, for as long as the answer lives.
fn lock(dir: &Path) -> Result<File, StartError> {
    let failed = |error| StartError::Directory(dir.to_owned(), error);
    let file = File::create(dir.join("agent.lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Runs the agent on a thread of its own; the answer comes when that ends.
fn run_agent(
    agent: Agent,
    wishes: mpsc::Receiver<Wish>,
    lock: File,
) -> io::Result<oneshot::Receiver<()>> {
    let (ended, end) = oneshot::channel();
    if machine::simulated().is_some() {
        // There is one thread only.
        tokio::spawn(async move {
            agent.run(wishes).await;
            drop((lock, ended));
        });
        return Ok(end);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("quorate-agent".to_owned()).spawn(move || {
        runtime.block_on(agent.run(wishes));
        drop(lock);
        // Nobody may be waiting.
        let _ = ended.send(());
    })?;
    Ok(end)
}
