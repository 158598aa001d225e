//! Vote and log for openraft, on the write-ahead log.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use openraft::storage::{LogState, RaftLogStorage};
use openraft::vote::RaftLeaderId;
use openraft::{EntryPayload, OptionalSend, RaftLogReader};
use quorate_model::mutant;
use tokio::sync::watch;

use crate::identity::{Identity, IdentityError};
use crate::machine;
use crate::types::{
    Flushed, LeaderId, LogEntry, LogId, MemberNode, Membership, Payload, RaftEntry, TypeConfig,
    Vote,
};
use crate::wal::disk::Disk;
use crate::wal::record::{Ballot, Entry, EntryKind, Position};
use crate::wal::{OpenError, Opened, Wal, WalError, WalOptions};

/// How much one read for replication or apply brings into memory, in bytes: a quarter of the
/// largest frame between nodes, for openraft sends what it read as one message.
const READ_BYTES_MAX: usize = 2 << 20;

/// The log of a node. Clones share it.
#[derive(Clone, Debug)]
pub struct LogStore {
    wal: Wal,
}

impl LogStore {
    /// Opens the log in `dir`, which is made if it is not there. Nothing ties it to a node:
    /// for tests and tools. A node uses [`open_as`](Self::open_as).
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(dir: &Path, options: WalOptions) -> Result<Self, OpenError> {
        Ok(Self { wal: Wal::open(directory(dir)?, options)? })
    }

    /// Opens the log of a node, in `wal` of its data directory, and begins its next
    /// incarnation.
    ///
    /// The log holds the identity, and with it the lock of the data directory, until its last
    /// clone is dropped; and it raises the identity's floor at the end of each segment and
    /// when it is closed.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]; above all if log and identity are not of the same age.
    pub fn open_as(identity: &Identity, options: WalOptions) -> Result<Self, OpenError> {
        let storage = identity.storage().clone();
        let dir = identity.dir().join("wal");
        let disk = directory(&dir)?;
        if !identity.is_new() && !Opened::is_there(&*disk)? && !mutant::is("M19") {
            return Err(IdentityError::LogMissing { path: dir }.into());
        }
        let opened = Opened::read(disk, storage, identity.owner(), options)?;
        identity.check_log(opened.incarnation(), opened.last())?;

        // The log first: the identity may be one behind the log, never before it.
        let incarnation = identity.incarnation() + 1;
        let floor = identity.clone();
        let on_floor = Box::new(move |index| floor.raise_floor(index).map_err(io::Error::from));
        let wal = opened.start(incarnation, Some(on_floor))?;
        identity.begin_incarnation()?;
        Ok(Self { wal })
    }

    /// Turns to the cause when the log fails. The node must stop then: nothing more will be
    /// durable.
    #[must_use]
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.wal.fatal()
    }

    /// Some entries from `start` on and before `end`, where they stand, and what requests they
    /// carry if they do.
    pub(crate) fn page(
        &self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<(Position, Option<LogEntry>)>> {
        let entries = self.wal.read(start..end, READ_BYTES_MAX).map_err(io::Error::other)?;
        let requests = |entry: Entry| {
            let carries = entry.kind == EntryKind::Normal;
            (entry.position, carries.then(|| LogEntry(entry.payload)))
        };
        Ok(entries.into_iter().map(requests).collect())
    }

    /// The entry up to which the log is cut off.
    pub(crate) fn purged(&self) -> Option<u64> {
        self.wal.purged().map(|purged| purged.index)
    }

    /// The last entry that is known to be committed, and here.
    pub(crate) fn committed(&self) -> Option<u64> {
        let here = self.wal.last().map(|last| last.index);
        self.wal.committed().map(|committed| committed.index).min(here)
    }

    fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<RaftEntry>> {
        let entries = self.wal.read(start..end, bytes_max).map_err(io::Error::other)?;
        entries.into_iter().map(to_raft).collect()
    }
}

fn directory(path: &Path) -> Result<Arc<dyn Disk>, OpenError> {
    let opened = machine::disk(path);
    opened.map_err(|source| OpenError::Io { action: "opening", path: path.to_owned(), source })
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<RaftEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        self.read(start, end, READ_BYTES_MAX)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        chunks(self.clone(), start, end)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.wal.ballot().map(to_vote))
    }
}

