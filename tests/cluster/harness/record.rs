//! What the cluster recorded, as the judge wants to have it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::client::SOON;
use super::cluster::Cluster;
use super::http::Request;
use super::wait::{until, within};
use crate::judge::{Attempt, Digest, History, Run, Task};

/// How long processes may take to be gone after the last run has ended.
const GONE: Duration = Duration::from_secs(5);

impl Cluster {
    /// All that is known at the end. Waits until the nodes stand at the same entry.
    #[track_caller]
    pub(crate) fn history(&self) -> History {
        let left = within(GONE, || self.ledger.processes_left().is_empty().then_some(()));
        let processes_left = match left {
            Some(()) => Vec::new(),
            None => self.ledger.processes_left(),
        };
        History {
            ledger: self.ledger.lines(),
            runs: self.runs(),
            submits: self.client.submits(),
            observations: Vec::new(),
            digests: self.digests(),
            nodes: self.nodes.len(),
            processes_left,
            wrongs: Vec::new(),
            coverage: Vec::new(),
        }
    }

    /// Every run there is, with its tasks.
    #[track_caller]
    pub(crate) fn runs(&self) -> Vec<Run> {
        let runs = self.client.list("/v1/runs");
        runs.iter()
            .map(|run| {
                let id = text(&run["id"]);
                let tasks = self.client.list(&format!("/v1/runs/{id}/tasks"));
                let tasks = tasks.iter().map(|view| (text(&view["id"]), task(view))).collect();
                Run { id, submit: text(&run["workflow"]), state: text(&run["state"]), tasks }
            })
            .collect()
    }

    /// The hashes of all nodes' states after one and the same entry.
    #[track_caller]
    pub(crate) fn digests(&self) -> Vec<Digest> {
        let serving = self.serving();
        let mut seen = Vec::new();
        until(SOON, "all nodes have applied the same entry", || {
            let round: Vec<Digest> = serving.iter().filter_map(|&node| self.digest(node)).collect();
            seen.extend(round.iter().cloned());
            let first = round.first()?;
            let equal = round.iter().all(|digest| digest.index == first.index);
            (round.len() == serving.len() && equal).then_some(())
        });
        seen
    }

    fn digest(&self, node: usize) -> Option<Digest> {
        let found = self.nodes[node].send(&Request::get("/v1/cluster?hash=true")).ok()?;
        let view = found.is_ok().then(|| found.json())?;
        Some(Digest {
            node: view["node"].as_u64()?,
            index: view["applied_index"].as_u64()?,
            hash: view["state_hash"].as_str()?.to_owned(),
        })
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn task(view: &Value) -> Task {
    let attempts: Vec<Attempt> =
        view["attempts"].as_array().into_iter().flatten().map(attempt).collect();
    let needs = view["needs"].as_array().into_iter().flatten().map(text).collect();
    let rule = view["trigger_rule"].as_str().unwrap_or_default();
    let state = text(&view["state"]);
    // One that ended without an attempt did so by the entry of another's end.
    let ended_index = match attempts.last() {
        Some(last) => last.ended_index,
        None => (state != "waiting" && state != "queued").then_some(0),
    };
    Task {
        needs,
        waits_for_all: matches!(rule, "all_success" | "all_done" | "none_failed"),
        state,
        retries: view["retries_max"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        ended_index,
        attempts,
    }
}

fn attempt(view: &Value) -> Attempt {
    let assigned: Timestamp =
        text(&view["assigned_at"]).parse().expect("an attempt was assigned at some time");
    Attempt {
        number: view["attempt"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        token: view["token"].as_u64().unwrap_or(0),
        assigned_ms: u64::try_from(assigned.as_millisecond()).unwrap_or(0),
        ended_index: view["ended_index"].as_u64(),
        outcome: text(&view["state"]),
    }
}
