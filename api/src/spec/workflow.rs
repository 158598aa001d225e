//! The keys of the file, and how its parts come together.

use std::collections::BTreeMap;

use quorate_expression::Zone;
use quorate_model::Name;
use quorate_model::workflow::validate::{ENV_BYTES_MAX, TASKS_MAX};
use quorate_model::workflow::{Definition, OnFailure, TaskDefinition};

use super::document::Node;
use super::report::Path;
use super::section::{Fields, Item, Reader, Schema};
use super::task::{Defaults, Draft};
use super::template::{Ancestors, Role, Scope};
use super::{
    Code, Diagnostic, Severity, branch, hooks, name, needs, params, retry, task, template,
};

/// Outputs of one workflow.
const OUTPUTS_MAX: usize = 256;

/// The id of the only task of a file that has `run` at its top.
const ONLY_TASK: &str = "main";

/// Keys of a task that may stand at the top of a file beside `run`.
const ONLY_TASK_KEYS: [&str; 5] = ["shell", "retry", "on_lost", "runs_on", "artifacts"];

pub(super) const FILE: Schema = Schema {
    what: "a workflow",
    keys: &[
        "name",
        "description",
        "labels",
        "params",
        "env",
        "timezone",
        "timeout",
        "deadline",
        "on_failure",
        "hooks",
        "defaults",
        "order",
        "tasks",
        "outputs",
        "run",
        "shell",
        "retry",
        "on_lost",
        "runs_on",
        "artifacts",
    ],
    spellings: &[
        ("steps", "tasks"),
        ("jobs", "tasks"),
        ("command", "run"),
        ("script", "run"),
        ("timeout_sec", "timeout"),
        ("timeout-minutes", "timeout"),
        ("time_zone", "timezone"),
        ("tz", "timezone"),
        ("runs-on", "runs_on"),
        ("handler_on", "hooks"),
    ],
    later: &[
        "schedule",
        "catchup",
        "concurrency",
        "secrets",
        "alerts",
        "vars",
        "priority",
        "environment",
        "http",
        "sql",
    ],
    hints: &[
        ("on", "schedules are not supported yet; they will be under `schedule`"),
        ("needs", "it belongs to a task"),
        ("id", "a workflow goes by its `name`"),
        ("version", "versions are counted by the cluster"),
        ("type", "tasks that name no `needs` begin at once, or say `order: sequential`"),
        ("trigger_rule", "it belongs to a task"),
        ("depends_on", "it belongs to a task, as `needs`"),
    ],
};

pub(super) const DEFAULTS: Schema = Schema {
    what: "`defaults`",
    keys: &["retry", "on_lost", "timeout", "runs_on", "shell"],
    spellings: &[("retries", "retry"), ("retry_policy", "retry"), ("runs-on", "runs_on")],
    later: &["trigger_rule", "pool", "priority", "resources"],
    hints: &[("env", "the `env` at the top of the file is for every task")],
};

/// Reads a whole file. What it answers is worth something only if nothing was reported.
pub(super) fn read<'n>(
    reader: &mut Reader<'n>,
    root: &'n Node<'n>,
    source: &str,
    default_name: Option<&str>,
) -> Option<(Name, Definition)> {
    let path = Path::Root;
    let fields = reader.fields(root, &path, &FILE)?;
    let name = file_name(reader, &fields, default_name);
    let text = |reader: &mut Reader<'n>, key| fields.get(key).and_then(|item| reader.text(item));
    let description = text(reader, "description").unwrap_or("").to_owned();
    let env = fields.get("env").map(|item| reader.env(item, Role::WorkflowEnv)).unwrap_or_default();
    let timezone = fields.get("timezone").and_then(|item| timezone(reader, item));
    let timezone = timezone.map(str::to_owned);
    let zone = timezone.as_deref().and_then(Zone::named).unwrap_or_default();
    let params = fields.get("params").map(|item| params::read(reader, item, &zone));
    let params = params.unwrap_or_default();
    let defaults = fields.get("defaults").map(|item| defaults(reader, item)).unwrap_or_default();
    let (mut drafts, mut tasks) = tasks(reader, &fields, &defaults);
    if fields.get("order").is_some_and(|item| order(reader, item) == Order::Sequential) {
        needs::in_sequence(&mut drafts);
    }
    check_env(reader, &env, &drafts, &tasks);
    if let Some(item) = fields.get("hooks") {
        tasks.extend(hooks::read(reader, item, drafts.len(), &defaults));
    }

    let positions = needs::positions(reader, &drafts);
    needs::resolve(reader, &drafts, &mut tasks, &positions);
    branch::resolve(reader, &drafts, &mut tasks, &positions);
    needs::check_cycles(reader, &drafts, &tasks);
    needs::check_reach(reader, &drafts, &tasks);
    let outputs = fields.get("outputs").map(|item| outputs(reader, item)).unwrap_or_default();
    if !reader.templates.is_empty() {
        let ancestors = Ancestors::new(&tasks);
        let scope = Scope { params: &params, positions: &positions, tasks: &tasks, ancestors };
        template::check(reader, &scope);
        branch::judge(&mut tasks, &reader.judged);
    }

    let labels = fields.get("labels").map(|item| reader.labels(item)).unwrap_or_default();
    let timeout = fields.get("timeout").and_then(|item| reader.timeout(item));
    let deadline = fields.get("deadline").and_then(|item| reader.duration(item));
    let on_failure = fields.get("on_failure").map(|item| on_failure(reader, item));
    let on_failure = on_failure.unwrap_or_default();
    let source = source.to_owned();
    #[rustfmt::skip]
    let definition = Definition {
        description, labels, params, env, timezone, timeout, deadline, on_failure, tasks,
        outputs, source,
    };
    Some((name?, definition))
}

