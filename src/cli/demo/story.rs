//! The story of the demo, from the first server to the verdict.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow, bail};
use futures_util::StreamExt as _;
use quorate_api::client::{Client, Start, What};
use quorate_api::spec;
use quorate_api::view::{RunView, TaskView, Transition, TransitionView};
use quorate_model::{RunId, UnixMs, WorkerId};
use serde_json::Value;

use super::super::display::{self, Display};
use super::super::exit::Exit;
use super::super::output::{BOLD, Cell, DIM, GREEN, PLAIN, RED, Table, YELLOW};
use super::super::progress::Counts;
use super::super::watch::Follow;
use super::super::{say, span, stdout};
use super::ledger;
use super::nodes::{LEASE, Nodes};
use super::verdict::{self, AttemptRecord, Evidence, Finding, TaskRecord};

/// The workflow that is run.
const WORKFLOW: &str = include_str!("../../../examples/crates.quorate.yaml");

/// What it reads: the very dependencies that this binary was built from.
const CARGO_LOCK: &str = include_str!("../../../Cargo.lock");

/// How long each attempt sleeps first, in seconds: time to watch, and to be killed in.
const PACE_S: f64 = 0.4;

/// How many servers.
const NODES: usize = 3;

/// How long it may take until all servers vote, or until a new leader is there.
const ELECTION_DEADLINE: Duration = Duration::from_secs(30);

/// How long the survivors may take until both have applied the same.
const AGREE_DEADLINE: Duration = Duration::from_secs(10);

/// How long one node may take to say how it sees the cluster.
const LOOK_DEADLINE: Duration = Duration::from_millis(500);

/// Between two looks at the cluster. What is measured with it is exact to about this.
const POLL: Duration = Duration::from_millis(5);

/// Tells the story.
///
/// # Errors
///
/// If something that must work for the verdict does not.
pub(super) async fn tell(nodes: &mut Nodes) -> anyhow::Result<Exit> {
    let ids = start_cluster(nodes).await?;
    let client = Client::new(nodes.iter().map(|node| node.url.clone()))?;
    let ledger = nodes.path().join("ledger");
    let id = submit(&client, nodes, &ledger).await?;
    let (run, kill) = follow(&client, id, nodes, &ids).await?;

    let survivors: Vec<Client> = nodes
        .iter()
        .filter(|node| node.name != kill.name)
        .map(|node| Client::new([node.url.clone()]))
        .collect::<Result<_, _>>()?;
    let survivor = survivors.first().context("there are survivors")?;
    print_result(survivor, &run).await?;
    let lines = std::fs::read_to_string(&ledger).context("the tasks wrote no ledger")?;
    let evidence = gather(&survivors, &run, &lines).await?;
    judge(&evidence, &kill)
}

/// Starts the servers; answers their names by node id.
async fn start_cluster(nodes: &mut Nodes) -> anyhow::Result<BTreeMap<u64, String>> {
    say(format_args!("{BOLD}Three servers{PLAIN}, data in {}", nodes.path().display()));
    let began = Instant::now();
    let mut ids = BTreeMap::new();
    for _ in 0..NODES {
        let node = nodes.start().await?;
        let client = Client::new([node.url.clone()])?;
        let (name, url, pid) = (node.name.clone(), node.url.clone(), node.pid());
        ids.insert(client.cluster().await?.node, name.clone());
        say(format_args!("  {name}  {url}  pid {pid}"));
    }
    let client = Client::new(nodes.iter().map(|node| node.url.clone()))?;
    let all_vote = async || {
        let cluster = client.cluster().await.ok()?;
        let voters = cluster.members.iter().filter(|member| member.voter).count();
        let workers = cluster.workers_live;
        (voters == NODES && workers == NODES && cluster.quorate).then_some(cluster.leader?)
    };
    let leader =
        until(ELECTION_DEADLINE, all_vote).await.context("not all servers came to vote")?;
    let took = span::show(millis(began.elapsed()));
    say(format_args!("  {NODES} voters, {} leads; after {took}\n", name_of(&ids, leader)));
    Ok(ids)
}

fn name_of(ids: &BTreeMap<u64, String>, id: u64) -> String {
    ids.get(&id).cloned().unwrap_or_else(|| format!("node {id}"))
}

