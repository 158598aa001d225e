//! A node: the replicated log, the leader's duties, a worker and the edge, behind one port.

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use quorate_api::backend::Backend;
use quorate_raft::codec::{self, Service};
use quorate_raft::{Node, Options, Start, Timing};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::backend::NodeBackend;
use crate::config::Config;
use crate::leader::{self, Sessions};
use crate::link;
use crate::seeds::{self, Seeds};
use crate::worker::{self, Worker, WorkerHandle, WorkerOptions};

/// How long a connection may take to say what it is.
const FIRST_BYTES_MAX: Duration = Duration::from_secs(10);

/// Between two looks at a connection that has said too little: it is rare, and on its way.
const PEEK_AGAIN: Duration = Duration::from_millis(10);

/// How long the head of an HTTP request may take, and how long a connection may wait for the
/// next: those who dawdle must not use up the connections.
const HEADERS_MAX: Duration = Duration::from_secs(30);

/// Connections at once, of any kind: well below the descriptors that a process may have.
const CONNECTIONS_MAX: usize = 8_192;

/// Between two tries to accept after the system refused one: it has no descriptors left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How long asking to join may take before the next node is asked.
const JOIN_DEADLINE: Duration = Duration::from_secs(20);

/// How long running tasks may go on once the node was told to stop. They run again elsewhere,
/// so none is waited for; what has just ended is still reported.
const DRAIN: Duration = Duration::ZERO;

