//! Finished runs, snapshots and the purging of the log.
