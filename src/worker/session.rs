//! The session: what a worker and the leader have with each other, over whatever connection.
//!
//! ```text
//! no lease ──► nothing runs ──► connect ──► Register ──┐
//!    ▲                                                 ├──► renew, obey, report ──┐
//!    │         lease holds ───► connect ──► Resume ────┘                          │
//!    │              ▲                                                             │
//!    │              └── connection lost, silent, or another leads ────────────────┤
//!    └── lease over, or refused: everything is killed ────────────────────────────┘
//! ```
//! Rule R1 is kept here and in [`Lease`]; the other half of the lease, killing what
//! outlives it, is the keeper's. Nothing here waits for a disk or for a task.

mod dial;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quorate_api::backend::{Read, ReadError};
use quorate_model::{Containment, DurationMs, Epoch, Registration, WorkerId};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::agent::Wish;
use super::identity::{Identity, Profile};
use super::lease::{BootNs, Lease};
use super::logs::Logs;
use super::outbox::Outbox;
use super::standing::Standing;
use super::sys;
use crate::protocol::{FromWorker, Heard, ToWorker};
use dial::Dial;

/// How long a connection may take. A server that takes longer is no help within a lease.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// How long the answer to a registration may take: it is an entry, and there may be none
/// before an election.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// How long a leader may take to hang up after a release was sent.
const FAREWELL_MAX: Duration = Duration::from_millis(500);

/// Reads that may wait at once: a few for every slot, by people and pages.
const READS_MAX: usize = 256;

/// A connection to a server, as two queues of messages. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Link {
    /// What this worker says.
    pub(crate) to_leader: mpsc::Sender<FromWorker>,
    /// What the server says; ends with the connection.
    pub(crate) from_leader: mpsc::Receiver<ToWorker>,
}

/// The servers of the cluster, any of which may lead.
#[async_trait]
pub(crate) trait Servers: Send + Sync + 'static {
    /// Where they are, the most promising first. Asked before each connection.
    fn addresses(&self) -> Vec<String>;

    /// Connects to one. May be given up at any time.
    async fn connect(&self, address: &str) -> io::Result<Link>;
}

/// Why a session over one connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// It was closed, or never came about.
    Closed,
    /// Nothing was answered for too long.
    Silent,
    /// Another server leads.
    NotLeader(Option<String>),
    /// The registration is void.
    Refused { forget_id: bool },
    /// The lease is over.
    Expired,
    /// The agent has more to do than it can take.
    Overrun,
    /// The worker stops, and has said so if it could.
    Stopped,
}

/// See the [module](self).
pub(crate) struct Session {
    /// Where to find a leader.
    pub(crate) servers: Arc<dyn Servers>,
    /// What to register as.
    pub(crate) profile: Profile,
    /// The id of this worker.
    pub(crate) identity: Identity,
    /// The registration.
    pub(crate) standing: Arc<Standing>,
    /// What is to be reported.
    pub(crate) outbox: Arc<Outbox>,
    /// What may be read.
    pub(crate) logs: Arc<Logs>,
    /// The agent.
    pub(crate) wishes: mpsc::Sender<Wish>,
    /// How tasks are contained, once the keeper has come so far that work may begin.
    pub(crate) containment: watch::Receiver<Option<Containment>>,
    /// Whether the disk is full.
    pub(crate) full: watch::Receiver<bool>,
    /// Set when the worker stops, and takes nothing more.
    pub(crate) leaving: watch::Receiver<bool>,
    /// Set when nothing runs any more and the worker is to leave.
    pub(crate) farewell: watch::Receiver<bool>,
}

