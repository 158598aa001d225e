//! The leader's end of its conversations with the workers.
//!
//! A node that does not lead sends whoever comes on to the leader. One that does admits a
//! worker once its registration is committed, passes orders down and reports up, and
//! extends leases by rule R2: only after a quorum has confirmed that this node still leads.

mod orders;
mod reads;
mod renewals;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_api::backend::{Chunk, ReadError};
use quorate_model::command::{RegisterWorker, ReportTask};
use quorate_model::{Command, DurationMs, Epoch, Rejection, Reply, WorkerId, mutant};
use quorate_raft::Node;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::drift::Clocks;
use super::leases::Leases;
use crate::link::Link;
use crate::protocol::{FromWorker, ToWorker};
use renewals::Renewal;

/// How long a worker may take for its first words.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// How long a proposal may take; the worker repeats what got no answer.
const DEADLINE: Duration = Duration::from_secs(5);

type WorkerLink = Link<FromWorker, ToWorker>;

/// The workers that are connected to this node.
#[derive(Debug)]
pub(crate) struct Sessions {
    node: Node,
    /// What new registrations are given.
    lease: DurationMs,
    open: Mutex<Open>,
    /// Counts the workers that came.
    arrivals: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Open {
    term: Option<Term>,
    sessions: BTreeMap<WorkerId, Session>,
    leases: Leases,
    clocks: Clocks,
    reads: BTreeMap<u64, oneshot::Sender<Result<Chunk, ReadError>>>,
    /// Names sessions and reads.
    serial: u64,
}

#[derive(Clone, Debug)]
struct Term {
    number: u64,
    end: CancellationToken,
}

#[derive(Clone, Debug)]
struct Session {
    serial: u64,
    epoch: Epoch,
    outgoing: mpsc::Sender<ToWorker>,
    /// Its disk is: it is given nothing.
    is_full: bool,
    /// It stops: it is given nothing more.
    is_leaving: bool,
    /// Ends the session when a newer one takes its place.
    end: CancellationToken,
}

/// A worker that was let in.
#[derive(Clone, Copy, Debug)]
struct Admitted {
    worker: WorkerId,
    epoch: Epoch,
    lease: DurationMs,
}

impl Sessions {
    /// No sessions yet. `lease` is what registrations are given.
    #[must_use]
    pub(crate) fn new(node: Node, lease: Duration) -> Self {
        let lease = DurationMs(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX));
        Self { node, lease, open: Mutex::default(), arrivals: watch::Sender::new(0) }
    }

    /// The workers that are connected here.
    pub(crate) fn connected(&self) -> BTreeSet<WorkerId> {
        self.open().sessions.keys().copied().collect()
    }

    /// Those of them that could be told to start something.
    pub(super) fn with_room(&self) -> BTreeSet<WorkerId> {
        let open = self.open();
        let takes_more = |session: &Session| !session.is_full && !session.is_leaving;
        let with_room = open.sessions.iter().filter(|(_, session)| takes_more(session));
        with_room.map(|(&worker, _)| worker).collect()
    }

    /// Changes whenever a worker has come, or has room again.
    pub(super) fn arrivals(&self) -> watch::Receiver<u64> {
        self.arrivals.subscribe()
    }

    pub(super) fn begin_term(&self, number: u64, end: CancellationToken) {
        let now = Instant::now();
        let live = self.node.with_state(|state| {
            let live = state.workers().iter().filter(|(_, worker)| worker.is_live());
            live.map(|(&id, worker)| (id, worker.epoch, worker.lease)).collect::<Vec<_>>()
        });
        let mut open = self.open();
        open.term = Some(Term { number, end });
        open.leases.take_over(&live, now);
    }

