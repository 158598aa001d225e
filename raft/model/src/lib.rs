//! The replicated state machine: what a Quorate cluster *is*, with no I/O.
//!
//! Everything here is a pure function of its arguments. Time, identifiers and placement
//! decisions arrive inside the [`Command`]; nothing is read from the environment. See
//! [`State::apply`] for the contract.

pub mod command;
mod effect;
mod id;
mod intervention;
mod invariants;
mod keys;
pub mod mutant;
pub mod plan;
mod rule;
mod run;
mod settle;
mod state;
mod task;
mod worker;
pub mod workflow;

pub use command::{Command, Rejection, Reply};
pub use effect::{Dispatch, Effect, Event};
pub use id::{
    Attempt, DurationMs, Epoch, FencingToken, Json, LogIndex, NAME_BYTES_MAX, Name, NameError,
    RunId, TaskId, UnixMs, WorkerId,
};
pub use intervention::{Act, INTERVENTIONS_KEPT_MAX, Intervention, Pause, PauseScope};
pub use keys::{IdempotencyKey, KEY_BYTES_MAX};
pub use rule::Edge;
pub use run::{Run, RunEnd, RunStatus, RunStop, Trigger};
pub use state::{Answer, Applied, Entry, Request, Retired, State, Timer};
pub use task::{
    ATTEMPTS_KEPT_MAX, AttemptRecord, Decision, Flight, LOSSES_MAX, Mark, OUTPUT_BYTES_MAX,
    Outcome, Rendered, StopReason, Tally, Task, TaskEnd, TaskStatus, Usage, Verdict,
};
pub use worker::{Containment, Drain, LeaseEnd, Quarantine, Registration, Worker, WorkerStatus};
