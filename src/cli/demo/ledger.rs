//! The tasks' own ledger: what they wrote down themselves, beside the cluster.
//!
//! Each attempt adds one line when it begins and one when it is through, to a file that
//! Quorate never reads. So it is a witness that does not depend on the log.

use std::fmt;

/// A line of the ledger: `NANOSECONDS TASK ATTEMPT began|ended`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// By the clock of the machine, which all nodes of the demo share.
    pub(super) at_ns: u128,
    /// Who wrote it.
    pub(super) key: Key,
    /// What it says.
    pub(super) mark: Mark,
}

/// A try at a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Its id in the workflow.
    pub(super) task: String,
    /// From 1.
    pub(super) attempt: u32,
}

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The attempt runs.
    Began,
    /// The attempt is through, well or not.
    Ended,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{}", self.task, self.attempt)
    }
}

/// Reads a ledger.
///
/// # Errors
///
/// If a line is not what a task writes. The number counts from 1.
pub(super) fn parse(text: &str) -> Result<Vec<Line>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            parse_line(line)
                .ok_or_else(|| format!("line {} of the ledger is unreadable: {line:?}", index + 1))
        })
        .collect()
}

fn parse_line(line: &str) -> Option<Line> {
    let mut words = line.split_whitespace();
    let at_ns = words.next()?.parse().ok()?;
    let task = words.next()?.to_owned();
    let attempt = words.next()?.trim_start_matches('#').parse().ok()?;
    let mark = match words.next()? {
        "began" => Mark::Began,
        "ended" => Mark::Ended,
        _ => return None,
    };
    words.next().is_none().then_some(Line { at_ns, key: Key { task, attempt }, mark })
}
