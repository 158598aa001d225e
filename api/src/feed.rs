//! The last changes, for those who watch: a bounded ring, and who to wake.
//!
//! One task follows the backend. Streams read the ring at their own pace, and one that falls
//! out of it is told to look afresh: nobody's slowness costs memory or holds up apply.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use quorate_model::{Event, LogIndex, RunId, State};
use tokio::sync::{broadcast, watch};

use crate::backend::Backend;
use crate::edge::look_at;

/// Events kept for those who come back: at 5,000 a second, a network hiccup of 3 s.
pub const EVENTS_KEPT_MAX: usize = 16_384;

/// Events that a stream takes from the ring at once.
pub(crate) const EVENTS_READ_MAX: usize = 256;

/// Watched topics below which it is not worth looking for those that nobody watches any more.
const TOPICS_SWEPT_MIN: usize = 64;

/// Something that can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// Anything.
    All,
    /// One run and its tasks.
    Run(RunId),
    /// The runs, and their tasks.
    Runs,
    /// The workflows.
    Workflows,
    /// The workers.
    Workers,
}

/// The last changes. A clone shows the same.
#[derive(Clone, Debug)]
pub(crate) struct Feed(Arc<Mutex<Ring>>);

#[derive(Debug)]
struct Ring {
    events: VecDeque<(LogIndex, Event)>,
    /// How many events came before the first one kept.
    dropped: u64,
    /// Every event of every later entry is kept.
    complete_after: LogIndex,
    /// The last change of each; at least that, never more than is applied.
    runs: LogIndex,
    workflows: LogIndex,
    workers: LogIndex,
    watched: HashMap<Topic, watch::Sender<()>>,
    /// Sweep once as many topics are watched.
    sweep_at: usize,
}

/// Where a reader of the ring stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor(u64);

/// The ring no longer has what a reader would see next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overrun;

impl Feed {
    /// Begins to follow. Ends by itself when the backend is gone.
    pub(crate) fn follow(backend: &Arc<dyn Backend>) -> Self {
        // Subscribed first: what is applied in between is in both, and does no harm.
        let events = backend.events();
        let applied = look_at(&**backend, State::applied);
        let feed = Self::new(applied);
        tokio::spawn(feed.clone().run(events, Arc::downgrade(backend)));
        feed
    }

    fn new(applied: LogIndex) -> Self {
        Self(Arc::new(Mutex::new(Ring {
            events: VecDeque::new(),
            dropped: 0,
            complete_after: applied,
            runs: applied,
            workflows: applied,
            workers: applied,
            watched: HashMap::new(),
            sweep_at: TOPICS_SWEPT_MIN,
        })))
    }

