//! Identifiers and units. One type each, so that none can stand in for another.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                Ok(Self(s.strip_prefix($prefix).unwrap_or(s).parse()?))
            }
        }
    };
}

newtype!(/// A node that executes tasks: the log index at which it first registered.
    WorkerId(u64), "w");
newtype!(/// One registration of a worker: the log index of the entry. A new one voids the old.
    Epoch(u64), "e");
newtype!(/// The ordinal of one try at a task, from 1. A report must name it.
    Attempt(u32), "#");
newtype!(/// The log index of an assignment. Whoever holds an older one has been superseded.
    FencingToken(u64), "t");
newtype!(/// A position in the replicated log.
    LogIndex(u64), "@");
newtype!(/// Milliseconds since the Unix epoch, by the clock of the proposing leader.
    UnixMs(u64), "");
newtype!(/// A span of time in milliseconds.
    DurationMs(u64), "");

impl UnixMs {
    /// The instant `span` later; the end of time if that is past it.
    #[must_use]
    pub fn after(self, span: DurationMs) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> DurationMs {
        DurationMs(self.0.saturating_sub(earlier.0))
    }
}

/// One execution of a workflow. Minted before the log (version 7, so that ids sort by time).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct RunId(pub Uuid);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RunId {
    type Err = uuid::Error;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(Self(s.parse()?))
    }
}

/// A task of a run, by its position in the workflow's definition, from 0.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct TaskId {
    /// The run it belongs to.
    pub run: RunId,
    /// Its position.
    pub index: u32,
}

impl TaskId {
    /// The task at `index` of `run`.
    #[must_use]
    pub fn new(run: RunId, index: usize) -> Self {
        Self { run, index: u32::try_from(index).unwrap_or(u32::MAX) }
    }

    /// The position, to index with.
    #[must_use]
    pub fn position(self) -> usize {
        self.index as usize
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.run, self.index)
    }
}

/// The longest name of a workflow or a task, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// The name of a workflow, a task, a label, a parameter or an output:
/// `[A-Za-z0-9_]` followed by at most 127 of `[A-Za-z0-9._-]`.
///
/// Narrower rules for some names are rules of the [workflow file](crate::workflow::validate).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Box<str>);

/// Why a text is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a name: use 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' or '-', and begin \
     with a letter, a digit or '_'"
)]
pub struct NameError(pub String);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if first && rest && text.len() <= NAME_BYTES_MAX {
            Ok(Self(text.into()))
        } else {
            let shown = text.chars().take(NAME_BYTES_MAX).collect();
            Err(NameError(shown))
        }
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.into()
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.to_owned().try_into()
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A JSON document as canonical text: opaque to the model, typed by whoever reads it.
///
/// Text and not a tree, because the log's encoding is not self-describing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Json(Box<str>);

impl Json {
    /// The canonical text of `value`: no white space, keys in order.
    #[must_use]
    pub fn new(value: &serde_json::Value) -> Self {
        Self(value.to_string().into())
    }

    /// The document as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The document as a tree; `null` if the text is not JSON.
    #[must_use]
    pub fn value(&self) -> serde_json::Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_a_word_of_the_narrow_alphabet() {
        for good in ["a", "_", "9", "A.b-c_d", &"x".repeat(NAME_BYTES_MAX)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "-a", "a b", "a/b", "\u{e4}", "a\n", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn json_is_written_one_way() {
        let one: serde_json::Value =
            serde_json::from_str(r#"{ "b": [1, 2.50], "a": {} }"#).unwrap();
        assert_eq!(Json::new(&one).as_str(), r#"{"a":{},"b":[1,2.5]}"#);
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        assert_eq!(WorkerId(7).to_string().parse(), Ok(WorkerId(7)));
        assert_eq!("#3".parse(), Ok(Attempt(3)));
        assert_eq!("3".parse(), Ok(Attempt(3)));
        assert!("w".parse::<WorkerId>().is_err());
    }

    #[test]
    fn time_ends_and_does_not_wrap() {
        assert_eq!(UnixMs(u64::MAX).after(DurationMs(1)), UnixMs(u64::MAX));
        assert_eq!(UnixMs(1).since(UnixMs(2)), DurationMs(0));
    }
}
