//! What is wrong with a workflow file, and where.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One finding in a document, or about the parameters of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, for programs.
    pub code: Code,
    /// What it is about, for people; lower case, no full stop.
    pub message: String,
    /// Where it stands in the text; `None` if it is not about a place in a text.
    #[serde(flatten)]
    pub span: Option<Span>,
    /// Where it stands in the tree: a JSON pointer such as `/tasks/0/needs`.
    pub pointer: String,
    /// Other places that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
    /// The way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// A place that a finding is about beside its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Where it stands in the text.
    #[serde(flatten)]
    pub span: Span,
    /// What it has to do with the finding; lower case, no full stop.
    pub message: String,
}

impl Diagnostic {
    /// A finding about no place in particular.
    #[must_use]
    pub fn new(severity: Severity, code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        let (pointer, labels) = (String::new(), Vec::new());
        Self { severity, code, message, span: None, pointer, labels, help: None }
    }

    /// The same, with another place that it is about.
    #[must_use]
    pub fn with_label(mut self, span: Span, message: impl Into<String>) -> Self {
        self.labels.push(Label { span, message: message.into() });
        self
    }

    /// The same, with the way out.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same, at a place of the text and the tree.
    #[must_use]
    pub fn at(mut self, span: Span, pointer: impl Into<String>) -> Self {
        self.span = Some(span);
        self.pointer = pointer.into();
        self
    }
}

/// A piece of a text. Lines and columns count from 1, columns in characters; the end is the
/// first column behind it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Span {
    /// The line it begins on.
    pub line: u32,
    /// The column it begins at.
    pub column: u32,
    /// The line it ends on.
    pub end_line: u32,
    /// The column behind its end.
    pub end_column: u32,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The document is refused.
    Error,
    /// The document is taken, but likely does not do what was meant.
    Warning,
    /// The document is taken, and could say it better.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// What a finding is about. Stable: programs may rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// It is no YAML, or uses a part of it that workflow files do without.
    Syntax,
    /// It is larger, deeper or longer than allowed.
    Limit,
    /// A mapping has a key twice.
    DuplicateKey,
    /// A key that is not known here.
    UnknownKey,
    /// A key or a value that a later release will know.
    NotSupportedYet,
    /// Another program's word for a key, understood.
    OtherSpelling,
    /// A key that must be there is not.
    MissingKey,
    /// Keys that exclude each other.
    Conflict,
    /// A list where a text is expected, and the like.
    WrongType,
    /// A value outside of what the key takes.
    BadValue,
    /// A name with characters that names do not have.
    BadName,
    /// A time span without its unit, and the like.
    BadDuration,
    /// Two tasks have one id.
    DuplicateTask,
    /// A reference to a task that does not exist.
    UnknownTask,
    /// Tasks that wait for each other.
    Cycle,
    /// A task that can never begin.
    Unreachable,
    /// A template that is not well formed.
    TemplateSyntax,
    /// A template looks up something that will not be there.
    UnknownReference,
    /// A value becomes part of a script and could run as code.
    ScriptInjection,
    /// A parameter that the workflow does not have.
    UnknownParam,
    /// A parameter that must be given is not.
    MissingParam,
}
