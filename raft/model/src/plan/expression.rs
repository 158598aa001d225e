//! `${{ ... }}`: what the templates of a task come to.
//!
//! Evaluated by the leader before the log, never in apply: what a template engine makes of a
//! template may differ between its versions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Object, Serde, Value as Item};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde_json::Value;

use crate::workflow::{Action, Definition};
use crate::{Json, Rendered, Run, RunId, State, TaskEnd, TaskId, TaskStatus};

/// What one template may cost: instructions, and 64 bytes handled for each. A loop over a few
/// thousand items fits; text that doubles itself until the leader is out of memory does not.
const FUEL: u64 = 100_000;

/// Text that the params and environment of one task, or one output of a run, may come to, in
/// bytes: it travels through the log.
pub const RENDERED_BYTES_MAX: usize = 256 * 1024;

/// Names shown of those a template looks up; more do not help to find the mistake.
const NAMES_SHOWN_MAX: usize = 10;

/// Building an engine costs more than most templates.
static ENGINE: LazyLock<Environment<'static>> = LazyLock::new(engine);

/// Why a template does not evaluate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// It refers to something that is not there, or is not well formed.
    #[error("{place}: {reason}")]
    Failed {
        /// Where it stands.
        place: String,
        /// In the words of the template engine.
        reason: String,
    },
    /// It comes to more than [`RENDERED_BYTES_MAX`].
    #[error("{place}: comes to {bytes} bytes; {RENDERED_BYTES_MAX} is the most")]
    TooLarge {
        /// Where it stands.
        place: String,
        /// How many, as far as it was rendered.
        bytes: usize,
    },
}

/// Renders the tasks of one plan. Tasks of one run tend to come one after another, so what
/// its templates may refer to is prepared once for them.
#[derive(Default)]
pub(super) struct Rendering {
    latest: Option<(RunId, Renderer)>,
}

impl Rendering {
    /// What a worker is told in place of the definition; `None` if nothing in it is a template.
    pub(super) fn task(
        &mut self,
        state: &State,
        id: TaskId,
    ) -> Result<Option<Rendered>, ExpressionError> {
        let Some(run) = state.runs().get(&id.run) else { return Ok(None) };
        let definition = state.definition(run.definition);
        let Some(task) = definition.tasks.get(id.position()) else { return Ok(None) };
        let mut texts = definition.env.values().chain(task.env.values()).map(String::as_str);
        let Action::Work { kind, params } = &task.action;
        if !texts.any(is_template) && !is_template(params.as_str()) {
            return Ok(None);
        }
        let renderer = match self.latest.take_if(|(of, _)| *of == id.run) {
            Some((_, renderer)) => renderer,
            None => Renderer::new(definition, id.run, run),
        };
        let (_, renderer) = self.latest.insert((id.run, renderer));
        let mut pass = Pass { renderer, bytes: 0 };
        let mut env = BTreeMap::new();
        for (name, text) in definition.env.iter().chain(&task.env) {
            env.insert(name.clone(), pass.text(&format!("env.{name}"), text)?);
        }
        let mut params = params.value();
        pass.strings(kind.as_str(), &mut params)?;
        Ok(Some(Rendered { params: Json::new(&params), env }))
    }
}

/// The outputs of a run that has ended: a JSON object. Outputs that do not evaluate, as
/// those of a task that was skipped, are left out.
#[must_use]
pub fn render_outputs(definition: &Arc<Definition>, id: RunId, run: &Arc<Run>) -> Json {
    let renderer = Renderer::new(definition, id, run);
    let outputs = definition.outputs.iter().filter_map(|(name, text)| {
        let value = Pass { renderer: &renderer, bytes: 0 }.text(name.as_str(), text).ok()?;
        Some((name.to_string(), Value::String(value)))
    });
    Json::new(&Value::Object(outputs.collect()))
}

/// Reads templates without evaluating them: what can be said before a run exists.
#[derive(Debug)]
pub struct Templates(&'static Environment<'static>);

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TemplateError {
    /// In the words of the template engine.
    pub reason: String,
    /// The line of the text it stands in, from 1.
    pub line: usize,
}

impl Default for Templates {
    fn default() -> Self {
        Self(&ENGINE)
    }
}

