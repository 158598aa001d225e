//! Workers, as the cluster knows them.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{DurationMs, Epoch, Mark, Name, TaskId, UnixMs, WorkerId};

/// How long a worker is remembered after its lease ended: a day, so that whoever comes in
/// the next morning sees what is missing.
const FORGET_AFTER: DurationMs = DurationMs(24 * 3_600_000);

/// A node that executes tasks.
///
/// Whether it can be heard is not here: leases are timed by the leader on its own clock,
/// and only their end is an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Worker {
    /// For people; not unique.
    pub name: Name,
    /// Matched against the `runs_on` of tasks.
    pub labels: BTreeMap<Name, String>,
    /// How many tasks it runs at once. At least 1.
    pub slots: u32,
    /// How it holds the processes of a task together.
    pub containment: Containment,
    /// How long it may go unheard before its lease can end.
    pub lease: DurationMs,
    /// Its present registration.
    pub epoch: Epoch,
    /// When it last registered, and by which entry.
    pub registered: Mark,
    /// Whether the registration still counts.
    pub status: WorkerStatus,
    /// The tasks assigned to it.
    pub running: BTreeSet<TaskId>,
    /// Somebody wants it to be given nothing more. Outlives its registrations.
    pub drain: Option<Drain>,
    /// It says that it stops, and takes nothing more. Ends with its registration.
    pub leaving: Option<Mark>,
    /// Its clock cannot be trusted with a lease. Outlives its registrations.
    pub quarantine: Option<Quarantine>,
    /// What last changed it, but for its tasks.
    pub changed: Mark,
}

/// Why a worker is given nothing more, by whoever wants that.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Drain {
    /// In their words; may be empty.
    pub reason: String,
    /// Who, as they called themselves; may be empty.
    pub by: String,
    /// Since when, and by which entry.
    pub mark: Mark,
}

/// A clock that runs too fast or too slow beside the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Quarantine {
    /// By how many millionths it was found to be too fast; negative if it is too slow.
    pub drift_ppm: i32,
    /// Since when, and by which entry.
    pub mark: Mark,
}

/// One registration of a worker: who, and the epoch that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Registration {
    /// Who.
    pub worker: WorkerId,
    /// Void once the worker has a newer one.
    pub epoch: Epoch,
}

/// How a worker makes sure that a task dies with all its processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Containment {
    /// A PID namespace for each task: the kernel ends all of it at once, and nothing gets out.
    Pidns,
    /// A control group for each task, ended as a whole; nothing gets out.
    Cgroup,
    /// A process group, and a sweep for what left it. What hides from the sweep can outlive
    /// the lease, so two attempts of a task may overlap.
    Pgroup,
}

impl Containment {
    /// Each of them, the strongest first.
    pub const ALL: [Self; 3] = [Self::Pidns, Self::Cgroup, Self::Pgroup];

    /// The word for it, in metrics, tables and views.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Pidns => "pidns",
            Self::Cgroup => "cgroup",
            Self::Pgroup => "pgroup",
        }
    }
}

impl FromStr for Containment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|containment| containment.text() == text);
        found.ok_or_else(|| format!("{text:?} is none of {}", Self::ALL.map(Self::text).join(", ")))
    }
}

/// Whether a worker may be given work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WorkerStatus {
    /// It holds a lease.
    Live,
    /// Its lease ended. It must register again.
    Gone {
        /// When, and by which entry.
        mark: Mark,
        /// Why.
        cause: LeaseEnd,
    },
}

/// Why a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseEnd {
    /// It was not heard for longer than the lease and its margins.
    Expired,
    /// It said that it stops, and that it runs nothing.
    Released,
}

impl Worker {
    /// Its present registration.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether it holds a lease.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.status, WorkerStatus::Live)
    }

    /// Whether nothing speaks against giving it work, as long as it holds a lease.
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        self.drain.is_none() && self.leaving.is_none() && self.quarantine.is_none()
    }

    /// How many more tasks it can be given.
    #[must_use]
    pub fn slots_free(&self) -> usize {
        if self.is_live() && self.is_eligible() {
            (self.slots as usize).saturating_sub(self.running.len())
        } else {
            0
        }
    }

    /// When it is forgotten, if its lease has ended.
    pub(crate) fn forgotten_at(&self) -> Option<UnixMs> {
        match self.status {
            WorkerStatus::Gone { mark, .. } => Some(mark.at.after(FORGET_AFTER)),
            WorkerStatus::Live => None,
        }
    }

    /// Whether it has every label that a task asks for.
    #[must_use]
    pub fn has_labels(&self, wanted: &BTreeMap<Name, String>) -> bool {
        wanted.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }
}
