//! The commands: every way the state can change, one file each.

mod advance_clock;
mod ask_person;
mod assign_task;
mod cancel_run;
mod decide_task;
mod delete_workflow;
mod end_lease;
mod fail_task;
mod judge_clock;
mod mint_node_id;
mod pass_task;
mod pause_run;
mod pause_workflow;
mod prune_history;
mod put_workflow;
mod register_worker;
mod report_task;
mod resume_run;
mod resume_workflow;
mod set_eligibility;
mod skip_task;
mod start_run;
mod take_branch;
mod withdraw_worker;

use serde::{Deserialize, Serialize};

pub use advance_clock::{AdvanceClock, TIMERS_PER_ENTRY_MAX};
pub use ask_person::AskPerson;
pub use assign_task::AssignTask;
pub use cancel_run::CancelRun;
pub use decide_task::DecideTask;
pub use delete_workflow::DeleteWorkflow;
pub use end_lease::EndLease;
pub use fail_task::FailTask;
pub use judge_clock::JudgeClock;
pub use mint_node_id::MintNodeId;
pub use pass_task::PassTask;
pub use pause_run::PauseRun;
pub use pause_workflow::PauseWorkflow;
pub use prune_history::PruneHistory;
pub use put_workflow::{PutWorkflow, VERSIONS_KEPT_MAX};
pub use register_worker::{RegisterWorker, SLOTS_MAX};
pub use report_task::ReportTask;
pub use resume_run::ResumeRun;
pub use resume_workflow::ResumeWorkflow;
pub use set_eligibility::SetEligibility;
pub use skip_task::SkipTask;
pub use start_run::{PARAMS_BYTES_MAX, StartRun, WorkflowSource};
pub use take_branch::TakeBranch;
pub use withdraw_worker::WithdrawWorker;

use crate::state::{Output, State};
use crate::workflow::validate::DefinitionError;
use crate::{Attempt, Epoch, FencingToken, Name, RunId, TaskId, WorkerId};

/// A change to the replicated state. Append-only: a variant, once released,
/// keeps its place, its name, its fields and its meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// See [`PutWorkflow`].
    PutWorkflow(PutWorkflow),
    /// See [`DeleteWorkflow`].
    DeleteWorkflow(DeleteWorkflow),
    /// See [`StartRun`].
    StartRun(Box<StartRun>),
    /// See [`CancelRun`].
    CancelRun(CancelRun),
    /// See [`AssignTask`].
    AssignTask(AssignTask),
    /// See [`FailTask`].
    FailTask(FailTask),
    /// See [`ReportTask`].
    ReportTask(ReportTask),
    /// See [`RegisterWorker`].
    RegisterWorker(RegisterWorker),
    /// See [`EndLease`].
    EndLease(EndLease),
    /// See [`AdvanceClock`].
    AdvanceClock(AdvanceClock),
    /// See [`PruneHistory`].
    PruneHistory(PruneHistory),
    /// See [`MintNodeId`].
    MintNodeId(MintNodeId),
    /// See [`DecideTask`].
    DecideTask(DecideTask),
    /// See [`SetEligibility`].
    SetEligibility(SetEligibility),
    /// See [`WithdrawWorker`].
    WithdrawWorker(WithdrawWorker),
    /// See [`JudgeClock`].
    JudgeClock(JudgeClock),
    /// See [`PassTask`].
    PassTask(PassTask),
    /// See [`SkipTask`].
    SkipTask(SkipTask),
    /// See [`TakeBranch`].
    TakeBranch(TakeBranch),
    /// See [`PauseRun`].
    PauseRun(PauseRun),
    /// See [`ResumeRun`].
    ResumeRun(ResumeRun),
    /// See [`PauseWorkflow`].
    PauseWorkflow(PauseWorkflow),
    /// See [`ResumeWorkflow`].
    ResumeWorkflow(ResumeWorkflow),
    /// See [`AskPerson`].
    AskPerson(AskPerson),
}

