//! The answer of a person to a task that asks.

use quorate_expression::Context;
use quorate_model::command::DecideTask;
use quorate_model::workflow::{Action, Approval, Definition, ParamKind};
use quorate_model::{Command, Json, RunId, Verdict};
use serde_json::{Map, Value};

use super::document::refused;
use super::{run, task};
use crate::answer::{Answered, At};
use crate::error::{Code, Failure};
use crate::request::{BY_BYTES_MAX, REASON_BYTES_MAX, Write};
use crate::spec;
use crate::view::Accepted;

type Place = At<(RunId, String)>;

/// `POST /v1/runs/{run}/tasks/{task}/approve`: the run goes on. `inputs` are what the task
/// puts out.
pub(super) async fn approve(place: Place, write: Write) -> Answered {
    answer(place, write, true).await
}

/// `POST /v1/runs/{run}/tasks/{task}/reject`: the task has failed.
pub(super) async fn reject(place: Place, write: Write) -> Answered {
    answer(place, write, false).await
}

async fn answer(At((id, name)): Place, write: Write, is_approved: bool) -> Answered {
    write.call.query(&[])?;
    let known: &[&str] =
        if is_approved { &["by", "comment", "inputs"] } else { &["by", "comment"] };
    let mut fields = write.fields(known)?;
    let by = fields.words("by", BY_BYTES_MAX)?;
    let comment = fields.words("comment", REASON_BYTES_MAX)?;
    let inputs: Option<Map<String, Value>> =
        if is_approved { fields.take("inputs")? } else { None };
    let edge = &write.call.edge;
    // A name is looked up here, so this node must know of the run.
    edge.backend.catch_up().await?;
    let verdict = if is_approved { Verdict::Succeeded } else { Verdict::Failed };
    let command = task::look_up(edge, id, &name).and_then(|(task, said)| {
        let Action::Approval(approval) = said.action else {
            let detail = format!("task {name} of run {id} asks nobody: it is no approval");
            return Err(Failure::new(Code::Conflict, detail).of_run(id));
        };
        let outputs = is_approved.then(|| form(approval, inputs.unwrap_or_default()));
        let outputs = outputs.transpose()?;
        Ok(Command::DecideTask(DecideTask { task, verdict, outputs, by, comment }))
    });
    let committed = write.commit(command).await;
    let done = committed.map_err(|failure| run::of_finished(edge, id, failure))?;
    Ok(done.on(axum::Json(Accepted { id })))
}

/// What was filled in, with the defaults, each of its type. Text is read as what is wanted.
fn form(approval: Approval, given: Map<String, Value>) -> Result<Json, Failure> {
    let form = Definition { params: approval.inputs, ..Definition::default() };
    let mut read = Map::new();
    for (name, value) in given {
        let kind = form.params.get(name.as_str()).map(|input| input.kind);
        let value = match (&value, kind) {
            (Value::String(text), Some(kind)) if kind != ParamKind::String => {
                spec::coerce(&form, &name, text).map_err(|found| refused(vec![found]))?
            }
            _ => value,
        };
        read.insert(name, value);
    }
    spec::resolve_params(&form, &read, Context::default()).map_err(refused)
}
