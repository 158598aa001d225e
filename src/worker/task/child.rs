//! The process of a task that this program carries out itself: `quorate task KIND SPEC`.
//!
//! A process like that of any other task, so that everything that the keeper promises holds for
//! it unchanged: at the end of the lease it is dead, whatever it was waiting for.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Map, Value};

use super::super::keeper::MARKER;

/// What a failure that may pass exits with: EX_TEMPFAIL of sysexits.h.
const MAY_PASS: u8 = 75;

/// The largest spec: the params of a task, which came through the log.
const SPEC_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What a task puts out.
pub(super) type Outputs = Map<String, Value>;

/// Why a task failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    message: String,
    may_pass: bool,
}

impl Failure {
    /// A failure that another try would come to as well.
    pub(super) fn lasting(message: impl Into<String>) -> Self {
        Self { message: message.into(), may_pass: false }
    }

    /// A failure that another try may not meet.
    pub(super) fn passing(message: impl Into<String>) -> Self {
        Self { message: message.into(), may_pass: true }
    }

    /// Whether another try may succeed.
    pub(super) fn may_pass(&self) -> bool {
        self.may_pass
    }

    /// For people.
    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

/// What an attempt was told of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Lets whoever is written to refuse an older attempt.
    pub(super) token: String,
    /// The same for every attempt at the task.
    pub(super) key: String,
}

impl Told {
    fn of_this_process() -> Self {
        let read = |name: &str| std::env::var(name).unwrap_or_default();
        Self { token: read("QUORATE_FENCING_TOKEN"), key: read("QUORATE_IDEMPOTENCY_KEY") }
    }
}

/// Carries out a task of some kind, as the file `spec` says, in this process.
pub(crate) fn run(kind: &str, spec: &Path) -> ExitCode {
    let done = read(spec).and_then(|spec| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::passing(error.to_string()))?;
        runtime.block_on(super::carry_out(kind, spec, &Told::of_this_process()))
    });
    match done.and_then(put_out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(format_args!("quorate: {kind}: {}", failure.message));
            if failure.may_pass { MAY_PASS.into() } else { ExitCode::FAILURE }
        }
    }
}

fn read(spec: &Path) -> Result<Value, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::lasting(format!("{} cannot be read: {error}", spec.display()))
    };
    let mut text = String::new();
    let file = File::open(spec).map_err(|error| failed(&error))?;
    file.take(SPEC_BYTES_MAX).read_to_string(&mut text).map_err(|error| failed(&error))?;
    serde_json::from_str(&text).map_err(|error| failed(&error))
}

fn put_out(outputs: Outputs) -> Result<(), Failure> {
    if outputs.is_empty() {
        return Ok(());
    }
    let failed =
        |error: std::io::Error| Failure::lasting(format!("the outputs cannot be written: {error}"));
    let path = std::env::var_os(MARKER).ok_or_else(|| {
        Failure::lasting(format!("the outputs cannot be written: {MARKER} is not set"))
    })?;
    std::fs::write(path, Value::Object(outputs).to_string()).map_err(failed)
}

/// Tells whoever reads the log. A stderr that is gone is not worth failing for.
pub(super) fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
