//! The edge: what clients say and hear, over HTTP.
//!
//! Knows the model and the ports it needs ([`backend`]); not raft, and not who implements them.

pub mod backend;
