//! Workflows and their versions.

use std::ops::Bound;
use std::str;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use quorate_model::command::{DeleteWorkflow, PutWorkflow};
use quorate_model::workflow::Workflow;
use quorate_model::{Command, LogIndex, Name, Reply, State};

use super::document::{Document, validity};
use crate::answer::{Answered, At, found};
use crate::error::{Code, Failure, Fault};
use crate::feed::Topic;
use crate::page::Page;
use crate::request::{Call, Query, Write, bad_header, bad_query};
use crate::view::{Put, VersionSummary, WorkflowSummary, WorkflowView};
use crate::wait::READ;

/// `GET /v1/workflows`: by name.
pub(super) async fn list(call: Call) -> Answered {
    let query = call.query(&["limit", "page_token", READ[0], READ[1], READ[2]])?;
    let (limit, position) = (query.limit()?, query.page_position()?);
    let after = match &position {
        Some(name) => Bound::Excluded(str::from_utf8(name).unwrap_or_default()),
        None => Bound::Unbounded,
    };
    let index = call.refresh_list(query, Topic::Workflows).await?;
    let page = call.edge.look(|state| summaries(state, query, after, limit));
    Ok(found(index, &page))
}

fn summaries(
    state: &State,
    query: Query<'_>,
    after: Bound<&str>,
    limit: usize,
) -> Page<WorkflowSummary> {
    let mut rest = state.workflows().range::<str, _>((after, Bound::Unbounded));
    let items: Vec<_> =
        rest.by_ref().take(limit).map(|(name, w)| summary(state, name, w)).collect();
    let last = items.last().filter(|_| rest.next().is_some());
    let end = last.map(|last| last.name.to_string());
    query.page(items, end.as_deref().map(str::as_bytes))
}

fn summary(state: &State, name: &Name, workflow: &Workflow) -> WorkflowSummary {
    let (_, version) = workflow.latest();
    WorkflowSummary::of(name, workflow, state.definition(version.definition))
}

/// `POST /v1/workflows`: a new one, named by the document.
pub(super) async fn create(write: Write) -> Answered {
    write.call.query(&[])?;
    let document = Document::of(&write, None).await?;
    commit(&write, document, Ok(Some(0))).await.map_err(|failure| {
        // Nobody named a version: what is in the way is the name.
        let exists = failure.code == Code::VersionMismatch;
        if exists { Failure { code: Code::WorkflowExists, ..failure } } else { failure }
    })
}

/// `PUT /v1/workflows/{name}`: a new version, unless it says the same as the newest.
pub(super) async fn put(At(name): At<Name>, write: Write) -> Answered {
    write.call.query(&[])?;
    let precondition = Precondition::of(&write.call)?;
    let document = Document::of(&write, Some(name.to_string())).await?;
    if document.name != name {
        let detail = format!("the document calls itself {}, the path {name}", document.name);
        let fault = Fault::at("/name", detail.clone());
        return Err(Failure::new(Code::Validation, detail).with_errors(vec![fault]));
    }
    let expected = match precondition {
        Precondition::None => Ok(None),
        Precondition::Absent => Ok(Some(0)),
        Precondition::Version(version) => Ok(Some(version)),
        Precondition::Present => present(&write.call, &name).await.map(Some),
    };
    commit(&write, document, expected).await
}

async fn commit(
    write: &Write,
    document: Document,
    expected: Result<Option<u32>, Failure>,
) -> Answered {
    let Document { name, definition, warnings } = document;
    let command = expected.map(|expected_version| {
        let name = name.clone();
        Command::PutWorkflow(PutWorkflow { name, definition, expected_version })
    });
    let done = write.commit(command).await?;
    let Reply::WorkflowPut { version, changed } = done.reply else {
        return Err(done.unexpected());
    };
    let is_new = changed && version == 1;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let location = format!("/v1/workflows/{name}");
    let view = Put { name, version, changed, warnings };
    let headers = [(header::ETAG, etag(version)), (header::LOCATION, text(&location))];
    Ok(done.on((status, headers, Json(&view))))
}

/// `DELETE /v1/workflows/{name}`: with all its versions; its runs go on.
pub(super) async fn delete(At(name): At<Name>, write: Write) -> Answered {
    write.call.query(&[])?;
    let expected = match Precondition::of(&write.call)? {
        Precondition::None => Ok(()),
        Precondition::Absent => Err(bad_header(&header::IF_NONE_MATCH, "use If-Match here")),
        Precondition::Present => present(&write.call, &name).await.map(drop),
        Precondition::Version(expected) => match present(&write.call, &name).await {
            Ok(current) if current == expected => Ok(()),
            Ok(current) => Err(Failure::new(
                Code::VersionMismatch,
                format!("workflow {name} is at version {current}, not {expected}"),
            )),
            Err(failure) => Err(failure),
        },
    };
    let command = expected.map(|()| Command::DeleteWorkflow(DeleteWorkflow { name }));
    let done = write.commit(command).await?;
    Ok(done.on(StatusCode::NO_CONTENT))
}

/// `POST /v1/workflows/validate`: what is wrong with a document; a bad one is no bad request.
pub(super) async fn validate(write: Write) -> Answered {
    let query = write.call.query(&["name"])?;
    let name = query.one("name")?.map(str::to_owned);
    let read = Document::parse(&write, name).await?;
    Ok(Json(validity(read)).into_response())
}

