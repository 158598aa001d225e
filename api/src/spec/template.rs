//! What templates refer to: checked before a run finds out.

use std::collections::{BTreeMap, BTreeSet};

use quorate_expression::{FILTERS, SyntaxError};
use quorate_model::Name;
use quorate_model::workflow::{Param, TaskDefinition};

use super::document::{Node, Style, Value};
use super::needs::Positions;
use super::section::{Item, Reader};
use super::{Code, Diagnostic, Severity, Span, expression, name};

/// What a template can look up in this release.
const ROOTS: [&str; 4] = ["params", "run", "tasks", "workflow"];

/// What a later release will offer.
const LATER_ROOTS: [&str; 6] = ["env", "item", "index", "secrets", "vars", "response"];

/// What there is to know of a task.
const TASK_FIELDS: [&str; 4] = ["state", "outputs", "exit_code", "started_at"];

/// What there is to know of a run.
const RUN_FIELDS: [&str; 4] = ["id", "logical_time", "data_interval", "trigger"];

/// The time of the run in the words of Airflow.
const AIRFLOW_WORDS: [&str; 4] = ["ds", "ds_nodash", "data_interval_start", "data_interval_end"];

/// A text that is a template, to be checked once all tasks are known.
#[derive(Debug)]
pub(super) struct Template<'n> {
    text: &'n str,
    node: &'n Node<'n>,
    pointer: String,
    role: Role,
}

/// Where a template stands; for those of a task, with its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The environment of all tasks.
    WorkflowEnv,
    /// The environment of a task.
    Env(usize),
    /// The script of a task.
    Script(usize),
    /// The command that runs its script.
    Shell(usize),
    /// A condition of a task: all of it is an expression.
    Condition(usize),
    /// An output of the run.
    Output,
    /// The default of a parameter.
    Default,
}

impl<'n> Reader<'n> {
    /// Remembers a text, if it is a template.
    pub(super) fn template(&mut self, item: Item<'n, '_>, text: &'n str, role: Role) {
        if text.contains("${{") {
            let pointer = item.path.to_string();
            self.templates.push(Template { text, node: item.node, pointer, role });
        }
    }

    /// Remembers a condition of the task at this position.
    pub(super) fn condition(&mut self, item: Item<'n, '_>, text: &'n str, task: usize) {
        let (pointer, role) = (item.path.to_string(), Role::Condition(task));
        self.templates.push(Template { text, node: item.node, pointer, role });
    }
}

/// What there is to refer to.
#[derive(Debug)]
pub(super) struct Scope<'s> {
    pub(super) params: &'s BTreeMap<Name, Param>,
    pub(super) positions: &'s Positions<'s>,
    pub(super) tasks: &'s [TaskDefinition],
    /// `None` if the tasks wait for each other, and nothing comes before anything.
    pub(super) ancestors: Option<Ancestors>,
}

/// Checks every template of the document.
pub(super) fn check(reader: &mut Reader<'_>, scope: &Scope<'_>) {
    for template in std::mem::take(&mut reader.templates) {
        match template.references() {
            Ok(names) => {
                note_outcome(reader, scope, &template);
                for reference in template.all(names) {
                    check_one(reader, scope, &template, &reference);
                    note_judged(reader, scope, template.role, &reference);
                }
                check_filters(reader, &template);
            }
            Err(error) => {
                let span = span_of_error(reader, &template, &error);
                let what = if template.is_condition() { "a condition" } else { "a template" };
                let message = format!("not {what}: {}", error.reason);
                let found = Diagnostic::new(Severity::Error, Code::TemplateSyntax, message);
                reader.report.add(found.at(span, template.pointer));
            }
        }
    }
}

/// Notes that a condition asks whether all that comes before has gone well.
fn note_outcome(reader: &mut Reader<'_>, scope: &Scope<'_>, template: &Template<'_>) {
    let Role::Condition(task) = template.role else { return };
    if template.text.contains("failure()") {
        let needs = scope.tasks[task].needs.iter();
        reader.judged.extend(needs.map(|&need| (task, need as usize)));
    }
}

