//! The task kind `run`: a script, and who interprets it.
//!
//! ```json
//! { "run": "wc -l < in.csv", "shell": null }
//! ```
//! - `run`: the script; text of 1 byte to 1 MiB, without NUL.
//! - `shell`: `null` or left out for `bash -euo pipefail`, or `sh -eu` where there is no bash;
//!   `"bash"` or `"sh"` for just that; `"python"` for `python3`; the name or absolute path of
//!   any other program, or a list of it and its arguments, which is then given the script as
//!   a file, for its last argument.

use serde::Deserialize;
use serde_json::Value;

use super::{Context, Invocation, TaskKind, find_program};

/// The longest script. What is longer belongs in a repository.
const SCRIPT_BYTES_MAX: usize = 1024 * 1024;

/// A script of a shell up to this goes on the command line: a file costs a create, a write,
/// an open and an unlink, together as much as a tenth of a start. The kernel takes 128 KiB.
const INLINE_BYTES_MAX: usize = 16 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    run: String,
    #[serde(default)]
    shell: Option<Interpreter>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`shell` is a name, an absolute path, or a list of words")]
enum Interpreter {
    Name(String),
    Argv(Vec<String>),
}

/// The kind `run`.
pub(super) struct Shell {
    /// As found when the worker started, with its arguments.
    default: Result<Vec<String>, String>,
}

impl Shell {
    /// Looks for the default shell in `path`.
    pub(super) fn new(path: &str) -> Self {
        let default = bash(path).or_else(|_| sh(path));
        if let Err(reason) = &default {
            tracing::warn!(%reason, "tasks of kind run will fail");
        }
        Self { default }
    }
}

fn bash(path: &str) -> Result<Vec<String>, String> {
    Ok(vec![find_program("bash", path)?, "-euo".to_owned(), "pipefail".to_owned()])
}

fn sh(path: &str) -> Result<Vec<String>, String> {
    Ok(vec![find_program("sh", path)?, "-eu".to_owned()])
}

impl TaskKind for Shell {
    fn name(&self) -> &'static str {
        "run"
    }

    fn prepare(&self, params: &Value, context: &Context<'_>) -> Result<Invocation, String> {
        let Params { run, shell } = Params::deserialize(params)
            .map_err(|error| format!("the params of a task of kind run: {error}"))?;
        check(&run)?;
        let Context { workspace, path } = *context;
        let (mut argv, takes_text) = match shell {
            None => (self.default.clone()?, true),
            Some(Interpreter::Name(name)) => match name.as_str() {
                "bash" => (bash(path)?, true),
                "sh" => (sh(path)?, true),
                // From a file, so that a traceback can show the line.
                "python" => (vec![find_program("python3", path)?], false),
                other => (vec![find_program(other, path)?], false),
            },
            Some(Interpreter::Argv(mut argv)) => {
                let program = argv.first_mut().ok_or("`shell` is an empty list")?;
                *program = find_program(program, path)?;
                (argv, false)
            }
        };
        if takes_text && run.len() <= INLINE_BYTES_MAX {
            argv.extend(["-c".to_owned(), run]);
            return Ok(Invocation { argv, script: None });
        }
        argv.push(workspace.script().to_string_lossy().into_owned());
        Ok(Invocation { argv, script: Some(run) })
    }
}

fn check(script: &str) -> Result<(), String> {
    if script.is_empty() || script.len() > SCRIPT_BYTES_MAX {
        return Err(format!("the script takes {} bytes; 1 byte to 1 MiB may be", script.len()));
    }
    if script.contains('\0') {
        return Err("the script contains a NUL".to_owned());
    }
    Ok(())
}
