//! The whole cluster in one thread, under faults, decided by a seed.
//!
//! The real nodes, leaders, sessions, leases and outboxes run; simulated are the network (by
//! turmoil), the clocks, the disks, and the processes of tasks. First anything may go wrong,
//! and at every step the [invariants] are checked; then all is put right but for what a
//! cluster must be able to live with, and everything that was acknowledged must be completed.
//!
//! A seed runs in a process of its own: some counters live as long as one.

mod cluster;
mod dice;
mod disk;
mod faults;
mod invariants;
mod machines;
mod master;
mod oracle;
pub(crate) mod processes;
mod store;
mod tests;
mod trace;
mod verdict;
