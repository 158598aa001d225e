//! The workflow file: YAML or JSON in, a [`Definition`] out, or everything that is wrong with
//! it, each with its place and the way out.
//!
//! Holds what a file may say in this release. Keys that later releases will know are refused
//! by name, never passed over. What a definition means is the model's business; what a script
//! does, the worker's.

mod approval;
mod arguments;
mod branch;
mod default;
mod diagnostic;
mod document;
mod duration;
mod expression;
mod format;
mod hooks;
mod kind;
mod name;
mod needs;
mod params;
mod render;
mod report;
mod retry;
mod schema;
mod script;
mod section;
mod task;
mod template;
mod value;
mod workflow;

use quorate_model::Name;
use quorate_model::workflow::Definition;

pub use arguments::{coerce, resolve_params};
pub use diagnostic::{Code, Diagnostic, Label, Severity, Span};
pub use document::{DEPTH_MAX, DOCUMENT_BYTES_MAX, NODES_MAX};
pub use duration::DURATION_MAX;
pub use format::format;
pub use name::name_of_file;
pub use render::{render_ansi, render_text};
pub use schema::JSON_SCHEMA;

use section::Reader;

/// A workflow file that can be put and run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What the workflow is called.
    pub name: Name,
    /// What it says. Valid: the model takes it.
    pub definition: Definition,
    /// Warnings and notes, in the order of the text.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a workflow file. `default_name` is its name if it does not say so itself, as from
/// [`name_of_file`].
///
/// # Errors
///
/// Everything that is wrong with it, warnings and notes included, in the order of the text.
pub fn parse(text: &str, default_name: Option<&str>) -> Result<Parsed, Vec<Diagnostic>> {
    let root = document::read(text).map_err(|found| vec![found])?;
    let mut reader = Reader::new(text);
    let read = workflow::read(&mut reader, &root, text, default_name);
    let is_refused = reader.report.has_errors();
    let mut found = reader.report.finish();
    let (name, definition) = match read {
        Some(read) if !is_refused => read,
        Some(_) | None => return Err(found),
    };
    // The same rules are checked above, with positions; the model has the last word.
    if let Err(error) = definition.validate() {
        found.push(Diagnostic::new(Severity::Error, Code::BadValue, error.to_string()));
        return Err(found);
    }
    Ok(Parsed { name, definition, warnings: found })
}
