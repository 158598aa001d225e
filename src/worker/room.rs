//! Room on the disk of a worker: without any, it begins nothing.
//!
//! What runs goes on, and its results are reported from memory; the leader is told and gives
//! work to others meanwhile. What it had given before it was told waits here.

use std::path::PathBuf;
use std::time::Duration;

use quorate_raft::{Room, Usage};
use tokio::sync::watch;

/// Between two looks at the disk.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Keeps `full` at whether the disk of `dir` is, as long as anybody wants to know.
pub(super) async fn watch(dir: PathBuf, full: watch::Sender<bool>) {
    let mut room = Room::Ample;
    while !full.is_closed() {
        match Usage::of(&dir) {
            Ok(usage) => room = usage.room(room),
            Err(error) => tracing::warn!(%error, "the disk does not tell how much room it has"),
        }
        let is_full = room == Room::Full;
        full.send_if_modified(|full| {
            let changed = std::mem::replace(full, is_full) != is_full;
            if changed && is_full {
                tracing::error!(dir = %dir.display(), "the disk is full: no new work; make room");
            } else if changed {
                tracing::info!("there is room on the disk again");
            }
            changed
        });
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
