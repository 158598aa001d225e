//! The typed client: for the command line, for nodes that join, and for tests.
//!
//! Asks one address after the other until one answers, and again while the cluster elects a
//! leader. Every write carries an idempotency key, so that asking again is safe.

mod ask;
mod cluster;
mod control;
mod error;
mod run;
mod stream;
mod workflow;

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

pub use control::Words;
pub use error::Error;
pub use run::{Answered, Decided, RunQuery, Start, What};
pub use stream::{LogQuery, Watch};

use crate::page::{PAGE_LIMIT_MAX, Page};
use ask::{Ask, Line};

/// How long a call may take with all its tries, unless the client is told otherwise: some
/// elections in a row.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(30);

/// Asks a cluster. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    line: Arc<Line>,
    deadline: Duration,
    stale: bool,
}

impl Client {
    /// A client of the nodes at these addresses: `127.0.0.1:7117` or `http://node-1:7117`.
    ///
    /// # Errors
    ///
    /// If one cannot be an address, or there is none.
    pub fn new(addresses: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, Error> {
        let addresses = addresses.into_iter().map(Into::into).collect();
        let line = Line::new(addresses)?;
        Ok(Self { line, deadline: DEADLINE_DEFAULT, stale: false })
    }

    /// Gives a call this long, with all its tries.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Has every read answered by the node that is asked, from what it has applied.
    #[must_use]
    pub fn with_stale(self, stale: bool) -> Self {
        Self { stale, ..self }
    }

    /// Where it asks.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.line.addresses
    }

    async fn view<T: DeserializeOwned>(&self, ask: Ask) -> Result<T, Error> {
        self.line.view(ask, self.deadline).await
    }

    /// A read that may be stale.
    fn read(&self, path: impl Into<String>) -> Ask {
        Ask::get(path).query_if("stale", self.stale.then_some(true))
    }

    /// Every page of a list.
    async fn all<T: DeserializeOwned>(&self, ask: Ask) -> Result<Vec<T>, Error> {
        let (mut items, mut token) = (Vec::new(), None);
        loop {
            let ask = ask.clone().query("limit", &PAGE_LIMIT_MAX).query_if("page_token", token);
            let page: Page<T> = self.view(ask).await?;
            items.extend(page.items);
            token = match page.next_page_token {
                Some(token) => Some(token),
                None => return Ok(items),
            };
        }
    }
}
