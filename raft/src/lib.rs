//! The replicated log of Quorate: openraft on a write-ahead log, with history in sled.

pub mod identity;
pub mod log_store;
pub mod types;
pub mod wal;
