//! The keys of one task.

use std::collections::BTreeMap;

use quorate_model::workflow::validate::{ENV_BYTES_MAX, RETRIES_MAX};
use quorate_model::workflow::{Action, OnLost, Retry, TaskDefinition, TriggerRule};
use quorate_model::{DurationMs, Json, Name};
use serde_json::json;

use super::document::{Node, Place, Value};
use super::report::Path;
use super::section::{Fields, Item, Reader, Schema};
use super::template::Role;
use super::{Code, Diagnostic, Severity, name};

/// Files that a task may keep with the run.
const ARTIFACTS_MAX: usize = 100;

/// Bytes of the path of such a file.
const ARTIFACT_BYTES_MAX: usize = 512;

/// Bytes of a script, as workers take them.
const SCRIPT_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of the command that scripts are given to: every task keeps a copy of the default.
const SHELL_BYTES_MAX: usize = 1024;

/// The largest factor that delays may grow by: more is a slip.
const BACKOFF_MAX: f64 = 100.0;

const TASK: Schema = Schema {
    what: "a task",
    keys: &[
        "id",
        "name",
        "needs",
        "trigger_rule",
        "run",
        "shell",
        "env",
        "retry",
        "on_lost",
        "timeout",
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
        ("call", "workflow"),
        ("parallel", "for_each"),
        ("withItems", "for_each"),
    ],
    later: &[
        "http",
        "sql",
        "workflow",
        "switch",
        "approval",
        "wait",
        "docker",
        "ssh",
        "email",
        "noop",
        "uses",
        "with",
        "when",
        "for_each",
        "pool",
        "priority",
        "resources",
        "outputs",
        "capture",
        "secrets",
        "hooks",
        "delay",
        "deadline",
        "disabled",
    ],
    hints: &[
        ("worker_group", "say `runs_on: {group: NAME}`"),
        ("params", "parameters are declared for the whole workflow, at the top of the file"),
    ],
};

const RETRY: Schema = Schema {
    what: "`retry`",
    keys: &["limit", "delay", "backoff", "max_delay"],
    spellings: &[("interval_sec", "delay"), ("max_interval_sec", "max_delay")],
    later: &["jitter", "on", "exit_code"],
    hints: &[("attempts", "say `limit`: attempts after the first")],
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
}

/// One of the needs of a task.
#[derive(Debug)]
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
    let task = TaskDefinition {
        id,
        title: fields.get("name").and_then(|item| reader.short(item)).unwrap_or("").to_owned(),
        trigger_rule: fields
            .get("trigger_rule")
            .map_or_else(TriggerRule::default, |item| trigger_rule(reader, item)),
        env: fields.get("env").map(|item| reader.env(item, Role::Env(index))).unwrap_or_default(),
        timeout: match fields.get("timeout") {
            Some(item) => reader.timeout(item),
            None => defaults.timeout,
        },
        ..body(reader, &fields, path, index, defaults)
    };
    let needs = fields.get("needs").map(|item| needs(reader, item)).unwrap_or_default();
    Some((Draft { id: text, place, needs }, task))
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
    if named.is_some() {
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
) -> TaskDefinition {
    let run = match fields.get("run") {
        Some(item) => script(reader, item, index),
        None => {
            if !fields.is_refused {
                let message = "a task needs something to do".to_owned();
                let help = "add `run:` with the commands of a shell";
                let place = fields.place;
                reader.report.error_with_help(Code::MissingKey, place, path, message, help);
            }
            ""
        }
    };
    let shell = match fields.get("shell") {
        Some(item) => reader.shell(item, Role::Shell(index)),
        None => defaults.shell.clone(),
    };
    TaskDefinition {
        id: placeholder(),
        title: String::new(),
        needs: Vec::new(),
        trigger_rule: TriggerRule::default(),
        action: Action::Work {
            kind: "run".parse().expect("it is a name"),
            params: Json::new(&json!({"run": run, "shell": shell})),
        },
        env: BTreeMap::new(),
        retry: fields.get("retry").map_or(defaults.retry, |item| retry(reader, item)),
        on_lost: fields.get("on_lost").map_or(defaults.on_lost, |item| on_lost(reader, item)),
        timeout: None,
        runs_on: match fields.get("runs_on") {
            Some(item) => reader.labels(item),
            None => defaults.runs_on.clone(),
        },
        artifacts: fields.get("artifacts").map(|item| artifacts(reader, item)).unwrap_or_default(),
    }
}

