//! What a person decides of a task that is held: nobody knows how its last attempt ended.

use quorate_model::command::DecideTask;
use quorate_model::{Command, Json, RunId, Verdict};
use serde_json::{Map, Value};

use super::{run, task};
use crate::answer::{Answered, At};
use crate::request::{BY_BYTES_MAX, REASON_BYTES_MAX, Write};
use crate::view::Accepted;

type Place = At<(RunId, String)>;

/// `POST /v1/runs/{run}/tasks/{task}/retry`: has it tried again.
pub(super) async fn retry(place: Place, write: Write) -> Answered {
    decide(place, write, Verdict::Retry).await
}

/// `POST /v1/runs/{run}/tasks/{task}/mark-success`: it did its work.
pub(super) async fn mark_success(place: Place, write: Write) -> Answered {
    decide(place, write, Verdict::Succeeded).await
}

/// `POST /v1/runs/{run}/tasks/{task}/mark-failed`: it did not.
pub(super) async fn mark_failed(place: Place, write: Write) -> Answered {
    decide(place, write, Verdict::Failed).await
}

async fn decide(At((id, name)): Place, write: Write, verdict: Verdict) -> Answered {
    write.call.query(&[])?;
    let known: &[&str] = match verdict {
        Verdict::Succeeded => &["by", "comment", "outputs"],
        Verdict::Retry | Verdict::Failed => &["by", "comment"],
    };
    let mut fields = write.fields(known)?;
    let by = fields.words("by", BY_BYTES_MAX)?;
    let comment = fields.words("comment", REASON_BYTES_MAX)?;
    let outputs: Option<Map<String, Value>> = match verdict {
        Verdict::Succeeded => fields.take("outputs")?,
        Verdict::Retry | Verdict::Failed => None,
    };
    let outputs = outputs.map(|outputs| Json::new(&Value::Object(outputs)));
    let edge = &write.call.edge;
    // A name is looked up here, so this node must know of the run.
    edge.backend.catch_up().await?;
    let command = task::find(edge, id, &name)
        .map(|task| Command::DecideTask(DecideTask { task, verdict, outputs, by, comment }));
    let committed = write.commit(command).await;
    let done = committed.map_err(|failure| run::of_finished(edge, id, failure))?;
    Ok(done.on(axum::Json(Accepted { id })))
}
