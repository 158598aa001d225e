//! The leader's choices: what to propose next, from a state that nobody changes meanwhile.

mod decision;
mod expression;
mod placement;
mod retention;

pub use decision::{DECISIONS_MAX, decisions};
pub use expression::{RESPONSE, TemplateError, render_outputs};
pub use placement::ASSIGNMENTS_MAX;
pub use retention::{Finished, PRUNE_MAX, Retention, prunable};
