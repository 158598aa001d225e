//! Several nodes of one cluster, the ledger of their tasks, and a client that asks them.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::client::{Client, SOON};
use super::gate::Gate;
use super::http::{Request, Response};
use super::ledger::Ledger;
use super::network::Network;
use super::node::{Process, Setup, Verb};
use super::wait::until;

/// How long a node is waited for that is asked what it sees: it answers from memory.
const LOOK: Duration = Duration::from_secs(2);

/// How long the last runs may take to end once nothing is done to the cluster any more.
const QUIET: Duration = Duration::from_secs(90);

/// How to set up a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// See `--lease`.
    pub(crate) lease: &'static str,
    /// See `--election-timeout`.
    pub(crate) election_timeout: &'static str,
    /// See `--slots`.
    pub(crate) slots: u32,
    /// Whether the nodes run tasks.
    pub(crate) workers: bool,
    /// The data folders of the nodes, where they are not in the test's own folder.
    pub(crate) homes: Vec<PathBuf>,
    /// Variables of all processes; `{}` in a value stands for the name of the process.
    pub(crate) env: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        let (lease, election_timeout) = ("2s", "300ms");
        let (homes, env) = (Vec::new(), Vec::new());
        Self { lease, election_timeout, slots: 8, workers: true, homes, env }
    }
}

impl Options {
    fn flags(&self) -> Vec<String> {
        let slots = self.slots.to_string();
        let mut flags = vec!["--lease", self.lease, "--election-timeout", self.election_timeout];
        if self.workers {
            flags.extend(["--slots", &slots]);
        } else {
            flags.push("--no-worker");
        }
        flags.into_iter().map(str::to_owned).collect()
    }
}

/// A cluster of real processes. All of them are killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// By position; their ids may differ.
    pub(crate) nodes: Vec<Process>,
    /// Workers without a vote.
    pub(crate) workers: Vec<Process>,
    /// What the tasks wrote.
    pub(crate) ledger: Ledger,
    /// Asks the nodes.
    pub(crate) client: Client,
    /// The hosts, where each node has its own. Behind the processes, so that it goes after them.
    pub(crate) network: Option<Network>,
    env: Vec<(String, String)>,
    folder: TempDir,
    _gate: Gate,
}

impl Cluster {
    /// Starts `count` nodes on loopback and waits until all of them are voters.
    #[track_caller]
    pub(crate) fn start(count: usize, options: &Options) -> Self {
        Self::start_in(Gate::one(), folder(), count, options)
    }

    /// The same with a gate and a folder of the test's choice.
    #[track_caller]
    pub(crate) fn start_in(gate: Gate, folder: TempDir, count: usize, options: &Options) -> Self {
        Self::start_nodes(gate, folder, None, count, options)
    }

    /// Starts a node on each of the first `count` hosts of a network.
    #[track_caller]
    pub(crate) fn start_on(network: Network, count: usize, options: &Options) -> Self {
        Self::start_nodes(Gate::one(), folder(), Some(network), count, options)
    }

    /// Starts a node on each of the first `count` hosts of a network, if there is one.
    #[track_caller]
    pub(crate) fn start_nodes(
        gate: Gate,
        folder: TempDir,
        network: Option<Network>,
        count: usize,
        options: &Options,
    ) -> Self {
        let ledger = Ledger::create(&folder.path().join("proof"));
        let client = Client::new(Vec::new(), ledger.folder().to_owned());
        let (nodes, workers) = (Vec::new(), Vec::new());
        let env = options.env.clone();
        let mut cluster =
            Self { nodes, workers, ledger, client, network, env, folder, _gate: gate };
        for position in 0..count {
            let setup = cluster.setup(position, options);
            let node = Process::start(setup);
            cluster.client.knows(node.address());
            cluster.nodes.push(node);
        }
        cluster.await_voters(count);
        cluster
    }

    fn setup(&self, position: usize, options: &Options) -> Setup {
        let name = format!("node{position}");
        let mut flags = options.flags();
        if let Some(first) = self.nodes.first() {
            flags.extend(["--join".to_owned(), first.address().to_string()]);
        }
        let home = options.homes.get(position).cloned();
        self.place(name, Verb::Server, flags, home, position)
    }

    fn place(
        &self,
        name: String,
        verb: Verb,
        mut flags: Vec<String>,
        home: Option<PathBuf>,
        host: usize,
    ) -> Setup {
        let folder = self.folder.path().join(&name);
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        flags.extend(["--name".to_owned(), name.clone()]);
        let host = u8::try_from(host).expect("a test has few hosts");
        let (namespace, address) = match &self.network {
            Some(network) => (Some(network.namespace(host)), network.address(host)),
            None => (None, own_address()),
        };
        let (home, listen) = (home.unwrap_or_else(|| folder.join("data")), (address, 0).into());
        let env = self.env.iter().map(|(key, value)| (key.clone(), value.replace("{}", &name)));
        let env = env.collect();
        Setup { name, verb, folder, home, namespace, flags, env, listen }
    }