/// How often the nodes given by `--join` are asked before a start counts as failed.
const JOIN_ROUNDS_MAX: u32 = 10;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Its address is not free, or not its own.
    #[error("could not listen at {address}; choose another with --listen")]
    Listen {
        /// As configured.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its address means every interface, which is nowhere to connect to.
    #[error("{0} is no address that others can connect to; say --advertise HOST:PORT")]
    Advertise(SocketAddr),
    /// None of the nodes given let it in.
    #[error("could not join a cluster: {0}")]
    Join(String),
    /// Its storage refused.
    #[error(transparent)]
    Open(#[from] quorate_raft::OpenError),
    /// Its worker cannot be called so.
    #[error(transparent)]
    Name(#[from] quorate_model::NameError),
    /// Its worker did not start.
    #[error(transparent)]
    Worker(#[from] worker::StartError),
}

/// A node that runs.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    node: Node,
    worker: Option<WorkerHandle>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Starts a node and waits until it serves.
    ///
    /// A folder that already holds a node is that node, whatever `join` says.
    ///
    /// # Errors
    ///
    /// If it can't listen, join, or open its storage.
    pub(crate) async fn start(config: Config) -> Result<Self, StartError> {
        let listen = |source| StartError::Listen { address: config.listen.clone(), source };
        let listener = TcpListener::bind(&config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let advertised = advertised(&config, address)?;
        let stop = CancellationToken::new();
        let node = open(&config, &advertised).await?;
        let sessions = Arc::new(Sessions::new(node.clone(), config.lease));
        // Connects to this node, which does not answer yet: the system holds the connection.
        let worker = if config.worker {
            Some(Worker::start(worker_options(&config, &node, &advertised)?)?)
        } else {
            None
        };
        let probe = worker.as_ref().map(WorkerHandle::probe);
        let backend = Arc::new(NodeBackend::new(node.clone(), Arc::clone(&sessions), probe));

        let tasks = TaskTracker::new();
        let edge: Arc<dyn Backend> = backend.clone();
        let door = Door {
            node: node.clone(),
            sessions: Arc::clone(&sessions),
            backend,
            app: quorate_api::router(edge),
            free: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        };
        tasks.spawn(Arc::new(door).accept(listener, stop.clone()));
        tasks.spawn(leader::run(node.clone(), sessions, stop.clone()));
        tasks.close();
        info!(%address, node = node.id(), "serving");
        Ok(Self { address, node, worker, stop, tasks })
    }

    /// Where its API is.
    #[must_use]
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until the node stops by itself, which it does when its storage fails; says why.
    pub(crate) async fn stopped(&self) -> String {
        self.node.stopped().await
    }

    /// Stops: the worker leaves what runs or gives its lease back, then leadership is handed
    /// over, then the rest.
    pub(crate) async fn shutdown(self, farewell: Farewell) {
        match (self.worker, farewell) {
            (Some(worker), Farewell::Leave) => worker.stop(DRAIN).await,
            (Some(worker), Farewell::Return) => worker.detach().await,
            (None, _) => {}
        }
        self.node.shutdown().await;
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// Where others reach this node.
fn advertised(config: &Config, address: SocketAddr) -> Result<String, StartError> {
    match &config.advertise {
        Some(advertise) => Ok(advertise.clone()),
        None if address.ip().is_unspecified() => Err(StartError::Advertise(address)),
        None => Ok(address.to_string()),
    }
}

async fn open(config: &Config, advertised: &str) -> Result<Node, StartError> {
    let start = if quorate_raft::holds_node(&config.data) {
        Start::Resume
    } else if config.join.is_empty() {
        Start::Bootstrap
    } else {
        join(config, advertised).await?
    };
    let max = config.election_timeout;
    let mut options = Options::new(&config.data, advertised, start);
    options.timing = Timing { heartbeat: max / 6, election_min: max / 2, election_max: max };
    Ok(Node::open(options).await?)
}

async fn join(config: &Config, advertised: &str) -> Result<Start, StartError> {
    let mut refusal = String::new();
    for _ in 0..JOIN_ROUNDS_MAX {
        for seed in &config.join {
            match quorate_raft::ask_to_join(seed, advertised, true, JOIN_DEADLINE).await {
                Ok(joined) => {
                    let (node_id, cluster_id) = (joined.node, joined.cluster);
                    return Ok(Start::Join { node_id, cluster_id });
                }
                Err(error) => refusal = format!("{seed}: {error}"),
            }
        }
        tokio::time::sleep(config.election_timeout).await;
    }
    Err(StartError::Join(refusal))
}

/// How a server goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// For long: its tasks are stopped, and run again elsewhere.
    Leave,
    /// For a moment, as in an upgrade: its tasks run on, and the next process takes them over
    /// if it comes within the lease.
    Return,
}

/// What a connection leads to.
#[derive(Debug)]
struct Door {
    node: Node,
    sessions: Arc<Sessions>,
    backend: Arc<NodeBackend>,
    app: axum::Router,
    free: Arc<Semaphore>,
}

impl Door {
    async fn accept(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        loop {
            let free = Arc::clone(&self.free).acquire_owned().await;
            let free = free.expect("the semaphore is never closed");
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => {
                    let (door, stop) = (Arc::clone(&self), stop.clone());
                    tokio::spawn(async move {
                        let _free = free;
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = door.admit(stream, from) => {}
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// Tells by its first bytes what a connection is, and hands it on.
    async fn admit(&self, stream: TcpStream, from: SocketAddr) {
        // Messages are small and wait for answers; held back, each would cost 40 ms.
        drop(stream.set_nodelay(true));
        match tokio::time::timeout(FIRST_BYTES_MAX, begins_with_magic(&stream)).await {
            Ok(Ok(true)) => {
                if let Err(error) = self.converse(stream).await {
                    warn!(%from, %error, "connection refused");
                }
            }
            Ok(Ok(false)) => self.serve_http(stream, from).await,
            Ok(Err(error)) => debug!(%from, %error, "connection lost"),
            Err(_) => debug!(%from, "connection said nothing"),
        }
    }

    async fn serve_http(&self, stream: TcpStream, from: SocketAddr) {
        let service = TowerToHyperService::new(self.app.clone());
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            debug!(%from, %error, "connection lost");
        }
    }

    async fn converse(&self, stream: TcpStream) -> Result<(), codec::FrameError> {
        let (connection, hello) =
            codec::accept(stream, self.node.cluster(), FIRST_BYTES_MAX).await?;
        match hello.service {
            Service::Raft | Service::Forward => self.node.serve(connection, hello).await,
            Service::Worker => Arc::clone(&self.sessions).serve(link::over(connection)).await,
            Service::Files => self.backend.serve_reads(connection).await?,
        }
        Ok(())
    }
}

/// Whether a connection speaks the protocol of nodes and workers; otherwise it is HTTP.
async fn begins_with_magic(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; codec::MAGIC.len()];
    loop {
        let length = stream.peek(&mut first).await?;
        if length == first.len() || length == 0 || !codec::MAGIC.starts_with(&first[..length]) {
            return Ok(first == codec::MAGIC);
        }
        // Part of the magic has come. The system cannot tell when the rest is here.
        tokio::time::sleep(PEEK_AGAIN).await;
    }
}

/// The worker of this node asks this node, since it knows the leader.
fn worker_options(
    config: &Config,
    node: &Node,
    advertised: &str,
) -> Result<WorkerOptions, StartError> {
    let profile = seeds::profile(config.name.as_deref(), &config.labels, config.slots)?;
    let servers = Seeds::new(vec![advertised.to_owned()], node.cluster());
    let mut options = WorkerOptions::new(config.data.join("worker"), profile, Arc::new(servers));
    options.keeper.containment = config.containment;
    options.kinds.http_allow.clone_from(&config.http_allow);
    Ok(options)
}
