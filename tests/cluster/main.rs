//! The proof by real processes of the built binary.
//!
//! One test binary for all of it, so that it is linked once. A module is a subject; a test is
//! a claim. `harness` starts, kills, freezes and cuts off; `judge` says whether what came of it
//! was right. Tests that need more than a plain machine offers say so, and fail instead where
//! `QUORATE_TESTS_COMPULSORY` is set.

mod bad_data;
mod bad_input;
mod chaos;
mod conformance;
mod disk_error;
mod disk_full;
mod failover;
mod harness;
mod judge;
mod load;
mod members;
mod partition;
mod power_cut;
mod restart;
mod seed_scenario;
mod submit;
mod tasks;
mod verdict;
mod verify;
