//! Group commit: requests that arrive while entries are in flight leave together in the next.
//!
//! ```text
//! submit ─► urgent lane ──┐
//!       └─► ordinary lane ┴─► batcher ─► one entry, at most two in flight ─► openraft
//! ```
//!
//! A request is either in a lane, and can be withdrawn, or in an entry, and can not: so what
//! is not known is never more than what was truly proposed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use quorate_model::{Answer, Command, LogIndex, Request, UnixMs};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::codec;
use crate::error::ProposeError;
use crate::node::Raft;
use crate::state_machine::Replica;
use crate::types::{LogEntry, TypeConfig};

/// The largest request, encoded: a definition of 10,000 tasks fits.
pub const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Requests that may wait for an entry: two hundred milliseconds of work for a fast disk.
pub const PROPOSALS_QUEUED_MAX: usize = 10_000;

/// The same for requests that end something (reports, cancellations) or come from the
/// leader's own loops. They free more than they take, so they pass long after others do not.
const URGENT_QUEUED_MAX: usize = 50_000;

/// Bytes that may wait, in each lane.
const QUEUED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Requests in one entry: apply holds the state for the time that they take.
const ENTRY_REQUESTS_MAX: usize = 1_000;

/// Of these, those that the urgent lane takes first, so that the other is never starved.
const ENTRY_URGENT_MAX: usize = 750;

/// Bytes in one entry, unless a single request is larger.
const ENTRY_BYTES_MAX: usize = 512 * 1024;

/// Entries in flight: one on the way to disk while the next is gathered.
const ENTRIES_IN_FLIGHT_MAX: usize = 2;

/// The answer to a request, and the entry it stands in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The entry.
    pub index: LogIndex,
    /// The state machine's answer.
    pub answer: Answer,
}

/// What became of proposals on this node since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProposalCounts {
    /// Requests taken into the queue.
    pub accepted: u64,
    /// Requests refused because the queue was full.
    pub overloaded: u64,
    /// Requests that were answered by the state machine.
    pub committed: u64,
    /// Requests that were proposed and whose outcome is not known.
    pub unknown: u64,
    /// Entries proposed; `committed` over this is how well requests are grouped.
    pub entries: u64,
    /// Requests that wait now.
    pub queued: u64,
}

type Outcome = Result<Vec<Committed>, ProposeError>;

/// Requests that are proposed in the same entry, or not at all.
#[derive(Debug)]
struct Group {
    requests: Vec<Vec<u8>>,
    bytes: usize,
    /// The term in which this node must lead.
    term: Option<u64>,
    /// Whoever sets it first decides: the proposer by withdrawing, the batcher by taking.
    taken: Arc<AtomicBool>,
    answer: oneshot::Sender<Outcome>,
}

/// Where requests wait for an entry.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    lanes: Mutex<Lanes>,
    arrived: Notify,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Lanes {
    urgent: Lane,
    ordinary: Lane,
    closed: bool,
}

#[derive(Debug, Default)]
struct Lane {
    groups: VecDeque<Group>,
    requests: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    overloaded: AtomicU64,
    committed: AtomicU64,
    unknown: AtomicU64,
    entries: AtomicU64,
}

