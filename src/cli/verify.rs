//! `verify`: proves or refutes what the log promises, on an operator's own data.
//!
//! Two proofs, alone or together. Offline, what one stopped node has on its disk is replayed,
//! from a copy: nothing is ever written to the folder itself. Online, servers are asked for
//! the digest of their state until all have given it after one and the same entry.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use quorate_api::client::Client;
use quorate_raft::{Audit, audit, holds_node};
use serde::Serialize;
use tokio::time::Instant;

use super::exit::{Exit, Failure};
use super::output::{BOLD, Format, GREEN, OutputArgs, PLAIN, RED, YELLOW, print_json};
use super::scratch::Scratch;
use super::{say, stdout};

/// How long servers are asked until all were seen at the same entry. Under load that is a
/// matter of luck; a cluster that has nothing to do needs one round.
const ASK_MAX: Duration = Duration::from_secs(30);

/// Between two rounds.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// How long one server may take to answer before it counts as silent in this round.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Faults that are printed. All that were kept are in the JSON.
const FAULTS_SHOWN: usize = 20;

/// What `quorate verify` is told.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Exits with 0 if everything that was looked at holds, 1 if something does \
                        not, 2 if too little could be looked at to tell.")]
pub(super) struct VerifyArgs {
    /// Folder of a node that is stopped; a copy of it is replayed
    #[arg(long, value_name = "DIR", required_unless_present = "server")]
    data: Option<PathBuf>,
    /// Look at the entries after this one only, as far as the log reaches back
    #[arg(long, value_name = "INDEX", requires = "data")]
    from: Option<u64>,
    /// Servers whose states are compared
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    server: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Proven,
    Refuted,
    Unknown,
}

/// All that is printed.
#[derive(Debug, Serialize)]
struct Report {
    verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Audit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<Replicas>,
}

/// What servers said of their states.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Replicas {
    /// How many were asked.
    asked: usize,
    /// The entry after which most of them gave their digests, and how many did.
    index: u64,
    agreed: usize,
    /// Entries after which more than one gave it.
    compared: usize,
    /// Entries after which they differ.
    faults: Vec<String>,
}

/// Looks at what it is told to, and says whether it holds.
///
/// # Errors
///
/// If a folder cannot be read, or an address makes no sense.
pub(super) async fn verify(args: VerifyArgs) -> anyhow::Result<Exit> {
    let log = match &args.data {
        Some(folder) => {
            let (folder, from) = (folder.clone(), args.from);
            match tokio::task::spawn_blocking(move || replay(&folder, from)).await? {
                Ok(audit) => Some(audit),
                Err(error) => {
                    super::exit::report(&error);
                    return Ok(Exit::Usage);
                }
            }
        }
        None => None,
    };
    let replicas = match args.server.as_slice() {
        [] => None,
        servers => Some(ask(servers).await?),
    };
    let verdict = judge(log.as_ref(), replicas.as_ref());
    print(&mut stdout(), &args.output, &Report { verdict, log, replicas })?;
    Ok(match verdict {
        Verdict::Proven => Exit::Done,
        Verdict::Refuted => Exit::Error,
        Verdict::Unknown => Exit::Usage,
    })
}

fn judge(log: Option<&Audit>, replicas: Option<&Replicas>) -> Verdict {
    let refuted = log.is_some_and(|log| !log.faults.is_empty())
        || replicas.is_some_and(|replicas| !replicas.faults.is_empty());
    let seen = log.is_none_or(|log| log.entries > 0)
        && replicas.is_none_or(|replicas| replicas.agreed == replicas.asked && replicas.asked > 1);
    match (refuted, seen) {
        (true, _) => Verdict::Refuted,
        (false, true) => Verdict::Proven,
        (false, false) => Verdict::Unknown,
    }
}

/// Replays a copy of a folder.
fn replay(folder: &Path, from: Option<u64>) -> anyhow::Result<Audit> {
    if !holds_node(folder) {
        let message = format!("no node lives in {}", folder.display());
        return Err(Failure::new(Exit::NotFound, message).into());
    }
    // Held until the copy is complete: the node cannot start meanwhile.
    let lock = folder.join("lock");
    let lock = File::open(&lock).with_context(|| format!("opening {}", lock.display()))?;
    if lock.try_lock().is_err() {
        let message = format!("{} is in use, and changes while it is read", folder.display());
        let failure = Failure::new(Exit::Conflict, message);
        return Err(failure.hint("stop the node first; running ones: --server").into());
    }
    let scratch = Scratch::new("quorate-verify-").context("making a folder for a copy")?;
    let bytes = ["wal", "snapshots", "history"]
        .into_iter()
        .try_fold(0, |sum, name| {
            copy(&folder.join(name), &scratch.path().join(name)).map(|n| sum + n)
        })
        .and_then(|sum| {
            let identity = fs::copy(folder.join("identity"), scratch.path().join("identity"))?;
            Ok(sum + identity)
        })
        .with_context(|| format!("copying {}; TMPDIR says where to", folder.display()))?;
    drop(lock);
    say(format_args!("replaying a copy of {bytes} bytes"));
    Ok(audit(scratch.path(), from)?)
}

/// Copies a folder of files and folders; answers how many bytes that were. One that is not
/// there has nothing in it.
fn copy(from: &Path, to: &Path) -> io::Result<u64> {
    fs::create_dir_all(to)?;
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        bytes += if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?
        } else {
            fs::copy(entry.path(), target)?
        };
    }
    Ok(bytes)
}

