//! A master: the real node and the real duties of a leader, behind a simulated door.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_raft::codec::{self, Service};
use quorate_raft::{Node, OpenError, Options, Start, ask_to_join};
use tokio_util::sync::CancellationToken;
use turmoil::net::{TcpListener, TcpStream};

use super::dice::Dice;
use super::machines::Machines;
use super::oracle::Oracle;
use crate::leader::{self, Sessions};
use crate::link;

/// Where every master listens.
pub(super) const PORT: u16 = 7400;

/// How long a submission may take before its outcome counts as unknown.
const SUBMIT_DEADLINE: Duration = Duration::from_secs(3);

/// How long a node may take to be let in.
const JOIN_DEADLINE: Duration = Duration::from_secs(2);

/// Between two tries to be let in.
const JOIN_PAUSE: Duration = Duration::from_millis(300);

/// How often an operator looks whether there is something to do, and how long that may take.
const OPERATE_EVERY: Duration = Duration::from_millis(50);
const OPERATE_DEADLINE: Duration = Duration::from_secs(5);

/// How long a new connection may take to say what it is.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// How long to wait if a connection could not be accepted.
const ACCEPT_RETRY: Duration = Duration::from_millis(1);

/// Entries of the log behind which a snapshot is taken: few, so that many are.
const SNAPSHOT_AFTER: [u64; 3] = [20, 100, 100_000];

/// The size of a file of the log, in bytes: small, so that many are begun.
const SEGMENT_BYTES: u64 = 32 * 1024;

/// What all masters share with those who watch them.
#[derive(Clone, Debug)]
pub(super) struct Masters {
    pub(super) machines: Machines,
    pub(super) oracle: Oracle,
    /// Those that run.
    running: Arc<Mutex<Running>>,
    /// How long a worker holds what it was given.
    pub(super) lease: Duration,
    pub(super) names: Vec<String>,
}

#[derive(Debug)]
struct Running {
    nodes: BTreeMap<String, Node>,
    /// The number of the process at each host, running or not, and how many there were.
    processes: BTreeMap<String, u64>,
    begun: u64,
    dice: Dice,
    /// Whether clients ask for more.
    is_open: bool,
    /// The first master founds the cluster, once.
    is_founded: bool,
    orders: BTreeMap<String, Order>,
    /// Where an operator carries one out.
    operating: BTreeSet<String>,
    /// Hosts whose node was removed from the cluster.
    removed: Vec<String>,
    violations: Vec<String>,
}

/// What an operator does.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// Hands leadership to another node.
    Transfer,
    /// Removes the node of a host from the cluster.
    Remove(String),
    /// Stops the node in good order.
    Shutdown,
}

impl Masters {
    pub(super) fn new(
        machines: Machines,
        oracle: Oracle,
        lease: Duration,
        names: Vec<String>,
        seed: u64,
    ) -> Self {
        let running = Running {
            nodes: BTreeMap::new(),
            processes: BTreeMap::new(),
            begun: 0,
            dice: Dice::new(seed),
            is_open: true,
            is_founded: false,
            orders: BTreeMap::new(),
            operating: BTreeSet::new(),
            removed: Vec::new(),
            violations: Vec::new(),
        };
        Self { machines, oracle, running: Arc::new(Mutex::new(running)), lease, names }
    }

    /// The nodes that run.
    pub(super) fn nodes(&self) -> BTreeMap<String, Node> {
        self.lock().nodes.clone()
    }

    /// The number of the process that runs at a host, or did. Each has a new one.
    pub(super) fn process(&self, name: &str) -> u64 {
        self.lock().processes.get(name).copied().unwrap_or_default()
    }

    fn runs(&self, name: &str, node: &Node) {
        let mut inner = self.lock();
        inner.nodes.insert(name.to_owned(), node.clone());
        inner.begun += 1;
        let process = inner.begun;
        inner.processes.insert(name.to_owned(), process);
    }

    /// It runs no more: nobody may hold it up, and nobody operates it.
    pub(super) fn forget(&self, name: &str) {
        let mut inner = self.lock();
        inner.orders.remove(name);
        inner.operating.remove(name);
        let gone = inner.nodes.remove(name);
        // A node that is dropped may call back.
        drop(inner);
        drop(gone);
    }

    /// Whether each of them has a vote, and no change is under way, as the leader knows.
    pub(super) fn are_all_voters(&self) -> bool {
        let leaders = self.nodes().into_values().map(|node| node.status());
        leaders.filter(|status| status.leads).any(|status| {
            let voters = status.members.iter().filter(|member| member.voter).count();
            voters == self.names.len() && voters == status.members.len() && !status.members_changing
        })
    }

