//! openraft's own demands on a log.

use std::io;
use std::sync::{Arc, Mutex};

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{
    EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot, SnapshotMeta,
};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, OptionalSend, StorageError};
use quorate_raft::log_store::LogStore;
use quorate_raft::types::{LeaderId, LogId, MemberNode, StoredMembership, TypeConfig};
use quorate_raft::wal::WalOptions;
use tempfile::TempDir;

type Meta = SnapshotMeta<LeaderId, u64, MemberNode>;
type Snap = Snapshot<LeaderId, u64, MemberNode, ()>;

/// A state machine that remembers how far it came, and nothing else.
#[derive(Clone, Debug, Default)]
struct Marker(Arc<Mutex<Marks>>);

#[derive(Debug, Default)]
struct Marks {
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<Meta>,
}

impl RaftSnapshotBuilder<TypeConfig> for Marker {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<Snap, io::Error> {
        let mut marks = self.0.lock().unwrap();
        let meta = Meta { last_log_id: marks.applied, last_membership: marks.membership.clone() };
        marks.snapshot = Some(meta.clone());
        Ok(Snap { meta, snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for Marker {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let marks = self.0.lock().unwrap();
        Ok((marks.applied, marks.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut marks = self.0.lock().unwrap();
            marks.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                marks.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(Vec::new());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &Meta, (): ()) -> Result<(), io::Error> {
        *self.0.lock().unwrap() = Marks {
            applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
            snapshot: Some(meta.clone()),
        };
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snap>, io::Error> {
        Ok(self.0.lock().unwrap().snapshot.clone().map(|meta| Snap { meta, snapshot: () }))
    }
}

/// Makes stores whose segments and caches are so small that every test crosses them.
struct Builder(WalOptions);

impl StoreBuilder<TypeConfig, LogStore, Marker, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Marker), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let store = LogStore::open(dir.path(), self.0).unwrap();
        Ok((dir, store, Marker::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite_of_openraft() {
    Suite::test_all(Builder(WalOptions::default())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_it_with_tiny_segments_and_no_cache() {
    Suite::test_all(Builder(WalOptions { segment_bytes: 400, cache_bytes: 0 })).await.unwrap();
}
