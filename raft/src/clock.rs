//! The time of the log, as a leader stamps it on entries.
//!
//! The clocks of two nodes are never compared, but a new leader's may be behind what the last
//! one has stamped. Time then goes on from there by the monotonic clock: were it to stand
//! still until the wall clock has caught up, every timer would be late by the difference.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quorate_model::{DurationMs, UnixMs};
use tokio::time::Instant;

use crate::machine;

/// Never goes back, and never stands still.
#[derive(Debug)]
pub(crate) struct LogClock {
    /// A time, and when it was that.
    anchor: Mutex<(UnixMs, Instant)>,
}

impl Default for LogClock {
    fn default() -> Self {
        Self { anchor: Mutex::new((UnixMs(0), Instant::now())) }
    }
}

impl LogClock {
    /// The time, given the greatest that was ever stamped.
    pub(crate) fn now(&self, stamped: UnixMs) -> UnixMs {
        self.read(stamped, UnixMs(millis(machine::wall_clock())), Instant::now())
    }

    fn read(&self, stamped: UnixMs, wall: UnixMs, now: Instant) -> UnixMs {
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let (base, since) = *anchor;
        let passed = DurationMs(millis(now.saturating_duration_since(since)));
        let time = base.after(passed).max(wall).max(stamped);
        if time > base.after(passed) {
            *anchor = (time, now);
        }
        time
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn follows_the_wall_clock_forward() {
        let (clock, then) = (LogClock::default(), Instant::now());
        assert_eq!(clock.read(UnixMs(0), UnixMs(1_000), then), UnixMs(1_000));
        assert_eq!(clock.read(UnixMs(0), UnixMs(9_000), then), UnixMs(9_000));
    }

    #[test]
    fn goes_on_at_its_own_pace_when_the_wall_clock_is_set_back() {
        let (clock, then) = (LogClock::default(), Instant::now());
        assert_eq!(clock.read(UnixMs(0), UnixMs(9_000), then), UnixMs(9_000));
        assert_eq!(clock.read(UnixMs(0), UnixMs(1_000), then + 70 * MS), UnixMs(9_070));
    }

    #[test]
    fn goes_on_from_what_another_leader_stamped() {
        let (clock, then) = (LogClock::default(), Instant::now());
        assert_eq!(clock.read(UnixMs(60_000), UnixMs(1_000), then), UnixMs(60_000));
        assert_eq!(clock.read(UnixMs(60_000), UnixMs(1_250), then + 250 * MS), UnixMs(60_250));
    }

    #[test]
    fn does_not_stand_still_however_often_it_is_read() {
        let (clock, then) = (LogClock::default(), Instant::now());
        let read = |at: u32| clock.read(UnixMs(60_000), UnixMs(0), then + at * MS / 4);
        let times: Vec<UnixMs> = (0..=40).map(read).collect();
        assert_eq!(times.last(), Some(&UnixMs(60_010)));
    }
}
