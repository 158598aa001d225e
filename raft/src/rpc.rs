//! What peers and followers ask of this node: the server half.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::async_runtime::WatchReceiver;
use openraft::raft::AppendEntriesRequest;
use quorate_model::LogIndex;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::ClusterId;
use crate::agreement::kind_of_digests;
use crate::codec::{self, Connection, FrameError, Hello, Service};
use crate::error::ProposeError;
use crate::forward::{Told, What};
use crate::history::Record;
use crate::identity::WAY_OUT;
use crate::link::{FRAMES_QUEUED_MAX, write_frames};
use crate::machine;
use crate::network::{PeerAsk, PeerTold};
use crate::node::{Inner, Node};
use crate::snapshot::{Incoming, Section, SnapshotFile};
use crate::storage::Room;
use crate::types::TypeConfig;

/// Requests of a series that wait for openraft.
const APPENDS_QUEUED_MAX: usize = 64;

/// Questions of one follower that are worked on at once. More are not read.
const FORWARDS_MAX: usize = 4096;

/// The longest that a question is worked on, whatever it says.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Bytes in one answer about the history.
const HISTORY_PAGE_BYTES: usize = 1024 * 1024;

type Frames = mpsc::Sender<Vec<u8>>;

impl Node {
    /// Serves a connection whose [`Hello`] was welcome, until it ends or the node stops. For
    /// [`Service::Raft`] and [`Service::Forward`]; others are closed at once.
    pub async fn serve<S>(&self, connection: Connection<S>, hello: Hello)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let served = async {
            match hello.service {
                Service::Raft => serve_peer(&self.inner, connection).await,
                Service::Forward => serve_follower(self, connection, hello.cluster).await,
                Service::Worker | Service::Files => Ok(()),
            }
        };
        let served = tokio::select! {
            served = served => served,
            () = self.inner.stopping.cancelled() => Ok(()),
        };
        if let Err(error) = served {
            tracing::warn!(service = ?hello.service, %error, "closed a connection");
        }
    }
}

/// Queues an answer. If it cannot be sent, the connection is over and its reader will see.
async fn tell<T: Serialize>(frames: &Frames, number: u64, told: &T) {
    let mut frame = Vec::new();
    match codec::append_frame(&mut frame, &(number, told)) {
        Ok(()) => drop(frames.send(frame).await),
        Err(error) => tracing::error!(%error, "an answer cannot be sent"),
    }
}

async fn serve_peer<S>(inner: &Arc<Inner>, connection: Connection<S>) -> Result<(), FrameError>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut reader, writer) = connection.split();
    let (frames, queued) = mpsc::channel(FRAMES_QUEUED_MAX);
    let _writing =
        tokio_util::task::AbortOnDropHandle::new(tokio::spawn(write_frames(writer, queued)));
    let mut session =
        PeerSession { inner: Arc::clone(inner), frames, series: None, incoming: None };
    while let Some((number, ask)) = reader.next::<(u64, PeerAsk)>().await? {
        if !session.handle(number, ask).await {
            break;
        }
    }
    Ok(())
}

/// One connection of a peer.
struct PeerSession {
    inner: Arc<Inner>,
    frames: Frames,
    /// Where requests of a series go, once there is one.
    series: Option<Series>,
    /// The snapshot that is being received, and the vote of its leader.
    incoming: Option<Incoming>,
}

struct Series {
    numbers: mpsc::Sender<u64>,
    requests: mpsc::Sender<AppendEntriesRequest<TypeConfig>>,
}

