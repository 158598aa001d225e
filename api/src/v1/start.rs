//! Starting runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json as Body;
use axum::http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use quorate_expression::{Context, RunFacts, Zone};
use quorate_model::command::{StartRun, WorkflowSource};
use quorate_model::workflow::Definition;
use quorate_model::{Command, Name, Reply, RunId, State, Trigger, UnixMs};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::document::{Document, refused};
use super::workflow::no_such_workflow;
use crate::answer::{Answered, At};
use crate::error::{Code, Failure, Fault};
use crate::request::{Fields, Format, Write, invalid};
use crate::spec;
use crate::view::Started;

/// Labels that a run may be given.
const LABELS_MAX: usize = 64;

/// The longest value of a label, in bytes.
const LABEL_BYTES_MAX: usize = 256;

/// What an inline workflow is called if neither it nor the request says so.
const INLINE_NAME: &str = "inline";

/// `POST /v1/workflows/{name}/runs`: of a workflow that was put before.
pub(super) async fn stored(At(name): At<Name>, write: Write) -> Answered {
    write.call.query(&[])?;
    let mut fields = write.fields(&["params", "labels", "logical_time", "run_id", "version"])?;
    let version: Option<u32> = fields.take("version")?;
    let wish = Wish::of(&mut fields)?;
    // To name a workflow means the one that is there now, wherever this node is in the log.
    write.call.edge.backend.catch_up().await?;
    let command = match find(&write, &name, version) {
        Ok((version, definition)) => {
            let source = WorkflowSource::Stored { name: name.clone(), version };
            wish.command(&write, source, &name, &definition).await
        }
        Err(failure) => Err(failure),
    };
    commit(&write, command, name, Vec::new()).await
}

fn find(
    write: &Write,
    name: &Name,
    version: Option<u32>,
) -> Result<(u32, Arc<Definition>), Failure> {
    write.call.edge.look(|state: &State| {
        let workflow = state.workflows().get(name).ok_or_else(|| no_such_workflow(name))?;
        let number = version.unwrap_or_else(|| workflow.latest().0);
        let found = workflow.versions.get(&number).ok_or_else(|| {
            let detail = format!("workflow {name} has no version {number}");
            Failure::new(Code::NoSuchVersion, detail)
        })?;
        Ok((number, Arc::clone(state.definition(found.definition))))
    })
}

/// `POST /v1/runs`: of a workflow that comes along, and is put first.
pub(super) async fn inline(write: Write) -> Answered {
    let query = write.call.query(&["name"])?;
    let name = query.one("name")?.map(str::to_owned);
    let (document, wish) = match write.format()? {
        Format::Yaml => (Document::of(&write, Some(or_inline(name))).await?, Wish::default()),
        Format::Json => {
            let known = ["workflow", "name", "params", "labels", "logical_time", "run_id"];
            let mut fields = write.fields(&known)?;
            let name = fields.take("name")?.or(name);
            let tree: Value = fields.need("workflow")?;
            let text = tree.as_str().map_or_else(|| tree.to_string(), str::to_owned);
            let read = Document::read(text, Some(or_inline(name))).await?;
            (read.map_err(refused)?, Wish::of(&mut fields)?)
        }
    };
    let Document { name, definition, warnings } = document;
    let definition = Arc::new(definition);
    let said = Definition::clone(&definition);
    let source = WorkflowSource::Inline { name: name.clone(), definition: said };
    let command = wish.command(&write, source, &name, &definition).await;
    commit(&write, command, name, warnings).await
}

fn or_inline(name: Option<String>) -> String {
    name.unwrap_or_else(|| INLINE_NAME.to_owned())
}

/// What a request says of the run, besides what it executes.
#[derive(Clone, Debug, Default)]
struct Wish {
    params: Map<String, Value>,
    labels: BTreeMap<Name, String>,
    /// Read in the zone of the workflow, once it is known.
    logical_time: Option<String>,
    run: Option<RunId>,
}

impl Wish {
    fn of(fields: &mut Fields) -> Result<Self, Failure> {
        let labels: BTreeMap<Name, String> = fields.take("labels")?.unwrap_or_default();
        if labels.len() > LABELS_MAX {
            return Err(invalid("labels", format!("{LABELS_MAX} is the most")));
        }
        if labels.values().any(|value| value.len() > LABEL_BYTES_MAX) {
            return Err(invalid("labels", format!("a value has at most {LABEL_BYTES_MAX} bytes")));
        }
        let params = fields.take("params")?.unwrap_or_default();
        let logical_time = fields.take("logical_time")?;
        Ok(Self { params, labels, logical_time, run: fields.take("run_id")? })
    }

    /// Checks the wish against the workflow and what there is.
    async fn command(
        self,
        write: &Write,
        source: WorkflowSource,
        workflow: &Name,
        definition: &Definition,
    ) -> Result<Command, Failure> {
        let Self { params, labels, logical_time, run } = self;
        if let Some(run) = run {
            // The log knows the live runs; only the edge looks into the history.
            write.call.edge.backend.catch_up().await?;
            if write.call.edge.run(run)?.is_some() {
                let detail = format!("run {run} exists already");
                return Err(Failure::new(Code::RunExists, detail).of_run(run));
            }
        }
        let mut all = definition.labels.clone();
        all.extend(labels);
        let (run, trigger) = (run.unwrap_or_else(|| RunId(Uuid::now_v7())), Trigger::Manual);
        let zone = definition.timezone.as_deref().and_then(Zone::named).unwrap_or_default();
        let logical_time = match logical_time {
            Some(text) => zone.unix_ms(&text).map(UnixMs).ok_or_else(|| {
                let wanted = "write 2026-11-20, 2026-11-20T09:30 or 2026-11-20T09:30:00Z";
                invalid("logical_time", format!("{text:?} is no point in time; {wanted}"))
            })?,
            None => now(),
        };
        let mut context = Context::default();
        context.set_run(&RunFacts {
            id: run.to_string(),
            trigger: trigger.to_string(),
            logical_time_ms: logical_time.0,
            zone,
        });
        // Not its version: one that comes along gets it from the log.
        context.set("workflow", &json!({"name": workflow, "labels": definition.labels}));
        let params = spec::resolve_params(definition, &params, context).map_err(refused)?;
        let start = StartRun { run, source, params, labels: all, trigger, logical_time };
        Ok(Command::StartRun(Box::new(start)))
    }
}

/// The clock of this node: what a run is about, if nobody says.
fn now() -> UnixMs {
    UnixMs(u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0))
}

async fn commit(
    write: &Write,
    command: Result<Command, Failure>,
    workflow: Name,
    warnings: Vec<Fault>,
) -> Answered {
    let done = write.commit(command).await?;
    let Reply::RunStarted { run, version } = done.reply else {
        return Err(done.unexpected());
    };
    let location = HeaderValue::from_str(&format!("/v1/runs/{run}"));
    let location = location.expect("an id is fit for a header");
    let view = Started { id: run, workflow, version, warnings };
    let headers = [(header::LOCATION, location)];
    Ok(done.on((StatusCode::CREATED, headers, Body(&view))))
}