async fn submit(client: &Client, nodes: &Nodes, ledger: &std::path::Path) -> anyhow::Result<RunId> {
    let lock = nodes.path().join("Cargo.lock");
    std::fs::write(&lock, CARGO_LOCK)?;
    let parsed = spec::parse(WORKFLOW, None)
        .map_err(|found| anyhow!(spec::render_text(&found, "crates.quorate.yaml", WORKFLOW)))?;
    let text = |path: &std::path::Path| Value::from(path.to_string_lossy().into_owned());
    let params =
        [("lockfile", text(&lock)), ("ledger", text(ledger)), ("pace", Value::from(PACE_S))];
    let (source, name) = (WORKFLOW.to_owned(), parsed.name.to_string());
    let mut start = Start::of(What::Inline { source, name });
    start.params.extend(params.map(|(name, value)| (name.to_owned(), value)));
    let started = client.start(&start).await?;
    let packages = CARGO_LOCK.matches("[[package]]").count();
    let tasks = parsed.definition.tasks.len();
    say(format_args!(
        "{BOLD}{}{PLAIN}: {tasks} tasks over a Cargo.lock of {packages} packages  {DIM}run {}{PLAIN}",
        started.workflow, started.id
    ));
    Ok(started.id)
}

/// The kill, and what it did.
struct Kill {
    /// Who led and was killed.
    name: String,
    /// When, by the clock of the ledger.
    at_ns: u128,
    /// Until another node led, as the survivors saw it.
    takeover_ms: u64,
    /// Who that was.
    successor: String,
}

/// Follows the run to its end, with the kill in the middle.
async fn follow(
    client: &Client,
    id: RunId,
    nodes: &mut Nodes,
    ids: &BTreeMap<u64, String>,
) -> anyhow::Result<(RunView, Kill)> {
    let mut display = Display::new();
    let mut follow = Follow::begin(client, id, &mut display).await?;
    let mut kill: Option<Kill> = None;
    while !follow.has_ended() {
        follow.step(&mut display).await?;
        let counts = follow.progress().counts();
        if kill.is_none() && is_in_the_middle(counts) {
            kill = kill_leader(client, nodes, ids, &follow, &display).await?;
        }
    }
    display.clear();
    say(display::summary(follow.run()));
    let kill = kill.context("the run was over before the leader could be killed")?;
    Ok((follow.run().clone(), kill))
}

/// A third has ended, and enough runs that some of it is likely to run on the leader's node.
fn is_in_the_middle(counts: Counts) -> bool {
    let enough = if counts.ended * 2 >= counts.all { 1 } else { NODES };
    counts.ended * 3 >= counts.all && counts.running >= enough
}

/// Kills whoever leads, and waits until another does. `None` if nobody leads just now.
async fn kill_leader(
    client: &Client,
    nodes: &mut Nodes,
    ids: &BTreeMap<u64, String>,
    follow: &Follow,
    display: &Display,
) -> anyhow::Result<Option<Kill>> {
    let Some(leader) = client.cluster().await?.leader else { return Ok(None) };
    let name = name_of(ids, leader);
    let counts = follow.progress().counts();
    let (at_ns, began) = (now_ns(), Instant::now());
    let pid = nodes.kill(&name)?;
    display.note(&format!(
        "{RED}kill -9 {pid}{PLAIN}: {BOLD}{name}{PLAIN} led; {} of {} tasks had ended, {} ran",
        counts.ended, counts.all, counts.running
    ));
    let survivors: Vec<Client> = nodes
        .iter()
        .filter(|node| node.name != name)
        .map(|node| Ok(Client::new([node.url.clone()])?.with_deadline(LOOK_DEADLINE)))
        .collect::<anyhow::Result<_>>()?;
    let another_leads = async || {
        for survivor in &survivors {
            let Ok(cluster) = survivor.cluster().await else { continue };
            if let Some(next) = cluster.leader.filter(|&next| next != leader && cluster.quorate) {
                return Some((next, cluster.term));
            }
        }
        None
    };
    let (next, term) =
        until(ELECTION_DEADLINE, another_leads).await.context("no other node came to lead")?;
    let takeover_ms = millis(began.elapsed());
    let successor = name_of(ids, next);
    display.note(&format!(
        "{GREEN}{successor} leads{PLAIN} in term {term}, {BOLD}{takeover_ms} ms{PLAIN} after the kill"
    ));
    Ok(Some(Kill { name, at_ns, takeover_ms, successor }))
}

