//! When a worker counts as lost: the leader's half of the lease.
//!
//! Only the leader's own monotonic clock is read, and only spans are compared. What a worker
//! holds ends on its own clock before it ends here: it counts from when it *sent* a renewal,
//! this from when one was *received*, and to that come the margins below.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_model::{DurationMs, Epoch, WorkerId, mutant};
use tokio::time::Instant;

/// How much slower a worker's clock may run than the leader's, as a part of 100.
pub(super) const DRIFT_PERCENT: u32 = 1;

/// The least time to let pass for the kernel to carry out a SIGKILL. Measured: 4 ms.
const KILL_MARGIN_MIN: Duration = Duration::from_millis(500);

/// And the most that is added to a long lease.
const KILL_MARGIN_MAX: Duration = Duration::from_secs(2);

/// Every live worker, and when it was last heard.
#[derive(Debug, Default)]
pub(super) struct Leases {
    heard: BTreeMap<WorkerId, Lease>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    epoch: Epoch,
    span: Duration,
    heard_at: Instant,
    /// Its end is being proposed. From then on no renewal is granted: one that was answered
    /// while the entry is on its way would outlive it.
    ending: bool,
}

impl Lease {
    fn ends_at(&self) -> Instant {
        let margin = (self.span / 5).clamp(KILL_MARGIN_MIN, KILL_MARGIN_MAX);
        let drift_percent = if mutant::is("M8") { 0 } else { DRIFT_PERCENT };
        self.heard_at + self.span * (100 + drift_percent) / 100 + margin
    }
}

impl Leases {
    /// Takes over the workers that are there when a term begins, as heard just now: nobody knows
    /// what the last leader granted.
    pub(super) fn take_over(&mut self, live: &[(WorkerId, Epoch, DurationMs)], now: Instant) {
        let age = if mutant::is("M2") { Duration::from_secs(60) } else { Duration::ZERO };
        for &(worker, epoch, span) in live {
            self.begin(worker, epoch, span, now.checked_sub(age).unwrap_or(now));
        }
    }

    /// Takes a worker as heard just now, at its registration.
    pub(super) fn begin(&mut self, worker: WorkerId, epoch: Epoch, span: DurationMs, now: Instant) {
        let span = Duration::from_millis(span.0);
        self.heard.insert(worker, Lease { epoch, span, heard_at: now, ending: false });
    }

    /// Grants a renewal that was received at `received_at`, unless the lease is ending.
    pub(super) fn renew(&mut self, worker: WorkerId, epoch: Epoch, received_at: Instant) -> bool {
        match self.heard.get_mut(&worker) {
            Some(lease) if lease.epoch == epoch && (!lease.ending || mutant::is("M21")) => {
                lease.heard_at = lease.heard_at.max(received_at);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Marks the leases that are over as ending, and names them.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(WorkerId, Epoch)> {
        let due = self.heard.iter_mut().filter(|(_, lease)| lease.ends_at() <= now);
        due.map(|(&worker, lease)| {
            lease.ending = true;
            (worker, lease.epoch)
        })
        .collect()
    }

    /// Forgets a lease whose end is in the log.
    pub(super) fn end(&mut self, worker: WorkerId, epoch: Epoch) {
        if self.heard.get(&worker).is_some_and(|lease| lease.epoch == epoch) {
            self.heard.remove(&worker);
        }
    }

    /// When the next lease is over.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.heard.values().map(Lease::ends_at).min()
    }

    /// Forgets everything: the term is over.
    pub(super) fn clear(&mut self) {
        self.heard.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: WorkerId = WorkerId(7);
    const E: Epoch = Epoch(9);
    const LEASE: DurationMs = DurationMs(10_000);

    fn begun(now: Instant) -> Leases {
        let mut leases = Leases::default();
        leases.begin(W, E, LEASE, now);
        leases
    }

    #[test]
    fn a_lease_ends_only_after_its_span_and_both_margins() {
        let now = Instant::now();
        let mut leases = begun(now);
        let end = now + Duration::from_millis(12_100);
        assert!(leases.take_due(end - Duration::from_millis(1)).is_empty());
        assert_eq!(leases.take_due(end), [(W, E)]);
    }

    #[test]
    fn a_new_leader_waits_for_all_that_others_may_have_granted() {
        let now = Instant::now();
        let mut leases = Leases::default();
        leases.take_over(&[(W, E, LEASE)], now);
        assert!(leases.take_due(now + Duration::from_millis(12_099)).is_empty());
    }

    #[test]
    fn a_renewal_counts_from_when_it_was_received_and_never_back() {
        let now = Instant::now();
        let mut leases = begun(now);
        assert!(leases.renew(W, E, now + Duration::from_secs(5)));
        assert!(leases.renew(W, E, now + Duration::from_secs(1)));
        assert_eq!(leases.next_end(), Some(now + Duration::from_millis(17_100)));
    }

    #[test]
    fn no_renewal_is_granted_while_the_end_is_on_its_way() {
        let now = Instant::now();
        let mut leases = begun(now);
        assert_eq!(leases.take_due(now + Duration::from_secs(60)).len(), 1);
        assert!(!leases.renew(W, E, now + Duration::from_secs(61)));
    }

    #[test]
    fn a_renewal_of_an_older_registration_is_not_granted() {
        let now = Instant::now();
        let mut leases = begun(now);
        assert!(!leases.renew(W, Epoch(8), now));
    }
}