    /// Starts a worker without a vote, on a host of its own if there are hosts.
    #[track_caller]
    pub(crate) fn start_worker(&mut self, name: &str, flags: &[&str]) {
        let servers: Vec<String> =
            self.nodes.iter().map(|node| node.address().to_string()).collect();
        let mut all = vec!["--server".to_owned(), servers.join(",")];
        all.extend(flags.iter().map(|&flag| flag.to_owned()));
        let host = self.nodes.len() + self.workers.len();
        let setup = self.place(name.to_owned(), Verb::Worker, all, None, host);
        self.workers.push(Process::start(setup));
        until(SOON, &format!("worker {name} is registered"), || {
            let workers = self.client.list("/v1/workers");
            workers.iter().any(|worker| worker["name"] == name).then_some(())
        });
    }

    /// The folder of the test; gone when the cluster is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Asks one node about the cluster.
    pub(crate) fn view(&self, node: usize) -> Option<Value> {
        let request = Request::get("/v1/cluster").patience(LOOK);
        self.nodes[node].send(&request).ok().filter(Response::is_ok).map(|found| found.json())
    }

    /// Waits until every node that serves sees `count` voters and knows a leader.
    #[track_caller]
    pub(crate) fn await_voters(&self, count: usize) {
        for position in self.serving() {
            until(SOON, &format!("node{position} sees {count} voters and a leader"), || {
                self.sees_voters(position, count).then_some(())
            });
        }
    }

    /// Whether a node sees `count` voters and knows a leader.
    pub(crate) fn sees_voters(&self, position: usize, count: usize) -> bool {
        let Some(view) = self.view(position) else { return false };
        let members = view["members"].as_array().into_iter().flatten();
        members.filter(|member| member["voter"] == true).count() == count && view["leader"].is_u64()
    }

    /// The positions of the nodes that were started and are not frozen.
    pub(crate) fn serving(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&position| self.nodes[position].is_serving()).collect()
    }

    /// The node that leads, if it says so itself and a majority of all nodes agrees, in the
    /// newest term of any.
    pub(crate) fn leader(&self) -> Option<usize> {
        let views: Vec<(usize, Value)> =
            self.serving().into_iter().filter_map(|node| Some((node, self.view(node)?))).collect();
        let term = views.iter().filter_map(|(_, view)| view["term"].as_u64()).max()?;
        let in_term = || views.iter().filter(|(_, view)| view["term"] == term);
        let (leader, its) = in_term().find(|(_, view)| view["leader"] == view["node"])?;
        let followers = in_term().filter(|(_, view)| view["leader"] == its["leader"]).count();
        (followers * 2 > self.nodes.len()).then_some(*leader)
    }

    /// Waits for a leader.
    #[track_caller]
    pub(crate) fn await_leader(&self) -> usize {
        until(SOON, "a node leads", || self.leader())
    }

    /// Waits for a leader other than one that is dead, frozen or cut off.
    #[track_caller]
    pub(crate) fn await_leader_but(&self, old: usize) -> usize {
        until(SOON, "another node leads", || self.leader().filter(|&leader| leader != old))
    }

    /// Waits until an attempt at a task has begun, by the ledger.
    #[track_caller]
    pub(crate) fn await_start(&self, run: &str, task: &str) {
        until(SOON, &format!("{task} of {run} has begun"), || {
            (self.ledger.starts(run, task) > 0).then_some(())
        });
    }

    /// Waits until no run is left that has not ended.
    #[track_caller]
    pub(crate) fn await_quiet(&self) {
        until(QUIET, "every run has ended", || {
            self.client.list("/v1/runs?state=running").is_empty().then_some(())
        });
    }

    /// The position of the node whose worker has a task.
    #[track_caller]
    pub(crate) fn worker_of(&self, run: &str, task: &str) -> usize {
        let view = self.client.task(run, task);
        let worker = &view["worker"];
        let workers = self.client.list("/v1/workers");
        let found = workers.iter().find(|found| found["id"] == *worker).expect("it is known");
        let name = found["name"].as_str().expect("a worker has a name");
        self.nodes.iter().position(|node| node.setup.name == name).expect("it is a node's worker")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs: String =
                self.nodes.iter().chain(&self.workers).map(Process::log_tail).collect();
            drop(std::io::Write::write_all(&mut std::io::stderr(), logs.as_bytes()));
        }
        for process in self.nodes.iter_mut().chain(&mut self.workers) {
            process.power_off();
        }
        // Nothing of a test may outlive it, whatever it has proven about that.
        super::node::kill_all(&self.ledger.processes_left());
    }
}

/// An address on loopback that is a node's alone. Connections go out from 127.0.0.1, so that
/// none can take the port of a node that is down for a moment.
fn own_address() -> Ipv4Addr {
    static GIVEN: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let last = GIVEN.fetch_add(1, Ordering::Relaxed) % 250 + 1;
    Ipv4Addr::new(127, 1 + high % 200, low, last)
}

/// A folder for a test, gone when it is.
pub(crate) fn folder() -> TempDir {
    tempfile::Builder::new().prefix("quorate-test-").tempdir().expect("a folder can be made")
}