/// Notes that a condition looks at the state of a task.
fn note_judged(reader: &mut Reader<'_>, scope: &Scope<'_>, role: Role, reference: &Reference) {
    let (Role::Condition(task), "tasks", [id, field, ..]) =
        (role, reference.root.as_str(), reference.fields.as_slice())
    else {
        return;
    };
    if let Some(&before) = scope.positions.get(id.as_str()).filter(|_| field == "state") {
        reader.judged.push((task, before));
    }
}

fn check_filters(reader: &mut Reader<'_>, template: &Template<'_>) {
    let is_bare = template.is_condition() && !template.text.contains("${{");
    let filters = if is_bare {
        expression::filters_of(template.text)
    } else {
        expression::filters(template.text)
    };
    for filter in filters {
        if FILTERS.contains(&filter) {
            continue;
        }
        let message = format!("there is no filter `{filter}`");
        let mut found = Diagnostic::new(Severity::Error, Code::UnknownReference, message);
        found.help = name::nearest(filter, FILTERS.iter().copied())
            .map(|near| format!("did you mean `{near}`?"));
        let span = reader.report.locate(template.node.place, filter);
        reader.report.add(found.at(span, template.pointer.clone()));
    }
}

/// The line of the mistake, where the lines of the template are lines of the document.
fn span_of_error(reader: &Reader<'_>, template: &Template<'_>, error: &SyntaxError) -> Span {
    let span = template.node.place.span;
    let is_literal =
        matches!(&template.node.value, Value::Scalar(scalar) if scalar.style == Style::Literal);
    let lines = u32::try_from(error.line).unwrap_or(u32::MAX);
    // The scalar begins where its first word stands, behind any blank lines.
    let blank = template.text.chars().take_while(|&char| char == '\n').count();
    let line = span.line.saturating_add(lines).saturating_sub(1);
    let line = line.saturating_sub(u32::try_from(blank).unwrap_or(0));
    if is_literal && line <= span.end_line { reader.report.line(line) } else { span }
}

/// A name that a template looks up: `tasks.load.outputs.rows`, or `tasks["load"]`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    /// As it stands in the text, to find it there.
    text: String,
    root: String,
    fields: Vec<String>,
}

impl Reference {
    /// The parameter that it is, if it is one.
    pub(super) fn param(self) -> Option<String> {
        let is_param = self.root == "params";
        self.fields.into_iter().next().filter(|_| is_param)
    }
}

impl Template<'_> {
    fn is_condition(&self) -> bool {
        matches!(self.role, Role::Condition(_))
    }

    /// The names that it looks up, as the engine tells them.
    fn references(&self) -> Result<BTreeSet<String>, SyntaxError> {
        if self.is_condition() {
            quorate_expression::references_of_condition(self.text)
        } else {
            quorate_expression::references(self.text)
        }
    }

    /// The same with those that the engine does not tell.
    fn all(&self, names: BTreeSet<String>) -> BTreeSet<Reference> {
        if self.is_condition() {
            references(names, subscripts(self.text).into_iter().collect())
        } else {
            references_in(names, self.text)
        }
    }
}

/// What a text looks up, given the names that the engine finds in it.
pub(super) fn references_in(names: BTreeSet<String>, text: &str) -> BTreeSet<Reference> {
    references(names, expressions(text).flat_map(subscripts).collect())
}

fn references(names: BTreeSet<String>, mut found: BTreeSet<Reference>) -> BTreeSet<Reference> {
    for name in names {
        let mut parts = name.split('.').map(str::to_owned);
        let root = parts.next().unwrap_or_default();
        let fields: Vec<String> = parts.collect();
        // `tasks` alone is what is left of `tasks["load"]`.
        if !fields.is_empty() || !found.iter().any(|other| other.root == root) {
            found.insert(Reference { text: name, root, fields });
        }
    }
    found
}

/// What stands within `${{ }}`.
fn expressions(text: &str) -> impl Iterator<Item = &str> {
    text.split("${{").skip(1).map(|rest| rest.split("}}").next().unwrap_or(rest))
}

/// `params["x"]` and `tasks['y'].state` in an expression.
fn subscripts(expression: &str) -> Vec<Reference> {
    let mut found = Vec::new();
    for root in ["params", "tasks"] {
        for (at, _) in expression.match_indices(root) {
            let rest = &expression[at + root.len()..];
            let Some(rest) = rest.strip_prefix('[') else { continue };
            let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
                continue;
            };
            let Some((key, rest)) = rest[1..].split_once(quote) else { continue };
            let text = format!("{root}[{quote}{key}{quote}");
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let field =
                rest.strip_prefix("].").and_then(|rest| rest.split(|c: char| !is_word(c)).next());
            let mut fields = vec![key.to_owned()];
            fields.extend(field.map(str::to_owned));
            found.push(Reference { text, root: root.to_owned(), fields });
        }
    }
    found
}

