//! The kinds of task that are no program of somebody else, as a user meets them: the built
//! binary, a workflow file, and a server on the other side that keeps what it was asked.

#![expect(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

mod http;
mod job;
mod site;
mod tls;
#[allow(dead_code, reason = "a terminal is good for more than these tests do at it")]
#[path = "../cli/user.rs"]
mod user;
