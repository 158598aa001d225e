//! What must hold at every step, whatever goes wrong.

use std::collections::{BTreeMap, BTreeSet};

use quorate_model::State;
use quorate_raft::Node;

use super::cluster::Cluster;

/// Ticks between two looks at what is dear to look at.
const LOOK_EVERY: u64 = 10;

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Invariants {
    /// Terms, and who led in them.
    leaders: BTreeSet<(u64, u64)>,
    /// The hash of the state after each entry.
    states: BTreeMap<u64, u64>,
    /// What each process of a master, by its number, has shown last.
    seen: BTreeMap<u64, Seen>,
    ticks: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    term: u64,
    committed: u64,
    applied: u64,
}

impl Invariants {
    /// Looks at everything.
    pub(super) fn check(&mut self, cluster: &Cluster) -> Result<(), String> {
        self.ticks += 1;
        let nodes = cluster.masters.nodes();
        for (name, node) in &nodes {
            let process = cluster.masters.process(name);
            self.check_leader(name, node)?;
            self.check_state(name, node, process, cluster)?;
            if self.ticks.is_multiple_of(LOOK_EVERY) {
                self.check_progress(name, node, process)?;
            }
        }
        let furthest = nodes.values().max_by_key(|node| *node.applied().borrow());
        if let Some(furthest) = furthest {
            furthest.with_state(|state| check_processes(state, cluster))?;
        }
        let mut violations = cluster.processes.violations();
        violations.extend(cluster.oracle.violations());
        violations.extend(cluster.masters.violations());
        violations.into_iter().next().map_or(Ok(()), Err)
    }

    /// Whoever leads knows itself for the leader of its term. A term may have more than one,
    /// each with a greater id than the one before: openraft elects by both.
    fn check_leader(&mut self, name: &str, node: &Node) -> Result<(), String> {
        let leadership = node.leadership();
        let leadership = leadership.borrow();
        if !leadership.leads {
            return Ok(());
        }
        let known = leadership.leader.as_ref().map(|(id, _)| *id);
        if known != Some(node.id()) {
            return Err(format!("{name} leads, and knows another leader: {leadership:?}"));
        }
        self.leaders.insert((leadership.term, node.id()));
        Ok(())
    }

    /// Entries do not change, and the same entries make the same state.
    fn check_state(
        &mut self,
        name: &str,
        node: &Node,
        process: u64,
        cluster: &Cluster,
    ) -> Result<(), String> {
        let applied = node.applied().borrow().0;
        let seen = self.seen.entry(process).or_default();
        if applied == seen.applied {
            return Ok(());
        }
        if applied < seen.applied {
            return Err(format!("{name} goes back from entry {} to {applied}", seen.applied));
        }
        seen.applied = applied;
        node.with_state(|state| {
            let (at, hash) = (state.applied().0, state.hash());
            let known = *self.states.entry(at).or_insert(hash);
            if known != hash {
                return Err(format!("{name} is in another state than others were at entry {at}"));
            }
            state.check().map_err(|broken| format!("{name} at entry {at}: {broken}"))?;
            cluster.oracle.check(state).map_err(|broken| format!("{name} at entry {at}: {broken}"))
        })
    }

    /// Terms and commits never go back while a node runs.
    fn check_progress(&mut self, name: &str, node: &Node, process: u64) -> Result<(), String> {
        let status = node.status();
        let seen = self.seen.entry(process).or_default();
        if status.term < seen.term || status.committed_index < seen.committed {
            return Err(format!("{name} goes back from {seen:?} to {status:?}"));
        }
        (seen.term, seen.committed) = (status.term, status.committed_index);
        Ok(())
    }

    /// How many terms had a leader.
    pub(super) fn terms(&self) -> usize {
        self.leaders.len()
    }
}

/// What runs has a right to: its attempt is in flight, and nobody was told that it is over.
fn check_processes(state: &State, cluster: &Cluster) -> Result<(), String> {
    for (host, dispatch) in cluster.processes.alive() {
        let flight = state.task(dispatch.task).ok().and_then(|task| task.flight());
        let is_in_flight = flight.is_some_and(|flight| flight.token == dispatch.token);
        // The token is the entry that assigned it.
        if !is_in_flight && state.applied().0 >= dispatch.token.0 {
            return Err(format!(
                "{dispatch} still runs on {host}, but at entry {} it is over",
                state.applied()
            ));
        }
    }
    Ok(())
}
