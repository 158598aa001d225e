//! What a node does while its disk is full: it steps aside, and comes back by itself.
//!
//! openraft takes a failed write for the end of the node, and rightly so. So no write may fail
//! for want of room, and what needs room is held back before it gets that far:
//!
//! - A leader refuses proposals, and hands over to a voter that says it has room. If none has,
//!   it goes on leading: reads are worth something.
//! - A follower refuses entries and snapshots, which the leader sends again after a pause, and
//!   does not stand for election. It heeds heartbeats, and votes.
//! - What is under way already fits into what [`Room::Full`] leaves, and into the reserve. If
//!   something else takes even that, the writer of the log waits until there is room again
//!   ([`Storage::with_room`](crate::storage::Storage::with_room)), and the node with it. Apply
//!   waits as well: sled cannot.
//!
//! Before that, while there is [`Room::Low`], a leader refuses only what begins work.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_model::{Command, LogIndex, Request};
use tokio::time::Instant;

use crate::error::ProposeError;
use crate::forward::{Forwarder, What};
use crate::node::Inner;
use crate::snapshot::SnapshotFile;
use crate::storage::{LOOK_EVERY, Room, StorageState};

/// How long another voter may take to say whether it has room.
const ASK_DEADLINE: Duration = Duration::from_millis(500);

/// How long a handing over may take.
const HAND_OVER_DEADLINE: Duration = Duration::from_secs(2);

/// How long whoever reads waits for a node without room to catch up: what it lacks will not
/// come, but what it has may just be on its way to be applied.
const CATCH_UP_MAX: Duration = Duration::from_millis(200);

/// Looks after the room on the node's disk, as long as the node is there.
pub(crate) async fn watch_room(node: Weak<Inner>) {
    let mut seen = StorageState::Ok;
    loop {
        let Some(inner) = node.upgrade() else { return };
        inner.storage.look();
        inner.replica.history.secure_room();
        let now = inner.storage.status().state;
        if now != seen {
            tracing::warn!(before = seen.as_str(), now = now.as_str(), "room on the disk");
            seen = now;
        }
        inner.stand_aside_if_full().await;
        drop(inner);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Inner {
    /// Whether entries can be stored.
    pub(crate) fn has_room(&self) -> bool {
        self.storage.room() > Room::Full
    }

    pub(crate) fn disk_full(&self) -> ProposeError {
        ProposeError::DiskFull { node: self.id }
    }

    /// Whether the disk of this node, if it leads, has room for some requests.
    pub(crate) fn admit(&self, requests: &[Request]) -> Result<(), ProposeError> {
        let is_admitted = match self.storage.room() {
            Room::Ample => true,
            Room::Low => !requests.iter().any(begins_work),
            Room::Full => false,
        };
        if is_admitted {
            return Ok(());
        }
        // Not yet, or not much longer: it is for the leader to be to say whether it has room.
        let leads = self.leadership.borrow().leads;
        if !leads || self.is_handing_over.load(Ordering::Acquire) {
            return Err(ProposeError::NoLeader { leader: None });
        }
        Err(self.disk_full())
    }

    /// Waits until `index` is applied here, or until that is not to be expected any more.
    pub(crate) async fn wait_applied(&self, index: LogIndex, until: Instant) -> bool {
        let until = if self.has_room() { until } else { until.min(Instant::now() + CATCH_UP_MAX) };
        self.replica.wait_applied(index, until).await
    }

    /// Whether a snapshot that has come can be installed: the history in it is written again.
    pub(crate) fn has_room_for(&self, snapshot: &SnapshotFile) -> bool {
        let free = self.storage.status().usage.bytes_free;
        self.has_room() && snapshot.bytes().is_ok_and(|bytes| 2 * bytes <= free)
    }

    /// Does not stand for election without room, and does not lead if another can.
    async fn stand_aside_if_full(&self) {
        let others = self.voters_to_follow();
        // The only voter has nobody to leave it to, and can be read from if it leads.
        self.raft.runtime_config().elect(self.has_room() || others.is_empty());
        if self.has_room() || !self.raft.is_leader() {
            self.is_handing_over.store(false, Ordering::Release);
            return;
        }
        for (voter, address) in others {
            let until = Instant::now() + ASK_DEADLINE;
            let asked = Forwarder::default().ask(self.cluster, &address, &What::Room, until).await;
            if let Err(error) = asked {
                tracing::debug!(voter, %error, "it cannot take over");
                continue;
            }
            self.is_handing_over.store(true, Ordering::Release);
            let until = Instant::now() + HAND_OVER_DEADLINE;
            match self.transfer_here(Some(voter), until).await {
                Ok(()) => tracing::warn!(voter, "the disk is full: another node leads"),
                Err(error) => tracing::warn!(voter, %error, "leadership was not handed over"),
            }
            return;
        }
    }
}

/// Whether a request adds to what there is to do, and so to what must be stored for it later.
fn begins_work(request: &Request) -> bool {
    matches!(request.command, Command::StartRun(_) | Command::PutWorkflow(_))
}
