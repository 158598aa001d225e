//! The edge over a bare state: every route, what it answers and what it refuses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bare;
mod client;
mod events;
mod files;
mod listing;
mod pause;
mod refusals;
mod runs;
mod site;
mod workflows;
