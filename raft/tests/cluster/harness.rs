//! A cluster whose nodes can be stopped, killed and started again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use quorate_model::command::{CancelRun, PutWorkflow, StartRun, WorkflowSource};
use quorate_model::workflow::{Action, Definition, TaskDefinition};
use quorate_model::{Command, IdempotencyKey, Json, LogIndex, Request, RunId, Trigger, UnixMs};
use quorate_raft::{Committed, Node, OpenError, Options, ProposeError, Start, ask_to_join, codec};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use uuid::Uuid;

/// How long anything may take that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Cluster {
    dir: TempDir,
    members: BTreeMap<usize, Member>,
    addresses: BTreeMap<usize, SocketAddr>,
    adjust: fn(&mut Options),
}

pub(crate) struct Member {
    pub(crate) node: Node,
    runtime: Runtime,
}

impl Cluster {
    /// One node, number 0, that founds a cluster.
    pub(crate) async fn found() -> Self {
        Self::found_with(|_| ()).await
    }

    pub(crate) async fn found_with(adjust: fn(&mut Options)) -> Self {
        show_logs();
        let dir = tempfile::tempdir().unwrap();
        let (members, addresses) = Default::default();
        let mut cluster = Self { dir, members, addresses, adjust };
        cluster.start(0, Start::Bootstrap).await.unwrap();
        cluster.leader().await;
        cluster
    }

    /// Three voters.
    pub(crate) async fn of_three() -> Self {
        Self::of_three_with(|_| ()).await
    }

    pub(crate) async fn of_three_with(adjust: fn(&mut Options)) -> Self {
        let mut cluster = Self::found_with(adjust).await;
        cluster.join(1).await;
        cluster.join(2).await;
        cluster.wait_for_voters(3).await;
        cluster
    }

    pub(crate) fn node(&self, number: usize) -> &Node {
        &self.members[&number].node
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.members.values().map(|member| &member.node)
    }

    pub(crate) fn path(&self, number: usize) -> PathBuf {
        self.dir.path().join(number.to_string())
    }

    pub(crate) fn address(&self, number: usize) -> SocketAddr {
        self.addresses[&number]
    }

    /// Has a new node join through whichever runs.
    pub(crate) async fn join(&mut self, number: usize) {
        let seed = self.address(*self.members.keys().next().unwrap()).to_string();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        self.addresses.insert(number, address);
        let joined = ask_to_join(&seed, &address.to_string(), true, SOON).await.unwrap();
        let start = Start::Join { node_id: joined.node, cluster_id: joined.cluster };
        self.start(number, start).await.unwrap();
    }