impl Templates {
    /// The names that a template looks up, with their fields: `tasks.fetch.outputs.rows`.
    /// Nothing for a text that is no template. A field given as a text, as in
    /// `tasks["fetch"]`, is left out: then it is only `tasks`.
    ///
    /// # Errors
    ///
    /// If the text is not well formed.
    pub fn references(&self, text: &str) -> Result<BTreeSet<String>, TemplateError> {
        if !is_template(text) {
            return Ok(BTreeSet::new());
        }
        let template = self.0.template_from_str(text).map_err(|error| TemplateError {
            reason: error.detail().map_or_else(|| error.kind().to_string(), str::to_owned),
            line: error.line().unwrap_or(1),
        })?;
        let mut names: BTreeSet<String> = template.undeclared_variables(true).into_iter().collect();
        for (function, _) in self.0.globals() {
            names.remove(function);
        }
        Ok(names)
    }
}

fn is_template(text: &str) -> bool {
    text.contains("${{")
}

fn engine() -> Environment<'static> {
    let mut engine = Environment::new();
    let syntax = SyntaxConfig::builder()
        .block_delimiters("${%", "%}")
        .variable_delimiters("${{", "}}")
        // Not `${#`: that is the length of a variable in every shell.
        .comment_delimiters("${{#", "#}}")
        .keep_trailing_newline(true)
        .build()
        .expect("the delimiters differ");
    engine.set_syntax(syntax);
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_fuel(Some(FUEL));
    engine.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    engine
}

/// What the templates of one run may refer to.
struct Renderer {
    context: Item,
}

impl Renderer {
    fn new(definition: &Arc<Definition>, id: RunId, run: &Arc<Run>) -> Self {
        let tasks = Tasks { definition: Arc::clone(definition), run: Arc::clone(run) };
        let of_run = minijinja::context! { id => id.to_string() };
        let workflow = minijinja::context! {
            name => run.workflow.as_str(), version => run.version
        };
        let context = minijinja::context! {
            params => Item::from(Serde(run.params.value())),
            run => of_run,
            workflow => workflow,
            tasks => Item::from_object(tasks),
        };
        Self { context }
    }
}

/// Renders texts that may come to [`RENDERED_BYTES_MAX`] together.
struct Pass<'a> {
    renderer: &'a Renderer,
    /// What they have come to so far.
    bytes: usize,
}

