//! The keys of one task.

use std::collections::BTreeMap;

use quorate_model::workflow::{Action, OnLost, Retry, TaskDefinition, TriggerRule};
use quorate_model::{DurationMs, Json, Name};
use serde_json::json;

use super::approval;
use super::branch::{self, Targets};
use super::document::{Node, Place};
use super::report::Path;
use super::section::{Fields, Item, Reader, Respelling, Schema};
use super::template::Role;
use super::{Code, Diagnostic, Severity, kind, name, needs, retry};

/// Files that a task may keep with the run.
const ARTIFACTS_MAX: usize = 100;

/// Bytes of the path of such a file.
const ARTIFACT_BYTES_MAX: usize = 512;

/// The keys that say what a task does; each task has one of them.
const ACTIONS: [&str; 5] = ["run", "http", "noop", "switch", "approval"];

/// Keys for what a worker carries out.
const WORK_KEYS: [&str; 9] =
    ["shell", "outputs", "env", "retry", "on_lost", "timeout", "deadline", "runs_on", "artifacts"];

pub(super) const TASK: Schema = Schema {
    what: "a task",
    keys: &[
        "id",
        "name",
        "needs",
        "trigger_rule",
        "when",
        "disabled",
        "run",
        "http",
        "noop",
        "switch",
        "approval",
        "outputs",
        "shell",
        "env",
        "delay",
        "retry",
        "continue_on_failure",
        "on_lost",
        "timeout",
        "deadline",
        "runs_on",
        "artifacts",
    ],
    spellings: &[
        ("depends", "needs"),
        ("depends_on", "needs"),
        ("deps", "needs"),
        ("dependencies", "needs"),
        ("command", "run"),
        ("script", "run"),
        ("retries", "retry"),
        ("retry_policy", "retry"),
        ("timeout_sec", "timeout"),
        ("timeout-minutes", "timeout"),
        ("runs-on", "runs_on"),
        ("worker_selector", "runs_on"),
        ("if", "when"),
        ("preconditions", "when"),
        ("continue-on-error", "continue_on_failure"),
        ("continue_on", "continue_on_failure"),
        ("call", "workflow"),
        ("parallel", "for_each"),
        ("withItems", "for_each"),
    ],
    later: &[
        "sql",
        "workflow",
        "wait",
        "docker",
        "ssh",
        "email",
        "uses",
        "with",
        "for_each",
        "pool",
        "priority",
        "resources",
        "capture",
        "secrets",
        "hooks",
    ],
    hints: &[
        ("worker_group", "say `runs_on: {group: NAME}`"),
        ("params", "parameters are declared for the whole workflow, at the top of the file"),
    ],
};

/// What tasks do that do not say otherwise.
#[derive(Clone, Debug, Default)]
pub(super) struct Defaults {
    pub(super) retry: Retry,
    pub(super) on_lost: OnLost,
    pub(super) timeout: Option<DurationMs>,
    pub(super) runs_on: BTreeMap<Name, String>,
    pub(super) shell: serde_json::Value,
}

/// What a task is called and needs, as written.
#[derive(Debug)]
pub(super) struct Draft<'n> {
    /// The id as written; empty if there is none.
    pub(super) id: &'n str,
    /// Where the id stands.
    pub(super) place: Place,
    pub(super) needs: Vec<Need<'n>>,
    /// What it chooses among, if it is a switch.
    pub(super) targets: Targets<'n>,
    /// Whether the task says what it needs, be it nothing.
    pub(super) says_needs: bool,
}

/// One of the needs of a task.
#[derive(Clone, Debug)]
pub(super) struct Need<'n> {
    pub(super) id: &'n str,
    pub(super) place: Place,
    pub(super) pointer: String,
}

/// Reads an item of `tasks`. The task does not have its needs yet.
pub(super) fn read<'n>(
    reader: &mut Reader<'n>,
    node: &'n Node<'n>,
    path: &Path<'_>,
    index: usize,
    defaults: &Defaults,
) -> Option<(Draft<'n>, TaskDefinition)> {
    let fields = reader.fields(node, path, &TASK)?;
    let (text, place, id) = id(reader, &fields, path);
    // A name in place of the id is no title beside it.
    let title = fields.get("name").filter(|_| fields.get("id").is_some());
    let title = title.and_then(|item| reader.short(item)).unwrap_or("");
    let (task, targets) = body(reader, &fields, path, index, defaults);
    let task = TaskDefinition {
        id,
        title: title.to_owned(),
        trigger_rule: fields
            .get("trigger_rule")
            .map_or_else(TriggerRule::default, |item| trigger_rule(reader, item)),
        when: fields.get("when").map(|item| branch::condition(reader, item, index)),
        delay: fields.get("delay").and_then(|item| reader.duration(item)).unwrap_or_default(),
        disabled: fields.get("disabled").is_some_and(|item| reader.flag(item)),
        continue_on_failure: fields
            .get("continue_on_failure")
            .is_some_and(|item| reader.flag(item)),
        env: fields.get("env").map(|item| reader.env(item, Role::Env(index))).unwrap_or_default(),
        ..task
    };
    let needs = fields.get("needs").map(|item| needs::ids(reader, item));
    let says_needs = needs.is_some();
    let needs = needs.unwrap_or_default();
    Some((Draft { id: text, place, needs, targets, says_needs }, task))
}

