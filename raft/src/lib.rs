//! The replicated log of Quorate: openraft on a write-ahead log, with history in sled.

// The simulated disk names this crate as its other tests do, from outside.
#[cfg(test)]
extern crate self as quorate_raft;

mod acknowledged;
mod agreement;
mod audit;
mod clock;
pub mod codec;
mod error;
mod forward;
#[cfg(test)]
mod fuzz;
mod history;
pub mod identity;
mod leadership;
mod link;
#[doc(hidden)] // for the tests of this crate
pub mod log_store;
#[doc(hidden)] // for simulations
pub mod machine;
mod membership;
mod network;
mod node;
mod open;
mod options;
mod proposals;
mod reads;
mod refill;
mod rpc;
#[doc(hidden)] // for the types of this crate
pub mod runtime;
#[cfg(test)]
#[path = "../tests/storage/sim_disk.rs"]
#[allow(dead_code, reason = "what it is not asked here, the tests of the log ask")]
mod sim_disk;
mod snapshot;
mod standby;
mod state_machine;
mod status;
mod storage;
#[doc(hidden)] // for the tests of this crate
pub mod types;
#[doc(hidden)] // for the tests of this crate
pub mod wal;

use quorate_model::mutant;

pub use agreement::{Agreement, Difference};
pub use audit::{Audit, audit};
pub use error::{HistoryError, JoinError, OpenError, ProposeError};
pub use history::{History, HistoryQuery, LIST_RUNS_MAX};
#[doc(hidden)] // for simulations
pub use history::{Pair, Range, Store, Tree};
pub use identity::ClusterId;
pub use leadership::Leadership;
pub use membership::Joined;
pub use node::{Node, ask_to_join};
pub use open::holds_node;
pub use options::{Options, Start, Timing};
pub use proposals::{Committed, PROPOSALS_QUEUED_MAX, ProposalCounts, REQUEST_BYTES_MAX};
pub use state_machine::Effects;
pub use status::{Member, Status};
pub use storage::{Room, StorageState, StorageStatus, SyncTimes, Usage};
