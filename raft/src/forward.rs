//! What a follower asks of the leader on behalf of its callers. One hop: who is asked answers
//! as leader, or that it is none. A question is `(how long to wait in ms, What)`.

use std::time::Duration;

use quorate_model::{LogIndex, Request};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::ClusterId;
use crate::codec::Service;
use crate::error::ProposeError;
use crate::history::{Record, RecordId};
use crate::link::{CallError, Link};
use crate::membership::Joined;
use crate::proposals::Committed;

/// How long the leader may take to accept a connection.
const CONNECT_DEADLINE: Duration = Duration::from_millis(500);

/// What the way back of an answer may take.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// What is asked of the leader.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum What {
    Propose(Box<Request>),
    ReadIndex,
    Join {
        address: String,
        voter: bool,
    },
    Remove {
        node: u64,
    },
    Transfer {
        to: Option<u64>,
    },
    /// Some of the history, in its own order. Whoever is asked answers, leader or not, once it
    /// has applied as much as the asker.
    History {
        after: Option<RecordId>,
        applied: LogIndex,
    },
    /// Whether whoever is asked, leader or not, has room to lead.
    Room,
    /// The digest of the state after an entry, as `kind` of program makes it. Whoever is asked
    /// answers, leader or not.
    Digest {
        index: LogIndex,
        kind: String,
    },
}

/// What the leader answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    Committed(Committed),
    Index(LogIndex),
    Joined(Joined),
    Done,
    /// Some of the history; none if there is no more.
    Records(Vec<Record>),
    /// The digest, if it is kept there.
    Digest(Option<u64>),
}

/// The connection to whoever is asked; opened when needed, kept while the same is asked.
#[derive(Debug, Default)]
pub(crate) struct Forwarder {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    link: Option<(String, Link)>,
    failed_at: Option<Instant>,
}

impl Forwarder {
    /// Asks the node at `address`, and waits for the answer until `until`.
    pub(crate) async fn ask(
        &self,
        cluster: ClusterId,
        address: &str,
        what: &What,
        until: Instant,
    ) -> Result<Told, ProposeError> {
        let no_leader = || ProposeError::NoLeader { leader: Some(address.to_owned()) };
        let link = self.link_to(cluster, address, until).await.ok_or_else(no_leader)?;
        let wait = until.saturating_duration_since(Instant::now());
        // A little less over there: a late "nothing happened" is better than none.
        let wait_there = wait.saturating_sub(ANSWER_MARGIN.min(wait / 10));
        let wait_ms = u64::try_from(wait_there.as_millis()).unwrap_or(u64::MAX);
        let told = link.call::<_, Result<Told, ProposeError>>(&(wait_ms, what), wait).await;
        match told {
            Ok(told) => told,
            Err(CallError::NotSent(error)) => {
                tracing::debug!(address, %error, "the leader cannot be asked");
                Err(no_leader())
            }
            Err(CallError::Lost(error)) => {
                tracing::debug!(address, %error, "the leader did not answer");
                self.give_up(&link).await;
                Err(ProposeError::Unknown)
            }
        }
    }

    async fn link_to(&self, cluster: ClusterId, address: &str, until: Instant) -> Option<Link> {
        let asked = Instant::now();
        let mut kept = tokio::time::timeout_at(until, self.kept.lock()).await.ok()?;
        if let Some((to, link)) = &kept.link
            && to == address
            && !link.is_broken()
        {
            return Some(link.clone());
        }
        // Who waited while another tried in vain has had its answer.
        if kept.failed_at.is_some_and(|failed_at| failed_at > asked) {
            return None;
        }
        let left = until.saturating_duration_since(Instant::now());
        let deadline = left.min(CONNECT_DEADLINE);
        match Link::open(address, cluster, Service::Forward, deadline).await {
            Ok(link) => {
                kept.link = Some((address.to_owned(), link.clone()));
                Some(link)
            }
            Err(error) => {
                kept.failed_at = Some(Instant::now());
                tracing::debug!(address, %error, "the leader cannot be reached");
                None
            }
        }
    }

    /// Gives up a connection that brought no answer: the node may have vanished without a word.
    async fn give_up(&self, silent: &Link) {
        let mut kept = self.kept.lock().await;
        if kept.link.as_ref().is_some_and(|(_, link)| link.is_same(silent)) {
            kept.link = None;
        }
    }
}
