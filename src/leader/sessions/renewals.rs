//! Leases: extended by what a worker asks, ended by its silence or its leave.

use std::sync::Arc;
use std::time::Duration;

use quorate_model::command::{EndLease, JudgeClock, WithdrawWorker};
use quorate_model::{Command, Epoch, LeaseEnd, Request, WorkerId, mutant};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Admitted, DEADLINE, Sessions};
use crate::leader::drift::Finding;
use crate::protocol::{Heard, ToWorker};

/// Between two tries to end a lease.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A renewal as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renewal {
    /// By the worker's clock.
    pub(super) sent_at: u64,
    /// By the worker's clock, too.
    pub(super) heard: Option<Heard>,
    pub(super) received_at: Instant,
}

impl Sessions {
    pub(super) async fn renew(
        &self,
        term: u64,
        from: Admitted,
        outgoing: &mpsc::Sender<ToWorker>,
        renewal: Renewal,
    ) {
        if !mutant::is("M5")
            && let Err(error) = self.node.confirm_leadership(term, DEADLINE).await
        {
            debug!(worker = %from.worker, %error, "no renewal without a quorum");
            return;
        }
        let Admitted { worker, epoch, .. } = from;
        let is_quarantined = self.node.with_state(|state| {
            let found = state.workers().get(&worker);
            let held = found.filter(|found| found.is_live() && found.epoch == epoch)?;
            Some(held.quarantine.is_some())
        });
        let Some(is_quarantined) = is_quarantined else {
            let reason = format!("{worker} no longer holds {epoch}");
            drop(outgoing.try_send(ToWorker::Refused { reason, forget_id: false }));
            return;
        };
        match self.grant(term, from, outgoing, renewal) {
            Some(Finding::Unsound(drift_ppm)) if !is_quarantined => {
                self.judge_clock(term, from, drift_ppm, false).await;
            }
            Some(Finding::Sound(drift_ppm)) if is_quarantined => {
                self.judge_clock(term, from, drift_ppm, true).await;
            }
            Some(Finding::Unsound(_) | Finding::Sound(_) | Finding::Open) | None => {}
        }
    }

    /// Extends a lease, unless it is ending, and looks at the worker's clock by the way.
    fn grant(
        &self,
        term: u64,
        from: Admitted,
        outgoing: &mpsc::Sender<ToWorker>,
        renewal: Renewal,
    ) -> Option<Finding> {
        let (Admitted { worker, epoch, .. }, Renewal { sent_at, heard, received_at }) =
            (from, renewal);
        // Granted and said under one lock, which the end of a lease takes as well.
        let mut open = self.open();
        let in_term = open.term.as_ref().is_some_and(|now| now.number == term);
        if !in_term || !open.leases.renew(worker, epoch, received_at) {
            return None;
        }
        let finding = open.clocks.hear((worker, epoch), sent_at, heard, received_at);
        open.clocks.answer(worker, sent_at, Instant::now());
        drop(outgoing.try_send(ToWorker::Renewed { sent_at }));
        Some(finding)
    }

    /// Has the log know what was found of a clock.
    async fn judge_clock(&self, term: u64, from: Admitted, drift_ppm: i32, is_sound: bool) {
        let Admitted { worker, epoch, .. } = from;
        let judge = JudgeClock { worker, epoch, drift_ppm, is_sound };
        let request = Command::JudgeClock(judge).into();
        match self.node.propose_as(term, vec![request], DEADLINE).await {
            Ok(_) if is_sound => info!(%worker, drift_ppm, "its clock runs right again"),
            Ok(_) => warn!(%worker, drift_ppm, "its clock is off; it is given nothing more"),
            // Found again with the next renewal.
            Err(error) => debug!(%worker, %error, "what its clock does is not in the log"),
        }
    }

    /// Has the log know that a worker takes nothing more.
    pub(super) async fn withdraw(&self, term: u64, from: Admitted) {
        let Admitted { worker, epoch, .. } = from;
        let request = Command::WithdrawWorker(WithdrawWorker { worker, epoch }).into();
        match self.node.propose_as(term, vec![request], DEADLINE).await {
            Ok(_) => info!(%worker, %epoch, "worker is stopping; it is given nothing more"),
            // It hands back what it is given, and tells the next leader.
            Err(error) => debug!(%worker, %error, "that it is stopping is not in the log"),
        }
    }

    pub(super) async fn release(&self, term: u64, from: Admitted) {
        let Admitted { worker, epoch, .. } = from;
        self.end_lease(term, worker, epoch, LeaseEnd::Released).await;
        let mut open = self.open();
        // It may have come back, under a newer registration, by now.
        if open.sessions.get(&worker).is_some_and(|session| session.epoch == epoch)
            && let Some(session) = open.sessions.remove(&worker)
        {
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
                let mut open = self.open();
                open.leases.end(worker, epoch);
                open.clocks.end(worker);
                true
            }
            Err(error) => {
                debug!(%worker, %error, "the end of the lease is not in the log");
                false
            }
        }
    }

    /// Ends the leases of workers that were not heard, until the term ends.
    pub(in crate::leader) async fn watch_leases(
        self: Arc<Self>,
        term: u64,
        stop: CancellationToken,
    ) {
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
                    Some(at) => tokio::time::sleep_until(at).await,
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
}
