//! Workers.

use std::ops::Bound;

use quorate_model::{LogIndex, State, WorkerId};

use crate::answer::{Answered, At, found};
use crate::error::{Code, Failure};
use crate::feed::Topic;
use crate::request::Call;
use crate::view::WorkerView;
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

fn view(state: &State, id: WorkerId) -> Result<(LogIndex, WorkerView), Failure> {
    let worker = state.workers().get(&id);
    let worker =
        worker.ok_or_else(|| Failure::new(Code::NoSuchWorker, format!("no worker {id}")))?;
    let view = WorkerView::full(id, worker);
    Ok((LogIndex(view.index), view))
}