impl Pass<'_> {
    fn text(&mut self, place: &str, text: &str) -> Result<String, ExpressionError> {
        let failed = |error: minijinja::Error| ExpressionError::Failed {
            place: place.to_owned(),
            reason: explain(text, &error),
        };
        let rendered = if is_template(text) {
            ENGINE.render_str(text, &self.renderer.context).map_err(failed)?
        } else {
            text.to_owned()
        };
        self.bytes = self.bytes.saturating_add(rendered.len());
        if self.bytes > RENDERED_BYTES_MAX {
            return Err(ExpressionError::TooLarge { place: place.to_owned(), bytes: self.bytes });
        }
        Ok(rendered)
    }

    /// Renders every string in a tree.
    fn strings(&mut self, place: &str, value: &mut Value) -> Result<(), ExpressionError> {
        match value {
            Value::String(text) => *text = self.text(place, text)?,
            Value::Array(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    self.strings(&format!("{place}[{at}]"), item)?;
                }
            }
            Value::Object(fields) => {
                for (name, field) in fields {
                    self.strings(&format!("{place}.{name}"), field)?;
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        Ok(())
    }
}

/// Says what is wrong with a template, and where. Of what is undefined the engine does not
/// know the name; so all that the template looks up are named.
fn explain(text: &str, error: &minijinja::Error) -> String {
    let mut reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    if error.kind() == ErrorKind::UndefinedError {
        let names = Templates::default().references(text).unwrap_or_default();
        let names: Vec<&str> = names.iter().map(String::as_str).take(NAMES_SHOWN_MAX).collect();
        reason = format!("{reason} among {}", names.join(", "));
    }
    match error.line() {
        Some(line) if line > 1 => format!("{reason} (line {line})"),
        Some(_) | None => reason,
    }
}

/// `tasks` in a template. Looked up one by one: a DAG may have ten thousand.
#[derive(Debug)]
struct Tasks {
    definition: Arc<Definition>,
    run: Arc<Run>,
}

impl Object for Tasks {
    fn get_value(self: &Arc<Self>, key: &Item) -> Option<Item> {
        let position = self.definition.position(key.as_str()?)?;
        let task = self.run.tasks.get(position)?;
        let outputs = task.outputs.as_ref().map(Json::value);
        let outputs = outputs.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        Some(minijinja::context! {
            state => word(&task.status), outputs => Item::from(Serde(outputs))
        })
    }
}

/// A status without what changes from one try to the next.
fn word(status: &TaskStatus) -> String {
    match status {
        TaskStatus::Running(_) => "running".to_owned(),
        TaskStatus::Retrying { .. } => "retrying".to_owned(),
        // As everywhere outside: what is held is lost for the time being.
        TaskStatus::Held => TaskEnd::Lost.to_string(),
        TaskStatus::Waiting(_) | TaskStatus::Ready | TaskStatus::Ended(_) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        Templates::default().references(text).unwrap().into_iter().collect()
    }

    #[test]
    fn names_what_a_template_looks_up() {
        assert_eq!(names("no template: ${HOME} {{ dbt }} ${#HOME}"), Vec::<String>::new());
        let text = "${{ params.day }} ${{ tasks.a.outputs.n | int + range(3)[0] }}";
        assert_eq!(names(text), ["params.day", "tasks.a.outputs.n"]);
        assert_eq!(names("${{ tasks['a b'].state }}"), ["tasks"]);
    }

    #[test]
    fn leaves_the_expansions_of_a_shell_alone() {
        let text = "${#list} ${{ params.day }} ${list#*} ${{# gone #}}!";
        assert_eq!(names(text), ["params.day"]);
        let context = minijinja::context! { params => minijinja::context! { day => "monday" } };
        let rendered = engine().render_str(text, context).unwrap();
        assert_eq!(rendered, "${#list} monday ${list#*} !");
    }

    #[test]
    fn tells_the_line_of_a_mistake() {
        let error = Templates::default().references("a\nb\nc ${{ params. }}").unwrap_err();
        let expected = "unexpected end of variable block, expected identifier or integer";
        assert_eq!((error.line, error.reason.as_str()), (3, expected));
    }

    fn render(text: &str) -> Result<String, ExpressionError> {
        let long = "x".repeat(200_000);
        let params = minijinja::context! { day => "monday", long => long };
        let renderer = Renderer { context: minijinja::context! { params => params } };
        Pass { renderer: &renderer, bytes: 0 }.text("here", text)
    }

    fn reason(text: &str) -> String {
        render(text).unwrap_err().to_string()
    }

    #[test]
    fn evaluates_expressions() {
        assert_eq!(render("${{ params.day | upper }} ${{ 1 + 1 }}"), Ok("MONDAY 2".to_owned()));
        assert_eq!(render("a\n${{ params['day'] }}\n"), Ok("a\nmonday\n".to_owned()));
        assert_eq!(render("${{ '<&>' }}"), Ok("<&>".to_owned()), "nothing is escaped");
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        assert_eq!(reason("${{ params.month }}"), "here: undefined value among params.month");
        assert_eq!(reason("\n${{ nothing }}"), "here: undefined value among nothing (line 2)");
        assert_eq!(render("${{ params.month | default('may') }}"), Ok("may".to_owned()));
    }

    #[test]
    fn the_leader_outlives_every_template() {
        for text in [
            "${{ 'x' * 100000000 }}",
            "${{ range(100000) | join('x' * 1000) }}",
            "${% for a in range(1000) %}${% for b in range(1000) %}x${% endfor %}${% endfor %}${{ 1 }}",
            "${% set x = namespace(v='xx') %}${% for i in range(60) %}${% set x.v = x.v ~ x.v %}${% endfor %}${{ 1 }}",
            "${% macro f() %}${{ f() }}${% endmacro %}${{ f() }}",
        ] {
            assert!(render(text).is_err(), "{text}");
        }
    }

    #[test]
    fn texts_of_one_task_have_a_limit_together() {
        let text = "${{ params.long }}";
        let params = minijinja::context! { long => "x".repeat(200_000) };
        let renderer = Renderer { context: minijinja::context! { params => params } };
        let mut pass = Pass { renderer: &renderer, bytes: 0 };
        assert_eq!(pass.text("first", text).map(|text| text.len()), Ok(200_000));
        let refused = pass.text("second", text);
        let place = "second".to_owned();
        assert_eq!(refused, Err(ExpressionError::TooLarge { place, bytes: 400_000 }));
    }
}