impl PeerSession {
    /// Answers a question, now or later. False if the connection is to be closed.
    async fn handle(&mut self, number: u64, ask: PeerAsk) -> bool {
        let inner = Arc::clone(&self.inner);
        if inner.storage.has_failed() {
            return false;
        }
        if inner.storage.room() == Room::Full && ask.takes_room(inner.id) {
            // It is asked again, on a new connection, after a pause. Heartbeats go on.
            tell(&self.frames, number, &PeerTold::Failed("the disk is full".into())).await;
            return false;
        }
        match ask {
            PeerAsk::Stream(request) => return self.append_in_order(number, request).await,
            PeerAsk::Snapshot(vote, section) => {
                let told = self.take_section(vote, section).await;
                tell(&self.frames, number, &told).await;
            }
            PeerAsk::Append(request) => self.answer(number, async move {
                let appended = inner.raft.append_entries(request).await;
                if appended.as_ref().is_ok_and(|response| response.is_success()) {
                    inner.contact.note();
                }
                appended.map(PeerTold::Append)
            }),
            PeerAsk::Forgot(had) => {
                tokio::spawn(async move { inner.forgot(had).await });
                return false;
            }
            PeerAsk::Vote(request) => {
                self.answer(
                    number,
                    async move { inner.raft.vote(request).await.map(PeerTold::Vote) },
                );
            }
            PeerAsk::PreVote(request) => self.answer(number, async move {
                inner.raft.pre_vote(request).await.map(PeerTold::Vote)
            }),
            PeerAsk::TransferLeader(request) => self.answer(number, async move {
                inner.raft.handle_transfer_leader(request).await.map(PeerTold::TransferLeader)
            }),
        }
        true
    }

    /// Works out an answer in the background, so that none waits for another.
    fn answer<E: std::fmt::Display>(
        &self,
        number: u64,
        work: impl Future<Output = Result<PeerTold, E>> + Send + 'static,
    ) {
        let (frames, storage) = (self.frames.clone(), self.inner.storage.clone());
        tokio::spawn(async move {
            let told = work.await.unwrap_or_else(|error| PeerTold::Failed(error.to_string()));
            // No vote and no acknowledgement leaves a node whose storage has failed.
            if !storage.has_failed() {
                tell(&frames, number, &told).await;
            }
        });
    }

    async fn append_in_order(
        &mut self,
        number: u64,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> bool {
        let series = self.series.get_or_insert_with(|| start_series(&self.inner, &self.frames));
        series.numbers.send(number).await.is_ok() && series.requests.send(request).await.is_ok()
    }

    async fn take_section(&mut self, vote: VoteOf<TypeConfig>, section: Section) -> PeerTold {
        let incoming = match (&section, self.incoming.take()) {
            (Section::Head(_), _) => {
                let name = format!("incoming-{}", self.inner.next_number());
                self.inner.replica.snapshots.begin(&name)
            }
            (_, Some(incoming)) => Ok(incoming),
            (_, None) => return PeerTold::Failed("a snapshot without a head".into()),
        };
        let taken = machine::blocking(move || write_section(incoming?, &section)).await;
        match taken.map_err(std::io::Error::other).flatten() {
            Ok(Taken::More(incoming)) => {
                self.incoming = Some(incoming);
                PeerTold::More
            }
            Ok(Taken::All(snapshot)) if !self.inner.has_room_for(&snapshot.snapshot) => {
                PeerTold::Failed("the disk has no room for the history in a snapshot".into())
            }
            Ok(Taken::All(snapshot)) => {
                let installed = self.inner.raft.install_full_snapshot(vote, snapshot).await;
                installed.map_or_else(|e| PeerTold::Failed(e.to_string()), PeerTold::Installed)
            }
            Err(error) => PeerTold::Failed(format!("a snapshot cannot be received: {error}")),
        }
    }
}

enum Taken {
    More(Incoming),
    All(SnapshotOf<TypeConfig, SnapshotFile>),
}

fn write_section(mut incoming: Incoming, section: &Section) -> std::io::Result<Taken> {
    incoming.push(section)?;
    if !matches!(section, Section::End(_)) {
        return Ok(Taken::More(incoming));
    }
    let (meta, snapshot) = incoming.finish()?;
    Ok(Taken::All(SnapshotOf::<TypeConfig, _> { meta, snapshot }))
}

/// Feeds the requests of a series to openraft, and answers them in order. After the first that
/// fails, the series is over.
fn start_series(inner: &Arc<Inner>, frames: &Frames) -> Series {
    let (numbers, mut asked) = mpsc::channel(APPENDS_QUEUED_MAX);
    let (requests, queued) = mpsc::channel(APPENDS_QUEUED_MAX);
    let (inner, frames) = (Arc::clone(inner), frames.clone());
    tokio::spawn(async move {
        let mut results = std::pin::pin!(inner.raft.stream_append(received(queued)));
        while let Some(Ok(result)) = results.next().await {
            let Some(number) = asked.recv().await else { return };
            if inner.storage.has_failed() {
                return;
            }
            if result.is_ok() {
                inner.contact.note();
            }
            tell(&frames, number, &PeerTold::Stream(result)).await;
        }
    });
    Series { numbers, requests }
}

fn received<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    })
}

