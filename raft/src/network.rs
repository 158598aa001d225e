//! What this node asks of its peers for openraft: the client half.
//!
//! openraft makes one client for each purpose (replication, heartbeats, votes, snapshots), and
//! each opens a connection of its own: bulk never stands in the way of a heartbeat. Every
//! call has a deadline, which the library leaves to us.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::base::BoxFuture;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::ClusterId;
use crate::acknowledged::Acknowledged;
use crate::codec::Service;
use crate::link::{Link, Pending};
use crate::machine;
use crate::snapshot::{Section, SnapshotFile, sections_for_peer};
use crate::state_machine::Replica;
use crate::types::{MemberNode, TypeConfig};

/// How long a peer may take to accept a connection.
const CONNECT_DEADLINE: Duration = Duration::from_millis(500);

/// How long a peer may take to make entries durable before replication to it starts over: far
/// above a slow disk, as heartbeats do not depend on it.
const APPEND_DEADLINE: Duration = Duration::from_secs(5);

/// How long a connection may bring no answer before it is given up for a new one.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// How long a peer may take over one section of a snapshot, and over installing the whole.
const SECTION_DEADLINE: Duration = Duration::from_secs(30);
const INSTALL_DEADLINE: Duration = Duration::from_secs(600);

/// Requests under way in replication to one peer.
const APPENDS_IN_FLIGHT_MAX: usize = 16;

/// Sections read ahead while a snapshot is sent.
const SECTIONS_AHEAD: usize = 4;

/// A question to a peer.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) enum PeerAsk {
    /// One of a series, to be handled in order; answered with [`PeerTold::Stream`].
    Stream(AppendEntriesRequest<TypeConfig>),
    /// By itself: a heartbeat.
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// A piece of a snapshot, in order; the last is answered when all is installed.
    Snapshot(VoteOf<TypeConfig>, Section),
    /// It has lost entries up to this one, which it had acknowledged. Not answered.
    Forgot(u64),
}

impl PeerAsk {
    /// Whether it is refused by a node without room: what is to be stored, and to lead.
    pub(crate) fn takes_room(&self, node: u64) -> bool {
        match self {
            Self::Stream(request) | Self::Append(request) => !request.entries.is_empty(),
            Self::Snapshot(..) => true,
            Self::TransferLeader(request) => *request.to_node_id() == node,
            // A vote takes a few bytes, which are there.
            Self::Vote(_) | Self::PreVote(_) | Self::Forgot(_) => false,
        }
    }
}

/// What a peer answers.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) enum PeerTold {
    Stream(StreamAppendResult<TypeConfig>),
    Append(AppendEntriesResponse<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
    TransferLeader(TransferLeaderResponse<TypeConfig>),
    /// More sections, please.
    More,
    Installed(SnapshotResponse<TypeConfig>),
    /// It cannot, and why.
    Failed(String),
}

/// Makes clients for openraft.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) cluster: ClusterId,
    pub(crate) replica: Arc<Replica>,
    pub(crate) acknowledged: Arc<Acknowledged>,
}

/// The connection to one peer for one purpose; opened when needed, and again when broken.
#[derive(Debug)]
pub(crate) struct Peer {
    id: u64,
    address: String,
    network: Network,
    link: Option<Link>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, id: u64, node: &MemberNode) -> Peer {
        let address = node.address.clone();
        Peer { id, address, network: self.clone(), link: None }
    }
}

impl Peer {
    async fn link(&mut self) -> Result<Link, RPCError<TypeConfig>> {
        if let Some(link) = self.link.as_ref().filter(|link| is_of_use(link)) {
            return Ok(link.clone());
        }
        let cluster = self.network.cluster;
        let link = Link::open(&self.address, cluster, Service::Raft, CONNECT_DEADLINE).await;
        let link = link.map_err(|error| unreachable(&error))?;
        Ok(self.link.insert(link).clone())
    }

    async fn call(
        &mut self,
        ask: &PeerAsk,
        deadline: Duration,
    ) -> Result<PeerTold, RPCError<TypeConfig>> {
        let link = self.link().await?;
        let told = link.call::<_, PeerTold>(ask, deadline).await;
        told.map_err(|error| unreachable(&error))
    }

    fn witness(&self, leader: VoteOf<TypeConfig>, link: &Link) -> Witness {
        let (acknowledged, link) = (Arc::clone(&self.network.acknowledged), link.clone());
        Witness { acknowledged, peer: self.id, leader, link }
    }

    async fn send_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        file: SnapshotFile,
    ) -> Result<SnapshotResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut sections = read_ahead(file, Arc::clone(&self.network.replica));
        let mut told = PeerTold::More;
        while let Some(section) = sections.recv().await {
            let section = section.map_err(|error| unreachable(&error))?;
            let last = matches!(section, Section::End(_));
            let deadline = if last { INSTALL_DEADLINE } else { SECTION_DEADLINE };
            told = self.call(&PeerAsk::Snapshot(vote, section), deadline).await?;
            if !matches!(told, PeerTold::More) {
                break;
            }
        }
        let PeerTold::Installed(response) = told else { return Err(unexpected(&told)) };
        Ok(response)
    }
}