fn check_one(
    reader: &mut Reader<'_>,
    scope: &Scope<'_>,
    template: &Template<'_>,
    reference: &Reference,
) {
    let fields: Vec<&str> = reference.fields.iter().map(String::as_str).collect();
    let wrong = match (reference.root.as_str(), fields.as_slice()) {
        ("params", [param, ..]) => check_param(scope, param),
        ("tasks", [id, rest @ ..]) => check_task(scope, template.role, id, rest),
        ("params" | "tasks", []) => Ok(()),
        ("run", ["data_interval", rest @ ..]) => {
            check_fields("run.data_interval", rest, &["start", "end"])
        }
        ("run", fields) => check_fields("run", fields, &RUN_FIELDS),
        ("workflow", fields) if template.role == Role::Default => {
            check_fields("workflow", fields, &["name", "labels"])
        }
        ("workflow", fields) => check_fields("workflow", fields, &["name", "version", "labels"]),
        (root, _) if AIRFLOW_WORDS.contains(&root) => Ok(()),
        (root, _) => check_root(scope, template.text, root),
    };
    let span = |reader: &Reader<'_>| reader.report.locate(template.node.place, &reference.text);
    if let Err(Wrong { code, message, help }) = wrong {
        if reader.report.is_full() {
            reader.report.add(Diagnostic::new(Severity::Error, code, message));
            return;
        }
        let mut found = Diagnostic::new(Severity::Error, code, message);
        found.help = help;
        let found = found.at(span(reader), template.pointer.clone());
        reader.report.add(found);
    } else if matches!(template.role, Role::Script(_))
        && can_inject(reference)
        && expression::without_quoted(template.text).contains(&reference.text)
    {
        let field = fields.last().copied().unwrap_or("value");
        let variable = field.to_ascii_uppercase().replace('-', "_");
        let text = &reference.text;
        let message =
            format!("the value of `{text}` becomes part of the script, and can run as code");
        let help = format!(
            "pass it through `env: {{{variable}: ...}}` and use \"${variable}\", or say \
             `{text} | shell_quote`"
        );
        let found = Diagnostic::new(Severity::Warning, Code::ScriptInjection, message);
        let found = found.with_help(help).at(span(reader), template.pointer.clone());
        reader.report.add(found);
    }
}

/// Whether someone else says what the value is.
fn can_inject(reference: &Reference) -> bool {
    let is_state = reference.fields.get(1).is_some_and(|field| field != "outputs");
    let is_label =
        reference.root == "workflow" && reference.fields.first().is_some_and(|f| f == "labels");
    matches!(reference.root.as_str(), "params" | "tasks") && !is_state || is_label
}

/// Why a reference leads nowhere.
struct Wrong {
    code: Code,
    message: String,
    help: Option<String>,
}

impl Wrong {
    fn new(message: String, help: Option<String>) -> Self {
        Self { code: Code::UnknownReference, message, help }
    }
}

fn check_param(scope: &Scope<'_>, param: &str) -> Result<(), Wrong> {
    if scope.params.contains_key(param) {
        return Ok(());
    }
    let near = name::nearest(param, scope.params.keys().map(Name::as_str));
    let help = match near {
        Some(near) => format!("did you mean `params.{near}`?"),
        None => format!("declare it: `params: {{{param}: ...}}` at the top of the file"),
    };
    Err(Wrong::new(format!("`params.{param}` is not declared"), Some(help)))
}

