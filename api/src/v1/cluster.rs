//! The cluster and its members.
//!
//! Answered by the node that is asked, as it sees things: what is to be looked at when there
//! is no leader must not wait for one.

use axum::Json;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use quorate_model::{LogIndex, State};

use crate::answer::{Answered, At};
use crate::backend::{Join, Joined};
use crate::error::{Code, Failure};
use crate::page::Page;
use crate::request::{Call, Write, invalid};
use crate::view::{ClusterView, JoinedView};

/// The longest address of a member, in bytes: a host name and a port.
const ADDRESS_BYTES_MAX: usize = 260;

/// `GET /v1/cluster`; with `?hash=true` the digest of the state, which holds up this node for
/// as long as it takes.
pub(super) async fn get(call: Call) -> Answered {
    let query = call.query(&["hash"])?;
    let with_hash = query.flag("hash")?;
    let mut view = ClusterView::of(call.edge.backend.cluster());
    call.edge.look(|state| {
        let LogIndex(applied) = state.applied();
        view.applied_index = applied;
        view.runs_live = state.runs().len();
        view.tasks_queued = state.ready_count();
        view.workers_live = state.workers().values().filter(|worker| worker.is_live()).count();
        view.state_hash = with_hash.then(|| format!("{:016x}", State::hash(state)));
    });
    Ok(Json(view).into_response())
}

/// `GET /v1/cluster/members`.
pub(super) async fn members(call: Call) -> Answered {
    call.query(&[])?;
    let cluster = ClusterView::of(call.edge.backend.cluster());
    Ok(Json(Page::whole(cluster.members)).into_response())
}

/// `POST /v1/cluster/members`: lets a node join.
pub(super) async fn add(write: Write) -> Answered {
    write.call.query(&[])?;
    let mut fields = write.fields(&["address", "voter"])?;
    let address: String = fields.need("address")?;
    let has_port = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if !has_port || address.len() > ADDRESS_BYTES_MAX {
        return Err(invalid("address", "write HOST:PORT"));
    }
    let voter = fields.take("voter")?.unwrap_or(true);
    let Joined { node, cluster } =
        write.call.edge.backend.add_member(Join { address, voter }).await?;
    Ok((StatusCode::CREATED, Json(JoinedView { node, cluster })).into_response())
}

/// `DELETE /v1/cluster/members/{member}`: removes a node for good.
pub(super) async fn remove(At(member): At<u64>, write: Write) -> Answered {
    write.call.query(&[])?;
    let cluster = write.call.edge.backend.cluster();
    if !cluster.members.iter().any(|found| found.id == member) {
        return Err(Failure::new(Code::NoSuchMember, format!("no member {member}")));
    }
    write.call.edge.backend.remove_member(member).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /v1/cluster/leader`: hands leadership to another.
pub(super) async fn transfer(write: Write) -> Answered {
    write.call.query(&[])?;
    let to: Option<u64> = write.fields(&["to"])?.take("to")?;
    let cluster = write.call.edge.backend.cluster();
    if let Some(to) = to.filter(|&to| !cluster.members.iter().any(|found| found.id == to)) {
        return Err(Failure::new(Code::NoSuchMember, format!("no member {to}")));
    }
    write.call.edge.backend.transfer_leadership(to).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
