//! How long syncs of the log take.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the longest sync is remembered: a scrape or two.
const WINDOW: Duration = Duration::from_secs(60);

/// Syncs of the log since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncTimes {
    /// How many there were.
    pub count: u64,
    /// How long they took together.
    pub total: Duration,
    /// The longest of the last one to two minutes.
    pub longest: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Syncs(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    count: u64,
    total: Duration,
    /// The longest of the window before, and of this one, which began then.
    before: Duration,
    longest: Duration,
    since: Option<Instant>,
}

impl Syncs {
    pub(super) fn note(&self, took: Duration) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.turn(Instant::now());
        known.count += 1;
        known.total += took;
        known.longest = known.longest.max(took);
    }

    pub(super) fn read(&self) -> SyncTimes {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.turn(Instant::now());
        let longest = known.before.max(known.longest);
        SyncTimes { count: known.count, total: known.total, longest }
    }
}

impl Known {
    /// Begins a new window if this one is over.
    fn turn(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let age = now.saturating_duration_since(since);
        if age < WINDOW {
            return;
        }
        let longest = std::mem::take(&mut self.longest);
        self.before = if age < 2 * WINDOW { longest } else { Duration::ZERO };
        self.since = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_is_forgotten_after_a_while() {
        let start = Instant::now();
        let slow = Duration::from_millis(700);
        let mut known = Known { longest: slow, since: Some(start), ..Known::default() };
        known.turn(start + WINDOW / 2);
        assert_eq!((known.before, known.longest), (Duration::ZERO, slow));
        known.turn(start + WINDOW);
        assert_eq!((known.before, known.longest), (slow, Duration::ZERO));
        known.turn(start + 3 * WINDOW);
        assert_eq!((known.before, known.longest), (Duration::ZERO, Duration::ZERO));
    }
}
