//! Reads: what an attempt wrote, fetched from the worker that ran it.

use std::time::Duration;

use quorate_api::backend::{Chunk, Read, ReadError};
use quorate_model::WorkerId;
use tokio::sync::oneshot;

use super::Sessions;
use crate::protocol::ToWorker;

/// What a read may take longer than it was told to wait.
const READ_MARGIN: Duration = Duration::from_secs(5);

/// Reads that may be under way at once.
const READS_MAX: usize = 1_024;

impl Sessions {
    /// Has the worker that ran an attempt read what it wrote.
    ///
    /// # Errors
    ///
    /// If this node does not lead, the worker is not connected, or has no such bytes.
    pub(crate) async fn read(&self, worker: WorkerId, read: Read) -> Result<Chunk, ReadError> {
        let unavailable = |reason: String| ReadError::Unavailable(reason);
        let wait = Duration::from_millis(read.wait.0) + READ_MARGIN;
        let (answer, answered) = oneshot::channel();
        let request = {
            let mut open = self.open();
            let Some(session) = open.sessions.get(&worker).cloned() else {
                let reason = format!("worker {worker}, which has it, is not connected");
                return Err(unavailable(reason));
            };
            open.reads.retain(|_, waiting| !waiting.is_closed());
            if open.reads.len() >= READS_MAX {
                return Err(unavailable(format!("{READS_MAX} reads are under way; try again")));
            }
            open.serial += 1;
            let request = open.serial;
            let order = ToWorker::Read { request, read };
            if session.outgoing.try_send(order).is_err() {
                return Err(unavailable(format!("worker {worker} is too far behind")));
            }
            open.reads.insert(request, answer);
            request
        };
        match tokio::time::timeout(wait, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(unavailable("the leader changed; try again".to_owned())),
            Err(_) => {
                self.open().reads.remove(&request);
                Err(unavailable(format!("worker {worker} did not answer in time")))
            }
        }
    }
}
