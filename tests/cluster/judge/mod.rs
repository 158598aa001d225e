//! The judge: a pure function from all that is known after a test to a verdict.
//!
//! Knows no process, file or network, so every way to be wrong can be shown to it in a few
//! lines: see the histories in `tests.rs`, each of which breaks one rule and must be found out.
//!
//! The rules carry the numbers of the design: J1 to J6, J8, J9, J12 and J13.

mod history;
mod rules;
#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) use history::{
    Attempt, Coverage, Digest, History, Line, Mark, Observation, Run, Submit, SubmitOutcome, Task,
};

/// What the judge says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every rule holds, and the test has really seen what it set out to see.
    Pass,
    /// Some rule is broken. Each in words.
    Fail(Vec<String>),
    /// Nothing speaks against it, but too little was seen to speak for it.
    Unknown(Vec<String>),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, reasons) = match self {
            Self::Pass => return f.write_str("pass"),
            Self::Fail(reasons) => ("fail", reasons),
            Self::Unknown(reasons) => ("unknown", reasons),
        };
        write!(f, "{word}:")?;
        reasons.iter().try_for_each(|reason| write!(f, "\n  {reason}"))
    }
}

/// Judges a history.
pub(crate) fn judge(history: &History) -> Verdict {
    let broken: Vec<String> = rules::ALL.iter().flat_map(|rule| rule(history)).collect();
    if !broken.is_empty() {
        return Verdict::Fail(broken);
    }
    let missing: Vec<String> = rules::coverage(history);
    if missing.is_empty() { Verdict::Pass } else { Verdict::Unknown(missing) }
}
