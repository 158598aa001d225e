//! The key `hooks`: tasks at moments of a run, beside the DAG.

use quorate_model::workflow::{Hook, TaskDefinition};

use super::report::Path;
use super::section::{Item, Reader, Schema};
use super::task::{self, Defaults};
use super::template::Role;

pub(super) const HOOKS: Schema = Schema {
    what: "`hooks`",
    keys: &["start", "success", "failure", "cancel", "finally"],
    spellings: &[
        ("init", "start"),
        ("failed", "failure"),
        ("abort", "cancel"),
        ("exit", "finally"),
        ("always", "finally"),
    ],
    later: &[],
    hints: &[],
};

pub(super) const HOOK: Schema = Schema {
    what: "a hook",
    keys: &["run", "shell", "env", "retry", "on_lost", "timeout", "runs_on", "artifacts"],
    spellings: &[("command", "run"), ("script", "run")],
    later: &["http", "sql", "workflow", "docker", "ssh", "email", "uses", "with"],
    hints: &[("needs", "a hook comes when all tasks have ended, and needs none")],
};

/// Reads `hooks`. They come behind the `first` tasks of the DAG.
pub(super) fn read<'n>(
    reader: &mut Reader<'n>,
    item: Item<'n, '_>,
    first: usize,
    defaults: &Defaults,
) -> Vec<TaskDefinition> {
    let mut hooks = Vec::new();
    let Some(fields) = reader.fields(item.node, &item.path, &HOOKS) else { return hooks };
    for (key, hook) in HOOKS.keys.iter().zip(Hook::ALL) {
        let Some(item) = fields.get(key) else { continue };
        let path: Path<'_> = item.path;
        let Some(fields) = reader.fields(item.node, &path, &HOOK) else { continue };
        let index = first + hooks.len();
        let (task, _) = task::body(reader, &fields, &path, index, defaults);
        let env = fields.get("env").map(|item| reader.env(item, Role::Env(index)));
        let id = format!("hook_{key}").parse().expect("it is a name");
        hooks.push(TaskDefinition { id, hook: Some(hook), env: env.unwrap_or_default(), ..task });
    }
    hooks
}
