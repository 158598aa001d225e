//! What every handler has at hand.

use std::sync::Arc;
use std::time::Duration;

use quorate_model::{LogIndex, Retired, RunId, State};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::backend::Backend;
use crate::error::{Code, Failure};
use crate::feed::Feed;
use crate::forward::CONNECT_MAX;

/// Open streams of logs and events on one node. Each costs a connection and a few buffers.
pub const STREAMS_MAX: usize = 1_000;

/// Requests that wait for a change on one node. Each costs a connection and little else.
pub const WAITS_MAX: usize = 10_000;

/// The longest that a request may wait for a change, as with Nomad.
pub const WAIT_MAX: Duration = Duration::from_secs(300);

/// How long a request waits for a change unless it says otherwise: under the habits of proxies.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(30);

/// The backend, and what the edge remembers itself.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) backend: Shared,
    pub(crate) feed: Feed,
    /// Asks other nodes.
    pub(crate) http: reqwest::Client,
    streams: Arc<Semaphore>,
    waits: Arc<Semaphore>,
}

/// The backend; with a `Debug`, that `Edge` can have one.
#[derive(Clone)]
pub(crate) struct Shared(Arc<dyn Backend>);

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backend")
    }
}

impl std::ops::Deref for Shared {
    type Target = dyn Backend;
    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl Edge {
    /// Begins to follow the backend's events. Must be called within a Tokio runtime.
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        let feed = Feed::follow(&backend);
        let (streams, waits) = (Semaphore::new(STREAMS_MAX), Semaphore::new(WAITS_MAX));
        let (streams, waits) = (Arc::new(streams), Arc::new(waits));
        let http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_MAX).build();
        let http = http.expect("without TLS there is nothing to load");
        Self { backend: Shared(backend), feed, http, streams, waits }
    }

    /// Looks at the state as it is applied here. Holds up apply: be quick.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look_at(&*self.backend, look)
    }

    /// A run with what it executes, live or finished.
    pub(crate) fn run(&self, id: RunId) -> Result<Option<Retired>, Failure> {
        match self.look(|state| live_run(state, id)) {
            Some(found) => Ok(Some(found)),
            None => Ok(self.backend.finished_run(id)?),
        }
    }

    /// The last entry applied here.
    pub(crate) fn applied(&self) -> LogIndex {
        self.look(State::applied)
    }

    /// Leave to open one more stream; held as long as it is open.
    pub(crate) fn open_stream(&self) -> Result<OwnedSemaphorePermit, Failure> {
        permit(&self.streams, STREAMS_MAX)
    }

    /// Leave to wait for a change; held as long as the request waits.
    pub(crate) fn open_wait(&self) -> Result<OwnedSemaphorePermit, Failure> {
        permit(&self.waits, WAITS_MAX)
    }
}

/// Looks at the state that a backend has applied.
pub(crate) fn look_at<T>(backend: &dyn Backend, look: impl FnOnce(&State) -> T) -> T {
    let (mut look, mut seen) = (Some(look), None);
    backend.with_state(&mut |state| {
        if let Some(look) = look.take() {
            seen = Some(look(state));
        }
    });
    seen.expect("with_state shows the state")
}

/// A run that has not left the live state, with what it executes.
pub(crate) fn live_run(state: &State, id: RunId) -> Option<Retired> {
    let run = state.runs().get(&id)?;
    let definition = Arc::clone(state.definition(run.definition));
    Some(Retired { id, run: Arc::clone(run), definition })
}

fn permit(semaphore: &Arc<Semaphore>, max: usize) -> Result<OwnedSemaphorePermit, Failure> {
    Arc::clone(semaphore).try_acquire_owned().map_err(|_| {
        let detail = format!("{max} are open on this node, the most; close one or ask another");
        Failure::new(Code::TooManyStreams, detail)
    })
}
