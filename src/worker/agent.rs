//! The agent: decides what runs on this worker.
//!
//! It lives on a thread of its own, which may wait for the disk, so that the session can
//! renew the lease whatever the disk does. All about attempts is here: which live, which
//! have ended, what is to be told. What may be told to start is judged by rule R6.

mod ended;

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_model::{
    Containment, Dispatch, DurationMs, Outcome, StopReason, TaskId, Usage, mutant,
};
use quorate_raft::machine;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::attempt::{self, Attempt, Departure, Finished, Host, Prepared};
use super::keeper::{Exit, Keeper, Key, Note, Order, Program, Said, VERSION};
use super::outbox::{Journal, Outbox};
use super::standing::Standing;
use super::status::Counters;
use crate::protocol::StartTask;
use ended::Ended;

/// How soon to try again to start a keeper.
const KEEPER_RETRY: Duration = Duration::from_millis(100);

/// What the session asks of the agent.
#[derive(Debug)]
pub(crate) enum Wish {
    /// As in [`ToWorker::Start`](crate::protocol::ToWorker::Start).
    Start(Box<StartTask>),
    /// As in [`ToWorker::Stop`](crate::protocol::ToWorker::Stop).
    Stop(Dispatch, StopReason),
    /// Kill everything without a report, and answer when nothing runs.
    Quiesce(oneshot::Sender<()>),
    /// Let go of everything that runs, for the next agent to take over.
    Detach,
    /// Start nothing more; answer when nothing runs. What still does after a while is stopped.
    Drain {
        /// How long tasks may run on.
        patience: Duration,
        /// Answered when nothing runs.
        done: oneshot::Sender<()>,
    },
}

/// How the agent is set up.
pub(crate) struct Setup {
    /// The worker's directory.
    pub(crate) dir: PathBuf,
    /// How many attempts at once.
    pub(crate) slots: usize,
    /// How to start a keeper.
    pub(crate) keeper: Program,
    /// How long a task may take to end once it was asked to.
    pub(crate) kill_after: DurationMs,
    /// What attempts share.
    pub(crate) host: Host,
    /// The registration.
    pub(crate) standing: Arc<Standing>,
    /// Where reports go.
    pub(crate) outbox: Arc<Outbox>,
    /// Its file.
    pub(crate) journal: Journal,
    /// Told how tasks are contained once a keeper is ready.
    pub(crate) ready: watch::Sender<Option<Containment>>,
    /// Whether the disk is full.
    pub(crate) full: watch::Receiver<bool>,
    /// Told what happens.
    pub(crate) counters: Arc<Counters>,
}

/// See the [module](self).
pub(crate) struct Agent {
    setup: Setup,
    keeper: Option<Keeper>,
    is_ready: bool,
    /// A keeper was ready before: what this agent knows of the lease is newer than what one has.
    has_begun: bool,
    retry_at: Option<Instant>,
    next_key: u64,
    /// At most one attempt of a task lives.
    live: BTreeMap<TaskId, Live>,
    by_key: BTreeMap<Key, TaskId>,
    /// What the keeper holds of all that live. Until it has told all, only those it has told.
    told: BTreeSet<Key>,
    /// Attempts that the keeper may forget.
    settled: Vec<Key>,
    containment: Option<Containment>,
    watched: JoinSet<Finished>,
    /// Accepted while there was no keeper, or no room.
    waiting: Vec<StartTask>,
    ended: Ended,
    quiesce: Vec<oneshot::Sender<()>>,
    drain: Option<Drain>,
}

struct Live {
    dispatch: Dispatch,
    key: Key,
    /// Taken when it is told.
    departure: Option<oneshot::Sender<Departure>>,
    /// It is killed because the registration was given up, and nobody asks how it ended.
    is_void: bool,
}

struct Drain {
    /// When what still runs is stopped; `None` once that was done.
    until: Option<Instant>,
    /// Taken when it is answered.
    done: Option<oneshot::Sender<()>>,
}

