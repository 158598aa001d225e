//! Finished runs that left the live state, in sled.
//!
//! Filled by apply and emptied by apply, the same on every node; writing a run twice is
//! writing it once, so replaying the log repairs what a crash cut short. Nothing here is
//! durable before a [checkpoint](History::checkpoint): the log is kept until then.
//!
//! ```text
//! runs         run id                              → format, Run
//! definitions  definition id                       → format, Definition
//! uses         definition id, run id               → (a definition goes with its last use)
//! by_end       end, newest first, run id           →
//! by_workflow  name, 0, end, newest first, run id  →
//! meta         "durable"                           → the entry up to which all this is whole
//!              "missing"                           → runs were lost: to be had from a peer
//! ```

mod index;
mod store;
mod trees;

use std::collections::BTreeSet;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use quorate_model::plan::Finished;
use quorate_model::workflow::DefinitionId;
use quorate_model::{LogIndex, Retired, RunEnd, RunId, UnixMs};
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::error::HistoryError;
use crate::machine;
use index::{Position, run_key};
use store::ALL;
use trees::Trees;

pub(crate) use store::SledStore;
pub use store::{Pair, Range, Store, Tree};

/// The most runs in one answer of [`History::list`]: the longest page of the API, and the one
/// behind it that tells that there is more.
pub const LIST_RUNS_MAX: usize = 1_001;

/// The largest record that is sent by itself: what a frame holds, and a page before it.
const RECORD_BYTES_MAX: usize = codec::FRAME_BYTES_MAX - 2 * 1024 * 1024;

const DURABLE: &[u8] = b"durable";
const MISSING: &[u8] = b"missing";

/// Which finished runs to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only those before this one in the order of the list, newest first by `(created at,
    /// id)`.
    pub before: Option<(UnixMs, RunId)>,
    /// Only those of these workflows; empty for all.
    pub workflows: Vec<String>,
    /// Only those that ended so; empty for all.
    pub ends: Vec<RunEnd>,
    /// At most this many, and at most [`LIST_RUNS_MAX`].
    pub limit: usize,
}

/// Finished runs that left the live state.
#[derive(Debug)]
pub struct History {
    /// `None` once closed.
    trees: RwLock<Option<Arc<Trees>>>,
    /// Runs that the live state has let go of and sled does not have yet, so that none is
    /// nowhere for a moment.
    staged: Mutex<Vec<Retired>>,
    /// While runs come in from another node: those that were pruned here meanwhile.
    refill: Mutex<Option<BTreeSet<RunId>>>,
}

/// A run or a definition on its way to another node, as sled holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Record {
    Run { id: RunId, value: Vec<u8> },
    Definition { id: DefinitionId, value: Vec<u8> },
}

/// Where a record stands in the order of [`History::page`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RecordId {
    Run(RunId),
    Definition(DefinitionId),
}

impl Record {
    pub(crate) fn id(&self) -> RecordId {
        match self {
            Self::Run { id, .. } => RecordId::Run(*id),
            Self::Definition { id, .. } => RecordId::Definition(*id),
        }
    }

    /// Without its value if that is too large for a frame. Such a run is had by snapshot only.
    pub(crate) fn fit_for_a_frame(self) -> Self {
        match self {
            Self::Run { id, value } if value.len() > RECORD_BYTES_MAX => {
                tracing::warn!(run = %id, bytes = value.len(), "too large to refill a history with");
                Self::Run { id, value: Vec::new() }
            }
            Self::Run { .. } | Self::Definition { .. } => self,
        }
    }

    fn value(&self) -> &[u8] {
        match self {
            Self::Run { value, .. } | Self::Definition { value, .. } => value,
        }
    }
}

impl History {
    /// Opens the history in `dir`, or an empty one.
    pub(crate) fn open(dir: &Path) -> Result<Self, HistoryError> {
        // Damaged files make sled panic as often as fail.
        let open = || Trees::open(machine::store(dir)?);
        let opened = std::panic::catch_unwind(AssertUnwindSafe(open));
        let trees = opened.unwrap_or_else(|_| Err(HistoryError("its files are damaged".into())))?;
        Ok(Self {
            trees: RwLock::new(Some(Arc::new(trees))),
            staged: Mutex::default(),
            refill: Mutex::default(),
        })
    }