fn script<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>, index: usize) -> &'n str {
    let text = reader.text(item).unwrap_or("");
    if let Value::Scalar(scalar) = &item.node.value
        && scalar.text.trim().is_empty()
    {
        reader.bad_value(item, Code::BadValue, "`run` is empty".to_owned());
    }
    if text.len() > SCRIPT_BYTES_MAX {
        let message = format!("`run` takes {} bytes; {SCRIPT_BYTES_MAX} is the most", text.len());
        reader.bad_value(item, Code::Limit, message);
    }
    reader.template(item, text, Role::Script(index));
    text
}

fn needs<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> Vec<Need<'n>> {
    let mut needs = Vec::new();
    reader.one_or_more(item, "a task id or a list of ids", |reader, item| {
        if let Some(id) = reader.fixed(item) {
            needs.push(Need { id, place: item.node.place, pointer: item.path.to_string() });
        }
    });
    needs
}

fn trigger_rule<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> TriggerRule {
    const RULES: [(&str, TriggerRule); 6] = [
        ("all_success", TriggerRule::AllSuccess),
        ("all_done", TriggerRule::AllDone),
        ("one_success", TriggerRule::OneSuccess),
        ("one_failed", TriggerRule::OneFailed),
        ("none_failed", TriggerRule::NoneFailed),
        ("always", TriggerRule::Always),
    ];
    if let Some("none_failed_min_one_success") = peek(item) {
        let message = "not supported yet: none_failed_min_one_success".to_owned();
        reader.bad_value(item, Code::NotSupportedYet, message);
        return TriggerRule::default();
    }
    one_of(reader, item, &RULES, "trigger rule")
}

/// `on_lost: hold`.
pub(super) fn on_lost<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> OnLost {
    const CHOICES: [(&str, OnLost); 3] =
        [("retry", OnLost::Retry), ("fail", OnLost::Fail), ("hold", OnLost::Hold)];
    one_of(reader, item, &CHOICES, "choice for `on_lost`")
}

fn peek<'n>(item: Item<'n, '_>) -> Option<&'n str> {
    match &item.node.value {
        Value::Scalar(scalar) => Some(scalar.text.as_ref()),
        Value::List(_) | Value::Map(_) => None,
    }
}

/// One of a few words; the default if it is none of them.
fn one_of<'n, T: Copy + Default>(
    reader: &mut Reader<'n>,
    item: Item<'n, '_>,
    known: &[(&str, T)],
    what: &str,
) -> T {
    let Some(text) = reader.fixed(item) else { return T::default() };
    if let Some((_, found)) = known.iter().find(|(name, _)| *name == text) {
        return *found;
    }
    let names = || known.iter().map(|(name, _)| *name);
    let help = match name::nearest(text, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known are {}", names().collect::<Vec<_>>().join(", ")),
    };
    let message = format!("{text:?} is no {what}");
    let place = item.node.place;
    reader.report.error_with_help(Code::BadValue, place, &item.path, message, help);
    T::default()
}

/// `retry: 3`, or a mapping.
pub(super) fn retry<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> Retry {
    let mut retry = Retry::default();
    if let Value::Scalar(_) = item.node.value {
        retry.limit = reader.whole(item, RETRIES_MAX).unwrap_or(0);
        return retry;
    }
    let Some(fields) = reader.fields(item.node, &item.path, &RETRY) else { return retry };
    if let Some(item) = fields.get("limit") {
        retry.limit = reader.whole(item, RETRIES_MAX).unwrap_or(0);
    } else if !fields.is_refused {
        let message = "`retry` needs a `limit`".to_owned();
        let help = "add, for example, `limit: 3`: attempts after the first";
        let place = fields.place;
        reader.report.error_with_help(Code::MissingKey, place, &item.path, message, help);
    }
    if let Some(delay) = fields.get("delay").and_then(|item| reader.duration(item)) {
        retry.delay = delay;
        retry.max_delay = retry.max_delay.max(delay);
    }
    if let Some(item) = fields.get("backoff") {
        retry.backoff_permille = backoff(reader, item);
    }
    if let Some(item) = fields.get("max_delay")
        && let Some(max_delay) = reader.duration(item)
    {
        if max_delay < retry.delay {
            let message = "`max_delay` is shorter than `delay`".to_owned();
            reader.bad_value(item, Code::Conflict, message);
        }
        retry.max_delay = max_delay;
    }
    retry
}