/// Asks servers for the digests of their states until all have given one after the same entry.
async fn ask(servers: &[String]) -> anyhow::Result<Replicas> {
    let clients: Vec<Client> = servers
        .iter()
        .map(|server| Ok(Client::new([server.as_str()])?.with_deadline(ANSWER_MAX)))
        .collect::<anyhow::Result<_>>()?;
    let mut seen: BTreeMap<u64, BTreeMap<usize, String>> = BTreeMap::new();
    let until = Instant::now() + ASK_MAX;
    loop {
        for (number, client) in clients.iter().enumerate() {
            // One that is silent just now may answer in the next round.
            if let Ok(view) = client.cluster_hash().await
                && let Some(hash) = view.state_hash
            {
                seen.entry(view.applied_index).or_default().insert(number, hash);
            }
        }
        let replicas = compare(servers, &seen);
        if replicas.agreed == clients.len() || Instant::now() >= until {
            return Ok(replicas);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn compare(servers: &[String], seen: &BTreeMap<u64, BTreeMap<usize, String>>) -> Replicas {
    let mut replicas = Replicas { asked: servers.len(), ..Replicas::default() };
    for (&index, hashes) in seen {
        if hashes.len() >= replicas.agreed {
            (replicas.index, replicas.agreed) = (index, hashes.len());
        }
        replicas.compared += usize::from(hashes.len() > 1);
        let mut each = hashes.iter();
        let Some((first, hash)) = each.next() else { continue };
        let differing = each.filter(|(_, other)| *other != hash);
        replicas.faults.extend(differing.map(|(other, theirs)| {
            format!(
                "after entry {index} the state of {} is {hash}, and that of {} is {theirs}",
                servers[*first], servers[*other]
            )
        }));
    }
    replicas
}

fn print(out: &mut dyn Write, args: &OutputArgs, report: &Report) -> io::Result<()> {
    if matches!(args.format, Format::Json | Format::Jsonl) {
        print_json(out, report)?;
        return out.flush();
    }
    let (paint, word) = match report.verdict {
        Verdict::Proven => (GREEN, "proven"),
        Verdict::Refuted => (RED, "refuted"),
        Verdict::Unknown => (YELLOW, "unknown"),
    };
    let mut faults: Vec<&String> = Vec::new();
    if let Some(log) = &report.log {
        writeln!(out, "{BOLD}Log of node {} of cluster {}{PLAIN}", log.node, log.cluster)?;
        for (count, what) in lines(log) {
            writeln!(out, "{count:>10}  {what}")?;
        }
        writeln!(out, "  state after entry {}: {}", log.last, log.hash)?;
        faults.extend(&log.faults);
    }
    if let Some(replicas) = &report.replicas {
        let Replicas { asked, index, agreed, compared, .. } = replicas;
        writeln!(out, "{BOLD}Replicas{PLAIN}")?;
        writeln!(out, "{agreed:>10}  of {asked} servers gave their state after entry {index}")?;
        writeln!(out, "{compared:>10}  entries after which states could be compared")?;
        faults.extend(&replicas.faults);
    }
    for fault in faults.iter().take(FAULTS_SHOWN) {
        writeln!(out, "{RED}✗{PLAIN} {fault}")?;
    }
    if let Some(more) = faults.len().checked_sub(FAULTS_SHOWN).filter(|more| *more > 0) {
        writeln!(out, "  and {more} more: -o json")?;
    }
    writeln!(out, "{paint}{word}{PLAIN}")?;
    out.flush()
}

/// What was looked at, with counts.
fn lines(log: &Audit) -> [(u64, String); 9] {
    [
        (log.entries, format!("entries up to {}, replayed from {}", log.last, log.base)),
        (log.requests, format!("requests, {} of them without effect", log.without_effect)),
        (log.assignments, "assignments, each made once, under a token of its own".to_owned()),
        (log.ends, "ends of attempts, each recorded once, before the next began".to_owned()),
        (log.changes, "changes of tasks, all of them legal".to_owned()),
        (log.runs_ended, "runs that ended, for good".to_owned()),
        (log.snapshots, "snapshots on the way that say the same".to_owned()),
        (log.history_runs, "runs in the history with sound records".to_owned()),
        (log.faults.len() as u64, "faults".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(hashes: &[(u64, usize, &str)]) -> Replicas {
        let servers: Vec<String> = (0..3).map(|number| format!("http://n{number}")).collect();
        let mut seen: BTreeMap<u64, BTreeMap<usize, String>> = BTreeMap::new();
        for &(index, server, hash) in hashes {
            seen.entry(index).or_default().insert(server, hash.to_owned());
        }
        compare(&servers, &seen)
    }

    #[test]
    fn servers_that_agree_after_one_entry_are_a_proof() {
        let replicas = seen(&[(7, 0, "a"), (8, 0, "b"), (8, 1, "b"), (8, 2, "b")]);
        assert_eq!((replicas.index, replicas.agreed, replicas.compared), (8, 3, 1));
        assert_eq!(judge(None, Some(&replicas)), Verdict::Proven);
    }

    #[test]
    fn one_that_differs_refutes_even_if_others_are_silent() {
        let replicas = seen(&[(7, 0, "a"), (7, 1, "b")]);
        assert_eq!(replicas.faults.len(), 1);
        assert_eq!(judge(None, Some(&replicas)), Verdict::Refuted);
    }

    #[test]
    fn servers_that_were_never_seen_at_one_entry_prove_nothing() {
        let replicas = seen(&[(7, 0, "a"), (8, 1, "b"), (9, 2, "c")]);
        assert_eq!(judge(None, Some(&replicas)), Verdict::Unknown);
        let (one, log) = (Replicas { asked: 1, agreed: 1, ..replicas }, Audit::default());
        assert_eq!(judge(None, Some(&one)), Verdict::Unknown, "with itself everybody agrees");
        assert_eq!(judge(Some(&log), None), Verdict::Unknown, "nothing was replayed");
    }
}
