//! How the process ends: the documented codes, and failures that carry one.

use std::fmt;
use std::process::ExitCode;

use quorate_api::client;
use quorate_api::error::{Fault, Problem};

use super::output::{PLAIN, RED};
use super::say;

/// What the exit code says. Scripts rely on the numbers; they never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was done.
    Done = 0,
    /// It could not be done, for none of the reasons below.
    Error = 1,
    /// The command line itself is wrong.
    Usage = 2,
    /// The run that was waited for failed.
    RunFailed = 3,
    /// The run that was waited for was cancelled.
    RunCancelled = 4,
    /// The run ran out of time, or the wait for it did.
    TimedOut = 5,
    /// There is no such run, task, workflow or file on the server.
    NotFound = 6,
    /// It contradicts what is already there.
    Conflict = 7,
    /// The server does not know the caller, or does not let them.
    Denied = 8,
    /// No server could be reached, or the cluster has no leader.
    Unreachable = 9,
    /// A node stopped because its storage failed or cannot be trusted; starting it again helps
    /// only once that is looked at.
    StorageFailed = 10,
    /// Ctrl-C.
    Interrupted = 130,
}

/// The table of `quorate help exit-codes`.
pub(crate) const EXIT_CODES: &str = "\
  0  done; with --wait: the run succeeded
  1  error
  2  the command line is wrong
  3  the run failed
  4  the run was cancelled
  5  the run, or the wait for it, ran out of time
  6  not found
  7  conflict with what is already there
  8  not allowed
  9  no server could be reached, or the cluster has no leader
 10  the node's storage failed, or is not what the node left: see its log
130  interrupted
";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure with a code of its own and the next command to type.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure in the words of `message`: lower case, no full stop.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Tells the user about `error` on stderr; answers the code to exit with.
///
/// A reader of stdout that went away is no error: `quorate ls | head` has done its work.
pub(crate) fn report(error: &anyhow::Error) -> Exit {
    if is_broken_pipe(error) {
        return Exit::Done;
    }
    say(format_args!("{RED}error:{PLAIN} {error:#}"));
    if let Some(failure) = error.downcast_ref::<Failure>() {
        say_hint(failure.hint.as_deref());
        return failure.exit;
    }
    let Some(error) = error.downcast_ref::<client::Error>() else { return Exit::Error };
    if let client::Error::Problem(problem) = error {
        problem.errors.iter().for_each(say_fault);
    }
    say_hint(hint(error).as_deref());
    exit_of(error)
}

fn say_hint(hint: Option<&str>) {
    if let Some(hint) = hint {
        say(format_args!("  {hint}"));
    }
}

fn say_fault(fault: &Fault) {
    let place = match (fault.line, fault.column, &fault.pointer) {
        (Some(line), Some(column), _) => format!("{line}:{column}: "),
        (_, _, Some(pointer)) if !pointer.is_empty() => format!("{pointer}: "),
        _ => String::new(),
    };
    say(format_args!("  {place}{}", fault.message));
    say_hint(fault.help.as_ref().map(|help| format!("  {help}")).as_deref());
}

/// The code for a refusal or a failure of the way.
fn exit_of(error: &client::Error) -> Exit {
    match error {
        client::Error::Unreachable { .. } | client::Error::Unknown { .. } => Exit::Unreachable,
        client::Error::NoSuchRun(_) => Exit::NotFound,
        client::Error::Ambiguous { .. } | client::Error::BadAddress { .. } => Exit::Usage,
        client::Error::Unexpected { .. } => Exit::Error,
        client::Error::Problem(problem) => match (problem.status, problem.code.as_str()) {
            (404, _) => Exit::NotFound,
            (409 | 412, _) | (422, "idempotency-key-reused") => Exit::Conflict,
            (401 | 403, _) => Exit::Denied,
            (503 | 504, _) => Exit::Unreachable,
            _ => Exit::Error,
        },
    }
}

/// The next command to type.
fn hint(error: &client::Error) -> Option<String> {
    let hint = match error {
        client::Error::Unreachable { .. } => {
            "start one with `quorate server --dev`, or name another with --address"
        }
        client::Error::Unknown { .. } => "repeat it with the same --idempotency-key",
        client::Error::NoSuchRun(_) => "quorate ls lists the runs",
        client::Error::Ambiguous { found, .. } => {
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            return Some(format!("it could be {}", found.join(" or ")));
        }
        client::Error::BadAddress { .. } => "say --address http://HOST:PORT",
        client::Error::Unexpected { .. } => return None,
        client::Error::Problem(problem) => match problem.code.as_str() {
            "no-such-run" => "quorate ls lists the runs",
            "no-such-workflow" => "quorate ls workflows lists those there are",
            "no-such-worker" => "quorate ls workers lists those there are",
            "no-such-member" => "quorate cluster members lists them",
            "no-such-task" => return hint_at_tasks(problem),
            "no-leader" => "quorate cluster status tells who answers; try again in a moment",
            "commit-unknown" => "repeat it with the same --idempotency-key",
            "disk-full" => "quorate cluster status tells how much room its node has",
            _ => return None,
        },
    };
    Some(hint.to_owned())
}

fn hint_at_tasks(problem: &Problem) -> Option<String> {
    let run = problem.run?;
    Some(format!("quorate ls tasks {run} lists them"))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let gone = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(report(&anyhow::Error::new(gone).context("writing")), Exit::Done);
    }

    #[test]
    fn the_code_survives_added_context() {
        let failure = Failure::new(Exit::NotFound, "no run 0192").hint("quorate ls");
        assert_eq!(report(&anyhow::Error::new(failure).context("reading")), Exit::NotFound);
    }

    #[test]
    fn a_refusal_of_the_server_has_a_code() {
        let exit = |status, code: &str| {
            let problem = Problem { status, code: code.to_owned(), ..Problem::default() };
            exit_of(&client::Error::Problem(Box::new(problem)))
        };
        assert_eq!(exit(404, "no-such-task"), Exit::NotFound);
        assert_eq!(exit(409, "run-ended"), Exit::Conflict);
        assert_eq!(exit(412, "version-mismatch"), Exit::Conflict);
        assert_eq!(exit(422, "idempotency-key-reused"), Exit::Conflict);
        assert_eq!(exit(422, "validation"), Exit::Error);
        assert_eq!(exit(403, "forbidden"), Exit::Denied);
        assert_eq!(exit(503, "no-leader"), Exit::Unreachable);
        assert_eq!(exit(504, "commit-unknown"), Exit::Unreachable);
    }

    #[test]
    fn every_code_is_in_the_table() {
        let all = [
            Exit::Done,
            Exit::Error,
            Exit::Usage,
            Exit::RunFailed,
            Exit::RunCancelled,
            Exit::TimedOut,
            Exit::NotFound,
            Exit::Conflict,
            Exit::Denied,
            Exit::Unreachable,
            Exit::StorageFailed,
            Exit::Interrupted,
        ];
        let listed: Vec<u8> = EXIT_CODES
            .lines()
            .filter_map(|line| line.split_whitespace().next()?.parse().ok())
            .collect();
        assert_eq!(listed, all.map(|exit| exit as u8));
    }
}
