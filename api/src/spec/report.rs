//! Gathers what is found, up to a limit.

use std::fmt;

use super::document::Place;
use super::{Code, Diagnostic, Severity, Span};

/// Errors reported of one document, and as many warnings and notes; more do not help.
pub(super) const DIAGNOSTICS_MAX: usize = 200;

/// The way from the root of a document to a node of it. Shown as a JSON pointer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Path<'p> {
    /// The document.
    Root,
    /// The value of a key, as written.
    Key(&'p Self, &'p str),
    /// An item of a list.
    Index(&'p Self, usize),
}

impl Path<'_> {
    /// How to call the node: `needs`, or `needs[2]`.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Root => "workflow".to_owned(),
            Self::Key(_, key) => (*key).to_owned(),
            Self::Index(parent, index) => format!("{}[{index}]", parent.label()),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(parent, key) if key.contains(['~', '/']) => {
                write!(f, "{parent}/{}", key.replace('~', "~0").replace('/', "~1"))
            }
            Self::Key(parent, key) => write!(f, "{parent}/{key}"),
            Self::Index(parent, index) => write!(f, "{parent}/{index}"),
        }
    }
}

/// Everything found so far.
#[derive(Debug)]
pub(super) struct Report<'t> {
    source: &'t str,
    found: Vec<Diagnostic>,
    errors: usize,
    remarks: usize,
}

impl<'t> Report<'t> {
    pub(super) fn new(source: &'t str) -> Self {
        Self { source, found: Vec::new(), errors: 0, remarks: 0 }
    }

    /// Adds a finding; counts it only, if there are too many.
    pub(super) fn add(&mut self, found: Diagnostic) {
        let count = match found.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning | Severity::Note => &mut self.remarks,
        };
        *count += 1;
        if *count <= DIAGNOSTICS_MAX {
            self.found.push(found);
        }
    }

    /// Adds an error at a node.
    pub(super) fn error(&mut self, code: Code, place: Place, path: &Path<'_>, message: String) {
        if !self.is_full() {
            let found = Diagnostic::new(Severity::Error, code, message);
            self.add(found.at(place.span, path.to_string()));
        } else {
            self.errors += 1;
        }
    }

    /// Adds an error at a node, with the way out.
    pub(super) fn error_with_help(
        &mut self,
        code: Code,
        place: Place,
        path: &Path<'_>,
        message: String,
        help: impl Into<String>,
    ) {
        let found = Diagnostic::new(Severity::Error, code, message).with_help(help);
        self.add(found.at(place.span, path.to_string()));
    }

    /// No further error will be shown: what costs time to word can be left out.
    pub(super) fn is_full(&self) -> bool {
        self.errors >= DIAGNOSTICS_MAX
    }

    /// Whether the document is refused.
    pub(super) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Where `needle` stands in the source of a node; the node itself, if not to be found as
    /// such.
    pub(super) fn locate(&self, place: Place, needle: &str) -> Span {
        let Some(text) = self.source.get(place.from..place.to) else { return place.span };
        let Some(at) = text.find(needle) else { return place.span };
        let before = &text[..at];
        let lines = u32::try_from(before.matches('\n').count()).unwrap_or(u32::MAX);
        let last = before.rsplit('\n').next().unwrap_or(before);
        let offset = u32::try_from(last.chars().count()).unwrap_or(u32::MAX);
        let first = if lines == 0 { place.span.column } else { 1 };
        let line = place.span.line.saturating_add(lines);
        let column = first.saturating_add(offset);
        let length = u32::try_from(needle.chars().count()).unwrap_or(u32::MAX);
        Span { line, column, end_line: line, end_column: column.saturating_add(length) }
    }

    /// What is written on a line.
    pub(super) fn line(&self, line: u32) -> Span {
        let text = self.source.lines().nth(line.saturating_sub(1) as usize).unwrap_or("");
        let column = |bytes: usize| {
            let before = text.get(..bytes).unwrap_or("").chars().count();
            u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
        };
        let indent = text.len() - text.trim_start().len();
        let end_column = column(text.trim_end().len());
        Span { line, column: column(indent), end_line: line, end_column }
    }

    /// All findings, in the order of the text, and how many more there were.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|found| found.span);
        for (count, severity, what) in [
            (self.errors, Severity::Error, "errors"),
            (self.remarks, Severity::Note, "warnings and notes"),
        ] {
            if let Some(more) = count.checked_sub(DIAGNOSTICS_MAX).filter(|&more| more > 0) {
                let message = format!("{more} more {what} are not shown");
                self.found.push(Diagnostic::new(severity, Code::Limit, message));
            }
        }
        self.found
    }
}
