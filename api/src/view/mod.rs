//! What things look like on the wire: for handlers, the client and whoever uses it.
//!
//! Fields and words are only ever added: a client passes over those it does not know. Times
//! are RFC 3339; spans are text with a unit, and a number of milliseconds beside it.

mod attempt;
mod change;
mod cluster;
mod intervention;
mod run;
mod task;
mod transition;
mod worker;
mod workflow;

pub use attempt::{AttemptState, AttemptView, UsageView};
pub use change::ChangeView;
pub use cluster::{ClusterView, JoinedView, MemberView, VersionView};
pub use intervention::{InterventionView, PauseView};
pub use run::{Accepted, RunState, RunStateError, RunView, Started, TaskCounts};
pub use task::{ArtifactView, DecisionView, LogLine, LogStream, TaskState, TaskView};
pub use transition::{Transition, TransitionView};
pub use worker::{DrainView, QuarantineView, WorkerAccepted, WorkerState, WorkerView};
pub use workflow::{
    ParamView, Put, RetryView, TaskDefinitionView, Validity, VersionSummary, WorkflowAccepted,
    WorkflowSummary, WorkflowView,
};

use quorate_model::DurationMs;

use crate::time::Span;

/// A span as text and in milliseconds, as two fields of a view.
fn both(span: Option<DurationMs>) -> (Option<String>, Option<u64>) {
    (span.map(|span| Span(span).to_string()), span.map(|span| span.0))
}