    /// Opens the history in `dir`; if it cannot be read or does not reach `index`, sets it
    /// aside and begins an empty one, to be refilled.
    pub(crate) fn open_or_set_aside(dir: &Path, index: LogIndex) -> Result<Self, HistoryError> {
        let trouble = match Self::open(dir) {
            Ok(history) => match history.durable()? {
                durable if durable >= index => return Ok(history),
                durable => format!("it is whole up to {durable} only, not to {index}"),
            },
            Err(error) => error.0,
        };
        if dir.exists() {
            let aside = set_aside(dir).map_err(|error| HistoryError(error.to_string()))?;
            tracing::error!(
                "the history of finished runs cannot be used: {trouble}; it is set aside as {} \
                 and refilled from the log and, if there is one, another node",
                aside.display()
            );
        }
        let history = Self::open(dir)?;
        history.trees()?.meta.insert(MISSING, Vec::new())?;
        Ok(history)
    }

    /// A finished run; `None` if it is live still, pruned, or never was.
    ///
    /// # Errors
    ///
    /// If sled cannot be read.
    pub fn get(&self, run: RunId) -> Result<Option<Retired>, HistoryError> {
        let staged = self.staged().iter().find(|retired| retired.id == run).cloned();
        if staged.is_some() {
            return Ok(staged);
        }
        let trees = self.trees()?;
        let Some(value) = trees.runs.get(&run_key(run))? else { return Ok(None) };
        trees.retired(run, &value)
    }

    /// Finished runs, newest first.
    ///
    /// # Errors
    ///
    /// If sled cannot be read.
    pub fn list(&self, query: &HistoryQuery) -> Result<Vec<Retired>, HistoryError> {
        let limit = query.limit.min(LIST_RUNS_MAX);
        let staged: Vec<Retired> = self
            .staged()
            .iter()
            .filter(|retired| index::matches(query, retired))
            .cloned()
            .collect();
        let trees = self.trees()?;
        let mut found = Vec::new();
        for id in index::newest(&trees, query)?.take(limit) {
            let id = id?;
            let Some(value) = trees.runs.get(&run_key(id))? else { continue };
            found.extend(trees.retired(id, &value)?);
        }
        found.extend(staged);
        found.sort_by_key(Position::of);
        found.dedup_by_key(|retired| retired.id);
        found.truncate(limit);
        Ok(found)
    }

    /// Every finished run, for retention. Reads keys only, all of them: off the hot path.
    ///
    /// # Errors
    ///
    /// If sled cannot be read.
    pub fn finished(&self) -> Result<Vec<Finished>, HistoryError> {
        index::finished(&*self.trees()?).collect()
    }

    /// Takes over runs that the live state lets go of. Quick, as the state is locked.
    pub(crate) fn stage(&self, retired: &[Retired]) {
        if !retired.is_empty() {
            self.staged().extend_from_slice(retired);
        }
    }

    /// Writes what was staged.
    pub(crate) fn store_staged(&self) -> Result<(), HistoryError> {
        let staged = self.staged().clone();
        if staged.is_empty() {
            return Ok(());
        }
        let trees = self.trees()?;
        for retired in &staged {
            trees.store(retired)?;
        }
        self.staged().drain(..staged.len());
        Ok(())
    }

    /// Forgets runs.
    pub(crate) fn prune(&self, runs: &[RunId]) -> Result<(), HistoryError> {
        let trees = self.trees()?;
        let mut refill = self.refill.lock().unwrap_or_else(PoisonError::into_inner);
        refill.iter_mut().for_each(|pruned| pruned.extend(runs));
        runs.iter().try_for_each(|&run| trees.prune(run))
    }

    /// Makes everything durable, and records that it is whole up to `index`.
    pub(crate) fn checkpoint(&self, index: LogIndex) -> Result<(), HistoryError> {
        let trees = self.trees()?;
        let upto = index.max(self.durable()?);
        trees.meta.insert(DURABLE, upto.0.to_be_bytes().to_vec())?;
        trees.sync()
    }

    /// Has the file system set some room aside for what is written next.
    pub(crate) fn secure_room(&self) {
        // A history that is closed needs none.
        if let Ok(trees) = self.trees() {
            trees.secure_room();
        }
    }

    /// The entry up to which all is whole and durable.
    pub(crate) fn durable(&self) -> Result<LogIndex, HistoryError> {
        let value = self.trees()?.meta.get(DURABLE)?;
        let bytes = value.and_then(|value| value.try_into().ok()).map(u64::from_be_bytes);
        Ok(LogIndex(bytes.unwrap_or(0)))
    }

