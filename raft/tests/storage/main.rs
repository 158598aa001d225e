//! What the durable half of the crate promises, tried against crashes and damage.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod commit;
mod crash;
mod failure;
mod fuzz;
mod identity;
mod model;
mod sim_disk;
mod suite;
