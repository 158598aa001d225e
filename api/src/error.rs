//! Everything that can go wrong, in one table, and how it is told.
//!
//! A handler fails with a `Failure`; the outermost layer turns that into a [`Problem`]
//! (RFC 9457), where it also knows the request.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use quorate_model::{Rejection, RunId};
use serde::{Deserialize, Serialize};

use crate::answer::mark_replayed;
use crate::backend::{ProposeError, ReadError, StoreError};
use crate::spec::Diagnostic;

/// The media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// How long to wait before trying again, in seconds: about an election.
const RETRY_AFTER_SECONDS: &str = "1";

/// The same while a disk is full: somebody has to make room.
const RETRY_AFTER_FULL_SECONDS: &str = "10";

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident = $text:literal $status:literal $retryable:literal $title:literal,)+) => {
        /// What went wrong, for programs. Append-only: a code keeps its name and its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* #[doc = concat!("`", $text, "`, ", $status, ": ", $title, ".")] $code,)+
        }

        impl Code {
            /// Every code there is, for documents and tests.
            pub const ALL: &'static [Self] = &[$(Self::$code),+];

            /// The code on the wire.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$code => $text),+ }
            }

            fn row(self) -> (u16, bool, &'static str) {
                match self { $(Self::$code => ($status, $retryable, $title)),+ }
            }
        }
    };
}

// Code = its name, the status, whether the same request may do better later, the title.
codes! {
    Syntax = "syntax" 400 false "The body is not well formed",
    BadQuery = "bad-query" 400 false "A query parameter makes no sense",
    UnknownParameter = "unknown-parameter" 400 false "There is no such query parameter",
    UnknownField = "unknown-field" 400 false "There is no such field",
    BadPageToken = "bad-page-token" 400 false "The page token is not of this list",
    BadHeader = "bad-header" 400 false "A header makes no sense",
    BadPath = "bad-path" 400 false "The path makes no sense",
    BadKey = "bad-idempotency-key" 400 false "The idempotency key breaks a rule",
    NoSuchRoute = "no-such-route" 404 false "There is nothing at this path",
    NoSuchWorkflow = "no-such-workflow" 404 false "There is no such workflow",
    NoSuchVersion = "no-such-version" 404 false "The workflow has no such version",
    NoSuchRun = "no-such-run" 404 false "There is no such run",
    NoSuchTask = "no-such-task" 404 false "The run has no such task",
    NoSuchAttempt = "no-such-attempt" 404 false "The task has had no such attempt",
    NoSuchFile = "no-such-file" 404 false "There is no such file",
    NoSuchWorker = "no-such-worker" 404 false "There is no such worker",
    NoSuchMember = "no-such-member" 404 false "The cluster has no such member",
    MethodNotAllowed = "method-not-allowed" 405 false "This path does not take this method",
    BodyTimeout = "body-timeout" 408 true "The body did not arrive in time",
    WorkflowExists = "workflow-exists" 409 false "There is a workflow with this name",
    RunExists = "run-exists" 409 false "There is a run with this id",
    RunEnded = "run-ended" 409 false "The run has ended",
    Conflict = "conflict" 409 false "The state does not allow it",
    Membership = "membership" 409 false "The membership cannot be changed so",
    AmbiguousFile = "ambiguous-file" 409 false "Several tasks made a file of this name",
    VersionMismatch = "version-mismatch" 412 false "The workflow has changed",
    BodyTooLarge = "body-too-large" 413 false "The request is too large",
    UnsupportedMediaType = "unsupported-media-type" 415 false "The body is of a type not taken here",
    BadRange = "bad-range" 416 false "The range is not within the file",
    Validation = "validation" 422 false "The document is not valid",
    KeyReused = "idempotency-key-reused" 422 false "The idempotency key was used for something else",
    HeadersTooLarge = "headers-too-large" 431 false "The head of the request is too large",
    Overloaded = "overloaded" 429 true "Too many requests are waiting",
    TooManyStreams = "too-many-streams" 429 true "Too many streams are open",
    Internal = "internal" 500 false "Something broke on the server",
    HistoryUnreadable = "history-unreadable" 500 false "The history could not be read",
    NoLeader = "no-leader" 503 true "The cluster has no leader",
    Stopping = "stopping" 503 true "The node is stopping",
    NotReady = "not-ready" 503 true "The node has not caught up",
    WorkerUnreachable = "worker-unreachable" 503 true "The worker that has it cannot be reached",
    DiskFull = "disk-full" 503 true "The disk has no room for new work",
    CommitUnknown = "commit-unknown" 504 true "The outcome is unknown",
}

impl Code {
    /// The HTTP status that goes with it.
    #[must_use]
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Whether the same request, with the same idempotency key, may do better later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        self.row().1
    }

    /// The same for every occurrence. For people.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.row().2
    }
}

/// The body of every answer that is not a success: `application/problem+json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Names the kind of problem: `urn:quorate:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for every occurrence. For people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong this time, and the way out. For people.
    pub detail: String,
    /// For programs; see [`Code`].
    pub code: String,
    /// Whether the same request, with the same idempotency key, may do better later.
    pub retryable: bool,
    /// The path that was asked.
    #[serde(default)]
    pub instance: String,
    /// As in the header `Request-Id`: to find the request again in logs.
    #[serde(default)]
    pub request_id: String,
    /// The run that is in the way, or that was meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Every fault of a document or a body, with its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
}

