//! Which server to try next, and when.

use std::time::Duration;

use quorate_raft::machine;

/// Before the first try after a failure: elections take longer than this.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// Between later tries, so that many workers do not wear out a cluster that is down.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Goes round the servers, with a growing pause, unless one knows better.
#[derive(Debug)]
pub(super) struct Dial {
    hint: Option<String>,
    /// A hint was followed since a server was last found at fault without one.
    has_followed: bool,
    next: usize,
    pause: Duration,
}

impl Default for Dial {
    fn default() -> Self {
        Self { hint: None, has_followed: false, next: 0, pause: PAUSE_MIN }
    }
}

impl Dial {
    /// The server to try; `None` if there are none.
    pub(super) fn next(&mut self, addresses: &[String]) -> Option<String> {
        self.hint.take().or_else(|| {
            let address = addresses.get(self.next % addresses.len().max(1));
            self.next += 1;
            address.cloned()
        })
    }

    /// A server names the leader. Whether to try it at once: two that name each other must
    /// not be asked without a pause.
    pub(super) fn follow(&mut self, leader: &str) -> bool {
        self.hint = Some(leader.to_owned());
        !std::mem::replace(&mut self.has_followed, true)
    }

    /// How long to wait before the next try.
    pub(super) fn pause(&mut self) -> Duration {
        self.has_followed = false;
        let pause = self.pause;
        // By half: an election that ends in a pause is noticed a third of its time late.
        self.pause = (pause + pause / 2).min(PAUSE_MAX);
        // Between half of it and all of it, so that workers do not come all at once.
        let random = u32::try_from(machine::random() % 1_000).unwrap_or(0);
        pause / 2 + pause / 2 * random / 1_000
    }

    /// A leader was found.
    pub(super) fn arrived(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_round_and_prefers_a_hint() {
        let servers = ["a".to_owned(), "b".to_owned()];
        let mut dial = Dial::default();
        assert_eq!(dial.next(&servers).unwrap(), "a");
        assert!(dial.follow("c"));
        assert_eq!(dial.next(&servers).unwrap(), "c");
        assert_eq!(dial.next(&servers).unwrap(), "b");
        assert_eq!(dial.next(&servers).unwrap(), "a");
        assert_eq!(dial.next(&[]), None);
    }

    #[test]
    fn servers_that_name_each_other_are_asked_with_pauses() {
        let mut dial = Dial::default();
        assert!(dial.follow("a"));
        assert!(!dial.follow("b"));
        dial.pause();
        assert!(dial.follow("a"));
    }

    #[test]
    fn pauses_grow_from_20_ms_to_a_second_and_start_over() {
        let mut dial = Dial::default();
        let first = dial.pause();
        assert!((PAUSE_MIN / 2..=PAUSE_MIN).contains(&first), "{first:?}");
        let last = std::iter::repeat_with(|| dial.pause()).take(20).last().unwrap();
        assert!((PAUSE_MAX / 2..=PAUSE_MAX).contains(&last), "{last:?}");
        dial.arrived();
        assert!(dial.pause() <= PAUSE_MIN);
    }
}
