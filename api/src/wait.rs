//! Waiting for a change: `?index=N&wait=30s`, and `/wait`.

use std::time::Duration;

use quorate_model::LogIndex;
use tokio::time::{Instant, timeout_at};

use crate::edge::{Edge, WAIT_DEFAULT, WAIT_MAX};
use crate::error::Failure;
use crate::feed::Topic;
use crate::request::{Call, Query};

/// Parameters that every read takes.
pub(crate) const READ: [&str; 3] = ["stale", "index", "wait"];

impl Call {
    /// Waits until what is read here is as fresh as asked.
    pub(crate) async fn refresh(&self, query: Query<'_>) -> Result<(), Failure> {
        if !query.flag("stale")? {
            self.edge.backend.catch_up().await?;
        }
        Ok(())
    }

    /// Waits until what is read here is as fresh as asked, and for `?index=N` until a list
    /// has changed since N or the time is up. Answers its last change.
    pub(crate) async fn refresh_list(
        &self,
        query: Query<'_>,
        topic: Topic,
    ) -> Result<LogIndex, Failure> {
        let edge = &self.edge;
        self.read(query, topic, || Ok((edge.feed.changed(topic), ())))
            .await
            .map(|(index, ())| index)
    }

    /// Looks at something, and for `?index=N` goes on until it has changed since N or the time
    /// is up. `look` tells its last change.
    pub(crate) async fn read<T>(
        &self,
        query: Query<'_>,
        topic: Topic,
        look: impl Fn() -> Result<(LogIndex, T), Failure>,
    ) -> Result<(LogIndex, T), Failure> {
        let after: Option<u64> = query.parsed("index")?;
        let wait = query.span("wait", WAIT_DEFAULT, WAIT_MAX)?;
        self.refresh(query).await?;
        match after {
            None => look(),
            Some(after) => {
                until(&self.edge, topic, wait, look, |&(LogIndex(index), _)| index > after).await
            }
        }
    }
}

/// Looks at something at every change until it is as wanted, or the time is up.
pub(crate) async fn until<T>(
    edge: &Edge,
    topic: Topic,
    wait: Duration,
    look: impl Fn() -> Result<T, Failure>,
    is_wanted: impl Fn(&T) -> bool,
) -> Result<T, Failure> {
    let deadline = Instant::now() + wait;
    // Before the first look, so that no change falls in between.
    let mut changes = edge.feed.watch(topic);
    let mut permit = None;
    loop {
        let seen = look()?;
        if is_wanted(&seen) || Instant::now() >= deadline {
            return Ok(seen);
        }
        if permit.is_none() {
            permit = Some(edge.open_wait()?);
        }
        if let Ok(Err(_)) = timeout_at(deadline, changes.changed()).await {
            changes = edge.feed.watch(topic);
        }
    }
}
