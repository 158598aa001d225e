//! Workflow files as they come in a body.

use quorate_model::Name;
use quorate_model::workflow::Definition;

use crate::error::{Code, Failure, Fault};
use crate::request::Write;
use crate::spec::{self, Diagnostic, Parsed, Severity};
use crate::view::Validity;

/// A workflow file that holds.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) name: Name,
    pub(super) definition: Definition,
    pub(super) warnings: Vec<Fault>,
}

/// A workflow file, or everything that is to be said of it, warnings included.
pub(super) type Read = Result<Document, Vec<Diagnostic>>;

impl Document {
    /// The body as a workflow file.
    pub(super) async fn of(write: &Write, default_name: Option<String>) -> Result<Self, Failure> {
        Self::parse(write, default_name).await?.map_err(refused)
    }

    /// The body as a workflow file, or what is wrong with it.
    pub(super) async fn parse(
        write: &Write,
        default_name: Option<String>,
    ) -> Result<Read, Failure> {
        // YAML contains JSON, so one reader takes both; the type must still be one of them.
        write.format()?;
        Self::read(write.text()?.to_owned(), default_name).await
    }

    /// A text as a workflow file. A large one takes a while, so other requests go on meanwhile.
    pub(super) async fn read(text: String, default_name: Option<String>) -> Result<Read, Failure> {
        let read = move || {
            let Parsed { name, definition, warnings } =
                spec::parse(&text, default_name.as_deref())?;
            let warnings = warnings.into_iter().map(Fault::from).collect();
            Ok(Self { name, definition, warnings })
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.map_err(|error| Failure::new(Code::Internal, format!("reading it broke: {error}")))
    }
}

/// Refuses a document for what is wrong with it.
pub(super) fn refused(found: Vec<Diagnostic>) -> Failure {
    let is_error = |found: &&Diagnostic| found.severity == Severity::Error;
    let is_syntax = found.iter().any(|found| found.code == spec::Code::Syntax);
    let code = if is_syntax { Code::Syntax } else { Code::Validation };
    let detail = match found.iter().find(is_error) {
        Some(first) => match found.iter().filter(is_error).count() {
            1 => first.message.clone(),
            count => format!("{}, and {} more", first.message, count - 1),
        },
        None => code.title().to_owned(),
    };
    Failure::new(code, detail).with_errors(found.into_iter().map(Fault::from).collect())
}

/// What there is to say of a document.
pub(super) fn validity(read: Read) -> Validity {
    match read {
        Ok(Document { name, definition, warnings }) => Validity {
            valid: true,
            name: Some(name),
            tasks: Some(definition.tasks.len()),
            errors: Vec::new(),
            warnings,
        },
        Err(found) => {
            let (errors, warnings): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|found| found.severity == Severity::Error);
            Validity {
                valid: false,
                name: None,
                tasks: None,
                errors: errors.into_iter().map(Fault::from).collect(),
                warnings: warnings.into_iter().map(Fault::from).collect(),
            }
        }
    }
}
