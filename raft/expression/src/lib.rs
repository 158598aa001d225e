//! Expressions: `${{ ... }}` in a text, and the bare conditions of `when` and `switch`.
//!
//! Text and a [`Context`] in, text or a value out. No clock, no randomness and no files: what
//! an expression comes to depends on what it is given, within [`FUEL`]. Who gives what stays
//! outside: the leader's planner knows runs, the edge knows params, a worker knows responses.
//!
//! Nothing here may be called while the log is applied: two versions of a template engine may
//! differ over a text. Whoever decides evaluates, and what it came to goes into the log.

mod calendar;
mod context;
mod engine;
mod filter;
mod pattern;
mod time;

pub use context::{Context, Lookup, Outcome, RunFacts};
pub use engine::{
    EXPRESSION_BYTES_MAX, FUEL, RENDERED_BYTES_MAX, SyntaxError, evaluate, evaluate_condition,
    is_template, references, references_of_condition, render,
};
pub use filter::FILTERS;
pub use time::{ZONE_DEFAULT, Zone, read_date, read_date_time};

/// Why an expression does not evaluate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// It refers to something that is not there, is not well formed, or costs too much.
    #[error("{reason}")]
    Failed {
        /// In the words of the engine, with the line if it is not the first.
        reason: String,
    },
    /// It comes to more than [`RENDERED_BYTES_MAX`].
    #[error("comes to {bytes} bytes; {RENDERED_BYTES_MAX} is the most")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// A condition that comes to something other than true or false.
    #[error("comes to {value}, which is neither true nor false; compare it with something")]
    NotACondition {
        /// What it comes to, shortened.
        value: String,
    },
}