impl Session {
    /// Runs until it is told to leave, or the agent is gone.
    pub(crate) async fn run(mut self) {
        let mut farewell = self.farewell.clone();
        tokio::select! {
            () = known(&mut self.containment) => {}
            () = said(&mut farewell) => return,
        }
        let mut dial = Dial::default();
        loop {
            if self.standing.held(sys::boottime()).is_none() && self.lay_down().await.is_err() {
                return;
            }
            let end = match self.connect(&mut dial).await {
                Some(link) => self.attend(link, &mut dial).await,
                None if self.is_leaving() => return,
                None => End::Closed,
            };
            tracing::debug!(?end, "a session ended");
            match &end {
                End::Stopped => return,
                End::Refused { forget_id } => {
                    if *forget_id {
                        self.identity.forget();
                    }
                    // At once: what runs has no right to.
                    if self.lay_down().await.is_err() {
                        return;
                    }
                }
                End::NotLeader(Some(leader)) if dial.follow(leader) => continue,
                End::NotLeader(_) | End::Closed | End::Silent | End::Expired | End::Overrun => {}
            }
            let pause = dial.pause();
            let mut farewell = self.farewell.clone();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = said(&mut farewell) => return,
            }
        }
    }

    fn is_leaving(&self) -> bool {
        *self.farewell.borrow()
    }

    /// Gives the registration up, and waits until nothing runs.
    async fn lay_down(&self) -> Result<(), mpsc::error::SendError<Wish>> {
        if let Err(error) = self.standing.revoke() {
            tracing::debug!(%error, "the keeper does not hear that the registration is void");
        }
        let (done, quiet) = oneshot::channel();
        self.wishes.send(Wish::Quiesce(done)).await?;
        // If the agent is gone, the next wish tells.
        let _ = quiet.await;
        Ok(())
    }

    async fn connect(&self, dial: &mut Dial) -> Option<Link> {
        let address = dial.next(&self.servers.addresses())?;
        let mut farewell = self.farewell.clone();
        let connected = tokio::select! {
            connected = tokio::time::timeout(CONNECT_MAX, self.servers.connect(&address)) => connected,
            () = said(&mut farewell) => return None,
        };
        match connected {
            Ok(Ok(link)) => Some(link),
            Ok(Err(error)) => {
                tracing::debug!(address, %error, "cannot connect");
                None
            }
            Err(_) => {
                tracing::debug!(address, "a connection takes too long");
                None
            }
        }
    }

    /// Has a session over one connection, from the first word to its end.
    async fn attend(&mut self, link: Link, dial: &mut Dial) -> End {
        let Link { to_leader, mut from_leader } = link;
        let span = match self.introduce(&to_leader, &mut from_leader).await {
            Ok(span) => span,
            Err(end) => return end,
        };
        dial.arrived();
        self.outbox.send_all_again();
        let reads = Arc::new(Semaphore::new(READS_MAX));
        let mut renewals = Renewals::new(span);
        let (mut farewell, mut full) = (self.farewell.clone(), self.full.clone());
        let mut leaving = self.leaving.clone();
        // In a new session there is room for it.
        if *full.borrow_and_update() {
            let _ = to_leader.try_send(FromWorker::DiskFull(true));
        }
        if *leaving.borrow_and_update() {
            let _ = to_leader.try_send(FromWorker::Leaving);
        }
        loop {
            let Some(lease) = self.standing.held(sys::boottime()) else { return End::Expired };
            tokio::select! {
                word = from_leader.recv() => match word {
                    Some(word) => if let Err(end) = self.heed(word, &to_leader, &mut renewals, &reads) {
                        return end;
                    },
                    None => return End::Closed,
                },
                () = tokio::time::sleep_until(renewals.due) => {
                    if renewals.are_unanswered() {
                        return End::Silent;
                    }
                    self.outbox.send_late_ones_again();
                    let (sent_at, heard) = (renewals.next().0, renewals.heard.take());
                    // If there is no room, nothing was taken for long: an answer will be missed.
                    let _ = to_leader.try_send(FromWorker::Renew { sent_at, heard });
                },
                Ok(()) = full.changed() => {
                    let is_full = *full.borrow_and_update();
                    // Whoever takes nothing any more is given up soon, and told anew.
                    let _ = to_leader.try_send(FromWorker::DiskFull(is_full));
                },
                Ok(()) = leaving.changed() => {
                    let _ = to_leader.try_send(FromWorker::Leaving);
                },
                () = self.send_reports(&to_leader) => return End::Closed,
                // Nobody is left to do what is asked: the lease must end.
                () = self.wishes.closed() => return End::Stopped,
                () = sleep_until(lease.deadline) => {}
                () = said(&mut farewell) => {
                    self.leave(to_leader, from_leader).await;
                    return End::Stopped;
                }
            }
        }
    }

    /// Registers, or resumes what holds. The length of the lease.
    async fn introduce(
        &mut self,
        to_leader: &mpsc::Sender<FromWorker>,
        from_leader: &mut mpsc::Receiver<ToWorker>,
    ) -> Result<DurationMs, End> {
        let sent_at = sys::boottime();
        let held = self.standing.held(sent_at);
        let Profile { name, labels, slots } = self.profile.clone();
        let containment = (*self.containment.borrow()).expect("a session begins when it is known");
        let word = match held {
            Some(lease) => FromWorker::Resume { worker: lease.worker, epoch: lease.epoch },
            None => {
                let last = self.identity.known();
                FromWorker::Register { last, name, labels, slots, containment }
            }
        };
        to_leader.send(word).await.map_err(|_| End::Closed)?;
        let answer = tokio::time::timeout(ANSWER_MAX, from_leader.recv()).await;
        match answer.map_err(|_| End::Silent)?.ok_or(End::Closed)? {
            ToWorker::Registered { worker, epoch, lease } => match held {
                Some(held) if (held.worker, held.epoch) == (worker, epoch) => {
                    tracing::info!(%worker, %epoch, "resumed");
                    Ok(held.span)
                }
                Some(_) => Err(End::Refused { forget_id: false }),
                None => {
                    self.registered(worker, epoch, lease, sent_at);
                    Ok(lease)
                }
            },
            ToWorker::NotLeader { leader } => Err(End::NotLeader(leader)),
            ToWorker::Refused { reason, forget_id } => {
                tracing::warn!(reason, "refused");
                Err(End::Refused { forget_id })
            }
            ToWorker::Renewed { .. }
            | ToWorker::Start(_)
            | ToWorker::Stop { .. }
            | ToWorker::Recorded { .. }
            | ToWorker::Read { .. } => {
                tracing::warn!("a server that speaks before it has answered");
                Err(End::Closed)
            }
        }
    }

    fn registered(&mut self, worker: WorkerId, epoch: Epoch, span: DurationMs, sent_at: BootNs) {
        tracing::info!(%worker, %epoch, lease_ms = span.0, "registered");
        self.identity.learn(Registration { worker, epoch });
        self.standing.grant(Lease::granted(worker, epoch, span, sent_at));
    }

    /// Takes in what the leader says. Nothing here waits.
    fn heed(
        &self,
        word: ToWorker,
        to_leader: &mpsc::Sender<FromWorker>,
        renewals: &mut Renewals,
        reads: &Arc<Semaphore>,
    ) -> Result<(), End> {
        match word {
            ToWorker::Renewed { sent_at } => {
                renewals.answered(BootNs(sent_at));
                self.standing.renew(BootNs(sent_at));
            }
            ToWorker::Start(start) => {
                // Whoever reads its log from now on waits for it to begin.
                self.logs.begin(start.dispatch.task, start.dispatch.attempt);
                self.wish(Wish::Start(start))?;
            }
            ToWorker::Stop { dispatch, reason } => self.wish(Wish::Stop(dispatch, reason))?,
            ToWorker::Recorded { sequence } => self.outbox.recorded(sequence),
            ToWorker::Read { request, read } => self.read(request, read, to_leader, reads),
            ToWorker::NotLeader { leader } => return Err(End::NotLeader(leader)),
            ToWorker::Refused { reason, forget_id } => {
                tracing::warn!(reason, "refused");
                return Err(End::Refused { forget_id });
            }
            ToWorker::Registered { .. } => tracing::warn!("registered twice"),
        }
        Ok(())
    }

    /// Asks the agent. If it cannot take more, the leader says it all again on the next
    /// connection.
    fn wish(&self, wish: Wish) -> Result<(), End> {
        self.wishes.try_send(wish).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => End::Overrun,
            mpsc::error::TrySendError::Closed(_) => End::Stopped,
        })
    }

    /// Sends reports as they come; ends with the connection.
    async fn send_reports(&self, to_leader: &mpsc::Sender<FromWorker>) {
        loop {
            let Ok(room) = to_leader.reserve().await else { return };
            match self.outbox.next_to_send() {
                Some((sequence, report)) => room.send(FromWorker::Report { sequence, report }),
                None => {
                    drop(room);
                    self.outbox.news().await;
                }
            }
        }
    }

    fn read(
        &self,
        request: u64,
        read: Read,
        to_leader: &mpsc::Sender<FromWorker>,
        reads: &Arc<Semaphore>,
    ) {
        let to_leader = to_leader.clone();
        let Ok(permit) = Arc::clone(reads).try_acquire_owned() else {
            let reason = format!("{READS_MAX} readers wait at this worker already");
            let result = Err(ReadError::Unavailable(reason));
            // Without room the answer is lost, and the asker has a deadline.
            let _ = to_leader.try_send(FromWorker::ReadDone { request, result });
            return;
        };
        let logs = Arc::clone(&self.logs);
        tokio::spawn(async move {
            tokio::select! {
                result = logs.read(read) => {
                    let _ = to_leader.send(FromWorker::ReadDone { request, result }).await;
                }
                () = to_leader.closed() => {}
            }
            drop(permit);
        });
    }

    /// Says that nothing runs here any more, and waits until that was heard.
    async fn leave(
        &self,
        to_leader: mpsc::Sender<FromWorker>,
        mut from_leader: mpsc::Receiver<ToWorker>,
    ) {
        // Before it is said: whoever comes after this agent must not go on under it.
        if let Err(error) = self.standing.revoke() {
            tracing::warn!(%error, "the lease is not given back: the keeper does not hear");
            return;
        }
        let _ = to_leader.send(FromWorker::Release).await;
        drop(to_leader);
        let heard = async { while from_leader.recv().await.is_some() {} };
        if tokio::time::timeout(FAREWELL_MAX, heard).await.is_err() {
            tracing::debug!("the leader does not hang up after a release");
        }
    }
}

