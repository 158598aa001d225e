//! What the cluster has to do meanwhile: clients that submit all kinds of runs, some of which
//! change their minds, and somebody who looks on.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::Request;
use crate::harness::client::Client;
use crate::harness::seed::Seed;
use crate::judge::Observation;
use crate::load::submit_on;
use crate::tasks::{chain, failing, task};

/// Clients that keep a run going each.
pub(super) const CLIENTS: usize = 6;

/// Recent runs that are looked at.
const RECENT: usize = 20;

/// How often whoever looks on asks who leads.
const WHO_LEADS_EVERY: Duration = Duration::from_millis(200);

/// How long a request of whoever looks on may take: it has better to do than to wait.
const LOOK: Duration = Duration::from_millis(300);

/// A task that leaves something behind when it ends, and one after it.
const LEAVES_A_DAEMON: &str = "
  - id: first
    run: |
      . \"$PROOF/ledger.sh\"
      began; daemon; work 5; ended
  - id: next
    needs: [first]
    run: |
      . \"$PROOF/ledger.sh\"
      began; work 2; ended
";

/// A task that writes a megabyte.
const TALKATIVE: &str = "
  - id: talks
    run: |
      . \"$PROOF/ledger.sh\"
      began; head -c 1000000 /dev/zero | tr '\\0' x; ended
";

/// A workflow: half of them a fan-out with a join and sometimes a task that fails at first, the
/// rest chains, long tasks, large outputs and tasks that leave processes behind.
fn workflow(chance: &mut Seed) -> String {
    match chance.below(10) {
        0 | 1 => chain(3 + chance.below(4), chance.below(6)),
        2 => task("long", &[], 50 << chance.below(4)),
        3 => LEAVES_A_DAEMON.to_owned(),
        4 => TALKATIVE.to_owned(),
        _ => fan_out(chance),
    }
}

fn fan_out(chance: &mut Seed) -> String {
    let mut tasks = vec![task("first", &[], chance.below(6))];
    let width = 1 + chance.below(3);
    let branches: Vec<String> = (0..width).map(|branch| format!("branch{branch}")).collect();
    for branch in &branches {
        tasks.push(match chance.below(4) {
            0 => failing(branch, &["first"], 1, 2),
            _ => task(branch, &["first"], chance.below(10)),
        });
    }
    let branches: Vec<&str> = branches.iter().map(String::as_str).collect();
    tasks.push(task("join", &branches, chance.below(6)));
    tasks.concat()
}

/// Keeps a run going until told to stop, and now and then cancels somebody's.
pub(super) fn work(client: &Client, mut chance: Seed, stop: &AtomicBool) {
    let mut whims = chance.clone();
    let next = || {
        if whims.below(12) == 0
            && let Some(run) = client.acknowledged().last()
        {
            // Whatever comes of it, the judge will see.
            let request = Request::post(format!("/v1/runs/{run}/cancel"));
            drop(client.try_ask(&request, Duration::from_secs(2)));
        }
        workflow(&mut chance)
    };
    submit_on(client, next, stop);
}

/// What was seen by looking on.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Tasks, as some node had them.
    pub(super) tasks: Vec<Observation>,
    /// Terms in which a node said that it leads, each once.
    pub(super) terms: Vec<u64>,
}

/// Looks at the tasks of recent runs through every node, at whatever it has applied.
pub(super) fn watch(
    client: &Client,
    nodes: &[SocketAddr],
    mut chance: Seed,
    stop: &AtomicBool,
) -> Seen {
    let mut seen = Seen::default();
    let mut asked = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(5));
        let node = nodes[chance.below(nodes.len())];
        if asked.elapsed() > WHO_LEADS_EVERY {
            asked = Instant::now();
            seen.terms.extend(nodes.iter().filter_map(|&node| leads(node)));
        }
        let runs = client.acknowledged();
        let recent = &runs[runs.len().saturating_sub(RECENT)..];
        if recent.is_empty() {
            continue;
        }
        let run = &recent[chance.below(recent.len())];
        let request =
            Request::get(format!("/v1/runs/{run}/tasks?stale=true&limit=1000")).patience(LOOK);
        if let Ok(response) = request.send(node)
            && response.is_ok()
        {
            let index = response.header("quorate-index").and_then(|index| index.parse().ok());
            let index = index.expect("a run was changed by some entry");
            let items = response.json()["items"].take();
            let tasks = items.as_array().into_iter().flatten();
            seen.tasks.extend(tasks.map(|task| observed(index, run, task)));
        }
    }
    seen.terms.sort_unstable();
    seen.terms.dedup();
    seen
}

/// The term in which a node leads, if it says so.
fn leads(node: SocketAddr) -> Option<u64> {
    let answer = Request::get("/v1/cluster").patience(LOOK).send(node).ok()?;
    let view = answer.is_ok().then(|| answer.json())?;
    (view["leader"].is_u64() && view["leader"] == view["node"]).then(|| view["term"].as_u64())?
}

fn observed(index: u64, run: &str, task: &Value) -> Observation {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Observation {
        index,
        run: run.to_owned(),
        task: text(&task["id"]),
        state: text(&task["state"]),
        attempts: task["attempts_begun"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
    }
}
