//! The lease of a worker: until when it may run tasks, and under which registration.
//!
//! Rules R1, R6 and R7. Every renewal holds from the moment it was *sent*, so that an answer
//! that was long on its way extends nothing that the leader has already given up. All
//! instants are of `CLOCK_BOOTTIME` and never leave the machine.

use std::fmt;

use quorate_model::{Dispatch, DurationMs, Epoch, WorkerId, mutant};
use serde::{Deserialize, Serialize};

/// Nanoseconds since the machine booted, suspends included.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub(crate) struct BootNs(pub(crate) u64);

impl BootNs {
    /// The instant `span` later.
    pub(crate) fn after(self, span: DurationMs) -> Self {
        Self(self.0.saturating_add(span.0.saturating_mul(1_000_000)))
    }

    /// The instant `span` earlier.
    pub(crate) fn before(self, span: DurationMs) -> Self {
        Self(self.0.saturating_sub(span.0.saturating_mul(1_000_000)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub(crate) fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// How long before the end tasks are asked to stop, so that well-behaved ones can save what
/// they have; less where the lease is short.
const WARNING_MAX: DurationMs = DurationMs(4_000);

/// A registration and how long it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Who.
    pub(crate) worker: WorkerId,
    /// Under which registration.
    pub(crate) epoch: Epoch,
    /// How long a renewal holds, counted from when it was sent.
    pub(crate) span: DurationMs,
    /// When every process must be dead.
    pub(crate) deadline: BootNs,
}

/// Why an order to start is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It names another registration.
    OtherEpoch,
    /// The lease is over.
    Over,
}

impl Lease {
    /// The lease that an answer to a request sent at `sent_at` grants.
    pub(crate) fn granted(
        worker: WorkerId,
        epoch: Epoch,
        span: DurationMs,
        sent_at: BootNs,
    ) -> Self {
        Self { worker, epoch, span, deadline: sent_at.after(span) }
    }

    /// Whether tasks may run.
    pub(crate) fn holds(&self, now: BootNs) -> bool {
        now < self.deadline
    }

    /// Takes in the answer to a renewal (R1). `false` if it changes nothing: it came late,
    /// or was overtaken.
    pub(crate) fn renew(&mut self, sent_at: BootNs, now: BootNs) -> bool {
        // A leader cannot have seen what was not sent yet: an echo from the future is made up.
        let later = if mutant::is("M6") { now } else { sent_at }.after(self.span);
        let is_revival = !self.holds(now) && !mutant::is("M21");
        let counts = !is_revival && sent_at <= now && later > self.deadline;
        if counts {
            self.deadline = later;
        }
        counts
    }

    /// When tasks are asked to stop if nothing renews the lease.
    pub(crate) fn warning(&self) -> BootNs {
        self.deadline.before(DurationMs(WARNING_MAX.0.min(self.span.0 * 2 / 5)))
    }

    /// Whether an attempt may start under this lease: the part of R6 that is about authority.
    pub(crate) fn admits(&self, dispatch: &Dispatch, now: BootNs) -> Result<(), Refusal> {
        let is_own = (dispatch.worker, dispatch.epoch) == (self.worker, self.epoch);
        if !is_own && !mutant::is("M4") {
            Err(Refusal::OtherEpoch)
        } else if self.holds(now) || mutant::is("M3") {
            Ok(())
        } else {
            Err(Refusal::Over)
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherEpoch => "it names another registration",
            Self::Over => "the lease is over",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: DurationMs = DurationMs(10_000);

    fn at(ms: u64) -> BootNs {
        BootNs::default().after(DurationMs(ms))
    }

    fn lease() -> Lease {
        Lease::granted(WorkerId(1), Epoch(7), SPAN, at(1_000))
    }

    fn dispatch(worker: u64, epoch: u64) -> Dispatch {
        Dispatch {
            task: quorate_model::TaskId::default(),
            attempt: quorate_model::Attempt(1),
            token: quorate_model::FencingToken(9),
            worker: WorkerId(worker),
            epoch: Epoch(epoch),
        }
    }

    #[test]
    fn counts_a_renewal_from_when_it_was_sent() {
        let mut lease = lease();
        assert!(lease.renew(at(3_000), at(9_000)));
        assert_eq!(lease.deadline, at(13_000));
    }

    #[test]
    fn a_reordered_answer_never_shortens_the_lease() {
        let mut lease = lease();
        assert!(lease.renew(at(5_000), at(5_100)));
        assert!(!lease.renew(at(3_000), at(5_200)));
        assert_eq!(lease.deadline, at(15_000));
    }

    #[test]
    fn an_answer_after_the_deadline_revives_nothing() {
        let mut lease = lease();
        assert!(!lease.renew(at(10_900), at(11_000)));
        assert!(!lease.holds(at(11_000)));
    }

    #[test]
    fn ignores_an_echo_of_what_was_not_sent_yet() {
        let mut lease = lease();
        assert!(!lease.renew(at(6_000), at(5_000)));
    }

    #[test]
    fn admits_only_its_own_epoch_and_only_before_the_deadline() {
        let lease = lease();
        assert_eq!(lease.admits(&dispatch(1, 7), at(10_999)), Ok(()));
        assert_eq!(lease.admits(&dispatch(1, 7), at(11_000)), Err(Refusal::Over));
        assert_eq!(lease.admits(&dispatch(1, 6), at(2_000)), Err(Refusal::OtherEpoch));
        assert_eq!(lease.admits(&dispatch(2, 7), at(2_000)), Err(Refusal::OtherEpoch));
    }

    #[test]
    fn warns_four_seconds_ahead_or_less_where_the_lease_is_short() {
        assert_eq!(lease().warning(), at(7_000));
        let short = Lease::granted(WorkerId(1), Epoch(7), DurationMs(2_000), at(0));
        assert_eq!(short.warning(), at(1_200));
    }
}
