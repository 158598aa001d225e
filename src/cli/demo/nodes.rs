//! The servers of the demo: real processes of this very binary, on free ports of loopback.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};

use super::super::scratch::Scratch;

/// How long a worker may go unheard. Short, so that what ran on the killed node goes on soon.
pub(super) const LEASE: &str = "2s";

/// How long a follower waits for its leader, at most.
const ELECTION_TIMEOUT: &str = "300ms";

/// How many tasks each runs at once: few enough that all nodes have work.
const SLOTS: &str = "3";

/// How long a server may take until it serves: far more than it needs on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// How long a server may take to stop before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(3);

/// Between two looks at whether something has happened.
const POLL: Duration = Duration::from_millis(10);

/// Lines of a server's log that are shown when it did not start.
const LOG_LINES_SHOWN: usize = 8;

/// What a server prints before its address, once it serves.
const LISTENING: &str = "listening on ";

/// The servers, and the folder that holds all they write. Dropping this ends the processes and
/// removes the folder, whatever happened.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    // After the nodes: fields are dropped in this order.
    scratch: Scratch,
}

/// One server.
#[derive(Debug)]
pub(super) struct Node {
    /// For people: `node-1`.
    pub(super) name: String,
    /// Where its API is.
    pub(super) url: String,
    child: Child,
}

impl Nodes {
    /// No servers yet, and an empty folder.
    ///
    /// # Errors
    ///
    /// If there is no room for temporary files.
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { nodes: Vec::new(), scratch: Scratch::new("quorate-demo-")? })
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// Starts one more server, which founds a cluster if it is the first and else joins it.
    /// Answers once it serves.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub(super) async fn start(&mut self) -> anyhow::Result<&Node> {
        let name = format!("node-{}", self.nodes.len() + 1);
        let printed = self.path().join(format!("{name}.out"));
        let log = self.path().join(format!("{name}.log"));
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["server", "--listen", "127.0.0.1:0", "--lease", LEASE])
            .args(["--election-timeout", ELECTION_TIMEOUT, "--slots", SLOTS, "--name", &name])
            .arg("--data")
            .arg(self.path().join(&name))
            .stdin(Stdio::null())
            .stdout(File::create(&printed)?)
            .stderr(File::create(&log)?)
            // A group of its own: Ctrl-C is for the demo, which then stops its servers.
            .process_group(0);
        if let Some(first) = self.nodes.first() {
            command.args(["--join", first.address()]);
        }
        let child = command.spawn().with_context(|| format!("could not start {name}"))?;
        self.nodes.push(Node { name, url: String::new(), child });
        let node = self.nodes.last_mut().expect("one was just added");
        node.url = node.wait_until_it_serves(&printed, &log).await?;
        Ok(node)
    }

    /// The servers, those that were killed included.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    /// The servers that run.
    pub(super) fn alive(&mut self) -> impl Iterator<Item = &Node> {
        self.nodes.iter_mut().filter_map(|node| node.runs().then_some(&*node))
    }

    /// Ends a server with SIGKILL, by its process id: no goodbye, no flush. Answers the id.
    ///
    /// # Errors
    ///
    /// If there is none of this name, or the system refuses.
    pub(super) fn kill(&mut self, name: &str) -> anyhow::Result<u32> {
        let node = self.nodes.iter_mut().find(|node| node.name == name);
        let node = node.ok_or_else(|| anyhow!("there is no {name} to kill"))?;
        node.child.kill()?;
        // Gone when this answers, so that it cannot be taken for slow.
        node.child.wait()?;
        Ok(node.child.id())
    }

    /// Stops all servers and removes the folder.
    pub(super) async fn stop(mut self) {
        for node in &self.nodes {
            terminate(node.child.id());
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        while Instant::now() < deadline && self.nodes.iter_mut().any(Node::runs) {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Leaves the servers and the folder to the user. Answers the process ids of those that
    /// still run.
    pub(super) fn keep(mut self) -> Vec<u32> {
        self.scratch.keep();
        let mut nodes = std::mem::take(&mut self.nodes);
        nodes.iter_mut().filter_map(|node| node.runs().then(|| node.child.id())).collect()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // Both fail only for a process that is gone already.
            drop(node.child.kill());
            drop(node.child.wait());
        }
    }
}

impl Node {
    /// `HOST:PORT`.
    pub(super) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// The process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    async fn wait_until_it_serves(&mut self, printed: &Path, log: &Path) -> anyhow::Result<String> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let text = std::fs::read_to_string(printed)?;
            let line = text.split_inclusive('\n').find(|line| line.ends_with('\n'));
            if let Some(url) = line.and_then(|line| line.trim_end().strip_prefix(LISTENING)) {
                return Ok(url.to_owned());
            }
            if !self.runs() || Instant::now() > deadline {
                bail!("{} did not start:\n{}", self.name, last_lines(log));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Asks a process to stop.
fn terminate(pid: u32) {
    // std can only kill. The shell's own `kill`, as the command is not on every machine; one
    // that is gone already need not be asked.
    let mut shell = Command::new("sh");
    drop(shell.args(["-c", &format!("kill -TERM {pid}")]).stderr(Stdio::null()).status());
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}