impl Proposals {
    /// Has requests proposed in one entry by this node, and waits for the answers until
    /// `until`. In `term` only, if given.
    pub(crate) async fn submit(
        &self,
        requests: &[Request],
        term: Option<u64>,
        until: Instant,
    ) -> Outcome {
        let encoded: Vec<Vec<u8>> = requests.iter().map(codec::encode).collect();
        let bytes: usize = encoded.iter().map(Vec::len).sum();
        if bytes > REQUEST_BYTES_MAX {
            let (bytes, bytes_max) = (bytes as u64, REQUEST_BYTES_MAX as u64);
            return Err(ProposeError::TooLarge { bytes, bytes_max });
        }
        let (answer, answered) = oneshot::channel();
        let taken = Arc::new(AtomicBool::new(false));
        let group = Group { requests: encoded, bytes, term, taken: Arc::clone(&taken), answer };
        self.enqueue(group, term.is_some() || requests.iter().all(is_urgent))?;
        match tokio::time::timeout_at(until, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) if taken.swap(true, Ordering::AcqRel) => {
                self.count_unknown(requests.len());
                Err(ProposeError::Unknown)
            }
            Ok(Err(_)) => Err(ProposeError::Stopping),
            Err(_) => Err(ProposeError::NoLeader { leader: None }),
        }
    }

    fn enqueue(&self, group: Group, urgent: bool) -> Result<(), ProposeError> {
        let requests = group.requests.len() as u64;
        let mut lanes = self.lanes();
        if lanes.closed {
            return Err(ProposeError::Stopping);
        }
        let (lane, queued_max) = if urgent {
            (&mut lanes.urgent, URGENT_QUEUED_MAX)
        } else {
            (&mut lanes.ordinary, PROPOSALS_QUEUED_MAX)
        };
        if !lane.has_room_for(&group, queued_max) {
            lane.drop_withdrawn();
        }
        if !lane.has_room_for(&group, queued_max) {
            self.counters.overloaded.fetch_add(requests, Ordering::Relaxed);
            return Err(ProposeError::Overloaded);
        }
        lane.push(group);
        drop(lanes);
        self.counters.accepted.fetch_add(requests, Ordering::Relaxed);
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for requests, and takes as many as fit into one entry.
    async fn next_batch(&self) -> Vec<Group> {
        loop {
            let batch = self.take_batch();
            if !batch.is_empty() {
                return batch;
            }
            self.arrived.notified().await;
        }
    }

    fn take_batch(&self) -> Vec<Group> {
        let mut lanes = self.lanes();
        let mut batch = Batch::default();
        lanes.urgent.move_to(&mut batch, ENTRY_URGENT_MAX);
        lanes.ordinary.move_to(&mut batch, ENTRY_REQUESTS_MAX);
        lanes.urgent.move_to(&mut batch, ENTRY_REQUESTS_MAX);
        batch.groups
    }

    /// Refuses everything that waits, and all that comes.
    pub(crate) fn close(&self) {
        let mut lanes = self.lanes();
        lanes.closed = true;
        let Lanes { urgent, ordinary, closed: _ } = &mut *lanes;
        for group in urgent.groups.drain(..).chain(ordinary.groups.drain(..)) {
            if !group.taken.swap(true, Ordering::AcqRel) {
                // Whoever waited may be gone.
                let _ = group.answer.send(Err(ProposeError::Stopping));
            }
        }
    }

    /// What became of proposals so far.
    pub(crate) fn counts(&self) -> ProposalCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { accepted, overloaded, committed, unknown, entries } = &self.counters;
        let lanes = self.lanes();
        ProposalCounts {
            accepted: read(accepted),
            overloaded: read(overloaded),
            committed: read(committed),
            unknown: read(unknown),
            entries: read(entries),
            queued: (lanes.urgent.requests + lanes.ordinary.requests) as u64,
        }
    }

    fn count_unknown(&self, requests: usize) {
        self.counters.unknown.fetch_add(requests as u64, Ordering::Relaxed);
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    fn push(&mut self, group: Group) {
        self.requests += group.requests.len();
        self.bytes += group.bytes;
        self.groups.push_back(group);
    }

    fn has_room_for(&self, group: &Group, requests_max: usize) -> bool {
        self.requests + group.requests.len() <= requests_max
            && self.bytes + group.bytes <= QUEUED_BYTES_MAX
    }

    /// While no entry gets through, only this makes room again.
    fn drop_withdrawn(&mut self) {
        self.groups.retain(|group| !group.taken.load(Ordering::Acquire));
        self.requests = self.groups.iter().map(|group| group.requests.len()).sum();
        self.bytes = self.groups.iter().map(|group| group.bytes).sum();
    }

    /// Moves groups to the batch while they fit; drops those that were withdrawn.
    fn move_to(&mut self, batch: &mut Batch, requests_max: usize) {
        while let Some(group) = self.groups.front() {
            let withdrawn = group.taken.load(Ordering::Acquire);
            if !withdrawn && !batch.has_room_for(group, requests_max) {
                return;
            }
            let Some(group) = self.groups.pop_front() else { return };
            self.requests -= group.requests.len();
            self.bytes -= group.bytes;
            if !group.taken.swap(true, Ordering::AcqRel) {
                batch.requests += group.requests.len();
                batch.bytes += group.bytes;
                batch.groups.push(group);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Batch {
    groups: Vec<Group>,
    requests: usize,
    bytes: usize,
}

impl Batch {
    fn has_room_for(&self, group: &Group, requests_max: usize) -> bool {
        self.groups.is_empty()
            || (self.requests + group.requests.len() <= requests_max
                && self.bytes + group.bytes <= ENTRY_BYTES_MAX)
    }
}

/// Whether a request passes when the queue is full: it ends something.
fn is_urgent(request: &Request) -> bool {
    matches!(request.command, Command::ReportTask(_) | Command::CancelRun(_) | Command::EndLease(_))
}

/// Proposes what is submitted, until dropped.
pub(crate) async fn run_batcher(proposals: Arc<Proposals>, raft: Raft, replica: Arc<Replica>) {
    let in_flight = Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT_MAX));
    loop {
        let slot = Arc::clone(&in_flight).acquire_owned().await;
        let slot = slot.expect("the semaphore is never closed");
        let groups = proposals.next_batch().await;
        propose(&proposals, &raft, &replica, groups, slot).await;
    }
}

/// Proposes one entry. Its answers are waited for in the background, the slot with them.
async fn propose(
    proposals: &Arc<Proposals>,
    raft: &Raft,
    replica: &Replica,
    groups: Vec<Group>,
    slot: OwnedSemaphorePermit,
) {
    let leader = match raft.as_leader() {
        Ok(leader) => leader,
        Err(elsewhere) => {
            let leader = elsewhere.leader_node.map(|node| node.address);
            return fail(groups, &ProposeError::NoLeader { leader });
        }
    };
    let term = leader.leader_id().term;
    let is_meant = |group: &Group| group.term.is_none_or(|wanted| wanted == term);
    let (groups, deposed): (Vec<_>, Vec<_>) = groups.into_iter().partition(is_meant);
    fail(deposed, &ProposeError::NoLeader { leader: None });
    if groups.is_empty() {
        return;
    }
    let entry = entry_of(replica.log_time(), &groups);
    #[cfg(mutant)]
    let groups = answer_early(replica, &entry, groups);
    let (responder, answered) = ProgressResponder::complete_only();
    proposals.counters.entries.fetch_add(1, Ordering::Relaxed);
    // In this very term only: what was checked above must hold when the entry is appended.
    let write = raft.write(entry).with_leader(leader.to_committed_leader_id()).responder(responder);
    if write.await.is_err() {
        return fail(groups, &ProposeError::Stopping);
    }
    let (proposals, storage) = (Arc::clone(proposals), replica.storage.clone());
    tokio::spawn(async move {
        // A node whose storage has failed acknowledges nothing, whoever else has stored it.
        let written = answered.await.ok().filter(|_| !storage.has_failed());
        drop(slot);
        answer(&proposals, groups, written);
    });
}

fn entry_of(proposed_at: UnixMs, groups: &[Group]) -> LogEntry {
    let requests: Vec<&[u8]> =
        groups.iter().flat_map(|group| group.requests.iter().map(Vec::as_slice)).collect();
    codec::encode_entry(proposed_at, requests.into_iter())
}

/// Hands out what an entry came to.
fn answer(
    proposals: &Proposals,
    groups: Vec<Group>,
    written: Option<ClientWriteResult<TypeConfig>>,
) {
    let written = match written {
        Some(Ok(written)) => written,
        // Refused before it was appended.
        Some(Err(openraft::errors::ClientWriteError::ForwardToLeader(elsewhere))) => {
            let leader = elsewhere.leader_node.map(|node| node.address);
            return fail(groups, &ProposeError::NoLeader { leader });
        }
        Some(Err(_)) | None => {
            proposals.count_unknown(groups.iter().map(|group| group.requests.len()).sum());
            return fail(groups, &ProposeError::Unknown);
        }
    };
    let index = LogIndex(written.log_id.index);
    proposals.counters.committed.fetch_add(written.data.len() as u64, Ordering::Relaxed);
    hand_out(groups, index, written.data);
}

/// Gives each group its part of the answers to an entry.
fn hand_out(groups: Vec<Group>, index: LogIndex, answers: Vec<Answer>) {
    let mut answers = answers.into_iter();
    for group in groups {
        let own = answers.by_ref().take(group.requests.len());
        let committed = own.map(|answer| Committed { index, answer }).collect();
        // Whoever waited may be gone.
        let _ = group.answer.send(Ok(committed));
    }
}

/// The fault: says what an entry would come to before a quorum has it. Nobody is left to be
/// answered later.
#[cfg(mutant)]
fn answer_early(replica: &Replica, entry: &LogEntry, groups: Vec<Group>) -> Vec<Group> {
    if !quorate_model::mutant::is("M9") {
        return groups;
    }
    let mut guess = replica.with_state(quorate_model::State::clone);
    let index = LogIndex(guess.applied().0 + 1);
    let entry = codec::decode_entry(entry).expect("it was encoded here");
    hand_out(groups, index, guess.apply(index, entry).answers);
    Vec::new()
}

fn fail(groups: Vec<Group>, error: &ProposeError) {
    for group in groups {
        let _ = group.answer.send(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HERE: Duration = Duration::from_millis(20);

    fn group(requests: usize, bytes: usize) -> (Group, oneshot::Receiver<Outcome>) {
        let (answer, answered) = oneshot::channel();
        let taken = Arc::default();
        (Group { requests: vec![Vec::new(); requests], bytes, term: None, taken, answer }, answered)
    }

    fn sizes(batch: &[Group]) -> Vec<usize> {
        batch.iter().map(|group| group.requests.len()).collect()
    }

    #[test]
    fn entries_are_of_moderate_size_unless_one_request_is_not() {
        let proposals = Proposals::default();
        for (requests, bytes) in [(1, REQUEST_BYTES_MAX), (600, 10), (300, 10), (200, 10), (1, 1)] {
            proposals.enqueue(group(requests, bytes).0, false).unwrap();
        }
        assert_eq!(sizes(&proposals.take_batch()), [1], "too large for any company");
        assert_eq!(sizes(&proposals.take_batch()), [600, 300]);
        assert_eq!(sizes(&proposals.take_batch()), [200, 1]);
        assert!(proposals.take_batch().is_empty());
        assert_eq!(proposals.counts().queued, 0);
    }

    #[test]
    fn neither_lane_starves_the_other() {
        let proposals = Proposals::default();
        for _ in 0..1_500 {
            proposals.enqueue(group(1, 1).0, true).unwrap();
            proposals.enqueue(group(1, 1).0, false).unwrap();
        }
        assert_eq!(proposals.take_batch().len(), ENTRY_REQUESTS_MAX);
        let lanes = proposals.lanes();
        assert_eq!((lanes.urgent.requests, lanes.ordinary.requests), (750, 1_250));
    }

    #[test]
    fn room_is_made_by_those_who_no_longer_wait() {
        let proposals = Proposals::default();
        let mut taken = Vec::new();
        for _ in 0..PROPOSALS_QUEUED_MAX {
            let (group, _) = group(1, 1);
            taken.push(Arc::clone(&group.taken));
            proposals.enqueue(group, false).unwrap();
        }
        assert_eq!(proposals.enqueue(group(1, 1).0, false), Err(ProposeError::Overloaded));
        proposals.enqueue(group(1, 1).0, true).unwrap();
        taken[0].store(true, Ordering::Release);
        proposals.enqueue(group(1, 1).0, false).unwrap();
        assert_eq!(proposals.enqueue(group(1, 1).0, false), Err(ProposeError::Overloaded));
    }

    fn request() -> Request {
        Command::MintNodeId(quorate_model::command::MintNodeId {}).into()
    }

    #[tokio::test]
    async fn what_was_never_proposed_is_not_unknown() {
        let proposals = Proposals::default();
        let outcome = proposals.submit(&[request()], None, Instant::now() + HERE).await;
        assert_eq!(outcome, Err(ProposeError::NoLeader { leader: None }));
        assert!(proposals.take_batch().is_empty(), "it was withdrawn");
    }

    #[tokio::test]
    async fn what_was_taken_and_not_answered_is_unknown() {
        let proposals = Arc::new(Proposals::default());
        let batch = tokio::spawn({
            let proposals = Arc::clone(&proposals);
            async move { proposals.next_batch().await }
        });
        let outcome = proposals.submit(&[request()], None, Instant::now() + 10 * HERE).await;
        assert_eq!(outcome, Err(ProposeError::Unknown));
        assert_eq!(batch.await.unwrap().len(), 1);
        assert_eq!(proposals.counts().unknown, 1);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_node_that_stops() {
        let proposals = Arc::new(Proposals::default());
        let waiting = tokio::spawn({
            let proposals = Arc::clone(&proposals);
            let until = Instant::now() + Duration::from_secs(20);
            async move { proposals.submit(&[request()], None, until).await }
        });
        while proposals.counts().queued == 0 {
            tokio::task::yield_now().await;
        }
        proposals.close();
        assert_eq!(waiting.await.unwrap(), Err(ProposeError::Stopping));
        let late = proposals.submit(&[request()], None, Instant::now() + HERE).await;
        assert_eq!(late, Err(ProposeError::Stopping));
    }
}