    async fn run(
        self,
        mut events: broadcast::Receiver<(LogIndex, Event)>,
        backend: Weak<dyn Backend>,
    ) {
        loop {
            match events.recv().await {
                Ok((index, event)) => self.ring().push(index, event),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    let Some(backend) = backend.upgrade() else { return };
                    tracing::warn!(missed, "events came faster than they were kept");
                    let applied = look_at(&*backend, State::applied);
                    self.ring().restart(applied);
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// The index of the last change to a topic. May be too high, though never beyond what is
    /// applied; never too low for long.
    pub(crate) fn changed(&self, topic: Topic) -> LogIndex {
        let ring = self.ring();
        match topic {
            Topic::Runs | Topic::Run(_) => ring.runs,
            Topic::Workflows => ring.workflows,
            Topic::Workers => ring.workers,
            Topic::All => ring.runs.max(ring.workflows).max(ring.workers),
        }
    }

    /// Tells of every change to a topic from now on.
    pub(crate) fn watch(&self, topic: Topic) -> watch::Receiver<()> {
        let mut ring = self.ring();
        if ring.watched.len() >= ring.sweep_at {
            ring.watched.retain(|_, watchers| watchers.receiver_count() > 0);
            ring.sweep_at = (2 * ring.watched.len()).max(TOPICS_SWEPT_MIN);
        }
        ring.watched.entry(topic).or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    /// Past the last event there is.
    pub(crate) fn end(&self) -> Cursor {
        let ring = self.ring();
        Cursor(ring.dropped + ring.events.len() as u64)
    }

    /// Before the first event of the entries after `index`, if none of them is lost. Events of
    /// earlier entries may yet come.
    pub(crate) fn after(&self, index: LogIndex) -> Result<Cursor, Overrun> {
        let ring = self.ring();
        if index < ring.complete_after {
            return Err(Overrun);
        }
        let before = ring.events.partition_point(|&(at, _)| at <= index);
        Ok(Cursor(ring.dropped + before as u64))
    }

    /// The next events, at most [`EVENTS_READ_MAX`], and where to go on.
    pub(crate) fn read(
        &self,
        Cursor(from): Cursor,
    ) -> Result<(Vec<(LogIndex, Event)>, Cursor), Overrun> {
        let ring = self.ring();
        let skip = from.checked_sub(ring.dropped).ok_or(Overrun)?;
        let skip = usize::try_from(skip).map_err(|_| Overrun)?;
        let read: Vec<_> = ring.events.iter().skip(skip).take(EVENTS_READ_MAX).copied().collect();
        let next = Cursor(from + read.len() as u64);
        Ok((read, next))
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn push(&mut self, index: LogIndex, event: Event) {
        if index <= self.complete_after {
            return;
        }
        self.events.push_back((index, event));
        if self.events.len() > EVENTS_KEPT_MAX
            && let Some((index, _)) = self.events.pop_front()
        {
            self.dropped += 1;
            self.complete_after = index;
        }
        match event {
            Event::Run(run) => self.run_changed(index, run),
            Event::Task(task) => self.run_changed(index, task.run),
            Event::Workflows => {
                self.workflows = index;
                self.wake(Topic::Workflows);
            }
            Event::Worker(_) => {
                self.workers = index;
                self.wake(Topic::Workers);
            }
        }
        self.wake(Topic::All);
    }

    fn run_changed(&mut self, index: LogIndex, run: RunId) {
        self.runs = index;
        self.wake(Topic::Run(run));
        self.wake(Topic::Runs);
    }

    fn wake(&mut self, topic: Topic) {
        let nobody = self.watched.get(&topic).is_some_and(|watchers| watchers.send(()).is_err());
        if nobody {
            self.watched.remove(&topic);
        }
    }

    /// Events were missed: everything up to `applied` may have changed.
    fn restart(&mut self, applied: LogIndex) {
        // One more than there were, so that no reader takes the gap for the end.
        self.dropped += self.events.len() as u64 + 1;
        self.events.clear();
        self.complete_after = applied;
        (self.runs, self.workflows, self.workers) = (applied, applied, applied);
        self.watched.retain(|_, watchers| watchers.send(()).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGE: Event = Event::Workflows;

    fn push(feed: &Feed, index: u64) {
        feed.ring().push(LogIndex(index), CHANGE);
    }

    #[test]
    fn reads_on_from_an_index() {
        let feed = Feed::new(LogIndex(3));
        for index in [5, 5, 8] {
            push(&feed, index);
        }
        assert_eq!(feed.after(LogIndex(2)), Err(Overrun));
        let cursor = feed.after(LogIndex(3)).unwrap();
        let (events, next) = feed.read(cursor).unwrap();
        assert_eq!(events.len(), 3);
        assert_eq!(next, feed.end());
        let (events, _) = feed.read(feed.after(LogIndex(5)).unwrap()).unwrap();
        assert_eq!(events, [(LogIndex(8), CHANGE)]);
        assert_eq!(feed.after(LogIndex(8)), Ok(feed.end()));
    }

    #[test]
    fn tells_a_reader_that_fell_out_of_the_ring() {
        let feed = Feed::new(LogIndex(0));
        let cursor = feed.end();
        for index in 1..=EVENTS_KEPT_MAX as u64 + 1 {
            push(&feed, index);
        }
        assert_eq!(feed.read(cursor), Err(Overrun));
        assert_eq!(feed.after(LogIndex(0)), Err(Overrun));
        assert_eq!(feed.read(feed.after(LogIndex(1)).unwrap()).unwrap().0.len(), EVENTS_READ_MAX);
    }

    #[test]
    fn tells_every_reader_that_events_were_missed() {
        let feed = Feed::new(LogIndex(0));
        push(&feed, 1);
        let (cursor, mut watch) = (feed.end(), feed.watch(Topic::Workers));
        feed.ring().restart(LogIndex(9));
        assert_eq!(feed.read(cursor), Err(Overrun));
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        assert_eq!(feed.changed(Topic::Workers), LogIndex(9));
        assert!(feed.read(feed.end()).unwrap().0.is_empty());
    }

    #[test]
    fn forgets_topics_that_nobody_watches() {
        let feed = Feed::new(LogIndex(0));
        for _ in 0..10 * TOPICS_SWEPT_MIN {
            drop(feed.watch(Topic::Run(RunId(uuid::Uuid::now_v7()))));
        }
        assert!(feed.ring().watched.len() <= TOPICS_SWEPT_MIN);
    }
}