    /// From now on nobody asks for anything new.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.is_open = false;
        inner.orders.clear();
    }

    /// Has an operator at `name` do something soon, if it runs.
    pub(super) fn order(&self, name: &str, order: Order) {
        let mut inner = self.lock();
        if inner.nodes.contains_key(name) {
            inner.orders.insert(name.to_owned(), order);
        }
    }

    /// Whether nothing is under way that an operator was to do.
    pub(super) fn are_left_alone(&self) -> bool {
        let inner = self.lock();
        inner.orders.is_empty() && inner.operating.is_empty()
    }

    /// Hosts whose node was removed since this was asked last.
    pub(super) fn removed(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().removed)
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    fn violated(&self, what: String) {
        self.lock().violations.push(what);
    }

    fn roll<T>(&self, roll: impl FnOnce(&mut Dice) -> T) -> T {
        roll(&mut self.lock().dice)
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a master until it stops by itself.
    pub(super) async fn run(self, name: String) -> turmoil::Result {
        self.machines.enter(&name);
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
        let node = match self.open(&name).await {
            Ok(node) => node,
            Err(error) => {
                let is_broken = self.machines.disks(&name).iter().any(|disk| disk.is_failing());
                if !is_broken {
                    self.violated(format!("{name} does not start: {error}"));
                }
                return Ok(());
            }
        };
        self.runs(&name, &node);
        let sessions = Arc::new(Sessions::new(node.clone(), self.lease));
        let stop = CancellationToken::new();
        tokio::spawn(leader::run(node.clone(), Arc::clone(&sessions), stop.clone()));
        tokio::spawn(accept(listener, node.clone(), sessions));
        tokio::spawn(self.clone().operate(name.clone(), node.clone()));
        for _ in 0..2 {
            tokio::spawn(self.clone().submit(node.clone()));
        }
        let reason = node.stopped().await;
        tracing::info!(reason, "the process ends");
        stop.cancel();
        self.forget(&name);
        Ok(())
    }

    async fn open(&self, name: &str) -> Result<Node, OpenError> {
        let (dir, address) = (PathBuf::from(name), format!("{name}:{PORT}"));
        let start = if quorate_raft::holds_node(&dir) {
            Start::Resume
        } else if name == self.names[0] && !self.lock().is_founded {
            self.lock().is_founded = true;
            Start::Bootstrap
        } else {
            self.join(&address).await
        };
        let mut options = Options::new(dir, address, start);
        options.snapshot_after_entries = self.roll(|dice| dice.pick(&SNAPSHOT_AFTER));
        options.wal_segment_bytes = SEGMENT_BYTES;
        Node::open(options).await
    }

    async fn join(&self, address: &str) -> Start {
        loop {
            let seed = self.roll(|dice| self.names[dice.index(self.names.len())].clone());
            let seed = format!("{seed}:{PORT}");
            match ask_to_join(&seed, address, true, JOIN_DEADLINE).await {
                Ok(joined) => {
                    return Start::Join { node_id: joined.node, cluster_id: joined.cluster };
                }
                Err(error) => tracing::debug!(%error, "not let in"),
            }
            tokio::time::sleep(JOIN_PAUSE).await;
        }
    }

    /// An operator at this master.
    async fn operate(self, name: String, node: Node) {
        loop {
            tokio::time::sleep(OPERATE_EVERY).await;
            let Some(order) = self.take_order(&name) else { continue };
            match order {
                Order::Transfer => {
                    drop(node.transfer_leadership(None, OPERATE_DEADLINE).await);
                }
                Order::Remove(other) => self.remove(&node, other).await,
                Order::Shutdown => node.shutdown().await,
            }
            self.lock().operating.remove(&name);
        }
    }

    fn take_order(&self, name: &str) -> Option<Order> {
        let mut inner = self.lock();
        let order = inner.orders.remove(name)?;
        inner.operating.insert(name.to_owned());
        Some(order)
    }

    async fn remove(&self, node: &Node, other: String) {
        let address = format!("{other}:{PORT}");
        let status = node.status();
        let voters = status.members.iter().filter(|member| member.voter).count();
        let member = status.members.iter().find(|member| member.address == address);
        let Some(member) = member.filter(|_| voters == self.names.len()) else { return };
        if node.remove(member.id, OPERATE_DEADLINE).await.is_ok() {
            tracing::info!(other, "left the cluster");
            self.lock().removed.push(other);
        }
    }

    /// A client of this master: asks, and tells the oracle what it was told.
    async fn submit(self, node: Node) {
        loop {
            let pause = self.roll(|dice| dice.ms(500..=4_000));
            tokio::time::sleep(pause).await;
            if !self.lock().is_open {
                continue;
            }
            if let Some(cancel) = self.oracle.cancel() {
                let _ = node.propose(cancel, SUBMIT_DEADLINE).await;
            }
            let question = self.oracle.ask();
            let answer = node.propose(question.request.clone(), SUBMIT_DEADLINE).await;
            question.answered(answer);
        }
    }
}

async fn accept(listener: TcpListener, node: Node, sessions: Arc<Sessions>) {
    loop {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let (node, sessions) = (node.clone(), Arc::clone(&sessions));
        tokio::spawn(async move {
            if let Err(error) = converse(stream, node, sessions).await {
                tracing::debug!(%error, "connection refused");
            }
        });
    }
}

async fn converse(
    stream: TcpStream,
    node: Node,
    sessions: Arc<Sessions>,
) -> Result<(), codec::FrameError> {
    let (connection, hello) = codec::accept(stream, node.cluster(), GREETING_MAX).await?;
    match hello.service {
        Service::Raft | Service::Forward => node.serve(connection, hello).await,
        Service::Worker => sessions.serve(link::over(connection)).await,
        Service::Files => {}
    }
    Ok(())
}