/// When to renew, and whether answers come.
struct Renewals {
    span: DurationMs,
    due: Instant,
    last_sent: Option<BootNs>,
    /// The first that was sent since an answer came, if none came since.
    unanswered: Option<BootNs>,
    /// The last answer, until it is told.
    heard: Option<Heard>,
}

impl Renewals {
    /// The first is due at once: a resumed lease is not extended by resuming.
    fn new(span: DurationMs) -> Self {
        Self { span, due: Instant::now(), last_sent: None, unanswered: None, heard: None }
    }

    /// One is being sent. The next is due after a quarter of the lease, or when this one
    /// should have been answered: then there is time for another server.
    fn next(&mut self) -> BootNs {
        let now = sys::boottime();
        self.last_sent = Some(now);
        self.unanswered.get_or_insert(now);
        self.due = Instant::now() + Duration::from_millis(self.span.0) / 4;
        now
    }

    fn answered(&mut self, sent_at: BootNs) {
        self.unanswered = self.last_sent.filter(|last| *last > sent_at);
        self.heard = Some(Heard { sent_at: sent_at.0, at: sys::boottime().0 });
    }

    /// Whether the last two came to nothing, for more than a quarter of the lease.
    fn are_unanswered(&self) -> bool {
        let patience = Duration::from_millis(self.span.0) / 5;
        self.unanswered.is_some_and(|since| sys::boottime().since(since) > patience)
    }
}

/// Waits until a thing is so, or whoever would say it is gone.
async fn said(thing: &mut watch::Receiver<bool>) {
    // The value is seen under a lock, which nobody may hold while waiting for something else.
    let _ = thing.wait_for(|said| *said).await.map(drop);
}

/// Waits until it is known how tasks are contained, or whoever would say it is gone.
async fn known(containment: &mut watch::Receiver<Option<Containment>>) {
    let _ = containment.wait_for(Option::is_some).await.map(drop);
}

async fn sleep_until(at: BootNs) {
    tokio::time::sleep(at.since(sys::boottime())).await;
}