/// The id of a task: as written, where it stands, and as a name. One that is wrong is
/// replaced: the document is refused in any case, and its other mistakes are of interest.
fn id<'n>(
    reader: &mut Reader<'n>,
    fields: &Fields<'n, '_>,
    path: &Path<'_>,
) -> (&'n str, Place, Name) {
    let named = fields.get("name").filter(|_| fields.get("id").is_none());
    let Some(item) = fields.get("id").or(named) else {
        if !fields.is_refused {
            let message = "a task needs an `id`".to_owned();
            let help = "add, for example, `id: load`";
            let place = fields.place;
            reader.report.error_with_help(Code::MissingKey, place, path, message, help);
        }
        return ("", fields.place, placeholder());
    };
    let text = reader.fixed(item).unwrap_or("");
    let place = item.node.place;
    let read = name::task(text);
    if let Some(key) = named.and_then(|named| named.key) {
        reader.respellings.push(Respelling { key: key.place, ours: "id", unit: None });
        let message = "a task without an `id` goes by its `name`";
        let found = match &read {
            Ok(_) => Diagnostic::new(Severity::Note, Code::OtherSpelling, message),
            Err(_) => Diagnostic::new(Severity::Error, Code::MissingKey, "a task needs an `id`"),
        };
        let help = format!("add `id: {}`", slug(text));
        reader.report.add(found.with_help(help).at(place.span, item.path.to_string()));
        return (text, place, read.unwrap_or_else(|_| placeholder()));
    }
    if text.is_empty() {
        return (text, place, placeholder());
    }
    (text, place, reader.name(read, place, &item.path).unwrap_or_else(placeholder))
}

fn placeholder() -> Name {
    "unnamed".parse().expect("it is a name")
}

/// An id made from a title.
fn slug(title: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    title.trim().chars().take(32).map(keep).collect()
}

/// The keys that make up what a task does; they stand at the top of the file where that is
/// the only task.
pub(super) fn body<'n>(
    reader: &mut Reader<'n>,
    fields: &Fields<'n, '_>,
    path: &Path<'_>,
    index: usize,
    defaults: &Defaults,
) -> (TaskDefinition, Targets<'n>) {
    let mut targets = Vec::new();
    let action = match action_key(reader, fields, path) {
        Some("noop") => Action::Noop,
        Some("switch") => match fields.get("switch") {
            Some(item) => {
                let (switch, found) = branch::switch(reader, item, index);
                targets = found;
                Action::Switch(switch)
            }
            None => Action::Noop,
        },
        Some("http") => request(reader, fields, index),
        Some("approval") => match fields.get("approval") {
            Some(item) => Action::Approval(approval::read(reader, item, index)),
            None => Action::Noop,
        },
        Some(_) | None => script(reader, fields, path, index, defaults),
    };
    let task = TaskDefinition::new(placeholder(), action);
    if !matches!(task.action, Action::Work { .. }) {
        refuse_work_keys(reader, fields, task.action.kind());
        return (task, targets);
    }
    let task = TaskDefinition {
        retry: fields
            .get("retry")
            .map_or_else(|| defaults.retry.clone(), |item| retry::read(reader, item)),
        on_lost: fields.get("on_lost").map_or(defaults.on_lost, |item| on_lost(reader, item)),
        // At the top of a file it is that of the run, and so is the deadline.
        timeout: match fields.get("timeout").filter(|_| !matches!(path, Path::Root)) {
            Some(item) => reader.timeout(item),
            None => defaults.timeout,
        },
        deadline: fields
            .get("deadline")
            .filter(|_| !matches!(path, Path::Root))
            .and_then(|item| reader.duration(item)),
        runs_on: match fields.get("runs_on") {
            Some(item) => reader.labels(item),
            None => defaults.runs_on.clone(),
        },
        artifacts: fields.get("artifacts").map(|item| artifacts(reader, item)).unwrap_or_default(),
        ..task
    };
    (task, targets)
}

