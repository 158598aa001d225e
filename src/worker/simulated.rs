//! A worker of the simulation: the real session, lease and outbox, over processes that are
//! entries in a table.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_model::{
    Containment, Dispatch, Epoch, FencingToken, Outcome, StopReason, TaskId, Usage,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::agent::Wish;
use super::attempt;
use super::identity::Identity;
use super::logs::Logs;
use super::outbox::{Journal, Outbox};
use super::session::Session;
use super::standing::Standing;
use super::{Profile, Servers, WISHES_MAX};
use crate::protocol::StartTask;
use crate::simulation::processes::{Killed, Processes};

/// How a worker of the simulation is set up.
pub(crate) struct Setup {
    /// Its directory.
    pub(crate) dir: PathBuf,
    /// The machine it runs on.
    pub(crate) host: String,
    /// Whether nothing is promised of its clock.
    pub(crate) is_excused: bool,
    /// What it registers as.
    pub(crate) profile: Profile,
    /// Where to find the leader.
    pub(crate) servers: Arc<dyn Servers>,
    /// Where its processes are.
    pub(crate) processes: Processes,
}

/// What the kernel of its machine knows of a worker's lease.
#[derive(Clone, Debug)]
pub(crate) struct Lease(Arc<Standing>);

impl Lease {
    /// The registration, and what the clock of the machine shows when it ends.
    pub(crate) fn deadline(&self) -> Option<(Epoch, Duration)> {
        let lease = self.0.lease()?;
        Some((lease.epoch, Duration::from_nanos(lease.deadline.0)))
    }
}

/// A worker that is set up.
pub(crate) struct Simulated {
    session: Session,
    agent: Agent,
    wishes: mpsc::Receiver<Wish>,
    farewell: watch::Sender<bool>,
}

impl Simulated {
    /// Opens what an earlier worker has left in the directory.
    pub(crate) fn open(setup: Setup) -> io::Result<Self> {
        let Setup { dir, host, is_excused, profile, servers, processes } = setup;
        std::fs::create_dir_all(&dir)?;
        let identity = Identity::open(&dir)?;
        let (outbox, journal) = Outbox::open(&dir)?;
        let (outbox, standing) = (Arc::new(outbox), Arc::<Standing>::default());
        let (wishes, wished) = mpsc::channel(WISHES_MAX);
        let (_, containment) = watch::channel(Some(Containment::Pidns));
        let (farewell, is_farewell) = watch::channel(false);
        let slots = profile.slots as usize;
        let session = Session {
            servers,
            profile,
            identity,
            standing: Arc::clone(&standing),
            outbox: Arc::clone(&outbox),
            logs: Arc::new(Logs::new(dir)),
            wishes,
            containment,
            full: watch::channel(false).1,
            farewell: is_farewell,
        };
        let agent = Agent {
            host,
            is_excused,
            slots,
            standing,
            outbox,
            journal,
            processes,
            live: BTreeMap::new(),
            ended: BTreeMap::new(),
            watched: JoinSet::new(),
            quiesce: Vec::new(),
        };
        Ok(Self { session, agent, wishes: wished, farewell })
    }

    /// What the kernel is told.
    pub(crate) fn lease(&self) -> Lease {
        Lease(Arc::clone(&self.agent.standing))
    }

    /// Works until it is dropped.
    pub(crate) async fn run(self) {
        let Self { session, agent, wishes, farewell } = self;
        tokio::spawn(session.run());
        agent.run(wishes).await;
        drop(farewell);
    }
}

/// Judges orders by the rules of the [agent](super::agent).
struct Agent {
    host: String,
    is_excused: bool,
    slots: usize,
    standing: Arc<Standing>,
    outbox: Arc<Outbox>,
    journal: Journal,
    processes: Processes,
    live: BTreeMap<TaskId, Dispatch>,
    ended: BTreeMap<TaskId, FencingToken>,
    watched: JoinSet<(Dispatch, Outcome)>,
    quiesce: Vec<oneshot::Sender<()>>,
}

