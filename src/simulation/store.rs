//! The history's store in memory. After a power cut it is as it was synced last, or later.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_raft::{HistoryError, Pair, Range, Store, Tree};

use super::dice::Dice;

type Maps = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// A store. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct SimStore(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    now: Maps,
    durable: Maps,
}

impl SimStore {
    /// Leaves what was synced, or all that there is.
    pub(super) fn cut_power(&self, dice: &mut Dice) {
        let mut inner = self.lock();
        if dice.percent(50) {
            inner.now = inner.durable.clone();
        } else {
            inner.durable = inner.now.clone();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct SimTree {
    store: SimStore,
    name: String,
}

impl SimTree {
    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<Vec<u8>, Vec<u8>>) -> T) -> T {
        look(self.store.lock().now.entry(self.name.clone()).or_default())
    }
}

impl Store for SimStore {
    fn tree(&self, name: &str) -> Result<Box<dyn Tree>, HistoryError> {
        Ok(Box::new(SimTree { store: self.clone(), name: name.to_owned() }))
    }

    fn sync(&self) -> Result<(), HistoryError> {
        let mut inner = self.lock();
        inner.durable = inner.now.clone();
        Ok(())
    }
}

impl Tree for SimTree {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, HistoryError> {
        Ok(self.with(|map| map.get(key).cloned()))
    }

    fn contains(&self, key: &[u8]) -> Result<bool, HistoryError> {
        Ok(self.with(|map| map.contains_key(key)))
    }

    fn insert(&self, key: &[u8], value: Vec<u8>) -> Result<(), HistoryError> {
        self.with(|map| map.insert(key.to_vec(), value));
        Ok(())
    }

    fn remove(&self, key: &[u8]) -> Result<(), HistoryError> {
        self.with(|map| map.remove(key));
        Ok(())
    }

    fn clear(&self) -> Result<(), HistoryError> {
        self.with(BTreeMap::clear);
        Ok(())
    }

    fn range(&self, range: Range) -> Box<dyn Iterator<Item = Pair> + Send> {
        let pair = |(key, value): (&Vec<u8>, &Vec<u8>)| Ok((key.clone(), value.clone()));
        let found: Vec<Pair> = self.with(|map| map.range::<Vec<u8>, _>(range).map(pair).collect());
        Box::new(found.into_iter())
    }
}
