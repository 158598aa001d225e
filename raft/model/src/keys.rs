//! Requests that came with an idempotency key, and what they were answered.
//!
//! Kept in generations, so that forgetting costs nothing per key, needs no timer in the log,
//! and a copy of the state for a snapshot shares all but the youngest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{DurationMs, Rejection, Reply, UnixMs};

/// The longest idempotency key, in bytes.
pub const KEY_BYTES_MAX: usize = 255;

/// How long an answer is kept at least: a day, the habit of the field.
const KEY_KEPT: DurationMs = DurationMs(24 * 3_600_000);

/// How long one generation takes up keys, and so how much longer than [`KEY_KEPT`] one may live.
const GENERATION_SPAN: DurationMs = DurationMs(3_600_000);

/// Keys in one generation: what a snapshot may make the next request copy.
const GENERATION_KEYS_MAX: usize = 20_000;

/// Generations kept: a million keys, some 200 MB. Past it the oldest goes before its day is
/// over, which takes more than eleven requests a second all day long.
const GENERATIONS_MAX: usize = 50;

/// Tells a repeated request from a new one. Kept for a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyKey {
    /// Chosen by the client; 1 to [`KEY_BYTES_MAX`] bytes.
    pub key: String,
    /// A hash of what was asked, so that one key is not used for two things.
    pub request_hash: u64,
}

/// The keys seen lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Keys {
    /// Oldest first.
    generations: VecDeque<Generation>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Generation {
    begun: UnixMs,
    records: Arc<BTreeMap<String, Record>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Record {
    request_hash: u64,
    reply: Result<Reply, Rejection>,
}

impl Keys {
    /// What the request was answered, if it came before.
    ///
    /// # Errors
    ///
    /// If the key breaks a rule, or came before with another request.
    pub(crate) fn answered(
        &self,
        key: &IdempotencyKey,
    ) -> Result<Option<Result<Reply, Rejection>>, Rejection> {
        let IdempotencyKey { key, request_hash } = key;
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            let bytes_max = u32::try_from(KEY_BYTES_MAX).unwrap_or(u32::MAX);
            return Err(Rejection::BadKey { bytes_max });
        }
        let found = self.generations.iter().rev().find_map(|old| old.records.get(key));
        match found {
            Some(record) if record.request_hash != *request_hash => {
                Err(Rejection::KeyReused { key: key.clone() })
            }
            Some(record) => Ok(Some(record.reply.clone())),
            None => Ok(None),
        }
    }

    /// Remembers the answer to a request that is new.
    pub(crate) fn remember(
        &mut self,
        now: UnixMs,
        key: IdempotencyKey,
        reply: Result<Reply, Rejection>,
    ) {
        let IdempotencyKey { key, request_hash } = key;
        let takes_more = |young: &Generation| {
            young.records.len() < GENERATION_KEYS_MAX && now.since(young.begun) < GENERATION_SPAN
        };
        if !self.generations.back().is_some_and(takes_more) {
            self.generations.push_back(Generation { begun: now, records: Arc::default() });
        }
        if let Some(young) = self.generations.back_mut() {
            Arc::make_mut(&mut young.records).insert(key, Record { request_hash, reply });
        }
    }

    /// Forgets the keys whose time is over.
    pub(crate) fn forget(&mut self, now: UnixMs) {
        let is_over = |old: &Generation| now.since(old.begun).0 >= KEY_KEPT.0 + GENERATION_SPAN.0;
        while self.generations.len() > GENERATIONS_MAX
            || self.generations.front().is_some_and(is_over)
        {
            self.generations.pop_front();
        }
    }

    /// The fault: none gets into a snapshot.
    #[cfg(mutant)]
    pub(crate) fn serialize_unless_forgotten<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let kept = if crate::mutant::is("M16") { Self::default() } else { self.clone() };
        kept.serialize(serializer)
    }

    /// How many are kept.
    pub(crate) fn count(&self) -> usize {
        self.generations.iter().map(|one| one.records.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> IdempotencyKey {
        IdempotencyKey { key: format!("k{number}"), request_hash: 0 }
    }

    #[test]
    fn past_a_million_the_oldest_are_forgotten() {
        let mut keys = Keys::default();
        let most = GENERATION_KEYS_MAX * GENERATIONS_MAX;
        for number in 0..=most {
            keys.forget(UnixMs(0));
            keys.remember(UnixMs(0), key(number), Ok(Reply::Done));
        }
        keys.forget(UnixMs(0));
        assert!(keys.count() <= most);
        assert_eq!(keys.answered(&key(0)), Ok(None));
        assert_eq!(keys.answered(&key(most)), Ok(Some(Ok(Reply::Done))));
    }

    #[test]
    fn a_copy_shares_all_but_the_youngest() {
        let mut keys = Keys::default();
        for number in 0..=GENERATION_KEYS_MAX {
            keys.remember(UnixMs(0), key(number), Ok(Reply::Done));
        }
        let copy = keys.clone();
        keys.remember(UnixMs(0), key(usize::MAX), Ok(Reply::Done));
        let shared =
            |at: usize| Arc::ptr_eq(&keys.generations[at].records, &copy.generations[at].records);
        assert!(shared(0) && !shared(1));
    }
}
