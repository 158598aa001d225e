//! What an expression may look up.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, Serde, Value as Item};
use serde_json::{Value, json};

use crate::time::Zone;

/// Where the engine's own functions find what they need. No expression can say these names.
pub(crate) const OUTCOME: &str = "@outcome";
pub(crate) const ZONE: &str = "@zone";

/// The names that an expression may look up, with their values. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Context {
    names: Arc<Names>,
}

/// Values that are looked up one by one, by key: there may be too many to lay out first, as
/// with the tasks of a DAG of ten thousand.
pub trait Lookup: fmt::Debug + Send + Sync + 'static {
    /// The value under a key, if there is one.
    fn get(&self, key: &str) -> Option<Value>;
}

/// How the predecessors of a task have ended, as far as they have: what `success()`,
/// `failure()` and `always()` go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// None of them failed.
    Success,
    /// One of them failed, timed out, was lost, or did not start since one before it failed.
    Failure,
}

/// What an expression may know of the run that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFacts {
    /// Its id.
    pub id: String,
    /// What started it, in a word.
    pub trigger: String,
    /// The point in time that it is about, in milliseconds since 1970.
    pub logical_time_ms: u64,
    /// Where its days begin.
    pub zone: Zone,
}

impl Context {
    /// Sets `run`, and the words that Airflow has for its time.
    pub fn set_run(&mut self, facts: &RunFacts) {
        let RunFacts { id, trigger, logical_time_ms, zone } = facts;
        let time = zone.date_time(*logical_time_ms);
        // A run that no schedule started is about a point in time.
        let interval = json!({"start": time, "end": time});
        let run = json!({
            "id": id, "trigger": trigger, "logical_time": time, "data_interval": interval,
        });
        self.set("run", &run);
        self.set("data_interval_start", &time.clone().into());
        self.set("data_interval_end", &time.clone().into());
        let day = time.split('T').next().unwrap_or_default();
        self.set("ds", &day.into());
        self.set("ds_nodash", &day.replace('-', "").into());
        self.insert(ZONE, Item::from_object(zone.clone()));
    }

    /// Sets a name to a value.
    pub fn set(&mut self, name: &'static str, value: &Value) {
        self.insert(name, Item::from(Serde(value)));
    }

    /// Sets a name to values that are looked up one by one.
    pub fn set_lookup(&mut self, name: &'static str, values: Arc<dyn Lookup>) {
        self.insert(name, Item::from_object(LookedUp(values)));
    }

    /// Says how the predecessors ended. Without it, `success()` and `failure()` are errors.
    pub fn set_outcome(&mut self, outcome: Outcome) {
        self.insert(OUTCOME, Item::from(outcome == Outcome::Success));
    }

    fn insert(&mut self, name: &'static str, value: Item) {
        Arc::make_mut(&mut self.names).0.insert(name, value);
    }

    pub(crate) fn item(&self) -> Item {
        Item::from_dyn_object(Arc::clone(&self.names))
    }
}

#[derive(Clone, Debug, Default)]
struct Names(BTreeMap<&'static str, Item>);

impl Object for Names {
    fn get_value(self: &Arc<Self>, key: &Item) -> Option<Item> {
        self.0.get(key.as_str()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}

#[derive(Debug)]
struct LookedUp(Arc<dyn Lookup>);

impl Object for LookedUp {
    fn get_value(self: &Arc<Self>, key: &Item) -> Option<Item> {
        self.0.get(key.as_str()?).map(|value| Item::from(Serde(value)))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}
