//! What was done, and what came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::plan::{Kind, Planned};

/// What came of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was done, for certain.
    Installed,
    /// It was not done, for certain, and why.
    Skipped(String),
    /// It was tried; whether it bit is not known.
    Indeterminate(String),
}

/// A fault as it was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deed {
    /// Since the nemesis began.
    pub(super) at: Duration,
    pub(super) planned: Planned,
    pub(super) outcome: Outcome,
    /// Whether the node that led was hit.
    pub(super) hit_leader: bool,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Planned { fault, lasts } = self.planned;
        let leader = if self.hit_leader { " (it led)" } else { "" };
        write!(f, "{:>7.2} {fault} for {lasts:.1?}{leader}: ", self.at.as_secs_f64())?;
        match &self.outcome {
            Outcome::Installed => f.write_str("installed"),
            Outcome::Skipped(why) => write!(f, "skipped: {why}"),
            Outcome::Indeterminate(why) => write!(f, "indeterminate: {why}"),
        }
    }
}

/// How many faults of each kind were installed, skipped and indeterminate.
pub(super) fn tally(deeds: &[Deed]) -> BTreeMap<Kind, [usize; 3]> {
    let mut tally: BTreeMap<Kind, [usize; 3]> = BTreeMap::new();
    for deed in deeds {
        let column = match deed.outcome {
            Outcome::Installed => 0,
            Outcome::Skipped(_) => 1,
            Outcome::Indeterminate(_) => 2,
        };
        tally.entry(deed.planned.fault.kind()).or_default()[column] += 1;
    }
    tally
}
