//! What an agent and its keeper say to each other: one value a message, encoded by bincode.
//!
//! Nearly always both are the same binary. After an upgrade they are not: the keeper tells its
//! [`VERSION`] in the first note, and an agent that does not speak it leaves that keeper alone
//! until its lease is over.

use std::io;

use quorate_model::{Containment, DurationMs, Epoch, Usage, WorkerId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::lease::BootNs;

/// Raised with every change of what is said. [`Note::Welcome`] itself stays as it is for ever.
pub(crate) const VERSION: u32 = 1;

/// The largest message. A socket takes no more than its send buffer, which is 208 KiB
/// where nobody changed it; environment and arguments of a task are far below.
pub(crate) const MESSAGE_BYTES_MAX: usize = 192 * 1024;

/// What decoding one message may allocate, whatever lengths stand in it: small numbers take up
/// to eight times the room in memory.
const DECODED_BYTES_MAX: usize = 8 * MESSAGE_BYTES_MAX;

/// Names an attempt between agents and their keeper. Never used twice with one keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Key(pub(crate) u64);

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// The lease as it stands now. Under the same epoch one that is over stays over.
    Lease(Term),
    /// Start a task. Its stdout and its stderr come along: the ends to write, then the ends to
    /// read, which the keeper holds for the next agent.
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
    /// The registration is given up: nothing may run under it any more, nor may a later agent
    /// take it over.
    Revoke,
    /// These have ended, and their reports are safe: no later agent needs to hear of them.
    Forget(Vec<Key>),
    /// Kill everything and end.
    End,
}

/// A registration and its lease, as far as a keeper and the next agent need to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Term {
    /// Who.
    pub(crate) worker: WorkerId,
    /// Under which registration.
    pub(crate) epoch: Epoch,
    /// How long a renewal holds.
    pub(crate) span: DurationMs,
    /// When to ask tasks to stop.
    pub(crate) warning: BootNs,
    /// When every task must be dead.
    pub(crate) deadline: BootNs,
}

/// How to start a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spawn {
    /// Names it in answers.
    pub(crate) key: Key,
    /// The registration that it belongs to.
    pub(crate) epoch: Epoch,
    /// What to start.
    pub(crate) program: Invocation,
    /// Whatever the next agent will have to know of it.
    pub(crate) memo: Vec<u8>,
    /// As in [`Order::Forget`]. Said with the start, as what those had is lent again with it.
    pub(crate) forget: Vec<Key>,
}

/// A program, and all that it is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Invocation {
    /// The program, by absolute path, and its arguments.
    pub(crate) argv: Vec<String>,
    /// The whole environment. It has [`MARKER`].
    pub(crate) env: Vec<(String, String)>,
    /// Where it starts.
    pub(crate) directory: String,
}

/// The variable by which a process is known to belong to a worker: a file below its
/// [`WORKSPACES`](super::WORKSPACES).
pub(crate) const MARKER: &str = "QUORATE_OUTPUT";

/// What the keeper says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// The first note on each connection.
    Welcome {
        /// What is spoken here.
        version: u32,
        /// How tasks are kept from outliving their lease.
        containment: Containment,
        /// The lease, unless it is over or was given up.
        term: Option<Term>,
    },
    /// A task that an earlier agent had started. The ends to read of its stdout and its stderr
    /// come along.
    Held {
        /// Names it.
        key: Key,
        /// As in [`Spawn`].
        memo: Vec<u8>,
        /// How it ended, if it has.
        exit: Option<Exit>,
    },
    /// Nothing that an earlier keeper had started lives, and every task that this one holds
    /// was told.
    Ready,
    /// The lease of this registration is over, whatever is said of it from now on.
    Over {
        /// Which.
        epoch: Epoch,
    },
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
    let config = bincode::config::standard().with_limit::<DECODED_BYTES_MAX>();
    bincode::serde::decode_from_slice(message, config)
        .map(|(value, _)| value)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
