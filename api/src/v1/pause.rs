//! Pausing runs and workflows, and having them go on.

use axum::Json;
use quorate_model::command::{PauseRun, PauseWorkflow, ResumeRun, ResumeWorkflow};
use quorate_model::{Command, Name, RunId};

use super::run::of_finished;
use crate::answer::{Answered, At};
use crate::request::{Words, Write};
use crate::view::{Accepted, WorkflowAccepted};

/// `POST /v1/runs/{run}/pause`: nothing more of it starts; what runs goes on.
pub(super) async fn run(At(run): At<RunId>, write: Write) -> Answered {
    write.call.query(&[])?;
    let Words { by, reason } = Words::of(&write)?;
    change_run(&write, run, Command::PauseRun(PauseRun { run, by, reason })).await
}

/// `POST /v1/runs/{run}/resume`: has it go on.
pub(super) async fn resume_run(At(run): At<RunId>, write: Write) -> Answered {
    write.call.query(&[])?;
    let Words { by, reason } = Words::of(&write)?;
    change_run(&write, run, Command::ResumeRun(ResumeRun { run, by, reason })).await
}

async fn change_run(write: &Write, run: RunId, command: Command) -> Answered {
    let committed = write.commit(Ok(command)).await;
    let done = committed.map_err(|failure| of_finished(&write.call.edge, run, failure))?;
    Ok(done.on(Json(Accepted { id: run })))
}

/// `POST /v1/workflows/{name}/pause`: its runs start nothing more, those to come included.
pub(super) async fn workflow(At(name): At<Name>, write: Write) -> Answered {
    write.call.query(&[])?;
    let Words { by, reason } = Words::of(&write)?;
    let command = PauseWorkflow { workflow: name.clone(), by, reason };
    let done = write.commit(Ok(Command::PauseWorkflow(command))).await?;
    Ok(done.on(Json(WorkflowAccepted { name })))
}

/// `POST /v1/workflows/{name}/resume`: takes a pause of the workflow back.
pub(super) async fn resume_workflow(At(name): At<Name>, write: Write) -> Answered {
    write.call.query(&[])?;
    write.fields(&[])?;
    let command = ResumeWorkflow { workflow: name.clone() };
    let done = write.commit(Ok(Command::ResumeWorkflow(command))).await?;
    Ok(done.on(Json(WorkflowAccepted { name })))
}