/// Prints what the run made: its report, read through a node that survived.
async fn print_result(client: &Client, run: &RunView) -> anyhow::Result<()> {
    let artifacts = client.artifacts(run.id).await?;
    let report = artifacts.iter().rev().find(|artifact| artifact.path.ends_with(".md"));
    let report = report.context("the run left no report")?;
    let bytes = client.artifact(run.id, &report.path, Some(report.task.as_str())).await?;
    let mut bytes = std::pin::pin!(bytes);
    let mut out = stdout();
    writeln!(out)?;
    while let Some(chunk) = bytes.next().await {
        out.write_all(&chunk?)?;
    }
    writeln!(out)?;
    out.flush()?;
    Ok(())
}

/// Asks the survivors for the whole history of the run.
async fn gather(survivors: &[Client], run: &RunView, ledger: &str) -> anyhow::Result<Evidence> {
    let (Some(first), rest) = (survivors.first(), survivors.get(1..).unwrap_or_default()) else {
        bail!("there are no survivors");
    };
    let mut workers = BTreeMap::new();
    for worker in first.workers().await? {
        workers.insert(worker.id, worker.name.to_string());
    }
    let transitions = first.transitions(run.id).await?;
    let tasks = first.tasks(run.id).await?;
    let mut nodes_agree = same_state(survivors).await?;
    for other in rest {
        nodes_agree &= other.transitions(run.id).await? == transitions;
        nodes_agree &= other.tasks(run.id).await? == tasks;
    }
    let tasks = tasks.iter().map(|task| record(task, &transitions, &workers)).collect();
    Ok(Evidence {
        run_state: run.state.text().to_owned(),
        tasks,
        nodes_agree,
        ledger: ledger::parse(ledger).map_err(|error| anyhow!(error))?,
    })
}

/// Whether all nodes have the same state by its digest, as of one and the same entry.
async fn same_state(nodes: &[Client]) -> anyhow::Result<bool> {
    let compare = async || {
        let mut seen = Vec::new();
        for node in nodes {
            let cluster = node.cluster_hash().await.ok()?;
            seen.push((cluster.applied_index, cluster.state_hash?));
        }
        let (index, hash) = seen.first()?;
        // As long as they stand at different entries, there is nothing to compare.
        seen.iter().all(|(other, _)| other == index).then(|| seen.iter().all(|(_, h)| h == hash))
    };
    until(AGREE_DEADLINE, compare).await.context("the survivors do not come to the same entry")
}

/// What the transitions say of one task.
fn record(
    task: &TaskView,
    transitions: &[TransitionView],
    workers: &BTreeMap<WorkerId, String>,
) -> TaskRecord {
    let mut record = TaskRecord {
        id: task.id.to_string(),
        needs: task.needs.iter().map(ToString::to_string).collect(),
        state: task.state.text().to_owned(),
        ended_index: None,
        attempts: Vec::new(),
    };
    for transition in transitions.iter().filter(|t| t.task.as_ref() == Some(&task.id)) {
        let outcome = transition.state.clone().unwrap_or_default();
        let attempt = transition.attempt.unwrap_or_default();
        match transition.event {
            Transition::AttemptAssigned => {
                let name =
                    |id: &WorkerId| workers.get(id).cloned().unwrap_or_else(|| id.to_string());
                record.attempts.push(AttemptRecord {
                    attempt,
                    worker: transition.worker.as_ref().map(name).unwrap_or_default(),
                    assigned_index: transition.index,
                    assigned_at: transition.at.0,
                    ended_index: None,
                    outcome: String::new(),
                });
            }
            Transition::AttemptEnded => {
                let open = record.attempts.iter_mut().rev().find(|a| a.attempt == attempt);
                if let Some(open) = open {
                    open.ended_index = Some(transition.index);
                    open.outcome = outcome;
                }
            }
            Transition::TaskEnded => record.ended_index = Some(transition.index),
            Transition::RunCreated
            | Transition::TaskLate
            | Transition::RunLate
            | Transition::TaskHeld
            | Transition::TaskDecided
            | Transition::TaskReady
            | Transition::RunPaused
            | Transition::RunResumed
            | Transition::RunCancelled
            | Transition::RunEnded => {}
        }
    }
    record
}

