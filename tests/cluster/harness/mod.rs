//! Real processes of the built binary, and everything that can be done to them.
//!
//! Nothing here knows how Quorate works inside: nodes are told things by flags, asked things by
//! HTTP, and otherwise killed, frozen, cut off and deprived of their disks.

pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod disk;
pub(crate) mod gate;
pub(crate) mod http;
pub(crate) mod ledger;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod record;
pub(crate) mod seed;
pub(crate) mod switch;
mod sys;
pub(crate) mod wait;

pub(crate) use client::SOON;
pub(crate) use cluster::{Cluster, Options};
pub(crate) use gate::Gate;
pub(crate) use http::{NoAnswer, Request, Response};
pub(crate) use wait::until;

/// Set where a test that cannot run must fail instead of saying why it is skipped.
const COMPULSORY: &str = "QUORATE_TESTS_COMPULSORY";

/// Whether every test must run, and at full length.
pub(crate) fn compulsory() -> bool {
    std::env::var_os(COMPULSORY).is_some_and(|value| !value.is_empty())
}

/// Says why a test is skipped; fails it where it must not be.
#[track_caller]
pub(crate) fn skip(reason: &str) {
    assert!(!compulsory(), "cannot run here, and must: {reason}");
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    // Past the test runner, which keeps what a test that passes prints to itself.
    let line = format!("skipped {name}: {reason}\n");
    drop(std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()));
}
