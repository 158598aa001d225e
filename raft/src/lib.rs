//! The replicated log of Quorate: openraft on a write-ahead log, with history in sled.

pub mod types;
