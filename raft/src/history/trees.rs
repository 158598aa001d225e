//! The trees of the store, and what is written into them.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_model::workflow::{Definition, DefinitionId};
use quorate_model::{Retired, Run, RunId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Record;
use super::index::{self, Position, run_key};
use super::store::{ALL, Store, Tree, scan};
use crate::codec;
use crate::error::HistoryError;

/// The format of values, their first byte.
const FORMAT: u8 = 1;

#[derive(Debug)]
pub(super) struct Trees {
    store: Arc<dyn Store>,
    pub(super) runs: Box<dyn Tree>,
    pub(super) definitions: Box<dyn Tree>,
    pub(super) uses: Box<dyn Tree>,
    pub(super) by_end: Box<dyn Tree>,
    pub(super) by_workflow: Box<dyn Tree>,
    pub(super) meta: Box<dyn Tree>,
}

impl Trees {
    pub(super) fn open(store: Arc<dyn Store>) -> Result<Self, HistoryError> {
        Ok(Self {
            runs: store.tree("runs")?,
            definitions: store.tree("definitions")?,
            uses: store.tree("uses")?,
            by_end: store.tree("by_end")?,
            by_workflow: store.tree("by_workflow")?,
            meta: store.tree("meta")?,
            store,
        })
    }

    pub(super) fn store(&self, retired: &Retired) -> Result<(), HistoryError> {
        let Retired { id, run, definition } = retired;
        let definition_key = run.definition.0.to_be_bytes();
        if !self.definitions.contains(&definition_key)? {
            self.definitions.insert(&definition_key, pack(&**definition))?;
        }
        self.insert_run(*id, run, pack(&**run))
    }

    /// The run before its indexes: what is listed can be read.
    fn insert_run(&self, id: RunId, run: &Run, value: Vec<u8>) -> Result<(), HistoryError> {
        let Some(position) = Position::of_run(id, run) else { return Ok(()) };
        self.uses.insert(&index::use_key(run.definition, id), Vec::new())?;
        self.runs.insert(&run_key(id), value)?;
        self.by_end.insert(&position.by_end(), Vec::new())?;
        self.by_workflow.insert(&position.by_workflow(run.workflow.as_str()), Vec::new())?;
        Ok(())
    }

    /// The run after all that leads to it: what was cut short can be repeated.
    pub(super) fn prune(&self, id: RunId) -> Result<(), HistoryError> {
        let Some(value) = self.runs.get(&run_key(id))? else { return Ok(()) };
        let run: Run = unpack(&value)?;
        if let Some(position) = Position::of_run(id, &run) {
            self.by_end.remove(&position.by_end())?;
            self.by_workflow.remove(&position.by_workflow(run.workflow.as_str()))?;
        }
        self.uses.remove(&index::use_key(run.definition, id))?;
        let definition = run.definition.0.to_be_bytes();
        if scan(&*self.uses, &definition).next().transpose()?.is_none() {
            self.definitions.remove(&definition)?;
        }
        self.runs.remove(&run_key(id))?;
        Ok(())
    }

    pub(super) fn take_in(
        &self,
        record: Record,
        live: &BTreeSet<RunId>,
    ) -> Result<(), HistoryError> {
        match record {
            Record::Run { id, value } if live.contains(&id) || value.is_empty() => Ok(()),
            Record::Run { id, value } => {
                let run: Run = unpack(&value)?;
                self.insert_run(id, &run, value)
            }
            Record::Definition { id, value } => {
                unpack::<Definition>(&value)?;
                self.definitions.insert(&id.0.to_be_bytes(), value)?;
                Ok(())
            }
        }
    }

    /// Drops runs that were pruned while they were exported, and their definition with them;
    /// and definitions whose runs are all live yet.
    pub(super) fn drop_undefined_runs(&self) -> Result<(), HistoryError> {
        let mut used = BTreeSet::new();
        for item in self.uses.range(ALL) {
            let (key, _) = item?;
            let Some((definition, run)) = index::parse_use_key(&key) else { continue };
            if self.definitions.contains(&definition.0.to_be_bytes())? {
                used.insert(definition);
            } else {
                self.prune(run)?;
            }
        }
        for item in self.definitions.range(ALL) {
            let (key, _) = item?;
            let id = key.as_slice().try_into().map(|id| DefinitionId(u128::from_be_bytes(id)));
            if !id.is_ok_and(|id| used.contains(&id)) {
                self.definitions.remove(&key)?;
            }
        }
        Ok(())
    }

    pub(super) fn secure_room(&self) {
        self.store.secure_room();
    }

    pub(super) fn sync(&self) -> Result<(), HistoryError> {
        self.store.sync()
    }

    pub(super) fn clear(&self) -> Result<(), HistoryError> {
        for tree in [&self.by_end, &self.by_workflow, &self.runs, &self.uses, &self.definitions] {
            tree.clear()?;
        }
        Ok(())
    }

    pub(super) fn retired(&self, id: RunId, value: &[u8]) -> Result<Option<Retired>, HistoryError> {
        let run: Run = unpack(value)?;
        let definition = self.definitions.get(&run.definition.0.to_be_bytes())?;
        // Without one only while it is being pruned.
        let Some(definition) = definition else { return Ok(None) };
        Ok(Some(Retired { id, run: Arc::new(run), definition: Arc::new(unpack(&definition)?) }))
    }
}

fn pack<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![FORMAT];
    codec::encode_into(value, &mut bytes).expect("our types serialize, and memory takes it");
    bytes
}

fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, HistoryError> {
    let Some((&format, mut body)) = bytes.split_first() else {
        return Err(HistoryError("an empty value".into()));
    };
    if format != FORMAT {
        return Err(HistoryError(format!("a value of format {format}: a newer version wrote it")));
    }
    let length = body.len() as u64;
    codec::decode_from(&mut body, length).map_err(|error| HistoryError(error.to_string()))
}
