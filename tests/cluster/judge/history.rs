//! All that is known after a test: what the tasks wrote, what the clients heard, what the
//! cluster recorded.

use std::collections::BTreeMap;

/// A line of the ledger, written by a task itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// What it says.
    pub(crate) mark: Mark,
    /// Microseconds since the Unix epoch, by the clock of the machine.
    pub(crate) at_us: u64,
    /// The run.
    pub(crate) run: String,
    /// The id of the task in its workflow.
    pub(crate) task: String,
    /// From 1.
    pub(crate) attempt: u32,
    /// The fencing token that the task was given.
    pub(crate) token: u64,
    /// Drawn by lot by the process that wrote it.
    pub(crate) process: u32,
}

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The attempt runs.
    Began,
    /// It still runs.
    Beat,
    /// It has done its work, and is about to exit with 0.
    Ended,
    /// A process that it left behind, in a session of its own, still runs.
    Daemon,
}

/// A run, as the cluster has it in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Its id.
    pub(crate) id: String,
    /// The submit it came from, by its label.
    pub(crate) submit: String,
    /// In the words of the API.
    pub(crate) state: String,
    /// Its tasks, by id.
    pub(crate) tasks: BTreeMap<String, Task>,
}

/// A task of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Task {
    /// Those it has to wait for.
    pub(crate) needs: Vec<String>,
    /// Whether its rule wants every predecessor to have ended.
    pub(crate) waits_for_all: bool,
    /// In the words of the API.
    pub(crate) state: String,
    /// Attempts allowed after the first.
    pub(crate) retries: u32,
    /// The entry by which it ended for good.
    pub(crate) ended_index: Option<u64>,
    /// Its tries, oldest first.
    pub(crate) attempts: Vec<Attempt>,
}

/// A try at a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// From 1.
    pub(crate) number: u32,
    /// The entry that assigned it, which is its fencing token.
    pub(crate) token: u64,
    /// When that entry was proposed, in milliseconds since the Unix epoch.
    pub(crate) assigned_ms: u64,
    /// The entry that recorded its end.
    pub(crate) ended_index: Option<u64>,
    /// In the words of the API; empty while it runs.
    pub(crate) outcome: String,
}

/// A request to start a run, and what its client heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Submit {
    /// Unique; the label of the run that came of it.
    pub(crate) name: String,
    /// What the client heard.
    pub(crate) outcome: SubmitOutcome,
}

/// What the client of a submit heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SubmitOutcome {
    /// It was acknowledged: this run.
    Acknowledged(String),
    /// No answer, or one that says so.
    Unknown,
    /// It was told that nothing happened.
    Refused,
}

/// A look at one task through one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observation {
    /// How far that node had applied the log.
    pub(crate) index: u64,
    /// The run.
    pub(crate) run: String,
    /// The id of the task.
    pub(crate) task: String,
    /// Its state, in the words of the API.
    pub(crate) state: String,
    /// Attempts begun so far.
    pub(crate) attempts: u32,
}

/// The hash of a node's whole state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    /// Which node.
    pub(crate) node: u64,
    /// Of the state after this entry.
    pub(crate) index: u64,
    /// As the node gave it.
    pub(crate) hash: String,
}

/// Something that must have happened for the test to mean anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Coverage {
    /// In words.
    pub(crate) what: String,
    /// How often it happened.
    pub(crate) seen: usize,
    /// How often it must have.
    pub(crate) needed: usize,
}

/// All that is known after a test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// In the order of writing.
    pub(crate) ledger: Vec<Line>,
    /// Every run that the cluster has.
    pub(crate) runs: Vec<Run>,
    /// Every submit that was tried.
    pub(crate) submits: Vec<Submit>,
    /// Looks at tasks while the test went on, in any order.
    pub(crate) observations: Vec<Observation>,
    /// Hashes of the states of all nodes.
    pub(crate) digests: Vec<Digest>,
    /// How many nodes there are, each of which must have given its hash.
    pub(crate) nodes: usize,
    /// Processes of tasks that are still there after every run has ended.
    pub(crate) processes_left: Vec<u32>,
    /// What nodes did that they must not do under a fault, in words.
    pub(crate) wrongs: Vec<String>,
    /// What must have happened.
    pub(crate) coverage: Vec<Coverage>,
}

impl History {
    /// Attempts that were lost with their workers.
    pub(crate) fn losses(&self) -> usize {
        let tasks = self.runs.iter().flat_map(|run| run.tasks.values());
        tasks.flat_map(|task| &task.attempts).filter(|attempt| attempt.outcome == "lost").count()
    }
}
