//! Nodes of one cluster in one process: real sockets on the loopback, real files in temporary
//! directories. Each node has a runtime of its own, so that it can be killed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod failures;
mod harness;
mod history;
mod membership;
mod refusals;
mod single;
mod three;