/// Where the days of its runs begin.
fn timezone<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> Option<&'n str> {
    let text = reader.fixed(item)?;
    if Zone::named(text).is_some() {
        return Some(text);
    }
    let message = format!("there is no time zone {text:?}");
    let help = "zones go by their IANA names, as `Europe/Paris` or `Asia/Shanghai`";
    reader.report.error_with_help(Code::BadValue, item.node.place, &item.path, message, help);
    None
}

/// What a task needs that does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Order {
    /// Nothing: it begins at once.
    #[default]
    Dag,
    /// The task before it in the file.
    Sequential,
}

fn order<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> Order {
    const ORDERS: [(&str, Order); 2] = [("dag", Order::Dag), ("sequential", Order::Sequential)];
    reader.one_of(item, &ORDERS, "order of tasks")
}

fn file_name<'n>(
    reader: &mut Reader<'n>,
    fields: &Fields<'n, '_>,
    default_name: Option<&str>,
) -> Option<Name> {
    if let Some(item) = fields.get("name") {
        let text = reader.fixed(item)?;
        return reader.name(name::workflow(text), item.node.place, &item.path);
    }
    // A default that is no name is nobody's mistake in the file: what lacks is the name.
    let name = default_name.and_then(|name| name::workflow(name).ok());
    if name.is_none() {
        let message = "a workflow needs a `name`".to_owned();
        let help = "add, for example, `name: daily-sales` at the top";
        let place = fields.place;
        reader.report.error_with_help(Code::MissingKey, place, &Path::Root, message, help);
    }
    name
}

fn defaults<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> Defaults {
    let Some(fields) = reader.fields(item.node, &item.path, &DEFAULTS) else {
        return Defaults::default();
    };
    Defaults {
        retry: fields.get("retry").map(|item| retry::read(reader, item)).unwrap_or_default(),
        on_lost: fields.get("on_lost").map(|item| task::on_lost(reader, item)).unwrap_or_default(),
        timeout: fields.get("timeout").and_then(|item| reader.timeout(item)),
        runs_on: fields.get("runs_on").map(|item| reader.labels(item)).unwrap_or_default(),
        shell: fields
            .get("shell")
            .map(|item| reader.shell(item, Role::WorkflowEnv))
            .unwrap_or_default(),
    }
}

/// The tasks, under `tasks` or as the only one.
fn tasks<'n>(
    reader: &mut Reader<'n>,
    fields: &Fields<'n, '_>,
    defaults: &Defaults,
) -> (Vec<Draft<'n>>, Vec<TaskDefinition>) {
    let (list, run) = (fields.get("tasks"), fields.get("run"));
    match (list, run) {
        (Some(_), Some(run)) => {
            let message = "`run` and `tasks` exclude each other".to_owned();
            let help = "make `run` one of the tasks";
            let place = run.key.map_or(run.node.place, |key| key.place);
            reader.report.error_with_help(Code::Conflict, place, &run.path, message, help);
        }
        (Some(_), None) => misplaced(reader, fields),
        (None, Some(run)) => {
            let (mut only, _) = task::body(reader, fields, &Path::Root, 0, defaults);
            only.id = ONLY_TASK.parse().expect("it is a name");
            let draft = Draft {
                id: ONLY_TASK,
                place: run.node.place,
                needs: Vec::new(),
                targets: Vec::new(),
                says_needs: false,
            };
            return (vec![draft], vec![only]);
        }
        (None, None) if fields.is_refused => {}
        (None, None) => {
            let message = "a workflow needs `tasks`, or `run` if there is only one".to_owned();
            let help = "the smallest is `run: echo hello`";
            let place = fields.place;
            reader.report.error_with_help(Code::MissingKey, place, &Path::Root, message, help);
        }
    }
    list.map(|list| task_list(reader, list, defaults)).unwrap_or_default()
}