/// `GET /v1/workflows/{name}`: the newest version.
pub(super) async fn get(At(name): At<Name>, call: Call) -> Answered {
    one(&call, name, None).await
}

/// `GET /v1/workflows/{name}/versions/{version}`.
pub(super) async fn version(At((name, version)): At<(Name, u32)>, call: Call) -> Answered {
    one(&call, name, Some(version)).await
}

async fn one(call: &Call, name: Name, version: Option<u32>) -> Answered {
    let query = call.query(&["format", READ[0], READ[1], READ[2]])?;
    let yaml = match query.one("format")? {
        None => call.accepts("application/yaml"),
        Some("yaml") => true,
        Some("json") => false,
        Some(_) => return Err(bad_query("format", "say yaml or json")),
    };
    let look = || call.edge.look(|state| view(state, &name, version));
    let (index, view) = call.read(query, Topic::Workflows, look).await?;
    let tag = etag(view.version);
    if call.headers.get(header::IF_NONE_MATCH) == Some(&tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let mut response = if yaml {
        let media = HeaderValue::from_static("application/yaml");
        ([(header::CONTENT_TYPE, media)], view.source).into_response()
    } else {
        found(index, &view)
    };
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}

fn view(
    state: &State,
    name: &Name,
    version: Option<u32>,
) -> Result<(LogIndex, WorkflowView), Failure> {
    let workflow = state.workflows().get(name).ok_or_else(|| no_such_workflow(name))?;
    let number = version.unwrap_or_else(|| workflow.latest().0);
    let found = workflow.versions.get(&number).ok_or_else(|| {
        let detail = format!("workflow {name} has no version {number}");
        Failure::new(Code::NoSuchVersion, detail)
    })?;
    let said = state.definition(found.definition);
    Ok((found.created_index, WorkflowView::of(name.clone(), workflow, (number, found), said)))
}

/// `GET /v1/workflows/{name}/versions`: the newest first.
pub(super) async fn versions(At(name): At<Name>, call: Call) -> Answered {
    let query = call.query(&["limit", "page_token", READ[0], READ[1], READ[2]])?;
    let (limit, position) = (query.limit()?, query.page_position()?);
    let before = position.and_then(|position| Some(u32::from_be_bytes(position.try_into().ok()?)));
    let index = call.refresh_list(query, Topic::Workflows).await?;
    let page = call.edge.look(|state| {
        let workflow = state.workflows().get(&name).ok_or_else(|| no_such_workflow(&name))?;
        let mut rest = workflow.versions.range(..before.unwrap_or(u32::MAX)).rev();
        let items = rest.by_ref().take(limit).map(|(&number, version)| VersionSummary {
            version: number,
            created_at: crate::time::Time(version.created_at),
            index: version.created_index.0,
            tasks: state.definition(version.definition).tasks.len(),
        });
        let items: Vec<_> = items.collect();
        let last = items.last().filter(|_| rest.next().is_some());
        let end = last.map(|last| last.version.to_be_bytes());
        Ok::<_, Failure>(query.page(items, end.as_ref().map(|end| &end[..])))
    })?;
    Ok(found(index, &page))
}

/// What a write makes itself depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Precondition {
    /// Nothing.
    None,
    /// `If-None-Match: *`: there is no such workflow.
    Absent,
    /// `If-Match: *`: there is one.
    Present,
    /// `If-Match: "v3"`: its newest version is this one.
    Version(u32),
}

impl Precondition {
    fn of(call: &Call) -> Result<Self, Failure> {
        let wanted = call.header(&header::IF_MATCH)?;
        let unwanted = call.header(&header::IF_NONE_MATCH)?;
        match (wanted.map(str::trim), unwanted.map(str::trim)) {
            (None, None) => Ok(Self::None),
            (None, Some("*")) => Ok(Self::Absent),
            (Some("*"), None) => Ok(Self::Present),
            (Some(tag), None) => {
                let number = tag.strip_prefix("\"v").and_then(|tag| tag.strip_suffix('"'));
                let number = number.and_then(|number| number.parse().ok());
                let bad = || bad_header(&header::IF_MATCH, "give one ETag, as \"v3\", or *");
                number.map(Self::Version).ok_or_else(bad)
            }
            (None, Some(_)) => Err(bad_header(&header::IF_NONE_MATCH, "give * or nothing")),
            (Some(_), Some(_)) => {
                Err(bad_header(&header::IF_MATCH, "give it or If-None-Match, not both"))
            }
        }
    }
}

/// The newest version of a workflow that must exist.
async fn present(call: &Call, name: &Name) -> Result<u32, Failure> {
    call.edge.backend.catch_up().await?;
    let latest = |state: &State| state.workflows().get(name).map(|found| found.latest().0);
    call.edge.look(latest).ok_or_else(|| no_such_workflow(name))
}

pub(super) fn no_such_workflow(name: &Name) -> Failure {
    Failure::new(Code::NoSuchWorkflow, format!("no workflow {name}"))
}

fn etag(version: u32) -> HeaderValue {
    text(&format!("\"v{version}\""))
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("names and numbers are fit for a header")
}
