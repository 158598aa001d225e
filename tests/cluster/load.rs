//! Work for a cluster while something is done to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::Request;
use crate::harness::client::Client;

/// How long a submit is repeated before its client gives up on it.
const SUBMIT_LIMIT: Duration = Duration::from_secs(10);

/// Keeps one run going after the other until it is told to stop; the last may still be going.
pub(crate) fn submit_on(client: &Client, mut next: impl FnMut() -> String, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // A submit that stays unknown is fine, as long as there is at most one run of it.
        let Some(run) = client.submit_within(&next(), SUBMIT_LIMIT) else { continue };
        let path = format!("/v1/runs/{run}/wait?timeout=1s");
        while !stop.load(Ordering::Relaxed) {
            let found = client.try_ask(&Request::get(&path), Duration::from_secs(2));
            if found.is_ok_and(|found| found.is_ok() && found.json()["state"] != "running") {
                break;
            }
        }
    }
}

/// Tells whoever works to stop, also when the test fails meanwhile: or it would wait for them
/// for ever.
#[derive(Debug)]
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
