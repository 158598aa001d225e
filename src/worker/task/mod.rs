//! The kinds of task that a worker knows. One file each, and a line in [`Kinds::new`]; one more
//! in [`carry_out`] for those that are no program of somebody else.

mod child;
mod http;
mod shell;

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;

use super::attempt::Workspace;
use child::{Failure, Outputs, Told};

pub(crate) use child::run as run_child;
pub(crate) use http::{LOOPBACK, Network};

/// What a kind of task does with its params.
pub(crate) trait TaskKind: Send + Sync {
    /// What it is called in a workflow.
    fn name(&self) -> &'static str;

    /// How to start an attempt.
    ///
    /// # Errors
    ///
    /// What is wrong with the params, in words for people.
    fn prepare(&self, params: &Value, context: &Context<'_>) -> Result<Invocation, String>;
}

/// What a kind may need to know of an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    /// Where it will run.
    pub(crate) workspace: &'a Workspace,
    /// Where its programs are looked for.
    pub(crate) path: &'a str,
}

/// How to start an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invocation {
    /// A program, by absolute path, and its arguments.
    pub(crate) argv: Vec<String>,
    /// Written to [`Workspace::script`] first.
    pub(crate) script: Option<String>,
}

/// Where this program was started from.
static PROGRAM: LazyLock<String> = LazyLock::new(|| {
    let found =
        std::env::current_exe().ok().and_then(|path| path.into_os_string().into_string().ok());
    // A keeper that is the same program looks there, where its own is.
    found.unwrap_or_else(|| "/proc/self/exe".to_owned())
});

impl Invocation {
    /// This very program, in a process that carries out `spec`.
    fn of_child(kind: &str, spec: &Value, context: &Context<'_>) -> Self {
        let file = context.workspace.script().to_string_lossy().into_owned();
        let argv = vec![PROGRAM.clone(), "task".to_owned(), kind.to_owned(), file];
        Self { argv, script: Some(spec.to_string()) }
    }
}

/// Carries out a task in the process that was made for it.
async fn carry_out(kind: &str, spec: Value, told: &Told) -> Result<Outputs, Failure> {
    match kind {
        "http" => http::carry_out(spec, told).await,
        other => Err(Failure::lasting(format!("{other:?} is not carried out so"))),
    }
}

/// What kinds are told by whoever set up the worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Where tasks of kind `http` may reach, besides where they always may.
    pub(crate) http_allow: Vec<Network>,
}

/// Every kind that this worker knows.
pub(crate) struct Kinds {
    kinds: Vec<Box<dyn TaskKind>>,
}

impl Kinds {
    /// All that are built in, with programs found in `path`.
    pub(crate) fn new(path: &str, settings: Settings) -> Self {
        let kinds: Vec<Box<dyn TaskKind>> =
            vec![Box::new(shell::Shell::new(path)), Box::new(http::Http::new(settings.http_allow))];
        Self { kinds }
    }

    /// How to start an attempt at a task of some kind.
    ///
    /// # Errors
    ///
    /// Why it can't be started, in words for people.
    pub(crate) fn prepare(
        &self,
        kind: &str,
        params: &Value,
        context: &Context<'_>,
    ) -> Result<Invocation, String> {
        let found = self.kinds.iter().find(|known| known.name() == kind);
        let found = found.ok_or_else(|| {
            let known: Vec<_> = self.kinds.iter().map(|known| known.name()).collect();
            format!("this worker knows no task kind {kind:?}, only {}", known.join(", "))
        })?;
        found.prepare(params, context)
    }
}

/// How many programs are remembered with where they were found: more than any worker's tasks
/// are started by.
const FOUND_MAX: usize = 64;

thread_local! {
    /// By name and path, where a program was found last.
    static FOUND: RefCell<HashMap<(String, String), String>> = RefCell::default();
}

/// The executable file called `name` in the directories of `path`, or at `name` itself if
/// that is an absolute path.
pub(crate) fn find_program(name: &str, path: &str) -> Result<String, String> {
    let key = (name.to_owned(), path.to_owned());
    let known = FOUND.with_borrow(|found| found.get(&key).cloned());
    // A path has many directories, and a start is to take no time. Should the program come to
    // be in an earlier one, it is found there when this worker starts anew.
    if let Some(known) = known.filter(|known| is_executable(Path::new(known))) {
        return Ok(known);
    }
    let program = search(name, path)?;
    FOUND.with_borrow_mut(|found| {
        if found.len() >= FOUND_MAX {
            found.clear();
        }
        found.insert(key, program.clone());
    });
    Ok(program)
}

fn is_executable(file: &Path) -> bool {
    let found = file.metadata();
    found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn search(name: &str, path: &str) -> Result<String, String> {
    let mut candidates: Box<dyn Iterator<Item = PathBuf>> = if name.starts_with('/') {
        Box::new(std::iter::once(name.into()))
    } else if name.is_empty() || name.contains('/') {
        return Err(format!("{name:?} is neither the name of a program nor an absolute path"));
    } else {
        Box::new(path.split(':').filter(|dir| !dir.is_empty()).map(|dir| Path::new(dir).join(name)))
    };
    let found = candidates.find(|file| is_executable(file));
    let found = found.and_then(|file| file.into_os_string().into_string().ok());
    found.ok_or_else(|| format!("this worker has no program {name:?}"))
}
