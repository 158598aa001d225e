//! The edge: what clients say and hear, over HTTP.
//!
//! Knows the model and the ports it needs ([`backend`]); not raft, and not who implements them.
//!
//! ```text
//! client ─► seal ─► (who may) ─► route ─► Call, Write ─► handler ─► Backend
//!            │ names the request, tells who answers, puts a Failure into words
//! ```

mod answer;
pub mod backend;
pub mod client;
mod commit;
pub mod diff;
mod edge;
pub mod error;
mod feed;
mod forward;
#[cfg(test)]
mod fuzz;
pub mod graph;
mod lines;
pub mod page;
mod request;
pub mod spec;
pub mod time;
mod v1;
pub mod view;
mod wait;

use std::sync::Arc;

use axum::{Router, middleware};

pub use answer::{
    HEADER_BYTES_MAX, INDEX, KNOWN_LEADER, LAST_CONTACT, LOG_OFFSET, NODE, REPLAYED, REQUEST_ID,
};
pub use edge::{STREAMS_MAX, WAIT_DEFAULT, WAIT_MAX, WAITS_MAX};
pub use feed::EVENTS_KEPT_MAX;
pub use request::{BODY_BYTES_MAX, BODY_TIME_MAX, IDEMPOTENCY_KEY};

use backend::Backend;
use edge::Edge;

/// Every route, answered by a backend. Must be called within a Tokio runtime: one task follows
/// the backend's events until it is gone.
pub fn router(backend: Arc<dyn Backend>) -> Router {
    let edge = Arc::new(Edge::new(backend));
    // Whoever may do what is decided between these two layers, once there are accounts: a
    // refusal needs words, and no handler may see a request that is refused.
    let seal = middleware::from_fn_with_state(Arc::clone(&edge), answer::seal);
    let forward = middleware::from_fn_with_state(Arc::clone(&edge), forward::forward);
    v1::routes().layer(forward).layer(seal).with_state(edge)
}