/// The entries of a range, a chunk in memory at a time: after a restart it can be all of the
/// log.
fn chunks(
    store: LogStore,
    start: u64,
    end: u64,
) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend + Unpin {
    let chunk = move |(store, start): (LogStore, u64)| async move {
        let read = store.read(start, end, READ_BYTES_MAX);
        let next = match &read {
            Ok(entries) => entries.last()?.log_id.index + 1,
            Err(_) => end,
        };
        let items = match read {
            Ok(entries) => entries.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        Some((stream::iter(items), (store, next)))
    };
    let chunks = stream::unfold((store, start), chunk);
    Box::pin(futures_util::StreamExt::flatten(chunks))
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        Ok(LogState {
            last_purged_log_id: self.wal.purged().map(to_log_id),
            last_log_id: self.wal.last().map(to_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let Vote { leader_id: LeaderId { term, node_id }, committed } = *vote;
        let ballot = Ballot { term, node: node_id, committed };
        self.wal.save_ballot(ballot).await.map_err(io::Error::other)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // What was committed stays so: there is nothing to note for `None`.
        let Some(upto) = committed else { return Ok(()) };
        self.wal.save_committed(to_position(upto)).await.map_err(io::Error::other)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.wal.committed().map(to_log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: Flushed) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(from_raft).collect::<io::Result<Vec<_>>>()?;
        let done = |result: Result<(), WalError>| {
            callback.io_completed(result.map_err(io::Error::other));
        };
        self.wal.append(entries, done).await.map_err(io::Error::other)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let after = last_log_id.map(|last| last.index);
        self.wal.truncate(after).await.map_err(io::Error::other)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.wal.purge(to_position(log_id)).await.map_err(io::Error::other)
    }
}

/// The range as from a first index to one past the last.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

fn to_position(id: LogId) -> Position {
    Position { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

fn to_log_id(Position { term, node, index }: Position) -> LogId {
    LogId { leader_id: LeaderId::new(term, node), index }
}

fn to_vote(Ballot { term, node, committed }: Ballot) -> Vote {
    Vote { leader_id: LeaderId::new(term, node), committed }
}

fn from_raft(RaftEntry { log_id, payload }: RaftEntry) -> io::Result<Entry> {
    let (kind, payload) = match payload {
        EntryPayload::Blank => (EntryKind::Blank, Bytes::new()),
        EntryPayload::Normal(LogEntry(bytes)) => (EntryKind::Normal, bytes),
        EntryPayload::Membership(membership) => {
            (EntryKind::Membership, membership_bytes(&membership)?)
        }
    };
    Ok(Entry { position: to_position(log_id), kind, payload })
}

fn to_raft(Entry { position, kind, payload }: Entry) -> io::Result<RaftEntry> {
    let payload: Payload = match kind {
        EntryKind::Blank => EntryPayload::Blank,
        EntryKind::Normal => EntryPayload::Normal(LogEntry(payload)),
        EntryKind::Membership => {
            let malformed = || io::Error::other(format!("entry {} is malformed", position.index));
            EntryPayload::Membership(membership(&payload).ok_or_else(malformed)?)
        }
    };
    Ok(RaftEntry { log_id: to_log_id(position), payload })
}

/// The voters of each configuration, then all nodes: counts and ids, and addresses by length.
fn membership_bytes(membership: &Membership) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    let configurations = membership.get_joint_config();
    put_count(&mut bytes, configurations.len())?;
    for voters in configurations {
        put_count(&mut bytes, voters.len())?;
        voters.iter().for_each(|voter| bytes.extend_from_slice(&voter.to_le_bytes()));
    }
    let nodes: Vec<_> = membership.nodes().collect();
    put_count(&mut bytes, nodes.len())?;
    for (id, MemberNode { address, wants_vote }) in nodes {
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.push(u8::from(*wants_vote));
        put_count(&mut bytes, address.len())?;
        bytes.extend_from_slice(address.as_bytes());
    }
    Ok(bytes.into())
}

fn put_count(bytes: &mut Vec<u8>, count: usize) -> io::Result<()> {
    bytes.extend_from_slice(&u32::try_from(count).map_err(io::Error::other)?.to_le_bytes());
    Ok(())
}

fn membership(mut bytes: &[u8]) -> Option<Membership> {
    let rest = &mut bytes;
    let configurations = (0..take_count(rest)?)
        .map(|_| (0..take_count(rest)?).map(|_| take_number(rest)).collect::<Option<_>>())
        .collect::<Option<Vec<_>>>()?;
    let nodes = (0..take_count(rest)?)
        .map(|_| Some((take_number(rest)?, take_node(rest)?)))
        .collect::<Option<BTreeMap<_, _>>>()?;
    rest.is_empty().then(|| Membership::new(configurations, nodes).ok())?
}

fn take_count(bytes: &mut &[u8]) -> Option<u32> {
    bytes.split_off(..4).map(|count| u32::from_le_bytes(count.try_into().expect("4 bytes")))
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    bytes.split_off(..8).map(|number| u64::from_le_bytes(number.try_into().expect("8 bytes")))
}

fn take_node(bytes: &mut &[u8]) -> Option<MemberNode> {
    let wants_vote = match bytes.split_off_first()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let length = take_count(bytes)? as usize;
    let address = String::from_utf8(bytes.split_off(..length)?.to_vec()).ok()?;
    Some(MemberNode { address, wants_vote })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn joint() -> Membership {
        let node = |id: u64| {
            let address = format!("10.0.0.{id}:7400");
            (id, MemberNode { address, wants_vote: id == 4 })
        };
        let voters = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2])];
        Membership::new(voters, (1..=4).map(node).collect::<BTreeMap<_, _>>()).expect("it is valid")
    }

    #[test]
    fn reads_a_membership_back() {
        let bytes = membership_bytes(&joint()).expect("it is small");
        assert_eq!(membership(&bytes), Some(joint()));
        for length in 0..bytes.len() {
            assert_eq!(membership(&bytes[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn keeps_the_format_of_released_memberships() {
        let bytes = membership_bytes(&joint()).expect("it is small");
        assert_eq!((bytes.len(), crc32c::crc32c(&bytes)), (160, 2_605_242_813));
    }
}