    pub(crate) async fn restart(&mut self, number: usize) {
        let deadline = Instant::now() + SOON;
        loop {
            match self.start(number, Start::Resume).await {
                Ok(()) => return,
                // What was killed lets go of its files a moment later.
                Err(error) if Instant::now() > deadline => panic!("cannot restart: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Why a node does not start, once the one before has let go of its files.
    pub(crate) async fn refusal(&mut self, number: usize, start: Start) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            let refused = self.start(number, start).await.unwrap_err().to_string();
            if !refused.contains("another process") || Instant::now() > deadline {
                return refused;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn start(&mut self, number: usize, start: Start) -> Result<(), OpenError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let wanted = self.addresses.get(&number).copied();
        let wanted = wanted.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
        let path = self.path(number);
        let adjust = self.adjust;
        let opened = runtime.spawn(async move {
            let listener = bind(wanted).await;
            let address = listener.local_addr().unwrap();
            let mut options = Options::new(path, address.to_string(), start);
            adjust(&mut options);
            let node = Node::open(options).await?;
            tokio::spawn(listen(listener, node.clone()));
            Ok((node, address))
        });
        match opened.await.unwrap() {
            Ok((node, address)) => {
                self.addresses.insert(number, address);
                self.members.insert(number, Member { node, runtime });
                Ok(())
            }
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// Stops a node in good order.
    pub(crate) async fn stop(&mut self, number: usize) {
        let Member { node, runtime } = self.members.remove(&number).unwrap();
        node.shutdown().await;
        runtime.shutdown_background();
    }

    /// Stops a node as if its process had been killed.
    pub(crate) fn kill(&mut self, number: usize) {
        let Member { node, runtime } = self.members.remove(&number).unwrap();
        runtime.shutdown_background();
        drop(node);
    }

    /// Waits until a node leads, and answers its number.
    pub(crate) async fn leader(&self) -> usize {
        let leads = || {
            let leads = |member: &&Member| member.node.leadership().borrow().leads;
            self.members.iter().find(|(_, member)| leads(member)).map(|(&number, _)| number)
        };
        wait_for("a leader", leads).await
    }

    pub(crate) async fn wait_for_voters(&self, count: usize) {
        let all_know = || {
            let knows = |node: &Node| {
                let status = node.status();
                let voters = status.members.iter().filter(|member| member.voter).count();
                voters == count && !status.members_changing
            };
            self.nodes().all(knows).then_some(())
        };
        wait_for("voters", all_know).await;
    }

    /// Waits until all nodes have applied `index`, and checks that they are in one state.
    pub(crate) async fn assert_equal_at(&self, index: LogIndex) {
        for node in self.nodes() {
            let before = LogIndex(index.0 - 1);
            let applied = node.applied_after(before, SOON).await;
            assert!(applied >= index, "node {} has applied {applied}", node.id());
        }
        let hashes: Vec<u64> =
            self.nodes().map(|node| node.with_state(quorate_model::State::hash)).collect();
        assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "states differ: {hashes:?}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let numbers: Vec<usize> = self.members.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.kill(number));
    }
}

/// Logs for whoever sets `RUST_LOG`.
fn show_logs() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // Only the first test of a process can, and need.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

/// Binds an address that a node which was killed may hold for a moment yet.
async fn bind(address: SocketAddr) -> TcpListener {
    let deadline = Instant::now() + SOON;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn listen(listener: TcpListener, node: Node) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let node = node.clone();
        tokio::spawn(async move {
            stream.set_nodelay(true).unwrap();
            let accepted = codec::accept(stream, node.cluster(), SOON).await;
            if let Ok((connection, hello)) = accepted {
                node.serve(connection, hello).await;
            }
        });
    }
}

/// Waits until there is something, and answers it.
pub(crate) async fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what} within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn definition(comment: &str) -> Definition {
    let id = "only".parse().expect("a name");
    let params = Json::new(&serde_json::Value::Object(serde_json::Map::new()));
    let kind = "run".parse().expect("a name");
    let task = TaskDefinition::new(id, Action::Work { kind, params });
    Definition { description: comment.to_owned(), tasks: vec![task], ..Definition::default() }
}

/// Puts a workflow: each with its own name is one change of the state.
pub(crate) fn put(name: &str) -> Request {
    let name = name.parse().unwrap();
    let definition = definition("");
    Command::PutWorkflow(PutWorkflow { name, definition, expected_version: None }).into()
}

pub(crate) fn put_keyed(name: &str, key: &str) -> Request {
    let key = IdempotencyKey { key: key.to_owned(), request_hash: 1 };
    Request { key: Some(key), ..put(name) }
}

pub(crate) fn start_run(run: RunId, workflow: &str) -> Request {
    let name = workflow.parse().unwrap();
    let source = WorkflowSource::Inline { name, definition: definition("") };
    let params = Json::new(&serde_json::json!({}));
    let (labels, trigger) = (BTreeMap::new(), Trigger::Manual);
    Command::StartRun(Box::new(StartRun {
        run,
        source,
        params,
        labels,
        trigger,
        logical_time: UnixMs(0),
    }))
    .into()
}

pub(crate) fn cancel(run: RunId) -> Request {
    Command::CancelRun(CancelRun { run, reason: String::new(), by: String::new() }).into()
}

pub(crate) fn run_id(number: u128) -> RunId {
    RunId(Uuid::from_u128(number))
}

pub(crate) async fn propose(node: &Node, request: Request) -> Committed {
    let committed = node.propose(request, SOON).await.unwrap();
    assert!(committed.answer.reply.is_ok(), "{:?}", committed.answer.reply);
    committed
}

/// Proposes until it is certain that it was committed once: for requests that may be repeated.
pub(crate) async fn propose_surely(node: &Node, request: Request) -> Committed {
    let deadline = Instant::now() + SOON;
    loop {
        match node.propose(request.clone(), SOON).await {
            Ok(committed) => return committed,
            Err(error @ (ProposeError::Unknown | ProposeError::NoLeader { .. })) => {
                assert!(Instant::now() < deadline, "not committed: {error}");
            }
            Err(error) => panic!("not committed: {error}"),
        }
    }
}

pub(crate) fn has_workflow(node: &Node, name: &str) -> bool {
    node.with_state(|state| state.workflows().contains_key(name))
}