/// The longest reason that is kept, in bytes; what is beyond is cut off. It is for people,
/// and stays in memory with its run.
pub const REASON_BYTES_MAX: usize = 4 * 1024;

/// Cuts a reason that is too long. A refusal would help nobody: what happened, happened.
fn cut(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    reason
}

impl Command {
    pub(crate) fn apply(self, state: &mut State, output: &mut Output) -> Result<Reply, Rejection> {
        match self {
            Self::PutWorkflow(c) => c.apply(state, output),
            Self::DeleteWorkflow(c) => c.apply(state, output),
            Self::StartRun(c) => c.apply(state, output),
            Self::CancelRun(c) => c.apply(state, output),
            Self::AssignTask(c) => c.apply(state, output),
            Self::FailTask(c) => c.apply(state, output),
            Self::ReportTask(c) => c.apply(state, output),
            Self::RegisterWorker(c) => c.apply(state, output),
            Self::EndLease(c) => c.apply(state, output),
            Self::AdvanceClock(c) => c.apply(state, output),
            Self::PruneHistory(c) => c.apply(output),
            Self::MintNodeId(c) => c.apply(state),
            Self::DecideTask(c) => c.apply(state, output),
            Self::SetEligibility(c) => c.apply(state, output),
            Self::WithdrawWorker(c) => c.apply(state, output),
            Self::JudgeClock(c) => c.apply(state, output),
            Self::PassTask(c) => c.apply(state, output),
            Self::SkipTask(c) => c.apply(state, output),
            Self::TakeBranch(c) => c.apply(state, output),
            Self::PauseRun(c) => c.apply(state, output),
            Self::ResumeRun(c) => c.apply(state, output),
            Self::PauseWorkflow(c) => c.apply(state, output),
            Self::ResumeWorkflow(c) => c.apply(state, output),
            Self::AskPerson(c) => c.apply(state, output),
        }
    }
}

/// The answer to an accepted command.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing to say.
    Done,
    /// A workflow was put.
    WorkflowPut {
        /// Its newest version now.
        version: u32,
        /// Whether that version is new.
        changed: bool,
    },
    /// A run was started.
    RunStarted {
        /// Its id, as the command gave it.
        run: RunId,
        /// The version it executes.
        version: u32,
    },
    /// A task was assigned.
    Assigned {
        /// Which try this is.
        attempt: Attempt,
        /// The authority to run it.
        token: FencingToken,
    },
    /// A worker was registered.
    Registered {
        /// Its id; new if it came without one.
        worker: WorkerId,
        /// Its registration. Every earlier one is void.
        epoch: Epoch,
    },
    /// An id that no node had before.
    Minted {
        /// Never given out again.
        id: u64,
    },
}

