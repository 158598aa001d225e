//! The servers that are measured: processes of the release binary, on free ports of loopback.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use quorate_api::client::Client;

/// How long servers may take until they serve, and until all of them vote.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Between two looks; a hundredth of what is measured with it, the time until ready.
const POLL: Duration = Duration::from_millis(1);

/// Running servers. Killed when dropped.
pub(crate) struct Servers {
    children: Vec<Child>,
    addresses: Vec<String>,
    folder: tempfile::TempDir,
    /// From the start of the first process until it served.
    pub(crate) first_ready: Duration,
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Servers {
    /// Starts a cluster of `nodes` and waits until all vote.
    pub(crate) async fn start(nodes: usize, extra: &[&str]) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let first_ready = Duration::ZERO;
        let (children, addresses) = (Vec::new(), Vec::new());
        let mut servers = Self { children, addresses, folder, first_ready };
        for at in 0..nodes {
            let begun = Instant::now();
            servers.add(at, extra).await?;
            if at == 0 {
                servers.first_ready = begun.elapsed();
            }
        }
        servers.all_vote(nodes).await?;
        Ok(servers)
    }

    async fn add(&mut self, at: usize, extra: &[&str]) -> Result<(), String> {
        let printed = self.folder.path().join(format!("{at}.out"));
        let log = fs::File::create(self.folder.path().join(format!("{at}.log")));
        let out = fs::File::create(&printed).map_err(|error| error.to_string())?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command.args(["server", "--listen", "127.0.0.1:0", "--election-timeout", "300ms"]);
        command.arg("--data").arg(self.folder.path().join(at.to_string())).args(extra);
        command.stdin(Stdio::null()).stdout(out).stderr(log.map_err(|error| error.to_string())?);
        if let Some(first) = self.addresses.first() {
            command.args(["--join", first]);
        }
        self.children.push(command.spawn().map_err(|error| error.to_string())?);
        let address = until(|| listening(&printed)).await;
        self.addresses.push(address.ok_or_else(|| format!("node {at} does not serve"))?);
        Ok(())
    }

    async fn all_vote(&self, nodes: usize) -> Result<(), String> {
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline {
            let members = self.client()?.members().await.unwrap_or_default();
            if members.iter().filter(|member| member.voter).count() == nodes {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err("not all nodes became voters".to_owned())
    }

    /// A client that knows all of them.
    pub(crate) fn client(&self) -> Result<Client, String> {
        Client::new(self.addresses.clone()).map_err(|error| error.to_string())
    }

    /// Where the leader listens.
    pub(crate) async fn leader(&self) -> Result<(usize, String), String> {
        let cluster = self.client()?.cluster().await.map_err(|error| error.to_string())?;
        let members = self.client()?.members().await.map_err(|error| error.to_string())?;
        let leader = members.iter().find(|member| Some(member.id) == cluster.leader);
        let address = leader.map(|member| member.address.clone()).ok_or("there is no leader")?;
        let at = self.addresses.iter().position(|known| *known == address);
        Ok((at.ok_or("the leader is unknown")?, address))
    }

    /// A folder that goes when the servers do.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends one of them with SIGKILL.
    pub(crate) fn kill(&mut self, at: usize) {
        self.addresses.remove(at);
        let mut child = self.children.remove(at);
        drop(child.kill());
        drop(child.wait());
    }

    /// The process ids.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }
}

fn listening(printed: &Path) -> Option<String> {
    let text = fs::read_to_string(printed).ok()?;
    let line = text.lines().find(|line| line.contains("listening on "))?;
    text.ends_with('\n').then_some(())?;
    Some(line.split("http://").nth(1)?.trim().to_owned())
}

async fn until<T>(look: impl Fn() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + READY_WITHIN;
    while Instant::now() < deadline {
        if let Some(found) = look() {
            return Some(found);
        }
        tokio::time::sleep(POLL).await;
    }
    None
}