    /// Whether runs were lost that another node may have.
    pub(crate) fn is_missing_runs(&self) -> Result<bool, HistoryError> {
        self.trees()?.meta.contains(MISSING)
    }

    /// What comes after `after`, for another node: about `bytes_max` bytes, nothing at the end.
    /// Runs first, so that the definition of each comes after it, whatever is added meanwhile.
    pub(crate) fn page(
        &self,
        after: Option<RecordId>,
        bytes_max: usize,
    ) -> Result<Vec<Record>, HistoryError> {
        let trees = self.trees()?;
        let (runs, definitions) = match after {
            None => (trees.runs.range(ALL), trees.definitions.range(ALL)),
            Some(RecordId::Run(id)) => {
                (index::after(&*trees.runs, run_key(id)), trees.definitions.range(ALL))
            }
            Some(RecordId::Definition(id)) => {
                let rest = index::after(&*trees.definitions, id.0.to_be_bytes());
                (index::after(&*trees.runs, [u8::MAX; 16]), rest)
            }
        };
        let runs = runs.map(|item| item.map(|(key, value)| index::run_record(&key, &value)));
        let definitions =
            definitions.map(|item| item.map(|(key, value)| index::definition_record(&key, &value)));
        let mut bytes = 0;
        let mut page = Vec::new();
        for record in runs.chain(definitions) {
            let Some(record) = record? else { continue };
            bytes += record.value().len();
            page.push(record);
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(page)
    }

    /// Replaces everything by what another node exported when it had applied at least
    /// `index`. Of its runs, those that are `live` at `index` are left to the log.
    pub(crate) fn replace(
        &self,
        mut records: impl FnMut() -> io::Result<Option<Record>>,
        live: &BTreeSet<RunId>,
        index: LogIndex,
    ) -> Result<(), HistoryError> {
        let trees = self.trees()?;
        // If this is cut short, the history must not be taken for whole.
        trees.meta.clear()?;
        trees.sync()?;
        self.staged().clear();
        trees.clear()?;
        while let Some(record) = records().map_err(|error| HistoryError(error.to_string()))? {
            trees.take_in(record, live)?;
        }
        trees.drop_undefined_runs()?;
        self.checkpoint(index)
    }

    /// Begins to take in what another node has. That node must have applied as much as this.
    pub(crate) fn begin_refill(&self) {
        *self.refill.lock().unwrap_or_else(PoisonError::into_inner) = Some(BTreeSet::new());
    }

    /// Adds what another node has, except what is `live` here or was pruned meanwhile.
    pub(crate) fn refill(
        &self,
        records: Vec<Record>,
        live: &BTreeSet<RunId>,
    ) -> Result<(), HistoryError> {
        let trees = self.trees()?;
        let refill = self.refill.lock().unwrap_or_else(PoisonError::into_inner);
        let none = BTreeSet::new();
        let pruned = refill.as_ref().unwrap_or(&none);
        for record in records {
            let is_pruned = matches!(&record, Record::Run { id, .. } if pruned.contains(id));
            if !is_pruned {
                trees.take_in(record, live)?;
            }
        }
        Ok(())
    }

    /// Ends a refill: nothing is missing any more.
    pub(crate) fn end_refill(&self) -> Result<(), HistoryError> {
        let trees = self.trees()?;
        let mut refill = self.refill.lock().unwrap_or_else(PoisonError::into_inner);
        trees.drop_undefined_runs()?;
        trees.meta.remove(MISSING)?;
        *refill = None;
        Ok(())
    }

    /// Lets go of the files. Every later call fails.
    pub(crate) fn close(&self) {
        *self.trees.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn trees(&self) -> Result<Arc<Trees>, HistoryError> {
        let trees = self.trees.read().unwrap_or_else(PoisonError::into_inner);
        trees.clone().ok_or_else(|| HistoryError("the node has stopped".into()))
    }

    fn staged(&self) -> std::sync::MutexGuard<'_, Vec<Retired>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves a directory out of the way, and answers where to.
fn set_aside(dir: &Path) -> io::Result<PathBuf> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut aside = dir.as_os_str().to_owned();
    aside.push(format!(".broken-{}", since.as_millis()));
    let aside = PathBuf::from(aside);
    std::fs::rename(dir, &aside)?;
    Ok(aside)
}