/// A fault in a document or a body. Lines and columns count from 1; an end is exclusive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// For programs.
    #[serde(default)]
    pub code: String,
    /// `error` or `warning`.
    #[serde(default)]
    pub severity: String,
    /// What is wrong. For people.
    pub message: String,
    /// Where, as a JSON pointer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The line it begins on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column it begins at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The line it ends on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_line: Option<u32>,
    /// The column it ends before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_column: Option<u32>,
    /// The way out. For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Fault {
    /// An error at a JSON pointer.
    #[must_use]
    pub fn at(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: "error".to_owned(),
            pointer: Some(pointer.into()),
            message: message.into(),
            ..Self::default()
        }
    }
}

impl From<Diagnostic> for Fault {
    fn from(found: Diagnostic) -> Self {
        let Diagnostic { severity, code, message, span, pointer, labels: _, help } = found;
        let code = serde_json::to_value(code).ok();
        Self {
            code: code.and_then(|code| Some(code.as_str()?.to_owned())).unwrap_or_default(),
            severity: severity.to_string(),
            message,
            pointer: Some(pointer),
            line: span.map(|span| span.line),
            column: span.map(|span| span.column),
            end_line: span.map(|span| span.end_line),
            end_column: span.map(|span| span.end_column),
            help,
        }
    }
}

/// Why a handler gives up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) detail: String,
    pub(crate) run: Option<RunId>,
    pub(crate) errors: Vec<Fault>,
    /// Whether this is the answer to an earlier request with the same key.
    pub(crate) replayed: bool,
}

impl Failure {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), run: None, errors: Vec::new(), replayed: false }
    }

    pub(crate) fn of_run(self, run: RunId) -> Self {
        Self { run: Some(run), ..self }
    }

    pub(crate) fn with_errors(self, errors: Vec<Fault>) -> Self {
        Self { errors, ..self }
    }

    pub(crate) fn no_such_run(run: RunId) -> Self {
        Self::new(Code::NoSuchRun, format!("no run {run}")).of_run(run)
    }

    /// The problem, but for what only the request tells.
    pub(crate) fn problem(self) -> Problem {
        let Self { code, detail, run, errors, replayed: _ } = self;
        Problem {
            kind: format!("urn:quorate:problem:{}", code.text()),
            title: code.title().to_owned(),
            status: code.status().as_u16(),
            detail,
            code: code.text().to_owned(),
            retryable: code.is_retryable(),
            instance: String::new(),
            request_id: String::new(),
            run,
            errors,
        }
    }
}

/// The body is left to the outermost layer, which finds the failure in the extensions.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        if self.code.is_retryable() {
            let is_full = self.code == Code::DiskFull;
            let seconds = if is_full { RETRY_AFTER_FULL_SECONDS } else { RETRY_AFTER_SECONDS };
            let seconds = header::HeaderValue::from_static(seconds);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if self.replayed {
            mark_replayed(response.headers_mut());
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        let detail = rejection.to_string();
        let (code, run) = match rejection {
            Rejection::NoSuchWorkflow { .. } => (Code::NoSuchWorkflow, None),
            Rejection::NoSuchVersion { .. } => (Code::NoSuchVersion, None),
            Rejection::VersionMismatch { .. } => (Code::VersionMismatch, None),
            Rejection::BadDefinition(_) | Rejection::BadSlots { .. } => (Code::Validation, None),
            Rejection::ParamsTooLarge { .. } | Rejection::OutputsTooLarge { .. } => {
                (Code::BodyTooLarge, None)
            }
            Rejection::RunExists { run } => (Code::RunExists, Some(run)),
            Rejection::NoSuchRun { run } => (Code::NoSuchRun, Some(run)),
            Rejection::RunEnded { run } => (Code::RunEnded, Some(run)),
            Rejection::RunStopping { run } | Rejection::RunPaused { run } => {
                (Code::Conflict, Some(run))
            }
            Rejection::NoSuchTask { task } => (Code::NoSuchTask, Some(task.run)),
            Rejection::NotReady { task, .. }
            | Rejection::NotHeld { task, .. }
            | Rejection::NotDeciding { task, .. }
            | Rejection::NoSuchBranch { task }
            | Rejection::StaleAttempt { task, .. }
            | Rejection::TokenNotNewer { task }
            | Rejection::LabelsDiffer { task, .. } => (Code::Conflict, Some(task.run)),
            Rejection::NoSuchWorker { .. } => (Code::NoSuchWorker, None),
            Rejection::StaleEpoch { .. }
            | Rejection::NoFreeSlot { .. }
            | Rejection::Ineligible { .. } => (Code::Conflict, None),
            Rejection::KeyReused { .. } => (Code::KeyReused, None),
            Rejection::BadKey { .. } => (Code::BadKey, None),
        };
        Self { run, ..Self::new(code, detail) }
    }
}

impl From<ProposeError> for Failure {
    fn from(error: ProposeError) -> Self {
        let detail = error.to_string();
        let code = match error {
            ProposeError::NoLeader => Code::NoLeader,
            ProposeError::Unknown => Code::CommitUnknown,
            ProposeError::Overloaded => Code::Overloaded,
            ProposeError::TooLarge { .. } => Code::BodyTooLarge,
            ProposeError::Membership(_) => Code::Membership,
            ProposeError::Stopping => Code::Stopping,
            ProposeError::DiskFull(_) => Code::DiskFull,
        };
        Self::new(code, detail)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(Code::HistoryUnreadable, error.to_string())
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound(detail) => Self::new(Code::NoSuchFile, detail),
            ReadError::Unavailable(detail) => Self::new(Code::WorkerUnreachable, detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.text()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn only_what_may_do_better_is_retryable() {
        for &code in Code::ALL {
            let status = code.status().as_u16();
            let expected = matches!(status, 408 | 429 | 503 | 504);
            assert_eq!(code.is_retryable(), expected, "{}", code.text());
        }
    }
}