/// Why a command was refused. Deterministic, so every node refuses alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// No workflow has this name.
    #[error("no workflow {workflow}")]
    NoSuchWorkflow {
        /// As named by the command.
        workflow: Name,
    },
    /// The workflow has no such version, or no longer.
    #[error("workflow {workflow} has no version {version}")]
    NoSuchVersion {
        /// As named by the command.
        workflow: Name,
        /// As named by the command.
        version: u32,
    },
    /// The workflow has moved on since the caller looked.
    #[error("workflow {workflow} is at version {current}, not {expected}")]
    VersionMismatch {
        /// As named by the command.
        workflow: Name,
        /// What the caller took it to be; 0 means that it should not exist.
        expected: u32,
        /// What it is; 0 means that it does not exist.
        current: u32,
    },
    /// The definition breaks a rule.
    #[error("the workflow is not valid: {0}")]
    BadDefinition(DefinitionError),
    /// The parameters and labels are too large.
    #[error("the parameters and labels take {bytes} bytes; {bytes_max} is the most")]
    ParamsTooLarge {
        /// Their size together.
        bytes: u64,
        /// [`PARAMS_BYTES_MAX`].
        bytes_max: u64,
    },
    /// There is a run with this id already.
    #[error("run {run} exists already")]
    RunExists {
        /// As named by the command.
        run: RunId,
    },
    /// The run is unknown, or left the live state after it ended.
    #[error("no live run {run}")]
    NoSuchRun {
        /// As named by the command.
        run: RunId,
    },
    /// The run is over.
    #[error("run {run} has ended already")]
    RunEnded {
        /// As named by the command.
        run: RunId,
    },
    /// The run is being stopped, and nothing of it starts any more.
    #[error("run {run} is being stopped")]
    RunStopping {
        /// As named by the command.
        run: RunId,
    },
    /// The run is paused.
    #[error("run {run} is paused")]
    RunPaused {
        /// As named by the command.
        run: RunId,
    },
    /// The run has no task at that position.
    #[error("no task {task}")]
    NoSuchTask {
        /// As named by the command.
        task: TaskId,
    },
    /// The task is not waiting for a worker.
    #[error("task {task} is {status}, not ready")]
    NotReady {
        /// As named by the command.
        task: TaskId,
        /// What it is instead.
        status: String,
    },
    /// Nothing is to be decided of the task.
    #[error("task {task} is {status}, and nothing of it to be decided")]
    NotDeciding {
        /// As named by the command.
        task: TaskId,
        /// What it is instead.
        status: String,
    },
    /// The task is no switch, or has no such arm; or it is one, and must take an arm.
    #[error("task {task} cannot go on like that")]
    NoSuchBranch {
        /// As named by the command.
        task: TaskId,
    },
    /// The attempt was superseded, or has ended already.
    #[error("task {task} is at attempt {current}; {attempt} is no longer in flight")]
    StaleAttempt {
        /// As named by the command.
        task: TaskId,
        /// As named by the command.
        attempt: Attempt,
        /// The latest there has been.
        current: Attempt,
    },
    /// The task does not wait for a person.
    #[error("task {task} is {status}, not held")]
    NotHeld {
        /// As named by the command.
        task: TaskId,
        /// Its status.
        status: String,
    },
    /// The outputs take more room than there is.
    #[error("the outputs take {bytes} bytes; {bytes_max} is the most")]
    OutputsTooLarge {
        /// How many there are.
        bytes: u64,
        /// How many there may be.
        bytes_max: u64,
    },
    /// The task was assigned by this very entry before.
    #[error("task {task} already has the token of this entry")]
    TokenNotNewer {
        /// As named by the command.
        task: TaskId,
    },
    /// The worker is unknown; it must register without an id.
    #[error("no worker {worker}")]
    NoSuchWorker {
        /// As named by the command.
        worker: WorkerId,
    },
    /// The registration was superseded, or its lease has ended.
    #[error("worker {worker} no longer holds {epoch}")]
    StaleEpoch {
        /// As named by the command.
        worker: WorkerId,
        /// As named by the command.
        epoch: Epoch,
    },
    /// The worker was drained, stops, or is in quarantine.
    #[error("worker {worker} takes nothing more")]
    Ineligible {
        /// As named by the command.
        worker: WorkerId,
    },
    /// The worker runs as many tasks as it has slots.
    #[error("worker {worker} has no free slot")]
    NoFreeSlot {
        /// As named by the command.
        worker: WorkerId,
    },
    /// The worker lacks a label that the task asks for.
    #[error("worker {worker} lacks a label that task {task} asks for")]
    LabelsDiffer {
        /// As named by the command.
        worker: WorkerId,
        /// As named by the command.
        task: TaskId,
    },
    /// The registration makes no sense.
    #[error("a worker needs 1 to {SLOTS_MAX} slots, not {slots}")]
    BadSlots {
        /// As named by the command.
        slots: u32,
    },
    /// The idempotency key came before, with another request.
    #[error("idempotency key {key:?} was used for a different request; take a new key")]
    KeyReused {
        /// As named by the request.
        key: String,
    },
    /// The idempotency key breaks a rule.
    #[error("an idempotency key has 1 to {bytes_max} bytes")]
    BadKey {
        /// [`KEY_BYTES_MAX`](crate::KEY_BYTES_MAX).
        bytes_max: u32,
    },
}