impl Agent {
    /// Sets it up; nothing happens before [`run`](Self::run).
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            setup,
            keeper: None,
            is_ready: false,
            has_begun: false,
            retry_at: None,
            next_key: 0,
            live: BTreeMap::new(),
            by_key: BTreeMap::new(),
            told: BTreeSet::new(),
            settled: Vec::new(),
            containment: None,
            watched: JoinSet::new(),
            waiting: Vec::new(),
            ended: Ended::default(),
            quiesce: Vec::new(),
            drain: None,
        }
    }

    /// Works until the session has gone; then has the keeper kill what runs and end, unless it
    /// was told to leave it running.
    pub(crate) async fn run(mut self, mut wishes: mpsc::Receiver<Wish>) {
        self.find_keeper();
        let is_detached = loop {
            let timer = self.next_timer();
            tokio::select! {
                wish = wishes.recv() => match wish {
                    Some(Wish::Detach) => break true,
                    Some(wish) => self.grant(wish).await,
                    None => break false,
                },
                note = next_note(&mut self.keeper) => self.heed(note).await,
                Some(finished) = self.watched.join_next() => match finished {
                    Ok(finished) => self.finish(finished),
                    // A fault of ours, and nobody can tell how the attempt ended: better to
                    // fall over, so that the keeper kills it.
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                Ok(()) = self.setup.full.changed() => self.heed_room().await,
                () = sleep_until(timer) => self.tick().await,
            }
            self.answer_who_waits();
        };
        self.setup.standing.detach();
        if is_detached {
            tracing::info!(running = self.live.len(), "leaving what runs to the next agent");
            let settled = std::mem::take(&mut self.settled);
            self.order(&Order::Forget(settled)).await;
        } else if let Some(keeper) = self.keeper.take() {
            keeper.end().await;
        }
        if let Err(error) = self.setup.journal.close(&self.setup.outbox) {
            tracing::warn!(%error, "the outbox cannot be closed");
        }
    }

    async fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Start(start) => self.grant_start(*start).await,
            Wish::Stop(dispatch, reason) => self.stop(dispatch, reason).await,
            Wish::Quiesce(done) => {
                self.quiesce.push(done);
                self.drop_waiting();
                self.live.values_mut().for_each(|live| live.is_void = true);
                if !self.live.is_empty() {
                    tracing::warn!(running = self.live.len(), "killing what runs: no registration");
                    self.order(&Order::KillAll).await;
                }
            }
            Wish::Detach => {} // It ends the loop.
            Wish::Drain { patience, done } => {
                for start in std::mem::take(&mut self.waiting) {
                    self.setup.host.logs.end(start.dispatch.task, start.dispatch.attempt);
                    self.tell(start.dispatch, Outcome::Returned, Usage::default());
                }
                let until = Some(Instant::now() + patience);
                self.drain = Some(Drain { until, done: Some(done) });
            }
        }
    }

    async fn grant_start(&mut self, start: StartTask) {
        let dispatch = start.dispatch;
        self.start(start).await;
        if !self.is_under_way(&dispatch) {
            // Nobody waits for a log that will not be written.
            self.setup.host.logs.end(dispatch.task, dispatch.attempt);
        }
    }

    /// Starts an attempt, if rule R6 allows it and it was not started before.
    async fn start(&mut self, start: StartTask) {
        let dispatch = start.dispatch;
        if let Err(refusal) = self.setup.standing.admits(&dispatch) {
            tracing::info!(%dispatch, %refusal, "not started");
            return;
        }
        if self.knows(&dispatch) && !mutant::is("M24") {
            tracing::debug!(%dispatch, "already started");
            return;
        }
        if self.drain.is_some() && self.ended.admits(&dispatch) {
            tracing::info!(%dispatch, "handed back: this worker is stopping");
            self.tell(dispatch, Outcome::Returned, Usage::default());
            return;
        }
        let refusal = if self.live.contains_key(&dispatch.task) {
            Some("another attempt of the task is alive")
        } else if !self.ended.admits(&dispatch) {
            Some("its token is not newer than the last")
        } else if self.live.len() + self.waiting.len() >= self.setup.slots {
            Some("every slot is taken")
        } else {
            None
        };
        if let Some(reason) = refusal {
            tracing::error!(%dispatch, reason, "refused to start");
            self.tell(dispatch, Outcome::Lost, Usage::default());
        } else if self.is_ready && !*self.setup.full.borrow() {
            self.launch(start).await;
        } else {
            self.waiting.push(start);
        }
    }

    /// Whether this very attempt runs, or ran. If its report is not recorded, sends it again.
    fn knows(&self, dispatch: &Dispatch) -> bool {
        self.is_under_way(dispatch)
            || self.setup.outbox.send_again(dispatch)
            || self.ended.is(dispatch)
    }

    /// Whether this very attempt runs, or will.
    fn is_under_way(&self, dispatch: &Dispatch) -> bool {
        self.live.get(&dispatch.task).is_some_and(|live| live.dispatch == *dispatch)
            || self.waiting.iter().any(|start| start.dispatch == *dispatch)
    }

    fn drop_waiting(&mut self) {
        for start in self.waiting.drain(..) {
            self.setup.host.logs.end(start.dispatch.task, start.dispatch.attempt);
        }
    }

    async fn launch(&mut self, start: StartTask) {
        let dispatch = start.dispatch;
        let key = Key(self.next_key);
        self.next_key += 1;
        let Prepared { mut spawn, pipes, attempt } =
            match attempt::prepare(start, key, &self.setup.host) {
                Ok(prepared) => prepared,
                Err(reason) => {
                    tracing::info!(%dispatch, %reason, "cannot be started");
                    self.tell(dispatch, Outcome::Broken { reason }, Usage::default());
                    return;
                }
            };
        let fds: Vec<_> = pipes.iter().map(AsFd::as_fd).chain(attempt.pipes()).collect();
        // What these had is lent again from here on: an agent that comes next must not clear it.
        spawn.forget = std::mem::take(&mut self.settled);
        let sent = match &self.keeper {
            Some(keeper) => keeper.send(&Order::Start(spawn), &fds).await,
            None => Ok(()),
        };
        drop(fds);
        drop(pipes);
        tracing::debug!(%dispatch, "starting");
        self.watch(key, attempt);
        if let Err(error) = sent
            && error.kind() == io::ErrorKind::ArgumentListTooLong
        {
            self.depart(key, Departure::Refused(error.to_string()));
        }
        // With any other error the keeper is gone, and so will be whatever it had started.
    }

    fn watch(&mut self, key: Key, attempt: Attempt) {
        let (sender, departure) = oneshot::channel();
        let dispatch = attempt.dispatch();
        let live = Live { dispatch, key, departure: Some(sender), is_void: false };
        if let Some(overtaken) = self.live.insert(dispatch.task, live) {
            // It has ended, and the keeper only holds it still: so did the agent before.
            self.by_key.remove(&overtaken.key);
            self.settled.push(overtaken.key);
        }
        self.by_key.insert(key, dispatch.task);
        self.watched.spawn(attempt.watch(departure));
        self.setup.counters.started(self.live.len());
    }

    /// Takes over a task that an earlier agent had started.
    async fn take_over(&mut self, key: Key, memo: &[u8], exit: Option<Exit>, pipes: Vec<OwnedFd>) {
        self.next_key = self.next_key.max(key.0 + 1);
        self.told.insert(key);
        if !self.by_key.contains_key(&key) {
            match attempt::take_over(memo, pipes, &self.setup.host) {
                // It had ended for the earlier agent too, which had no time to say so.
                Ok(attempt) if self.knows(&attempt.dispatch()) => self.settled.push(key),
                Ok(attempt) => {
                    tracing::info!(dispatch = %attempt.dispatch(), "taken over");
                    self.watch(key, attempt);
                }
                // Nobody can tell what it is, so nobody could tell that it runs already.
                Err(reason) => {
                    tracing::error!(?key, reason, "a task cannot be taken over: all is given up");
                    self.order(&Order::Revoke).await;
                    self.setup.standing.forsake();
                }
            }
        }
        if let Some(exit) = exit {
            self.depart(key, Departure::Exited(exit));
        }
    }

    /// Stops an attempt, or sees to it that it never begins.
    async fn stop(&mut self, dispatch: Dispatch, reason: StopReason) {
        let live = self.live.get(&dispatch.task).filter(|live| live.dispatch == dispatch);
        if let Some(key) = live.map(|live| live.key) {
            tracing::info!(%dispatch, ?reason, "stopping");
            let grace = self.setup.kill_after;
            self.order(&Order::Stop { key, grace }).await;
            return;
        }
        if self.waiting.iter().any(|start| start.dispatch == dispatch) {
            self.waiting.retain(|start| start.dispatch != dispatch);
            self.setup.host.logs.end(dispatch.task, dispatch.attempt);
        }
        if self.knows(&dispatch) || !self.ended.admits(&dispatch) {
            return;
        }
        if let Err(refusal) = self.setup.standing.admits(&dispatch) {
            tracing::info!(%dispatch, %refusal, "nothing to stop");
            return;
        }
        tracing::info!(%dispatch, ?reason, "stopped before it began");
        self.tell(dispatch, Outcome::Stopped, Usage::default());
    }

    /// Takes in that an attempt has ended and everything about it is written.
    fn finish(&mut self, finished: Finished) {
        let Finished { dispatch, outcome, usage, workspace } = finished;
        // An attempt that was taken over after it had ended may have a successor that runs.
        let is_last = self.live.get(&dispatch.task).is_some_and(|live| live.dispatch == dispatch);
        let live = if is_last { self.live.remove(&dispatch.task) } else { None };
        let is_void = live.is_some_and(|live| {
            self.by_key.remove(&live.key);
            self.settled.push(live.key);
            live.is_void
        });
        self.setup.host.logs.end(dispatch.task, dispatch.attempt);
        self.setup.counters.ended(self.live.len());
        tracing::debug!(%dispatch, ?outcome, "ended");
        // Without a registration there is nobody to tell: the next one says that it is lost.
        if is_void {
            self.ended.insert(&dispatch);
        } else {
            self.tell(dispatch, outcome, usage);
        }
        self.setup.host.workspaces.give_back(workspace);
    }

    /// Reports the end of an attempt, which then never starts again.
    fn tell(&mut self, dispatch: Dispatch, outcome: Outcome, usage: Usage) {
        self.ended.insert(&dispatch);
        let report = attempt::report(dispatch, outcome, usage);
        let Setup { outbox, journal, .. } = &mut self.setup;
        // On its way while it is written down: the log is the better place for it.
        let sequence = outbox.add(report.clone());
        if let Err(error) = journal.append(sequence, &report, outbox) {
            tracing::warn!(%error, "a report is in memory only until it is recorded");
        }
    }

    /// Goes on where there was no room.
    async fn heed_room(&mut self) {
        if *self.setup.full.borrow_and_update() {
            return;
        }
        if let Err(error) = self.setup.journal.catch_up(&self.setup.outbox) {
            tracing::warn!(%error, "reports are in memory only until they are recorded");
        }
        for start in std::mem::take(&mut self.waiting) {
            self.grant_start(start).await;
        }
    }

    async fn heed(&mut self, said: io::Result<Option<Said>>) {
        match said {
            Ok(Some((note, fds))) => self.heed_note(note, fds).await,
            Ok(None) => self.lose_keeper("it is gone"),
            Err(error) => self.lose_keeper(&error.to_string()),
        }
    }

    async fn heed_note(&mut self, note: Note, fds: Vec<OwnedFd>) {
        match note {
            Note::Welcome { version: VERSION, containment, term } => {
                self.containment = Some(containment);
                self.told.clear();
                if let Some(term) = term.filter(|_| !self.has_begun) {
                    self.setup.standing.inherit(term);
                }
            }
            Note::Welcome { version, .. } => {
                self.lose_keeper(&format!("it is of another version and speaks {version}"));
            }
            Note::Held { key, memo, exit } => self.take_over(key, &memo, exit, fds).await,
            Note::Over { epoch } => {
                tracing::warn!(%epoch, "the lease is over");
                self.setup.standing.expire(epoch);
            }
            Note::Ready => self.begin().await,
            Note::Exited(exit) => self.depart(exit.key, Departure::Exited(exit)),
            Note::Refused { key, reason } => self.depart(key, Departure::Refused(reason)),
        }
    }

    fn depart(&mut self, key: Key, departure: Departure) {
        let live = self.by_key.get(&key).and_then(|task| self.live.get_mut(task));
        if let Some(sender) = live.and_then(|live| live.departure.take()) {
            // Its receiver waits for just this.
            let _ = sender.send(departure);
        }
    }

    /// The keeper has told all that it holds: what else lived is lost, and work may begin.
    async fn begin(&mut self) {
        let Some(keeper) = &self.keeper else { return };
        self.setup.standing.attach(keeper.line());
        (self.is_ready, self.has_begun) = (true, true);
        for key in self.by_key.keys().copied().collect::<Vec<_>>() {
            if !self.told.contains(&key) {
                self.depart(key, Departure::KeeperLost);
            }
        }
        self.setup.ready.send_replace(self.containment);
        for start in std::mem::take(&mut self.waiting) {
            self.grant_start(start).await;
        }
    }

    fn find_keeper(&mut self) {
        self.retry_at = None;
        match Keeper::find_or_start(&self.setup.keeper, &self.setup.dir) {
            Ok(keeper) => self.keeper = Some(keeper),
            Err(error) => self.lose_keeper(&error.to_string()),
        }
    }

    fn lose_keeper(&mut self, reason: &str) {
        tracing::error!(reason, running = self.live.len(), "the keeper is lost; starting another");
        self.setup.standing.detach();
        self.keeper = None;
        self.is_ready = false;
        self.retry_at = Some(Instant::now() + KEEPER_RETRY);
    }

    async fn order(&mut self, order: &Order) {
        let Some(keeper) = &self.keeper else { return };
        if let Err(error) = keeper.send(order, &[]).await {
            tracing::warn!(%error, "the keeper takes no orders");
        }
    }

    fn next_timer(&self) -> Option<Instant> {
        let drain = self.drain.as_ref().and_then(|drain| drain.until);
        [self.retry_at, drain, self.setup.journal.sync_due()].into_iter().flatten().min()
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.find_keeper();
        }
        if self.setup.journal.sync_due().is_some_and(|at| at <= now) {
            self.sync();
        }
        let drain = self.drain.as_mut();
        if drain.and_then(|drain| drain.until.take_if(|until| *until <= now)).is_some() {
            let grace = self.setup.kill_after;
            for key in self.by_key.keys().copied().collect::<Vec<_>>() {
                self.order(&Order::Stop { key, grace }).await;
            }
        }
    }

    /// Has the outbox synced, if it is needed, without waiting.
    fn sync(&mut self) {
        let Setup { outbox, journal, .. } = &mut self.setup;
        if let Some(file) = journal.take_unsynced(outbox) {
            let sync = machine::blocking(move || {
                if let Err(error) = file.and_then(|file| file.sync_data()) {
                    tracing::error!(%error, "reports that wait do not outlive a power cut");
                }
            });
            tokio::spawn(sync);
        }
    }

    fn answer_who_waits(&mut self) {
        if !self.live.is_empty() {
            return;
        }
        // Whoever waited may have given up.
        for done in self.quiesce.drain(..) {
            let _ = done.send(());
        }
        if let Some(done) = self.drain.as_mut().and_then(|drain| drain.done.take()) {
            let _ = done.send(());
        }
    }
}

/// What the keeper says next; for ever nothing if there is none.
async fn next_note(keeper: &mut Option<Keeper>) -> io::Result<Option<Said>> {
    match keeper {
        Some(keeper) => keeper.next().await,
        None => pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}
