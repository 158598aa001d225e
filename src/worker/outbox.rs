//! Reports that are not recorded yet.
//!
//! A report is sent at once, on whatever connection there is, and again on the next one,
//! until a leader says that it is in the log or never will be. Meanwhile it also lies in a
//! file. Writing that file is not on the way of anything: in a healthy cluster the answer is
//! back before the disk would be, so it is synced only for reports that have waited a while.

mod journal;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_model::Dispatch;
use quorate_model::command::ReportTask;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use journal::Journal;

/// How long a report may go without an answer before it is sent again: longer than a leader
/// takes to commit anything.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The reports, shared by the agent that adds to them and the session that sends them.
///
/// Their number is bounded: a task has at most one attempt in flight, so there are no more
/// than a worker has slots, for each registration that ended without an answer.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    news: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    pending: BTreeMap<u64, Waiting>,
    /// To be sent on the present connection.
    queue: VecDeque<u64>,
    next: u64,
}

/// A report that is not recorded.
#[derive(Debug)]
struct Waiting {
    report: ReportTask,
    /// On the present connection.
    sent_at: Option<Instant>,
}

impl From<ReportTask> for Waiting {
    fn from(report: ReportTask) -> Self {
        Self { report, sent_at: None }
    }
}

impl Outbox {
    /// Opens the one in `dir`, with what was left in it.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written.
    pub(crate) fn open(dir: &Path) -> io::Result<(Self, Journal)> {
        let (journal, pending) = Journal::open(dir)?;
        let next = pending.last_key_value().map_or(1, |(last, _)| last + 1);
        if !pending.is_empty() {
            tracing::info!(reports = pending.len(), "found reports that are not recorded yet");
        }
        let pending = pending.into_iter().map(|(sequence, report)| (sequence, report.into()));
        let pending = pending.collect();
        let inner = Mutex::new(Inner { pending, queue: VecDeque::new(), next });
        Ok((Self { inner, news: Notify::new(), emptied: Notify::new() }, journal))
    }

    /// Adds a report, to be sent. Returns its number.
    pub(crate) fn add(&self, report: ReportTask) -> u64 {
        let mut inner = self.lock();
        let sequence = inner.next;
        inner.next += 1;
        inner.pending.insert(sequence, report.into());
        inner.queue.push_back(sequence);
        drop(inner);
        self.news.notify_one();
        sequence
    }

    /// Waits until [`next_to_send`](Self::next_to_send) may have something.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// A report to be sent, each once per connection.
    pub(crate) fn next_to_send(&self) -> Option<(u64, ReportTask)> {
        let mut inner = self.lock();
        loop {
            let sequence = inner.queue.pop_front()?;
            if let Some(waiting) = inner.pending.get_mut(&sequence) {
                waiting.sent_at = Some(Instant::now());
                return Some((sequence, waiting.report.clone()));
            }
        }
    }

    /// Has everything sent on a new connection.
    pub(crate) fn send_all_again(&self) {
        let mut inner = self.lock();
        inner.queue = inner.pending.keys().copied().collect();
        drop(inner);
        self.news.notify_one();
    }

    /// Has those sent again that were sent long ago: a leader that could not commit them in
    /// time says nothing, and may have lost them.
    pub(crate) fn send_late_ones_again(&self) {
        let mut inner = self.lock();
        let Inner { pending, queue, .. } = &mut *inner;
        let is_late = |waiting: &Waiting| {
            waiting.sent_at.is_some_and(|sent_at| sent_at.elapsed() > ANSWER_MAX)
        };
        for (&sequence, waiting) in pending.iter_mut().filter(|(_, waiting)| is_late(waiting)) {
            waiting.sent_at = None;
            queue.push_back(sequence);
        }
        drop(inner);
        self.news.notify_one();
    }

    /// Has the report of an attempt sent once more. `false` if there is none.
    pub(crate) fn send_again(&self, dispatch: &Dispatch) -> bool {
        let mut inner = self.lock();
        let is_of = |report: &ReportTask| {
            (report.task, report.attempt, report.token)
                == (dispatch.task, dispatch.attempt, dispatch.token)
        };
        let found = inner.pending.iter().find(|(_, waiting)| is_of(&waiting.report));
        let Some(sequence) = found.map(|(&sequence, _)| sequence) else { return false };
        if !inner.queue.contains(&sequence) {
            inner.queue.push_back(sequence);
        }
        drop(inner);
        self.news.notify_one();
        true
    }

    /// Forgets a report: it is in the log, or never will be.
    pub(crate) fn recorded(&self, sequence: u64) {
        let mut inner = self.lock();
        inner.pending.remove(&sequence);
        if inner.pending.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Waits until every report is recorded.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.len() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// All that have yet to be recorded, by number.
    pub(crate) fn pending(&self) -> Vec<(u64, ReportTask)> {
        let inner = self.lock();
        let pending = inner.pending.iter();
        pending.map(|(&sequence, waiting)| (sequence, waiting.report.clone())).collect()
    }

    /// Whether it has yet to be recorded.
    pub(crate) fn is_pending(&self, sequence: u64) -> bool {
        self.lock().pending.contains_key(&sequence)
    }

    /// How many have yet to be recorded.
    pub(crate) fn len(&self) -> usize {
        self.lock().pending.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half-way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