fn check_task(scope: &Scope<'_>, role: Role, id: &str, rest: &[&str]) -> Result<(), Wrong> {
    let Some(&position) = scope.positions.get(id) else {
        return Err(Wrong::new(format!("there is no task `{id}`"), Some(near_task(scope, id))));
    };
    if let [field, ..] = rest {
        check_fields("tasks.ID", &[field], &TASK_FIELDS)?;
        let kind = scope.tasks[position].action.kind();
        if *field == "outputs" && matches!(kind, "noop" | "switch") {
            let message = format!("`{id}` is a {kind}: it puts nothing out");
            return Err(Wrong::new(message, None));
        }
    }
    let reader = match role {
        Role::Output => return Ok(()),
        Role::WorkflowEnv => {
            let message = format!("`tasks.{id}` cannot be known in the `env` of all tasks");
            return Err(Wrong::new(message, Some("set it in the `env` of one task".to_owned())));
        }
        Role::Default => {
            let message = format!("`tasks.{id}` cannot be known when the run starts");
            return Err(Wrong::new(message, Some("a default is set before any task".to_owned())));
        }
        Role::Env(task) | Role::Script(task) | Role::Shell(task) | Role::Condition(task) => task,
    };
    match &scope.ancestors {
        // What stands beside the DAG comes when it is over, or asks for what is there.
        Some(_) if scope.tasks[reader].hook.is_some() => Ok(()),
        Some(ancestors) if !ancestors.contains(reader, position) => {
            let of = scope.tasks[reader].id.as_str();
            let message = format!("`{of}` refers to `{id}`, but does not come after it");
            Err(Wrong::new(message, Some(format!("add `{id}` to its `needs`"))))
        }
        _ => Ok(()),
    }
}

fn near_task(scope: &Scope<'_>, id: &str) -> String {
    let mut ids = scope.positions.keys().copied();
    // A dash is a minus in an expression.
    if let Some(dashed) =
        ids.clone().find(|other| other.strip_prefix(id).is_some_and(|rest| rest.starts_with('-')))
    {
        return format!("an id with a dash is written `tasks[\"{dashed}\"]`");
    }
    match name::nearest(id, ids.by_ref()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "tasks are named by their `id`".to_owned(),
    }
}

fn check_fields(of: &str, fields: &[&str], known: &[&'static str]) -> Result<(), Wrong> {
    match fields {
        [field, ..] if !known.contains(field) => {
            let message = format!("`{of}` has no field `{field}`");
            Err(Wrong::new(message, Some(format!("it has {}", known.join(", ")))))
        }
        _ => Ok(()),
    }
}

fn check_root(scope: &Scope<'_>, text: &str, root: &str) -> Result<(), Wrong> {
    // What is left of `tasks.my-task`, which is reported as `my`.
    let tail = format!("-{root}");
    if text.contains(&tail) && scope.positions.keys().any(|id| id.ends_with(&tail)) {
        return Ok(());
    }
    if LATER_ROOTS.contains(&root) {
        let message = format!("not supported yet: `{root}` in a template");
        return Err(Wrong { code: Code::NotSupportedYet, message, help: None });
    }
    let help = match name::nearest(root, ROOTS) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("a template can look up {}", ROOTS.join(", ")),
    };
    Err(Wrong::new(format!("`{root}` is not known in a template"), Some(help)))
}

/// Which tasks come before which, a bit each: 12 MiB for ten thousand tasks.
#[derive(Debug)]
pub(super) struct Ancestors {
    words: usize,
    bits: Vec<u64>,
}

impl Ancestors {
    /// Of tasks that do not wait for each other; `None` if they do.
    pub(super) fn new(tasks: &[TaskDefinition]) -> Option<Self> {
        let graph = quorate_model::workflow::Graph::new(tasks);
        let words = tasks.len().div_ceil(64);
        let mut bits = vec![0_u64; words * tasks.len()];
        let mut open: Vec<usize> = tasks.iter().map(|task| task.needs.len()).collect();
        let mut free: Vec<usize> = (0..tasks.len()).filter(|&at| open[at] == 0).collect();
        let mut sorted = 0;
        while let Some(at) = free.pop() {
            sorted += 1;
            for &after in graph.successors(at) {
                let after = after as usize;
                for word in 0..words {
                    bits[after * words + word] |= bits[at * words + word];
                }
                bits[after * words + at / 64] |= 1 << (at % 64);
                open[after] -= 1;
                if open[after] == 0 {
                    free.push(after);
                }
            }
        }
        (sorted == tasks.len()).then_some(Self { words, bits })
    }

    /// Whether `before` comes before `task`.
    fn contains(&self, task: usize, before: usize) -> bool {
        self.bits[task * self.words + before / 64] & (1 << (before % 64)) != 0
    }
}
