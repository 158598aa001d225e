//! A run: how it stands, what happened in it, and its end.

use axum::Json;
use axum::http::StatusCode;
use quorate_model::command::CancelRun;
use quorate_model::{Command, LogIndex, Retired, RunId};

use crate::answer::{Answered, At, found};
use crate::edge::{Edge, WAIT_DEFAULT, WAIT_MAX};
use crate::error::{Code, Failure};
use crate::feed::Topic;
use crate::request::{Call, Words, Write};
use crate::view::{Accepted, RunView, Transition, TransitionView};
use crate::wait::{READ, until};

/// A run that must be there.
pub(super) fn find(edge: &Edge, id: RunId) -> Result<Retired, Failure> {
    edge.run(id)?.ok_or_else(|| Failure::no_such_run(id))
}

/// A run that must be there, and the entry that last changed it.
pub(super) fn look(edge: &Edge, id: RunId) -> Result<(LogIndex, Retired), Failure> {
    find(edge, id).map(|found| (found.run.changed.index, found))
}

/// `GET /v1/runs/{run}`.
pub(super) async fn get(At(id): At<RunId>, call: Call) -> Answered {
    let query = call.query(&READ)?;
    let (index, run) = call.read(query, Topic::Run(id), || look(&call.edge, id)).await?;
    Ok(found(index, &RunView::full(&run)))
}

/// `GET /v1/runs/{run}/wait`: the run once it has ended, or as it is when the time is up.
pub(super) async fn wait(At(id): At<RunId>, call: Call) -> Answered {
    let query = call.query(&["timeout", "stale"])?;
    let timeout = query.span("timeout", WAIT_DEFAULT, WAIT_MAX)?;
    call.refresh(query).await?;
    let edge = &call.edge;
    let has_ended = |seen: &(LogIndex, Retired)| seen.1.run.has_ended();
    let (index, run) = until(edge, Topic::Run(id), timeout, || look(edge, id), has_ended).await?;
    Ok(found(index, &RunView::full(&run)))
}

/// `POST /v1/runs/{run}/cancel`: has it stop; it is cancelled once all of it is gone.
pub(super) async fn cancel(At(run): At<RunId>, write: Write) -> Answered {
    write.call.query(&[])?;
    let Words { by, reason } = Words::of(&write)?;
    let committed = write.commit(Ok(Command::CancelRun(CancelRun { run, reason, by }))).await;
    let done = committed.map_err(|failure| of_finished(&write.call.edge, run, failure))?;
    Ok(done.on((StatusCode::ACCEPTED, Json(Accepted { id: run }))))
}

/// The log no longer knows a run that left the live state; it is not unknown for all that.
pub(super) fn of_finished(edge: &Edge, run: RunId, failure: Failure) -> Failure {
    let is_finished =
        failure.code == Code::NoSuchRun && matches!(edge.backend.finished_run(run), Ok(Some(_)));
    if !is_finished {
        return failure;
    }
    let detail = format!("run {run} has ended already");
    Failure { code: Code::RunEnded, detail, ..failure }
}

/// `GET /v1/runs/{run}/events`: what happened, in the order of the log.
pub(super) async fn events(At(id): At<RunId>, call: Call) -> Answered {
    let query = call.query(&["limit", "page_token", READ[0], READ[1], READ[2]])?;
    let (limit, position) = (query.limit()?, query.page_position()?);
    let after = position.and_then(|position| place(&position));
    let (index, run) = call.read(query, Topic::Run(id), || look(&call.edge, id)).await?;
    let mut all = TransitionView::all(&run);
    if let Some(after) = after {
        all.retain(|transition| transition.place() > after);
    }
    let more = all.len() > limit;
    all.truncate(limit);
    let end = all.last().filter(|_| more).map(|last| seal(last.place()));
    Ok(found(index, &query.page(all, end.as_deref())))
}

type Place = (u64, Transition, u32, u32);

/// Every transition, in order, to number them.
const TRANSITIONS: [Transition; 13] = [
    Transition::RunCreated,
    Transition::AttemptAssigned,
    Transition::AttemptEnded,
    Transition::TaskLate,
    Transition::TaskHeld,
    Transition::TaskDecided,
    Transition::RunPaused,
    Transition::RunResumed,
    Transition::RunCancelled,
    Transition::TaskEnded,
    Transition::TaskReady,
    Transition::RunLate,
    Transition::RunEnded,
];

fn seal((index, event, position, attempt): Place) -> Vec<u8> {
    let number = TRANSITIONS.iter().position(|&known| known == event).unwrap_or_default();
    let mut bytes = index.to_be_bytes().to_vec();
    bytes.extend(u32::try_from(number).unwrap_or_default().to_be_bytes());
    bytes.extend(position.to_be_bytes());
    bytes.extend(attempt.to_be_bytes());
    bytes
}

fn place(bytes: &[u8]) -> Option<Place> {
    let (index, rest) = bytes.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (position, attempt) = rest.split_first_chunk()?;
    let number = usize::try_from(u32::from_be_bytes(*number)).ok()?;
    let attempt = u32::from_be_bytes(attempt.try_into().ok()?);
    let event = *TRANSITIONS.get(number)?;
    Some((u64::from_be_bytes(*index), event, u32::from_be_bytes(*position), attempt))
}