    pub(super) fn end_term(&self) {
        let mut open = self.open();
        open.term = None;
        open.sessions.clear();
        open.leases.clear();
        open.clocks.clear();
        open.reads.clear();
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one connection of a worker until either side ends it.
    pub(crate) async fn serve(self: Arc<Self>, mut link: WorkerLink) {
        let Some(term) = self.open().term.clone() else {
            return self.send_on(&link).await;
        };
        let greeting = tokio::time::timeout(GREETING_MAX, link.incoming.recv()).await;
        let Ok(Some(greeting)) = greeting else { return };
        let admitted = tokio::select! {
            () = term.end.cancelled() => return self.send_on(&link).await,
            admitted = self.admit(term.number, greeting) => admitted,
        };
        match admitted {
            Ok(admitted) => self.converse(&term, admitted, link).await,
            // The worker reads this and goes; if it cannot be told, it has gone already.
            Err(refusal) => drop(link.outgoing.send(refusal).await),
        }
    }

    /// Tells a worker where the leader is.
    async fn send_on(&self, link: &WorkerLink) {
        let leader = self.node.leadership().borrow().leader.clone();
        let refusal = ToWorker::NotLeader { leader: leader.map(|(_, address)| address) };
        drop(link.outgoing.send(refusal).await);
    }

    async fn admit(&self, term: u64, greeting: FromWorker) -> Result<Admitted, ToWorker> {
        match greeting {
            FromWorker::Register { last, name, labels, slots, containment } => {
                let lease = self.lease;
                let register = RegisterWorker { last, name, labels, slots, containment, lease };
                self.register(term, register).await
            }
            FromWorker::Resume { worker, epoch } => self.resume(term, worker, epoch).await,
            FromWorker::Renew { .. }
            | FromWorker::Report { .. }
            | FromWorker::Leaving
            | FromWorker::Release
            | FromWorker::DiskFull(_)
            | FromWorker::ReadDone { .. } => Err(ToWorker::Refused {
                reason: "a worker registers or resumes before anything else".to_owned(),
                forget_id: false,
            }),
        }
    }

    async fn register(&self, term: u64, command: RegisterWorker) -> Result<Admitted, ToWorker> {
        let lease = command.lease;
        let request = Command::RegisterWorker(command).into();
        let mut committed = self
            .node
            .propose_as(term, vec![request], DEADLINE)
            .await
            .map_err(|_| ToWorker::NotLeader { leader: None })?;
        match committed.pop().map(|committed| committed.answer.reply) {
            Some(Ok(Reply::Registered { worker, epoch })) => {
                self.open().leases.begin(worker, epoch, lease, Instant::now());
                info!(%worker, %epoch, "worker registered");
                Ok(Admitted { worker, epoch, lease })
            }
            Some(Err(rejection)) => {
                // Forgotten, or it never heard of a registration that it got. As a new worker
                // it can go on at once; what the old one had waits for its lease.
                let forget_id = matches!(
                    rejection,
                    Rejection::NoSuchWorker { .. } | Rejection::StaleEpoch { .. }
                );
                Err(ToWorker::Refused { reason: rejection.to_string(), forget_id })
            }
            Some(Ok(_)) | None => Err(ToWorker::NotLeader { leader: None }),
        }
    }

    async fn resume(
        &self,
        term: u64,
        worker: WorkerId,
        epoch: Epoch,
    ) -> Result<Admitted, ToWorker> {
        // Whoever resumes may have forgotten what it ran, so nothing may be started from a state
        // that is older than its question (R10): not by a leader that was deposed, and not from
        // before this one had caught up with itself.
        if !mutant::is("M22") {
            let confirmed = self.node.confirm_leadership(term, DEADLINE).await;
            confirmed.map_err(|_| ToWorker::NotLeader { leader: None })?;
        }
        let held = self.node.with_state(|state| {
            let found = state.workers().get(&worker);
            found.filter(|found| found.is_live() && found.epoch == epoch).map(|found| found.lease)
        });
        held.map(|lease| Admitted { worker, epoch, lease }).ok_or_else(|| ToWorker::Refused {
            reason: format!("{worker} no longer holds {epoch}"),
            forget_id: false,
        })
    }

    async fn converse(self: Arc<Self>, term: &Term, admitted: Admitted, mut link: WorkerLink) {
        let Admitted { worker, epoch, lease } = admitted;
        // First in the channel, so before any order that the new session may be given.
        if link.outgoing.send(ToWorker::Registered { worker, epoch, lease }).await.is_err() {
            return;
        }
        let Some(session) = self.enter(term, worker, epoch, &link.outgoing) else {
            return self.send_on(&link).await;
        };
        let outstanding = self.node.with_state(|state| state.outstanding_of(worker));
        outstanding.iter().for_each(|effect| self.order(effect));
        self.arrivals.send_modify(|count| *count += 1);
        loop {
            tokio::select! {
                () = session.end.cancelled() => break,
                () = term.end.cancelled() => {
                    self.send_on(&link).await;
                    break;
                }
                said = link.incoming.recv() => match said {
                    Some(said) => self.hear(term.number, admitted, &link.outgoing, said),
                    None => break,
                }
            }
        }
        self.leave(worker, session.serial);
        debug!(%worker, "session over");
    }

    /// Makes this the one session of the worker, unless the term is over.
    fn enter(
        &self,
        term: &Term,
        worker: WorkerId,
        epoch: Epoch,
        outgoing: &mpsc::Sender<ToWorker>,
    ) -> Option<Session> {
        let mut open = self.open();
        if open.term.as_ref().map(|now| now.number) != Some(term.number) {
            return None;
        }
        open.serial += 1;
        let (serial, end) = (open.serial, term.end.child_token());
        let (outgoing, is_full, is_leaving) = (outgoing.clone(), false, false);
        let session = Session { serial, epoch, outgoing, is_full, is_leaving, end };
        if let Some(old) = open.sessions.insert(worker, session.clone()) {
            old.end.cancel();
        }
        Some(session)
    }

    fn leave(&self, worker: WorkerId, serial: u64) {
        let mut open = self.open();
        if open.sessions.get(&worker).is_some_and(|session| session.serial == serial) {
            open.sessions.remove(&worker);
        }
    }

    /// Acts on what a worker says. What takes time happens aside: a report that waits for its
    /// commit must not keep a renewal waiting.
    fn hear(
        self: &Arc<Self>,
        term: u64,
        from: Admitted,
        outgoing: &mpsc::Sender<ToWorker>,
        said: FromWorker,
    ) {
        let (sessions, outgoing) = (Arc::clone(self), outgoing.clone());
        match said {
            FromWorker::Renew { sent_at, heard } => {
                let renewal = Renewal { sent_at, heard, received_at: Instant::now() };
                tokio::spawn(async move {
                    sessions.renew(term, from, &outgoing, renewal).await;
                });
            }
            FromWorker::Report { sequence, report } => {
                tokio::spawn(async move {
                    sessions.record(term, &outgoing, sequence, report).await;
                });
            }
            FromWorker::Leaving => {
                // Planned around from now on, and remembered once it is in the log.
                if let Some(session) = self.open().sessions.get_mut(&from.worker) {
                    session.is_leaving = true;
                }
                tokio::spawn(async move { sessions.withdraw(term, from).await });
            }
            FromWorker::Release => {
                tokio::spawn(async move { sessions.release(term, from).await });
            }
            FromWorker::DiskFull(is_full) => self.note_room(from, is_full),
            FromWorker::ReadDone { request, result } => {
                let waiting = self.open().reads.remove(&request);
                if let Some(waiting) = waiting {
                    // Nobody waits any longer: the client has gone.
                    drop(waiting.send(result));
                }
            }
            FromWorker::Register { .. } | FromWorker::Resume { .. } => {
                warn!(worker = %from.worker, "a worker greeted twice in one session");
            }
        }
    }

    /// Takes note of whether a worker may be given work.
    fn note_room(&self, from: Admitted, is_full: bool) {
        warn!(worker = %from.worker, is_full, "room on the disk of a worker");
        if let Some(session) = self.open().sessions.get_mut(&from.worker) {
            session.is_full = is_full;
        }
        self.arrivals.send_modify(|count| *count += 1);
    }

    async fn record(
        &self,
        term: u64,
        outgoing: &mpsc::Sender<ToWorker>,
        sequence: u64,
        report: ReportTask,
    ) {
        let task = report.task;
        let request = Command::ReportTask(report).into();
        match self.node.propose_as(term, vec![request], DEADLINE).await {
            Ok(committed) => {
                let refused = committed.iter().find_map(|one| one.answer.reply.as_ref().err());
                if let Some(rejection) = refused {
                    debug!(%task, %rejection, "report refused");
                }
                drop(outgoing.send(ToWorker::Recorded { sequence }).await);
            }
            // Not answered, so it comes again: here or to the next leader.
            Err(error) => debug!(%task, %error, "report not recorded"),
        }
    }
}