/// Reports keys at the top that say something about the only task, if there is not only one.
fn misplaced(reader: &mut Reader<'_>, fields: &Fields<'_, '_>) {
    for key in ONLY_TASK_KEYS {
        let Some(item) = fields.get(key) else { continue };
        let message = format!("`{key}` belongs to a task");
        let help = if key == "artifacts" {
            "move it into one".to_owned()
        } else {
            format!("for all tasks, say `defaults: {{{key}: ...}}`")
        };
        let place = item.key.map_or(item.node.place, |key| key.place);
        reader.report.error_with_help(Code::UnknownKey, place, &item.path, message, help);
    }
}

fn task_list<'n>(
    reader: &mut Reader<'n>,
    item: Item<'n, '_>,
    defaults: &Defaults,
) -> (Vec<Draft<'n>>, Vec<TaskDefinition>) {
    let Some(nodes) = reader.list(item, "a list of tasks, each begun by `- id: NAME`") else {
        return (Vec::new(), Vec::new());
    };
    if nodes.is_empty() {
        reader.bad_value(item, Code::BadValue, "`tasks` is empty; add at least one".to_owned());
    }
    if nodes.len() > TASKS_MAX {
        let message = format!(
            "{} tasks; {TASKS_MAX} is the most: split the workflow into several",
            nodes.len()
        );
        let place = item.key.map_or(item.node.place, |key| key.place);
        reader.report.error(Code::Limit, place, &item.path, message);
        return (Vec::new(), Vec::new());
    }
    let (mut drafts, mut tasks) = (Vec::new(), Vec::new());
    for (index, node) in nodes.iter().enumerate() {
        let path = Path::Index(&item.path, index);
        // Those that are no tasks are reported, and refuse the document: positions may shift.
        if let Some((draft, task)) = task::read(reader, node, &path, tasks.len(), defaults) {
            drafts.push(draft);
            tasks.push(task);
        }
    }
    (drafts, tasks)
}

/// Reports tasks whose environment is too large together with that of all tasks.
fn check_env(
    reader: &mut Reader<'_>,
    env: &BTreeMap<String, String>,
    drafts: &[Draft<'_>],
    tasks: &[TaskDefinition],
) {
    let size = |env: &BTreeMap<String, String>| -> usize {
        env.iter().map(|(name, value)| name.len() + value.len()).sum()
    };
    let shared = size(env);
    for (draft, task) in drafts.iter().zip(tasks) {
        let own = size(&task.env);
        // Either alone is reported where it stands.
        if own.max(shared) <= ENV_BYTES_MAX && own + shared > ENV_BYTES_MAX {
            let message = format!(
                "the environment of `{}` takes {} bytes, with that of all tasks; {ENV_BYTES_MAX} \
                 is the most",
                draft.id,
                own + shared
            );
            let found = Diagnostic::new(Severity::Error, Code::Limit, message);
            reader.report.add(found.at(draft.place.span, ""));
        }
    }
}

/// `on_failure: stop`.
fn on_failure<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> OnFailure {
    const CHOICES: [(&str, OnFailure); 2] =
        [("continue", OnFailure::Continue), ("stop", OnFailure::Stop)];
    reader.one_of(item, &CHOICES, "choice for `on_failure`")
}

fn outputs<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> BTreeMap<Name, String> {
    let mut outputs = BTreeMap::new();
    let entries = reader.entries(item, "a mapping of names to templates").unwrap_or_default();
    if entries.len() > OUTPUTS_MAX {
        let message = format!("{} outputs; {OUTPUTS_MAX} is the most", entries.len());
        reader.bad_value(item, Code::Limit, message);
        return outputs;
    }
    for (key, node) in entries {
        let path = Path::Key(&item.path, &key.text);
        let item = Item { node, key: Some(key), path };
        let Some(text) = reader.text(item) else { continue };
        reader.template(item, text, Role::Output);
        let name = reader.name(name::any(&key.text), key.place, &path);
        outputs.extend(name.map(|name| (name, text.to_owned())));
    }
    outputs
}
