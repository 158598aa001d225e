//! What the agent and its keeper say to each other: one value a message, encoded by bincode.
//!
//! Both ends are the same binary, so there is no version. (A keeper that outlives its agent
//! will need one.)

use std::io;

use quorate_model::{DurationMs, Epoch, Usage};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::lease::BootNs;

/// The largest message. A socket takes no more than its send buffer, which is 208 KiB
/// where nobody changed it; environment and arguments of a task are far below.
pub(crate) const MESSAGE_BYTES_MAX: usize = 192 * 1024;

/// Names an attempt between an agent and its keeper. Never used twice by an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Key(pub(crate) u64);

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// The lease as it stands now. Under the same epoch one that is over stays over.
    Lease {
        /// The registration.
        epoch: Epoch,
        /// When to ask tasks to stop.
        warning: BootNs,
        /// When to kill them.
        deadline: BootNs,
    },
    /// Start a task. The write ends of its stdout and its stderr come along.
    Start(Spawn),
    /// Ask a task to stop, and kill it after a while.
    Stop {
        /// Which.
        key: Key,
        /// How long it may take.
        grace: DurationMs,
    },
    /// Kill everything now.
    KillAll,
}

/// How to start a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spawn {
    /// Names it in answers.
    pub(crate) key: Key,
    /// The registration that it belongs to.
    pub(crate) epoch: Epoch,
    /// The program, by absolute path, and its arguments.
    pub(crate) argv: Vec<String>,
    /// The whole environment but for [`MARKER`].
    pub(crate) env: Vec<(String, String)>,
    /// Where it starts.
    pub(crate) directory: String,
    /// The value of [`MARKER`]; no two attempts on a machine share one.
    pub(crate) marker: String,
}

/// The variable by which a process is known to belong to an attempt. It is the file for
/// outputs, as that lies in a directory that one attempt of one worker has to itself.
pub(crate) const MARKER: &str = "QUORATE_OUTPUT";

/// What the keeper says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// No other keeper lives in this directory, and nothing that one had started.
    Ready,
    /// A task was not started.
    Refused {
        /// Which.
        key: Key,
        /// Why, for people.
        reason: String,
    },
    /// A task has ended, and nothing is left of it.
    Exited(Exit),
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// Which.
    pub(crate) key: Key,
    /// What its first process left.
    pub(crate) status: Status,
    /// Who began it.
    pub(crate) cause: Cause,
    /// What it used, with the children that it waited for.
    pub(crate) usage: Usage,
}

/// What a process leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Status {
    /// It ended with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// Why a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    /// Of itself, as far as the keeper can tell.
    Itself,
    /// It was told to, by [`Order::Stop`].
    Stopped,
    /// The lease was ending, or the agent let go of everything.
    LeaseOver,
}

/// One message.
pub(super) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let bytes = bincode::serde::encode_to_vec(message, bincode::config::standard());
    let bytes = bytes.map_err(io::Error::other)?;
    if bytes.len() > MESSAGE_BYTES_MAX {
        let (bytes, kib_max) = (bytes.len(), MESSAGE_BYTES_MAX / 1024);
        let reason =
            format!("arguments and environment take {bytes} bytes; {kib_max} KiB is the most");
        return Err(io::Error::new(io::ErrorKind::ArgumentListTooLong, reason));
    }
    Ok(bytes)
}

/// The value in a message.
pub(super) fn decode<T: DeserializeOwned>(message: &[u8]) -> io::Result<T> {
    bincode::serde::decode_from_slice(message, bincode::config::standard())
        .map(|(value, _)| value)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