/// The key that says what a task does: there must be one.
fn action_key(
    reader: &mut Reader<'_>,
    fields: &Fields<'_, '_>,
    path: &Path<'_>,
) -> Option<&'static str> {
    let mut found = ACTIONS.into_iter().filter(|key| fields.has(key));
    let (first, second) = (found.next(), found.next());
    if let (Some(first), Some(second)) = (first, second) {
        let message = format!("`{first}` and `{second}` exclude each other");
        let help = "a task does one thing; make two tasks of it";
        reader.report.error_with_help(Code::Conflict, fields.place, path, message, help);
    }
    if first.is_none() && !fields.is_refused {
        let message = "a task needs something to do".to_owned();
        let help = "add `run:` with the commands of a shell";
        reader.report.error_with_help(Code::MissingKey, fields.place, path, message, help);
    }
    first
}

/// Reports what is said of work that there is not.
fn refuse_work_keys(reader: &mut Reader<'_>, fields: &Fields<'_, '_>, kind: &str) {
    for key in WORK_KEYS {
        if let Some(item) = fields.get(key) {
            let message =
                format!("`{key}` means nothing to a `{kind}`, which no worker carries out");
            reader.bad_value(item, Code::Conflict, message);
        }
    }
}

/// Reports a key that means nothing to what this task does.
fn refuse(reader: &mut Reader<'_>, item: Option<Item<'_, '_>>, only: &str, help: &str) {
    let Some(item) = item else { return };
    let message = format!("`{}` is for a task with `{only}`", item.path.label());
    let place = item.key.map_or(item.node.place, |key| key.place);
    reader.report.error_with_help(Code::Conflict, place, &item.path, message, help);
}

fn request<'n>(reader: &mut Reader<'n>, fields: &Fields<'n, '_>, index: usize) -> Action {
    refuse(reader, fields.get("shell"), "run", "drop it");
    let params = fields.get("http").map(|item| {
        let outputs = fields.get("outputs");
        kind::http(reader, item, outputs, index)
    });
    let params = Json::new(&params.unwrap_or_default());
    Action::Work { kind: "http".parse().expect("it is a name"), params }
}

fn script<'n>(
    reader: &mut Reader<'n>,
    fields: &Fields<'n, '_>,
    path: &Path<'_>,
    index: usize,
    defaults: &Defaults,
) -> Action {
    // At the top of a file they are those of the run.
    let outputs = fields.get("outputs").filter(|_| !matches!(path, Path::Root));
    refuse(reader, outputs, "http", "a script writes its outputs to the file $QUORATE_OUTPUT");
    let run = fields.get("run").map_or("", |item| reader.script(item, index));
    let shell = match fields.get("shell") {
        Some(item) => reader.shell(item, Role::Shell(index)),
        None => defaults.shell.clone(),
    };
    let params = Json::new(&json!({"run": run, "shell": shell}));
    Action::Work { kind: "run".parse().expect("it is a name"), params }
}

fn trigger_rule<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> TriggerRule {
    const RULES: [(&str, TriggerRule); 8] = [
        ("all_success", TriggerRule::AllSuccess),
        ("all_done", TriggerRule::AllDone),
        ("one_success", TriggerRule::OneSuccess),
        ("one_failed", TriggerRule::OneFailed),
        ("all_failed", TriggerRule::AllFailed),
        ("none_failed", TriggerRule::NoneFailed),
        ("none_failed_min_one_success", TriggerRule::NoneFailedMinOneSuccess),
        ("always", TriggerRule::Always),
    ];
    reader.one_of(item, &RULES, "trigger rule")
}

/// `on_lost: hold`.
pub(super) fn on_lost<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> OnLost {
    const CHOICES: [(&str, OnLost); 3] =
        [("retry", OnLost::Retry), ("fail", OnLost::Fail), ("hold", OnLost::Hold)];
    reader.one_of(item, &CHOICES, "choice for `on_lost`")
}

fn artifacts<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> Vec<String> {
    let mut paths = Vec::new();
    reader.one_or_more(item, "a path or a list of paths", |reader, item| {
        let Some(path) = reader.fixed(item) else { return };
        let inside = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !inside || path.len() > ARTIFACT_BYTES_MAX {
            let message = format!(
                "{path:?} is no path below the working directory of the task, such as out/a.csv, \
                 of at most {ARTIFACT_BYTES_MAX} bytes"
            );
            reader.bad_value(item, Code::BadValue, message);
        } else if path.contains(['*', '?', '[']) {
            let message = "not supported yet: patterns in `artifacts`".to_owned();
            reader.bad_value(item, Code::NotSupportedYet, message);
        } else {
            paths.push(path.to_owned());
        }
    });
    if paths.len() > ARTIFACTS_MAX {
        let message = format!("{} artifacts; {ARTIFACTS_MAX} is the most", paths.len());
        reader.bad_value(item, Code::Limit, message);
    }
    paths
}
