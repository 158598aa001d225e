//! Why a client has no answer to give.

use quorate_model::RunId;

use crate::error::Problem;

/// Why there is no answer, or not the one that was hoped for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The server says no, and why.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// No address answered in time. Nothing happened.
    #[error("cannot reach {addresses}: {reason}")]
    Unreachable {
        /// All that were tried.
        addresses: String,
        /// What became of the last try.
        reason: String,
    },
    /// A write broke off, and could not be repeated in time. It may or may not have happened.
    #[error("whether it happened is not known: {reason}")]
    Unknown {
        /// What became of the last try.
        reason: String,
    },
    /// Something answered that does not speak as Quorate does.
    #[error("not an answer of Quorate: {reason}")]
    Unexpected {
        /// What is odd about it.
        reason: String,
    },
    /// An address that cannot be one.
    #[error("{address:?} is not an address: {reason}")]
    BadAddress {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No id of a run begins or ends so.
    #[error("no run {0}")]
    NoSuchRun(String),
    /// Several ids of runs begin or end so.
    #[error("{text} could be any of {} runs; give more of the id", found.len())]
    Ambiguous {
        /// As it was given.
        text: String,
        /// Some of them.
        found: Vec<RunId>,
    },
}

impl Error {
    /// The code of the problem; see [`Code`](crate::error::Code).
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.problem().map(|problem| problem.code.as_str())
    }

    /// The HTTP status of the problem.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.problem().map(|problem| problem.status)
    }

    /// What the server says.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::Unreachable { .. }
            | Self::Unknown { .. }
            | Self::Unexpected { .. }
            | Self::BadAddress { .. }
            | Self::NoSuchRun(_)
            | Self::Ambiguous { .. } => None,
        }
    }
}