/// Reads the sections of a snapshot on a thread of its own.
fn read_ahead(
    file: SnapshotFile,
    replica: Arc<Replica>,
) -> mpsc::Receiver<std::io::Result<Section>> {
    machine::blocking_series(SECTIONS_AHEAD, move |give| {
        sections_for_peer(&file, &replica.history, give)
    })
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let told = self.call(&PeerAsk::Append(rpc), option.soft_ttl()).await?;
        let PeerTold::Append(response) = told else { return Err(unexpected(&told)) };
        Ok(response)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let asked = stream::unfold((self, input, None), |(peer, mut input, link)| async move {
            // First a request, then a connection: the library waits in here before it tries
            // again to reach a peer that is gone.
            let request = input.next().await?;
            let link = match link {
                Some(link) => Ok(link),
                None => peer.link().await,
            };
            // The whole series goes through one connection, or ends.
            match link {
                Ok(link) => {
                    let leader = request.vote;
                    let asked = link.ask(&PeerAsk::Stream(request)).await;
                    let asked = asked.map_err(|error| unreachable(&error));
                    let asked = asked.map(|pending| (pending, peer.witness(leader, &link)));
                    Some((asked, (peer, input, Some(link))))
                }
                Err(error) => Some((Err(error), (peer, input, None))),
            }
        });
        let told = asked.map(appended).buffered(APPENDS_IN_FLIGHT_MAX);
        Box::pin(async move { Ok(until_first_error(told).boxed()) })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let told = self.call(&PeerAsk::Vote(rpc), option.soft_ttl()).await?;
        let PeerTold::Vote(response) = told else { return Err(unexpected(&told)) };
        Ok(response)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let told = self.call(&PeerAsk::PreVote(rpc), option.soft_ttl()).await?;
        let PeerTold::Vote(response) = told else { return Err(unexpected(&told)) };
        Ok(response)
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tracing::info!(peer = self.address, meta = %snapshot.meta, "sending a snapshot");
        // Each attempt on a new connection: a half-sent one ends with the old.
        self.link = None;
        let last = snapshot.meta.last_log_id.map(|last| last.index);
        let sent = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot.snapshot) => sent,
        };
        if let (Ok(response), Some(last)) = (&sent, last)
            && response.vote == vote
        {
            self.network.acknowledged.note(self.id, vote, last);
        }
        if let Err(error) = &sent {
            tracing::warn!(peer = self.address, %error, "a snapshot was not sent");
        }
        sent.map_err(|error| match error {
            RPCError::Unreachable(error) => StreamingError::Unreachable(error),
            error @ (RPCError::Timeout(_) | RPCError::Network(_) | RPCError::RemoteError(_)) => {
                StreamingError::Network(NetworkError::new(&error))
            }
        })
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let told = self.call(&PeerAsk::TransferLeader(req), option.soft_ttl()).await?;
        let PeerTold::TransferLeader(response) = told else { return Err(unexpected(&told)) };
        Ok(response)
    }
}

/// Whether a connection is to be kept. Asked before each use and not when an answer is missed:
/// the library may be tired of waiting long before that.
fn is_of_use(link: &Link) -> bool {
    !link.is_broken() && !link.is_silent(SILENCE_MAX)
}

/// The answer to one request of a series.
async fn appended(
    asked: Result<(Pending, Witness), RPCError<TypeConfig>>,
) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
    let (pending, witness) = asked?;
    let told = pending.answer::<PeerTold>(APPEND_DEADLINE).await;
    let told = told.map_err(|error| unreachable(&error))?;
    let PeerTold::Stream(result) = told else { return Err(unexpected(&told)) };
    witness.hear(result).await
}

/// Compares what a peer says that it lacks with what it said before that it has.
struct Witness {
    acknowledged: Arc<Acknowledged>,
    peer: u64,
    leader: VoteOf<TypeConfig>,
    link: Link,
}

impl Witness {
    /// Passes an answer on, unless it is one that the library takes for impossible: it would
    /// give up this node for what another has lost.
    async fn hear(
        self,
        result: StreamAppendResult<TypeConfig>,
    ) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
        let lost = match &result {
            Ok(Some(last)) => {
                self.acknowledged.note(self.peer, self.leader, last.index);
                None
            }
            Err(StreamAppendError::Conflict(missing)) => {
                self.acknowledged.includes(self.peer, self.leader, missing.index)
            }
            Ok(None) | Err(StreamAppendError::HigherVote(_)) => None,
        };
        let Some(had) = lost else { return Ok(result) };
        tracing::error!(node = self.peer, had, "a node has lost what it had acknowledged");
        // It stops when it hears this; if it does not hear it, it is told again.
        drop(self.link.ask(&PeerAsk::Forgot(had)).await);
        let reason = "it has lost entries that it had acknowledged";
        Err(RPCError::Unreachable(Unreachable::from_string(reason)))
    }
}

/// Ends a series after its first failure: what follows was refused for the same reason.
fn until_first_error<'s, T: Send + 's, E: Send + 's, F: Send + 's>(
    results: impl Stream<Item = Result<Result<T, E>, F>> + Send + 's,
) -> impl Stream<Item = Result<Result<T, E>, F>> + Send + 's {
    let results = Box::pin(results);
    stream::unfold(Some(results), |results| async move {
        let mut results = results?;
        let next = results.next().await?;
        let goes_on = matches!(next, Ok(Ok(_)));
        Some((next, goes_on.then_some(results)))
    })
}

fn unreachable(error: &(impl std::error::Error + 'static)) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}

fn unexpected(told: &PeerTold) -> RPCError<TypeConfig> {
    let reason = match told {
        PeerTold::Failed(reason) => reason.as_str(),
        PeerTold::Stream(_)
        | PeerTold::Append(_)
        | PeerTold::Vote(_)
        | PeerTold::TransferLeader(_)
        | PeerTold::More
        | PeerTold::Installed(_) => "an answer to another question",
    };
    RPCError::Unreachable(Unreachable::from_string(reason))
}