impl Agent {
    async fn run(mut self, mut wishes: mpsc::Receiver<Wish>) {
        let mut void = BTreeSet::new();
        loop {
            tokio::select! {
                wish = wishes.recv() => match wish {
                    Some(Wish::Start(start)) => self.start(&start),
                    Some(Wish::Stop(dispatch, reason)) => self.stop(dispatch, reason),
                    Some(Wish::Quiesce(done)) => {
                        self.quiesce.push(done);
                        void.extend(self.live.values().map(|live| live.token));
                        self.processes.kill(&self.host, Killed::LeaseOver, |_| true);
                    }
                    Some(Wish::Drain { done, .. }) => drop(done),
                    Some(Wish::Detach) | None => return,
                },
                Some(Ok((dispatch, outcome))) = self.watched.join_next() => {
                    self.live.remove(&dispatch.task);
                    if void.remove(&dispatch.token) {
                        self.ended.insert(dispatch.task, dispatch.token);
                    } else {
                        self.tell(dispatch, outcome);
                    }
                }
            }
            if self.live.is_empty() {
                // Whoever waited may have given up.
                for done in self.quiesce.drain(..) {
                    let _ = done.send(());
                }
            }
        }
    }

    fn start(&mut self, start: &StartTask) {
        let dispatch = start.dispatch;
        if let Err(refusal) = self.standing.admits(&dispatch) {
            tracing::info!(%dispatch, %refusal, "not started");
            return;
        }
        if self.knows(&dispatch) {
            return;
        }
        let is_newer = self.ended.get(&dispatch.task).is_none_or(|&last| last < dispatch.token);
        if self.live.contains_key(&dispatch.task) || !is_newer || self.live.len() >= self.slots {
            tracing::error!(%dispatch, "refused to start");
            return self.tell(dispatch, Outcome::Lost);
        }
        if dispatch.attempt.0 > 1 {
            tracing::info!(%dispatch, "not the first attempt");
        }
        self.live.insert(dispatch.task, dispatch);
        let (running, killed) = self.processes.begin(&self.host, dispatch, self.is_excused);
        let params = start.params.value();
        let span = Duration::from_millis(params["ms"].as_u64().unwrap_or_default());
        let fails = params["fails"].as_u64().unwrap_or_default();
        self.watched.spawn(async move {
            let outcome = tokio::select! {
                killed = killed => match killed {
                    Ok(Killed::Stopped) => Outcome::Stopped,
                    Ok(Killed::LeaseOver) | Err(_) => {
                        tracing::info!(%dispatch, "killed: the lease is over");
                        Outcome::Lost
                    }
                },
                () = tokio::time::sleep(span) => {
                    if u64::from(dispatch.attempt.0) <= fails {
                        Outcome::Exited { code: 1 }
                    } else {
                        Outcome::Succeeded { outputs: None }
                    }
                }
            };
            drop(running);
            (dispatch, outcome)
        });
    }

    fn stop(&mut self, dispatch: Dispatch, reason: StopReason) {
        if self.live.get(&dispatch.task) == Some(&dispatch) {
            tracing::info!(%dispatch, ?reason, "stopping");
            self.processes.kill(&self.host, Killed::Stopped, |running| *running == dispatch);
            return;
        }
        let is_newer = self.ended.get(&dispatch.task).is_none_or(|&last| last < dispatch.token);
        if self.knows(&dispatch) || !is_newer || self.standing.admits(&dispatch).is_err() {
            return;
        }
        self.tell(dispatch, Outcome::Stopped);
    }

    fn knows(&self, dispatch: &Dispatch) -> bool {
        self.live.get(&dispatch.task) == Some(dispatch)
            || self.outbox.send_again(dispatch)
            || self.ended.get(&dispatch.task) == Some(&dispatch.token)
    }

    fn tell(&mut self, dispatch: Dispatch, outcome: Outcome) {
        self.ended.insert(dispatch.task, dispatch.token);
        let report = attempt::report(dispatch, outcome, Usage::default());
        let sequence = self.outbox.add(report.clone());
        if let Err(error) = self.journal.append(sequence, &report, &self.outbox) {
            tracing::warn!(%error, "a report is in memory only until it is recorded");
        }
    }
}
