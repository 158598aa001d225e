//! The leader's choices: what to propose next, from a state that nobody changes meanwhile.

mod expression;
mod placement;

pub use expression::{ExpressionError, TemplateError, Templates, render_outputs};
pub use placement::{ASSIGNMENTS_MAX, assignments};