fn backoff<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> u32 {
    let Some(scalar) = reader.scalar(item, "a number") else { return 1_000 };
    match scalar.json().as_f64().filter(|factor| (1.0..=BACKOFF_MAX).contains(factor)) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 100")]
        Some(factor) => (factor * 1_000.0).round() as u32,
        None => {
            let message = format!("`backoff` must be a number from 1 to {BACKOFF_MAX}");
            reader.bad_value(item, Code::BadValue, message);
            1_000
        }
    }
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

impl<'n> Reader<'n> {
    /// Shows a node itself, or each item of it if it is a list.
    fn one_or_more(
        &mut self,
        item: Item<'n, '_>,
        what: &str,
        mut each: impl FnMut(&mut Self, Item<'n, '_>),
    ) {
        match &item.node.value {
            Value::Scalar(_) => each(self, item),
            Value::List(items) => {
                for (index, node) in items.iter().enumerate() {
                    let path = Path::Index(&item.path, index);
                    each(self, Item { node, key: None, path });
                }
            }
            Value::Map(_) => self.wrong_type(item, what),
        }
    }

    /// The environment of a workflow or a task.
    pub(super) fn env(&mut self, item: Item<'n, '_>, role: Role) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        let mut bytes = 0;
        for (key, node) in self.entries(item, "a mapping of names to values").unwrap_or_default() {
            let path = Path::Key(&item.path, &key.text);
            self.name(name::variable(&key.text), key.place, &path);
            let item = Item { node, key: Some(key), path };
            let text = match &node.value {
                Value::Scalar(scalar) if scalar.is_null() => "",
                Value::Scalar(_) | Value::List(_) | Value::Map(_) => self.text(item).unwrap_or(""),
            };
            self.template(item, text, role);
            bytes += key.text.len() + text.len();
            env.insert(key.text.clone().into_owned(), text.to_owned());
        }
        if bytes > ENV_BYTES_MAX {
            let message = format!("`env` takes {bytes} bytes; {ENV_BYTES_MAX} is the most");
            self.bad_value(item, Code::Limit, message);
        }
        env
    }

    /// What a script is given to: a program by its name or path, or a command as words.
    pub(super) fn shell(&mut self, item: Item<'n, '_>, role: Role) -> serde_json::Value {
        let mut words = Vec::new();
        self.one_or_more(item, "a program or a list of words", |reader, item| {
            let Some(word) = reader.text(item) else { return };
            reader.template(item, word, role);
            words.push(word);
        });
        let bytes: usize = words.iter().map(|word| word.len()).sum();
        if bytes > SHELL_BYTES_MAX {
            let message = format!("`shell` takes {bytes} bytes; {SHELL_BYTES_MAX} is the most");
            self.bad_value(item, Code::Limit, message);
        } else if words.first().is_none_or(|program| program.is_empty()) {
            self.bad_value(item, Code::BadValue, "`shell` names no program".to_owned());
        }
        if let Value::List(_) = item.node.value {
            return json!(words);
        }
        let program = words.pop().unwrap_or_default();
        let is_program = program.starts_with('/') || !program.contains('/');
        if !is_program || program.contains(char::is_whitespace) {
            let message =
                format!("{program:?} is neither a name nor an absolute path of a program");
            let list: Vec<&str> = program.split_whitespace().collect();
            let help = format!("to give it arguments, say `shell: [{}]`", list.join(", "));
            let place = item.node.place;
            self.report.error_with_help(Code::BadValue, place, &item.path, message, help);
        }
        json!(program)
    }
}