/// Prints the history and the verdict.
fn judge(evidence: &Evidence, kill: &Kill) -> anyhow::Result<Exit> {
    let findings = verdict::judge(evidence);
    let holds = findings.iter().all(Finding::holds);
    let mut out = stdout();
    writeln!(out, "{BOLD}The log{PLAIN}, as the survivors have it, by entry")?;
    history(evidence).print(&mut out)?;
    writeln!(out, "\n{BOLD}The verdict{PLAIN}, from the log and from the tasks' own ledger")?;
    for Finding { claim, against } in &findings {
        let mark = if against.is_empty() { format!("{GREEN}✓") } else { format!("{RED}✗") };
        writeln!(out, "  {mark}{PLAIN} {claim}")?;
        for fact in against {
            writeln!(out, "      {RED}{fact}{PLAIN}")?;
        }
    }
    writeln!(out, "\n{}", last_word(evidence, kill, holds))?;
    out.flush()?;
    Ok(if holds { Exit::Done } else { Exit::Error })
}

fn history(evidence: &Evidence) -> Table {
    let mut table = Table::new(&["TASK", "TRY", "ASSIGNED", "WORKER", "ENDED", "OUTCOME"], true);
    let mut rows: Vec<_> = evidence
        .tasks
        .iter()
        .flat_map(|task| task.attempts.iter().map(move |attempt| (task, attempt)))
        .collect();
    rows.sort_by_key(|(_, attempt)| (attempt.assigned_index, attempt.attempt));
    for (task, attempt) in rows {
        table.push(vec![
            task.id.clone().into(),
            format!("#{}", attempt.attempt).into(),
            format!("@{}", attempt.assigned_index).into(),
            attempt.worker.clone().into(),
            Cell::maybe(attempt.ended_index.map(|index| format!("@{index}"))),
            Cell::state(&attempt.outcome),
        ]);
    }
    table
}

/// The outcome in a few sentences.
fn last_word(evidence: &Evidence, kill: &Kill, holds: bool) -> String {
    if !holds {
        return format!("{RED}{BOLD}The verdict does not hold.{PLAIN}");
    }
    let Kill { name, at_ns, takeover_ms, successor } = kill;
    let kill_ms = UnixMs(u64::try_from(at_ns / 1_000_000).unwrap_or(u64::MAX));
    let next = evidence.began_after(kill_ms);
    let next = next.map(|at| (at.saturating_sub(*at_ns)) / 1_000_000);
    let next = next.map(|ms| format!(", and the next task it gave out began after {ms} ms"));
    let again = what_began_again(evidence, name);
    format!(
        "{GREEN}{BOLD}Nothing lost, nothing done twice.{PLAIN} {name} was killed while it led; \
         {successor} led after {takeover_ms} ms{}. {again}",
        next.unwrap_or_default()
    )
}

/// What ran when its worker was lost, and when it began again.
fn what_began_again(evidence: &Evidence, killed: &str) -> String {
    let (with_it, elsewhere): (Vec<_>, Vec<_>) =
        evidence.lost().partition(|(_, worker)| *worker == killed);
    let mut said = if with_it.is_empty() {
        format!("No task ran on {killed} when it was killed.")
    } else {
        let tasks: Vec<_> = with_it.into_iter().map(|(key, _)| key.task).collect();
        format!(
            "{YELLOW}{}{PLAIN} ran on {killed} when it was killed, and began again elsewhere only \
             after its lease of {LEASE} had ended.",
            tasks.join(", ")
        )
    };
    for (key, worker) in elsewhere {
        said.push_str(&format!(" {key} ended with the lease of {worker}: this machine is busy."));
    }
    said
}

/// Looks until there is something to see.
async fn until<T, F: Future<Output = Option<T>>>(
    deadline: Duration,
    look: impl Fn() -> F,
) -> Option<T> {
    let looking = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(deadline, looking).await.ok()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn now_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}
