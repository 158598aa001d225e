//! `${{ ... }}`: what the templates of a task come to.
//!
//! Evaluated by the leader before the log, never in apply: what a template engine makes of a
//! template may differ between its versions. The engine is `quorate_expression`; here is what
//! a run has to tell it.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_expression::{
    Context, ExpressionError, Lookup, Outcome, RENDERED_BYTES_MAX, RunFacts, ZONE_DEFAULT, Zone,
    is_template,
};
use serde_json::{Value, json};

use crate::workflow::{Action, Definition};
use crate::{
    Json, Outcome as Ended, Rendered, Run, RunId, State, Task, TaskEnd, TaskId, TaskStatus, UnixMs,
};

/// The field of a task's params whose texts are evaluated by the worker, over what it was
/// answered. The leader leaves them alone.
pub const RESPONSE: &str = "response";

/// Why a template of a task does not evaluate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct TemplateError {
    /// Where it stands: `env.DAY`.
    pub place: String,
    /// Why.
    pub reason: ExpressionError,
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
    ) -> Result<Option<Rendered>, TemplateError> {
        let Some(run) = state.runs().get(&id.run) else { return Ok(None) };
        let definition = state.definition(run.definition);
        let Some(task) = definition.tasks.get(id.position()) else { return Ok(None) };
        let mut texts = definition.env.values().chain(task.env.values()).map(String::as_str);
        let Action::Work { kind, params } = &task.action else { return Ok(None) };
        if !texts.any(is_template) && !is_template(params.as_str()) {
            return Ok(None);
        }
        let renderer = self.renderer(definition, id.run, run)?;
        let mut pass = Pass { renderer, bytes: 0 };
        let mut env = BTreeMap::new();
        for (name, text) in definition.env.iter().chain(&task.env) {
            env.insert(name.clone(), pass.text(&format!("env.{name}"), text)?);
        }
        let mut params = params.value();
        // What is said of the response is for the worker that gets one.
        let response = params.as_object_mut().and_then(|params| params.remove(RESPONSE));
        pass.strings(kind.as_str(), &mut params)?;
        if let (Some(params), Some(response)) = (params.as_object_mut(), response) {
            params.insert(RESPONSE.to_owned(), response);
        }
        Ok(Some(Rendered { params: Json::new(&params), env }))
    }

    /// What a text of a task comes to.
    pub(super) fn text(
        &mut self,
        state: &State,
        id: TaskId,
        place: &str,
        text: &str,
    ) -> Result<String, TemplateError> {
        let Some(run) = state.runs().get(&id.run) else { return Ok(String::new()) };
        let renderer = self.renderer(state.definition(run.definition), id.run, run)?;
        Pass { renderer, bytes: 0 }.text(place, text)
    }

    /// Whether a condition of a task holds.
    pub(super) fn condition(
        &mut self,
        state: &State,
        id: TaskId,
        place: &str,
        text: &str,
    ) -> Result<bool, TemplateError> {
        let Some(run) = state.runs().get(&id.run) else { return Ok(false) };
        let renderer = self.renderer(state.definition(run.definition), id.run, run)?;
        let failed = |reason| TemplateError { place: place.to_owned(), reason };
        let mut context = renderer.context.clone();
        context.set_outcome(outcome(state, id));
        quorate_expression::evaluate_condition(text, &context).map_err(failed)
    }

    fn renderer(
        &mut self,
        definition: &Arc<Definition>,
        id: RunId,
        run: &Arc<Run>,
    ) -> Result<&Renderer, TemplateError> {
        let renderer = match self.latest.take_if(|(of, _)| *of == id) {
            Some((_, renderer)) => renderer,
            None => Renderer::new(definition, id, run)?,
        };
        Ok(&self.latest.insert((id, renderer)).1)
    }
}

/// What the predecessors of a task have come to so far.
fn outcome(state: &State, id: TaskId) -> Outcome {
    let needs = state.task_definition(id).map_or(&[][..], |said| &said.needs);
    let has_failed = |&need: &u32| {
        let before = state.task(TaskId { run: id.run, index: need });
        before.is_ok_and(|before| before.end().is_some_and(TaskEnd::is_failure))
    };
    if needs.iter().any(has_failed) { Outcome::Failure } else { Outcome::Success }
}

/// The outputs of a run that has ended: a JSON object. Outputs that do not evaluate, as
/// those of a task that was skipped, are left out.
#[must_use]
pub fn render_outputs(definition: &Arc<Definition>, id: RunId, run: &Arc<Run>) -> Json {
    let renderer = Renderer::new(definition, id, run).ok();
    let outputs = definition.outputs.iter().filter_map(|(name, text)| {
        let renderer = renderer.as_ref()?;
        let value = Pass { renderer, bytes: 0 }.text(name.as_str(), text).ok()?;
        Some((name.to_string(), Value::String(value)))
    });
    Json::new(&Value::Object(outputs.collect()))
}

