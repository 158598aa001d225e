//! What the edge asks for, answered by this node and, where that is another, by the leader.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quorate_api::backend::{
    Agreement, Backend, Chunk, Cluster, Committed, FinishedQuery, Join, Joined, Member,
    ProposeError, Read, ReadError, Storage, StoreError,
};
use quorate_model::{
    AttemptRecord, Event, Flight, LogIndex, Request, Retired, RunId, State, Task, WorkerId,
};
use quorate_raft::codec::{self, Service};
use quorate_raft::{HistoryQuery, Node};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::leader::Sessions;
use crate::telemetry;
use crate::worker::Probe;

/// How long a write or a linearizable read may take before it is answered without a result.
/// Longer than an election, shorter than the patience of clients.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long a change of the membership may take.
const MEMBERSHIP_DEADLINE: Duration = Duration::from_secs(20);

/// What asking the leader for bytes may take longer than the read itself.
const READ_MARGIN: Duration = Duration::from_secs(7);

/// Answers the edge on behalf of this node.
#[derive(Debug)]
pub(crate) struct NodeBackend {
    node: Node,
    sessions: Arc<Sessions>,
    /// The worker of this process, if it has one.
    worker: Option<Probe>,
}

/// A read on its way to the leader: what one node asks of another.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ForwardedRead {
    worker: WorkerId,
    read: Read,
}

impl NodeBackend {
    /// Answers for `node`, whose workers are connected to `sessions`.
    #[must_use]
    pub(crate) fn new(node: Node, sessions: Arc<Sessions>, worker: Option<Probe>) -> Self {
        Self { node, sessions, worker }
    }

    /// Which worker has what an attempt wrote.
    fn holder(&self, read: &Read) -> Result<WorkerId, ReadError> {
        let live = self.node.with_state(|state| state.task(read.task).ok().map(|t| who(t, read)));
        let found = match live {
            Some(found) => found,
            None => {
                let unavailable = |error: StoreError| ReadError::Unavailable(error.to_string());
                let run = self.finished_run(read.task.run).map_err(unavailable)?;
                let task = run.as_ref().and_then(|run| run.run.tasks.get(read.task.position()));
                task.and_then(|task| who(task, read))
            }
        };
        found.ok_or_else(|| ReadError::NotFound("there is no such attempt".to_owned()))
    }

    /// Asks the leader, who has the sessions.
    async fn forward(&self, leader: &str, asked: ForwardedRead) -> Result<Chunk, ReadError> {
        let wait = Duration::from_millis(asked.read.wait.0) + READ_MARGIN;
        let exchange = async {
            let connection =
                codec::connect(leader, self.node.cluster(), Service::Files, READ_MARGIN)
                    .await
                    .map_err(|error| error.to_string())?;
            let (mut reader, mut writer) = connection.split();
            writer.send(&asked).await.map_err(|error| error.to_string())?;
            let answer: Option<Result<Chunk, ReadError>> =
                reader.next().await.map_err(|error| error.to_string())?;
            answer.ok_or_else(|| "the leader hung up".to_owned())
        };
        match tokio::time::timeout(wait, exchange).await {
            Ok(Ok(result)) => result,
            Ok(Err(reason)) => Err(ReadError::Unavailable(reason)),
            Err(_) => Err(ReadError::Unavailable("the leader did not answer in time".to_owned())),
        }
    }

    /// Serves one connection of another node that asks for bytes: one question, one answer.
    ///
    /// # Errors
    ///
    /// If the connection breaks.
    pub(crate) async fn serve_reads<S>(
        &self,
        connection: codec::Connection<S>,
    ) -> Result<(), codec::FrameError>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let (mut reader, mut writer) = connection.split();
        while let Some(ForwardedRead { worker, read }) = reader.next().await? {
            // Not forwarded again: one hop, or two nodes could send each other in circles.
            let answer = self.sessions.read(worker, read).await;
            writer.send(&answer).await?;
        }
        Ok(())
    }
}

/// The worker that had the attempt.
fn who(task: &Task, read: &Read) -> Option<WorkerId> {
    let in_flight = task.flight().filter(|flight: &&Flight| flight.attempt == read.attempt);
    let ended = || task.attempts.iter().find(|one: &&AttemptRecord| one.attempt == read.attempt);
    in_flight.map(|flight| flight.worker).or_else(|| ended().map(|record| record.worker))
}

