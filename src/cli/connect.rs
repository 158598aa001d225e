//! The way to a cluster, and to the run that is meant.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use quorate_api::client::{self, Client};
use quorate_model::RunId;

use super::Global;
use super::exit::{Exit, Failure};

/// Where a server listens unless told otherwise.
pub(crate) const ADDRESS_DEFAULT: &str = "http://127.0.0.1:8780";

/// What stands for the run that was last started from here.
const LAST: &str = "@last";

/// How long one call may take with all its retries: several elections, and not yet so long that
/// one takes the command for dead.
const CALL_MAX: Duration = Duration::from_secs(10);

/// How long a call may take for one who follows a run: a node that is restarted, or a cluster
/// that has lost its quorum for a while, is waited for.
const FOLLOW_MAX: Duration = Duration::from_secs(60);

/// How long a server may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// A client of the cluster that the flags name.
///
/// # Errors
///
/// If an address makes no sense, or nobody listens at any: later a client is patient, but a
/// server that is not there at all is told at once.
pub(crate) async fn client(global: &Global) -> anyhow::Result<Client> {
    let client = Client::new(global.address.iter())?.with_deadline(CALL_MAX);
    let mut reason = String::new();
    for address in client.addresses() {
        match knock(address).await {
            Ok(()) => return Ok(client),
            Err(error) => reason = error.to_string(),
        }
    }
    let addresses = client.addresses().join(", ");
    Err(client::Error::Unreachable { addresses, reason }.into())
}

/// The same client for one who follows a run.
pub(crate) fn patient(client: &Client) -> Client {
    client.clone().with_deadline(FOLLOW_MAX)
}

async fn knock(address: &str) -> std::io::Result<()> {
    let connect = tokio::net::TcpStream::connect(host_and_port(address));
    tokio::time::timeout(CONNECT_MAX, connect).await??;
    Ok(())
}

fn host_and_port(address: &str) -> String {
    let host = address.split("://").last().unwrap_or(address);
    let host = host.split('/').next().unwrap_or(host);
    match host.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => host.to_owned(),
        // As HTTP has it.
        Some(_) | None => format!("{host}:80"),
    }
}

/// The run that is meant: by its id, a unique part of it, or `@last`.
///
/// # Errors
///
/// If there is none, or more than one.
pub(crate) async fn find_run(client: &Client, text: &str) -> anyhow::Result<RunId> {
    // As `-o name` prints it.
    let text = text.strip_prefix("run/").unwrap_or(text);
    if text == LAST {
        return last_run();
    }
    Ok(client.find_run(text).await?)
}

/// Has `@last` mean this run. Forgotten without a word if there is nowhere to note it.
pub(crate) fn remember(run: RunId) {
    let Some(path) = last_run_path() else { return };
    if path.parent().is_some_and(|dir| std::fs::create_dir_all(dir).is_ok()) {
        drop(std::fs::write(path, format!("{run}\n")));
    }
}

fn last_run() -> anyhow::Result<RunId> {
    let nothing = || {
        let failure = Failure::new(Exit::NotFound, "no run was started from here yet");
        failure.hint("quorate ls lists the runs of all")
    };
    let path = last_run_path().ok_or_else(nothing)?;
    let text = std::fs::read_to_string(&path).map_err(|_| nothing())?;
    text.trim().parse().with_context(|| format!("{} holds no run id", path.display()))
}

/// `$XDG_STATE_HOME/quorate/last-run`, by default under `~/.local/state`.
fn last_run_path() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = set("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(set("HOME")?).join(".local/state")))?;
    Some(state.join("quorate/last-run"))
}

/// The present, in milliseconds since the Unix epoch: for ages.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_door_of_an_address() {
        assert_eq!(host_and_port("http://10.0.0.1:8780/"), "10.0.0.1:8780");
        assert_eq!(host_and_port("node-1:8780"), "node-1:8780");
        assert_eq!(host_and_port("http://quorate.example/base"), "quorate.example:80");
        assert_eq!(host_and_port("http://[::1]"), "[::1]:80");
        assert_eq!(host_and_port("[::1]:8780"), "[::1]:8780");
    }
}
