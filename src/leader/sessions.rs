//! The leader's end of its conversations with the workers.
//!
//! A node that does not lead sends whoever comes on to the leader. One that does admits a
//! worker once its registration is committed, passes orders down and reports up, and
//! extends leases by rule R2: only after a quorum has confirmed that this node still leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate_api::backend::{Chunk, Read, ReadError};
use quorate_model::command::{EndLease, RegisterWorker, ReportTask};
use quorate_model::{
    Command, Dispatch, DurationMs, Effect, Epoch, LeaseEnd, Rejection, Reply, Request, State,
    WorkerId,
};
use quorate_raft::{Effects, Node};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::leases::Leases;
use crate::link::Link;
use crate::protocol::{FromWorker, StartTask, ToWorker};

/// How long a worker may take for its first words.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// How long a proposal may take; the worker repeats what got no answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Between two tries to end a lease.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What a read may take longer than it was told to wait.
const READ_MARGIN: Duration = Duration::from_secs(5);

/// Reads that may be under way at once.
const READS_MAX: usize = 1_024;

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

    /// The workers that could be told to start something.
    pub(crate) fn connected(&self) -> BTreeSet<WorkerId> {
        self.open().sessions.keys().copied().collect()
    }

    /// Changes whenever a worker has come.
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
        for (worker, epoch, lease) in live {
            open.leases.begin(worker, epoch, lease, now);
        }
    }

    pub(super) fn end_term(&self) {
        let mut open = self.open();
        open.term = None;
        open.sessions.clear();
        open.leases.clear();
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
            FromWorker::Register { last, name, labels, slots } => {
                let lease = self.lease;
                let register = RegisterWorker { last, name, labels, slots, lease };
                self.register(term, register).await
            }
            FromWorker::Resume { worker, epoch } => self.resume(term, worker, epoch).await,
            FromWorker::Renew { .. }
            | FromWorker::Report { .. }
            | FromWorker::Release
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
        let confirmed = self.node.confirm_leadership(term, DEADLINE).await;
        confirmed.map_err(|_| ToWorker::NotLeader { leader: None })?;
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
        let session = Session { serial, epoch, outgoing: outgoing.clone(), end };
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
            FromWorker::Renew { sent_at } => {
                let received_at = Instant::now();
                tokio::spawn(async move {
                    sessions.renew(term, from, &outgoing, sent_at, received_at).await;
                });
            }
            FromWorker::Report { sequence, report } => {
                tokio::spawn(async move {
                    sessions.record(term, &outgoing, sequence, report).await;
                });
            }
            FromWorker::Release => {
                tokio::spawn(async move { sessions.release(term, from).await });
            }
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

    async fn renew(
        &self,
        term: u64,
        from: Admitted,
        outgoing: &mpsc::Sender<ToWorker>,
        sent_at: u64,
        received_at: Instant,
    ) {
        if let Err(error) = self.node.confirm_leadership(term, DEADLINE).await {
            debug!(worker = %from.worker, %error, "no renewal without a quorum");
            return;
        }
        let Admitted { worker, epoch, .. } = from;
        let holds = |state: &State| {
            state
                .workers()
                .get(&worker)
                .is_some_and(|found| found.is_live() && found.epoch == epoch)
        };
        if !self.node.with_state(holds) {
            let reason = format!("{worker} no longer holds {epoch}");
            drop(outgoing.try_send(ToWorker::Refused { reason, forget_id: false }));
            return;
        }
        // Granted and said under one lock, which the end of a lease takes as well.
        let mut open = self.open();
        let in_term = open.term.as_ref().is_some_and(|now| now.number == term);
        if in_term && open.leases.renew(worker, epoch, received_at) {
            drop(outgoing.try_send(ToWorker::Renewed { sent_at }));
        }
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

    async fn release(&self, term: u64, from: Admitted) {
        let Admitted { worker, epoch, .. } = from;
        self.end_lease(term, worker, epoch, LeaseEnd::Released).await;
        let session = self.open().sessions.remove(&worker);
        if let Some(session) = session {
            session.end.cancel();
        }
    }

    /// Commits the end of a lease; whether it is in the log.
    async fn end_lease(&self, term: u64, worker: WorkerId, epoch: Epoch, cause: LeaseEnd) -> bool {
        let request: Request = Command::EndLease(EndLease { worker, epoch, cause }).into();
        match self.node.propose_as(term, vec![request], DEADLINE).await {
            // A refusal says that it had ended before.
            Ok(_) => {
                info!(%worker, %epoch, ?cause, "lease ended");
                self.open().leases.end(worker, epoch);
                true
            }
            Err(error) => {
                debug!(%worker, %error, "the end of the lease is not in the log");
                false
            }
        }
    }

    /// Ends the leases of workers that were not heard, until the term ends.
    pub(super) async fn watch_leases(self: Arc<Self>, term: u64, stop: CancellationToken) {
        let mut arrivals = self.arrivals();
        loop {
            let due = self.open().leases.take_due(Instant::now());
            let mut pending = false;
            for (worker, epoch) in due {
                pending |= !self.end_lease(term, worker, epoch, LeaseEnd::Expired).await;
                if stop.is_cancelled() {
                    return;
                }
            }
            let next = self.open().leases.next_end();
            let wait = async {
                match next {
                    Some(_) if pending => tokio::time::sleep(RETRY_AFTER).await,
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = wait => {}
                changed = arrivals.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Passes on what entries ask for, until the term ends.
    pub(super) async fn carry_out(
        self: Arc<Self>,
        mut effects: broadcast::Receiver<Arc<Effects>>,
        stop: CancellationToken,
    ) {
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => return,
                next = effects.recv() => next,
            };
            match next {
                Ok(next) => next.effects.iter().for_each(|effect| self.order(effect)),
                // What the missed ones asked for is still outstanding.
                Err(RecvError::Lagged(_)) => {
                    let all = self.node.with_state(State::outstanding);
                    all.iter().for_each(|effect| self.order(effect));
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Tells a worker to start or stop, if it is connected. If it is not, it will be told
    /// when it comes, or lose its lease.
    fn order(&self, effect: &Effect) {
        let (Effect::Start(dispatch) | Effect::Stop(dispatch, _)) = *effect;
        let session = self.open().sessions.get(&dispatch.worker).cloned();
        let Some(session) = session.filter(|session| session.epoch == dispatch.epoch) else {
            return;
        };
        let order = match *effect {
            Effect::Stop(dispatch, reason) => Some(ToWorker::Stop { dispatch, reason }),
            Effect::Start(dispatch) => {
                let task = self.node.with_state(|state| start_task(state, dispatch));
                task.map(|task| ToWorker::Start(Box::new(task)))
            }
        };
        let Some(order) = order else { return };
        if session.outgoing.try_send(order).is_err() {
            warn!(worker = %dispatch.worker, "worker is too far behind; cut off to begin anew");
            session.end.cancel();
        }
    }

    /// Has the worker that ran an attempt read what it wrote.
    ///
    /// # Errors
    ///
    /// If this node does not lead, the worker is not connected, or has no such bytes.
    pub(crate) async fn read(&self, worker: WorkerId, read: Read) -> Result<Chunk, ReadError> {
        let unavailable = |reason: String| ReadError::Unavailable(reason);
        let wait = Duration::from_millis(read.wait.0) + READ_MARGIN;
        let (answer, answered) = oneshot::channel();
        let request = {
            let mut open = self.open();
            let Some(session) = open.sessions.get(&worker).cloned() else {
                let reason = format!("worker {worker}, which has it, is not connected");
                return Err(unavailable(reason));
            };
            open.reads.retain(|_, waiting| !waiting.is_closed());
            if open.reads.len() >= READS_MAX {
                return Err(unavailable(format!("{READS_MAX} reads are under way; try again")));
            }
            open.serial += 1;
            let request = open.serial;
            let order = ToWorker::Read { request, read };
            if session.outgoing.try_send(order).is_err() {
                return Err(unavailable(format!("worker {worker} is too far behind")));
            }
            open.reads.insert(request, answer);
            request
        };
        match tokio::time::timeout(wait, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(unavailable("the leader changed; try again".to_owned())),
            Err(_) => {
                self.open().reads.remove(&request);
                Err(unavailable(format!("worker {worker} did not answer in time")))
            }
        }
    }
}

/// All that the worker needs to know, if the attempt is still the one in flight.
fn start_task(state: &State, dispatch: Dispatch) -> Option<StartTask> {
    let run = state.runs().get(&dispatch.task.run)?;
    let flight = state.task(dispatch.task).ok()?.flight()?;
    if flight.token != dispatch.token || flight.stop.is_some() {
        return None;
    }
    let workflow = state.definition(run.definition);
    let task = workflow.tasks.get(dispatch.task.position())?;
    let (params, env) = match &flight.rendered {
        Some(rendered) => (rendered.params.clone(), rendered.env.clone()),
        None => {
            let mut env = workflow.env.clone();
            env.extend(task.env.clone());
            (task.params.clone(), env)
        }
    };
    Some(StartTask {
        dispatch,
        workflow: run.workflow.clone(),
        id: task.id.clone(),
        kind: task.kind.clone(),
        params,
        env,
        artifacts: task.artifacts.clone(),
    })
}