async fn serve_follower<S>(
    node: &Node,
    connection: Connection<S>,
    cluster: ClusterId,
) -> Result<(), FrameError>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut reader, writer) = connection.split();
    let (frames, queued) = mpsc::channel(FRAMES_QUEUED_MAX);
    let _writing =
        tokio_util::task::AbortOnDropHandle::new(tokio::spawn(write_frames(writer, queued)));
    let slots = Arc::new(Semaphore::new(FORWARDS_MAX));
    while let Some((number, (wait_ms, what))) = reader.next::<(u64, (u64, What))>().await? {
        let is_join = matches!(what, What::Join { .. });
        let is_newcomer = cluster == ClusterId::NONE;
        if is_newcomer && !is_join {
            return Err(FrameError::Refused("a node without a cluster can only join".into()));
        }
        let slot = Arc::clone(&slots).acquire_owned().await;
        let (node, frames) = (node.clone(), frames.clone());
        let until = Instant::now() + Duration::from_millis(wait_ms).min(WAIT_MAX);
        tokio::spawn(async move {
            // A newcomer cannot know who leads; a member asks the leader itself.
            let told = if is_newcomer {
                node.ask_leader(&what, until).await
            } else {
                node.inner.answer(&what, until).await
            };
            tell(&frames, number, &told).await;
            drop(slot);
        });
    }
    Ok(())
}

impl Inner {
    /// A leader has this node's word for the entries up to `had`; without them it must not
    /// vote or count any more.
    async fn forgot(self: &Arc<Self>, had: u64) {
        let last = self.raft.metrics().borrow_watched().last_log_index.unwrap_or(0);
        if last < had {
            let reason = format!(
                "this data directory is an old copy: the node has acknowledged entries up to \
                 {had}, and its log ends at {last}; {WAY_OUT}"
            );
            tracing::error!(reason, "the node stops");
            self.stop(reason).await;
        }
    }

    /// Answers as leader, or that this node is none.
    pub(crate) async fn answer(&self, what: &What, until: Instant) -> Result<Told, ProposeError> {
        match what {
            What::Propose(request) => {
                let requests = std::slice::from_ref(&**request);
                self.admit(requests)?;
                let committed = self.proposals.submit(requests, None, until).await?;
                let committed = committed.into_iter().next().map(Told::Committed);
                committed.ok_or(ProposeError::Unknown)
            }
            What::ReadIndex => {
                let point = self.reads.point(until).await?;
                Ok(Told::Index(LogIndex(point.index.0)))
            }
            What::Join { address, voter } => {
                self.admit(&[])?;
                self.join_here(address, *voter, until).await.map(Told::Joined)
            }
            &What::Remove { node } => self.remove_here(node, until).await.map(|()| Told::Done),
            &What::Transfer { to } => self.transfer_here(to, until).await.map(|()| Told::Done),
            What::Digest { index, kind } => {
                let digest = self.replica.digests.of(*index).filter(|_| *kind == kind_of_digests());
                Ok(Told::Digest(digest))
            }
            What::Room => self.has_room().then_some(Told::Done).ok_or_else(|| self.disk_full()),
            &What::History { after, applied } => {
                if !self.replica.wait_applied(applied, until).await {
                    return Err(ProposeError::NoLeader { leader: None });
                }
                let page = self.replica.history.page(after, HISTORY_PAGE_BYTES);
                let page = page.map(|page| page.into_iter().map(Record::fit_for_a_frame).collect());
                page.map(Told::Records).map_err(|error| ProposeError::Membership(error.0))
            }
        }
    }
}