#[async_trait]
impl Backend for NodeBackend {
    async fn propose(&self, request: Request) -> Result<Committed, ProposeError> {
        let committed = self.node.propose(request, DEADLINE).await.map_err(refused)?;
        Ok(Committed { index: committed.index, answer: committed.answer })
    }

    async fn catch_up(&self) -> Result<LogIndex, ProposeError> {
        self.node.catch_up(DEADLINE).await.map_err(refused)
    }

    fn with_state(&self, look: &mut dyn FnMut(&State)) {
        self.node.with_state(look);
    }

    fn events(&self) -> broadcast::Receiver<(LogIndex, Event)> {
        self.node.events()
    }

    fn finished_run(&self, run: RunId) -> Result<Option<Retired>, StoreError> {
        self.node.history().get(run).map_err(|error| StoreError(error.to_string()))
    }

    fn finished_runs(&self, query: &FinishedQuery) -> Result<Vec<Retired>, StoreError> {
        let FinishedQuery { before, workflows, ends, limit } = query.clone();
        let query = HistoryQuery { before, workflows, ends, limit };
        self.node.history().list(&query).map_err(|error| StoreError(error.to_string()))
    }

    fn cluster(&self) -> Cluster {
        let status = self.node.status();
        let contact = status.last_contact.map(|ago| ago.as_millis());
        Cluster {
            id: status.cluster.to_string(),
            node: status.node,
            leader: status.leader,
            term: status.term,
            last_index: status.last_index,
            committed_index: status.committed_index,
            applied_index: status.applied_index,
            snapshot_index: status.snapshot_index,
            last_contact_ms: contact.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
            quorate: status.quorate,
            members: status.members.into_iter().map(member).collect(),
            storage: storage(status.storage),
            agreement: agreement(status.agreement),
        }
    }

    async fn add_member(&self, join: Join) -> Result<Joined, ProposeError> {
        let joined = self.node.join(&join.address, join.voter, MEMBERSHIP_DEADLINE).await;
        let joined = joined.map_err(refused)?;
        Ok(Joined { node: joined.node, cluster: joined.cluster.to_string() })
    }

    async fn remove_member(&self, node: u64) -> Result<(), ProposeError> {
        self.node.remove(node, MEMBERSHIP_DEADLINE).await.map_err(refused)
    }

    async fn transfer_leadership(&self, to: Option<u64>) -> Result<(), ProposeError> {
        self.node.transfer_leadership(to, MEMBERSHIP_DEADLINE).await.map_err(refused)
    }

    async fn read(&self, read: Read) -> Result<Chunk, ReadError> {
        let worker = self.holder(&read)?;
        let leadership = self.node.leadership().borrow().clone();
        match leadership.leader {
            _ if leadership.leads => self.sessions.read(worker, read).await,
            Some((_, leader)) => self.forward(&leader, ForwardedRead { worker, read }).await,
            None => Err(ReadError::Unavailable("no leader is known; try again".to_owned())),
        }
    }

    fn metrics(&self) -> String {
        telemetry::metrics(&self.node, &self.sessions, self.worker.as_ref())
    }
}

fn storage(status: quorate_raft::StorageStatus) -> Storage {
    let longest = status.syncs.longest.as_millis();
    Storage {
        state: status.state.as_str().to_owned(),
        bytes_total: status.usage.bytes_total,
        bytes_free: status.usage.bytes_free,
        sync_max_ms: u64::try_from(longest).unwrap_or(u64::MAX),
    }
}

fn agreement(agreement: quorate_raft::Agreement) -> Agreement {
    let quorate_raft::Agreement { index, difference } = agreement;
    let different_at = difference.as_ref().map(|difference| difference.index);
    let different = difference.map(|difference| difference.nodes).unwrap_or_default();
    Agreement { index, different, different_at }
}

fn member(member: quorate_raft::Member) -> Member {
    Member {
        id: member.id,
        address: member.address,
        voter: member.voter,
        matched_index: member.matched_index,
    }
}

fn refused(error: quorate_raft::ProposeError) -> ProposeError {
    use quorate_raft::ProposeError as Refused;
    let reason = error.to_string();
    match error {
        Refused::DiskFull { .. } => ProposeError::DiskFull(reason),
        Refused::NoLeader { .. } => ProposeError::NoLeader,
        Refused::Unknown => ProposeError::Unknown,
        Refused::Overloaded => ProposeError::Overloaded,
        Refused::TooLarge { bytes, bytes_max } => ProposeError::TooLarge { bytes, bytes_max },
        Refused::Membership(reason) => ProposeError::Membership(reason),
        Refused::Stopping => ProposeError::Stopping,
    }
}
