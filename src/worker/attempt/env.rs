//! The environment of a task: nothing of the worker's own but a few variables, what the
//! workflow says, and what the task is to know of itself.

use std::collections::BTreeMap;
use std::path::Path;

use quorate_model::{Dispatch, Name};

use super::super::keeper::MARKER;

/// The largest environment, names and values together. The kernel takes more, but passes
/// it on to every process that the task starts.
const ENV_BYTES_MAX: usize = 64 * 1024;

/// Where programs are looked for if the worker was not told.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is passed on of the worker's environment.
const PASSED_ON: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];

/// Where every environment begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseEnv(BTreeMap<String, String>);

/// The environment of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Env(BTreeMap<String, String>);

impl BaseEnv {
    /// That of this process, as far as it is passed on.
    pub(crate) fn of_this_process() -> Self {
        let passed_on = PASSED_ON.into_iter();
        let set = passed_on.filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
        let mut env: BTreeMap<_, _> = set.collect();
        env.entry("PATH".to_owned()).or_insert_with(|| PATH.to_owned());
        env.entry("LANG".to_owned()).or_insert_with(|| "C.UTF-8".to_owned());
        Self(env)
    }

    /// Where programs are looked for.
    pub(crate) fn path(&self) -> &str {
        &self.0["PATH"]
    }

    /// Adds what the workflow says and what the attempt is to know of itself.
    ///
    /// # Errors
    ///
    /// If the workflow says something that no environment can hold, or must not.
    pub(super) fn complete(
        &self,
        dispatch: &Dispatch,
        workflow: &Name,
        id: &Name,
        given: BTreeMap<String, String>,
    ) -> Result<Env, String> {
        let mut env = self.0.clone();
        for (name, value) in given {
            check(&name, &value)?;
            env.insert(name, value);
        }
        let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > ENV_BYTES_MAX {
            let kib_max = ENV_BYTES_MAX / 1024;
            return Err(format!("the environment takes {bytes} bytes; {kib_max} KiB is the most"));
        }
        let Dispatch { task, attempt, token, .. } = dispatch;
        let own = [
            ("QUORATE_WORKFLOW", workflow.to_string()),
            ("QUORATE_RUN_ID", task.run.to_string()),
            ("QUORATE_TASK", id.to_string()),
            ("QUORATE_ATTEMPT", attempt.0.to_string()),
            ("QUORATE_FENCING_TOKEN", token.0.to_string()),
            ("QUORATE_IDEMPOTENCY_KEY", format!("{}/{id}", task.run)),
        ];
        env.extend(own.map(|(name, value)| (name.to_owned(), value)));
        Ok(Env(env))
    }
}

/// `LD_*` could have a task run code before its program does, and `QUORATE_*` is how a task,
/// and whoever must kill it, knows which attempt it is.
fn check(name: &str, value: &str) -> Result<(), String> {
    if name.starts_with("LD_") || name.starts_with("QUORATE_") {
        return Err(format!("env may not set {name}: LD_* and QUORATE_* are reserved"));
    }
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Err(format!("env cannot hold {name:?}: empty, or with a '=' or a NUL in it"));
    }
    Ok(())
}

impl Env {
    /// Where programs are looked for.
    pub(super) fn path(&self) -> &str {
        &self.0["PATH"]
    }

    /// Says where it may put out values.
    pub(super) fn put_output(&mut self, file: &Path) {
        self.0.insert(MARKER.to_owned(), file.to_string_lossy().into_owned());
    }

    /// All variables.
    pub(super) fn into_variables(self) -> Vec<(String, String)> {
        self.0.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use quorate_model::{Attempt, Epoch, FencingToken, TaskId, WorkerId};

    use super::*;

    fn complete(given: &[(&str, &str)]) -> Result<BTreeMap<String, String>, String> {
        let base = BaseEnv(BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]));
        let dispatch = Dispatch {
            task: TaskId::default(),
            attempt: Attempt(2),
            token: FencingToken(41),
            worker: WorkerId(1),
            epoch: Epoch(1),
        };
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let (workflow, id) = ("etl".parse().unwrap(), "load".parse().unwrap());
        base.complete(&dispatch, &workflow, &id, given.collect()).map(|env| env.0)
    }

    #[test]
    fn tells_the_attempt_who_it_is() {
        let env = complete(&[("A", "1"), ("PATH", "/opt/bin:/bin")]).unwrap();
        let run = TaskId::default().run;
        assert_eq!(env["A"], "1");
        assert_eq!(env["PATH"], "/opt/bin:/bin");
        assert_eq!(env["QUORATE_ATTEMPT"], "2");
        assert_eq!(env["QUORATE_FENCING_TOKEN"], "41");
        assert_eq!(env["QUORATE_TASK"], "load");
        assert_eq!(env["QUORATE_WORKFLOW"], "etl");
        assert_eq!(env["QUORATE_RUN_ID"], run.to_string());
        assert_eq!(env["QUORATE_IDEMPOTENCY_KEY"], format!("{run}/load"), "no attempt in it");
    }

    #[test]
    fn refuses_what_is_reserved_and_what_cannot_be() {
        for name in ["LD_PRELOAD", "QUORATE_OUTPUT", "", "A=B", "A\0"] {
            assert!(complete(&[(name, "1")]).is_err(), "{name:?}");
        }
        assert!(complete(&[("A", "x\0y")]).is_err());
    }

    #[test]
    fn takes_64_kib_and_not_one_byte_more() {
        let room = ENV_BYTES_MAX - "PATH/binA".len();
        assert!(complete(&[("A", &"x".repeat(room))]).is_ok());
        assert!(complete(&[("A", &"x".repeat(room + 1))]).unwrap_err().contains("64 KiB"));
    }
}
