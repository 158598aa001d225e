//! The registration of this worker, as session, agent and keeper share it.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate_model::{Dispatch, Epoch, mutant};

use super::keeper::{Line, Order, Term};
use super::lease::{BootNs, Lease, Refusal};
use super::sys;

/// The lease, if there is one, and the keeper that enforces it.
///
/// Every change goes to the keeper before anything that relies on it: both travel on one
/// socket, in order.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lease: Option<Lease>,
    keeper: Option<Line>,
}

impl Standing {
    /// The lease, also one that is over.
    pub(crate) fn lease(&self) -> Option<Lease> {
        self.lock().lease
    }

    /// The lease, if it holds.
    pub(crate) fn held(&self, now: BootNs) -> Option<Lease> {
        self.lease().filter(|lease| lease.holds(now))
    }

    /// Takes over a new registration.
    pub(crate) fn grant(&self, lease: Lease) {
        let mut inner = self.lock();
        inner.lease = Some(lease);
        inner.tell_keeper();
    }

    /// Takes over the registration under which an earlier agent had started what runs, unless
    /// there is one.
    pub(crate) fn inherit(&self, term: Term) {
        let Term { worker, epoch, span, warning: _, deadline } = term;
        self.lock().lease.get_or_insert(Lease { worker, epoch, span, deadline });
    }

    /// Gives up what was [inherited](Self::inherit).
    pub(crate) fn forsake(&self) {
        self.lock().lease = None;
    }

    /// Takes in the answer to a renewal that was sent at `sent_at`.
    pub(crate) fn renew(&self, sent_at: BootNs) {
        let mut inner = self.lock();
        let now = sys::boottime();
        if inner.lease.as_mut().is_some_and(|lease| lease.renew(sent_at, now)) {
            inner.tell_keeper();
        }
    }

    /// Gives the registration up, for later agents too: the keeper knows of it before anybody
    /// who is told after this.
    ///
    /// # Errors
    ///
    /// If the keeper cannot be told.
    pub(crate) fn revoke(&self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.lease = None;
        if mutant::is("M23") {
            return Ok(());
        }
        inner.keeper.as_ref().map_or(Ok(()), |keeper| keeper.send(&Order::Revoke))
    }

    /// Whether an attempt may start now.
    pub(crate) fn admits(&self, dispatch: &Dispatch) -> Result<(), Refusal> {
        let lease = self.lock().lease.ok_or(Refusal::OtherEpoch)?;
        lease.admits(dispatch, sys::boottime())
    }

    /// From now on this keeper enforces the lease. Without one, nothing may run that it holds.
    pub(crate) fn attach(&self, keeper: Line) {
        let mut inner = self.lock();
        if inner.lease.is_none()
            && let Err(error) = keeper.send(&Order::Revoke)
        {
            tracing::warn!(%error, "the keeper does not hear that there is no lease");
        }
        inner.keeper = Some(keeper);
        inner.tell_keeper();
    }

    /// The keeper has ended what ran under a registration.
    pub(crate) fn expire(&self, epoch: Epoch) {
        let mut inner = self.lock();
        inner.lease.take_if(|lease| lease.epoch == epoch);
    }

    /// There is no keeper any more.
    pub(crate) fn detach(&self) {
        self.lock().keeper = None;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is one assignment: a panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tell_keeper(&self) {
        let (Some(lease), Some(keeper)) = (self.lease, &self.keeper) else { return };
        let Lease { worker, epoch, span, deadline } = lease;
        let order = Order::Lease(Term { worker, epoch, span, warning: lease.warning(), deadline });
        if let Err(error) = keeper.send(&order) {
            tracing::warn!(%error, "the keeper does not hear of the lease: tasks will be killed");
        }
    }
}
