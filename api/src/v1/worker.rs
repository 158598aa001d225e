//! Workers.

use std::ops::Bound;

use quorate_model::command::SetEligibility;
use quorate_model::{Command, LogIndex, State, WorkerId};

use crate::answer::{Answered, At, found};
use crate::error::{Code, Failure};
use crate::feed::Topic;
use crate::request::{BY_BYTES_MAX, Call, REASON_BYTES_MAX, Write};
use crate::view::{WorkerAccepted, WorkerView};
use crate::wait::READ;

/// `GET /v1/workers`: by id, those that are gone included until they are forgotten.
pub(super) async fn list(call: Call) -> Answered {
    let query = call.query(&["limit", "page_token", READ[0], READ[1], READ[2]])?;
    let (limit, position) = (query.limit()?, query.page_position()?);
    let after = position.and_then(|position| Some(u64::from_be_bytes(position.try_into().ok()?)));
    let after = after.map_or(Bound::Unbounded, |id| Bound::Excluded(WorkerId(id)));
    let index = call.refresh_list(query, Topic::Workers).await?;
    let page = call.edge.look(|state| {
        let mut rest = state.workers().range((after, Bound::Unbounded));
        let items = rest.by_ref().take(limit).map(|(&id, worker)| WorkerView::brief(id, worker));
        let items: Vec<_> = items.collect();
        let last = items.last().filter(|_| rest.next().is_some());
        let end = last.map(|last| last.id.0.to_be_bytes());
        query.page(items, end.as_ref().map(|end| &end[..]))
    });
    Ok(found(index, &page))
}

/// `GET /v1/workers/{worker}`.
pub(super) async fn get(At(id): At<u64>, call: Call) -> Answered {
    let query = call.query(&READ)?;
    let id = WorkerId(id);
    let look = || call.edge.look(|state| view(state, id));
    let (_, view) = call.read(query, Topic::Workers, look).await?;
    Ok(found(LogIndex(view.index), &view))
}

/// `POST /v1/workers/{worker}/drain`: has it be given nothing more. What it runs goes on.
pub(super) async fn drain(worker: At<u64>, write: Write) -> Answered {
    set_eligibility(worker, write, false).await
}

/// `POST /v1/workers/{worker}/eligible`: takes a drain back.
pub(super) async fn eligible(worker: At<u64>, write: Write) -> Answered {
    set_eligibility(worker, write, true).await
}

async fn set_eligibility(At(id): At<u64>, write: Write, is_eligible: bool) -> Answered {
    write.call.query(&[])?;
    let known: &[&str] = if is_eligible { &["by"] } else { &["by", "reason"] };
    let mut fields = write.fields(known)?;
    let by = fields.words("by", BY_BYTES_MAX)?;
    let reason = fields.words("reason", REASON_BYTES_MAX)?;
    let worker = WorkerId(id);
    let command = SetEligibility { worker, is_eligible, reason, by };
    let done = write.commit(Ok(Command::SetEligibility(command))).await?;
    Ok(done.on(axum::Json(WorkerAccepted { id: worker })))
}

fn view(state: &State, id: WorkerId) -> Result<(LogIndex, WorkerView), Failure> {
    let worker = state.workers().get(&id);
    let worker =
        worker.ok_or_else(|| Failure::new(Code::NoSuchWorker, format!("no worker {id}")))?;
    let view = WorkerView::full(id, worker);
    Ok((LogIndex(view.index), view))
}