/// What the templates of one run may refer to.
struct Renderer {
    context: Context,
}

impl Renderer {
    fn new(definition: &Arc<Definition>, id: RunId, run: &Arc<Run>) -> Result<Self, TemplateError> {
        // Another version of the program took it for one.
        let name = definition.timezone.as_deref().unwrap_or(ZONE_DEFAULT);
        let zone = Zone::named(name).ok_or_else(|| TemplateError {
            place: "timezone".to_owned(),
            reason: ExpressionError::Failed {
                reason: format!("this node knows no time zone {name:?}"),
            },
        })?;
        let tasks =
            Tasks { definition: Arc::clone(definition), run: Arc::clone(run), zone: zone.clone() };
        let mut context = Context::default();
        context.set("params", &run.params.value());
        context.set_run(&RunFacts {
            id: id.to_string(),
            trigger: run.trigger.to_string(),
            logical_time_ms: run.logical_time.0,
            zone,
        });
        let labels = &definition.labels;
        let version = run.version;
        let workflow = json!({"name": run.workflow, "version": version, "labels": labels});
        context.set("workflow", &workflow);
        context.set_lookup("tasks", Arc::new(tasks));
        Ok(Self { context })
    }
}

/// Renders texts that may come to [`RENDERED_BYTES_MAX`] together.
struct Pass<'a> {
    renderer: &'a Renderer,
    /// What they have come to so far.
    bytes: usize,
}

impl Pass<'_> {
    fn text(&mut self, place: &str, text: &str) -> Result<String, TemplateError> {
        let failed = |reason| TemplateError { place: place.to_owned(), reason };
        let rendered = quorate_expression::render(text, &self.renderer.context).map_err(failed)?;
        self.bytes = self.bytes.saturating_add(rendered.len());
        if self.bytes > RENDERED_BYTES_MAX {
            return Err(failed(ExpressionError::TooLarge { bytes: self.bytes }));
        }
        Ok(rendered)
    }

    /// Renders every string in a tree.
    fn strings(&mut self, place: &str, value: &mut Value) -> Result<(), TemplateError> {
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

/// `tasks` in a template. Looked up one by one: a DAG may have ten thousand.
#[derive(Debug)]
struct Tasks {
    definition: Arc<Definition>,
    run: Arc<Run>,
    zone: Zone,
}

impl Lookup for Tasks {
    fn get(&self, id: &str) -> Option<Value> {
        let task = self.run.tasks.get(self.definition.position(id)?)?;
        let outputs = task.outputs.as_ref().map_or_else(|| json!({}), Json::value);
        let (assigned_at, exit_code) = last_attempt(task);
        Some(json!({
            "state": word(&task.status),
            "outputs": outputs,
            "exit_code": exit_code,
            "started_at": assigned_at.map(|at| self.zone.date_time(at.0)),
        }))
    }
}

/// When the last attempt of a task was assigned, and the code that its process ended with.
fn last_attempt(task: &Task) -> (Option<UnixMs>, Option<i32>) {
    if let Some(flight) = task.flight() {
        return (Some(flight.assigned_at), None);
    }
    let Some(last) = task.attempts.last() else { return (None, None) };
    let code = match last.outcome {
        Ended::Succeeded { .. } => Some(0),
        Ended::Exited { code } => Some(code),
        Ended::Signalled { .. }
        | Ended::Broken { .. }
        | Ended::Stopped
        | Ended::Returned
        | Ended::Lost => None,
    };
    (Some(last.assigned_at), code)
}

/// A status without what changes from one try to the next.
fn word(status: &TaskStatus) -> String {
    match status {
        TaskStatus::Running(_) => "running".to_owned(),
        TaskStatus::Retrying { .. } => "retrying".to_owned(),
        TaskStatus::Asking { .. } => "asking".to_owned(),
        TaskStatus::Delayed { .. } => "waiting".to_owned(),
        // As everywhere outside: what is held is lost for the time being.
        TaskStatus::Held => TaskEnd::Lost.to_string(),
        // Likewise what is disabled.
        TaskStatus::Ended(TaskEnd::Disabled) => TaskEnd::Skipped.to_string(),
        TaskStatus::Waiting(_)
        | TaskStatus::Deciding
        | TaskStatus::Ready
        | TaskStatus::Ended(_) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_one_task_have_a_limit_together() {
        let mut context = Context::default();
        context.set("params", &json!({"long": "x".repeat(200_000)}));
        let renderer = Renderer { context };
        let text = "${{ params.long }}";
        let mut pass = Pass { renderer: &renderer, bytes: 0 };
        assert_eq!(pass.text("first", text).map(|text| text.len()), Ok(200_000));
        let place = "second".to_owned();
        let reason = ExpressionError::TooLarge { bytes: 400_000 };
        assert_eq!(pass.text("second", text), Err(TemplateError { place, reason }));
    }
}
