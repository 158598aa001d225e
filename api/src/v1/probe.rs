//! Whether the node is there, and how it does: for load balancers, monitors and people.

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;

use crate::answer::Answered;
use crate::error::{Code, Failure};
use crate::request::Call;
use crate::view::VersionView;

/// How far apply may be behind what is committed on a node that is ready: some tenths of a
/// second of work.
const LAG_MAX: u64 = 1_000;

/// `GET /v1/version`.
pub(super) async fn version(call: Call) -> Answered {
    call.query(&[])?;
    let view = VersionView {
        name: "quorate".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: "v1".to_owned(),
    };
    Ok(Json(view).into_response())
}

/// `GET /healthz`: the process is alive. Says nothing of the cluster: to restart a node that
/// has lost its peers helps nobody.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: requests may be sent here.
pub(super) async fn ready(call: Call) -> Answered {
    call.query(&[])?;
    let cluster = call.edge.backend.cluster();
    let not_ready = |detail: String| Err(Failure::new(Code::NotReady, detail));
    if cluster.leader.is_none() || !cluster.quorate {
        return not_ready("this node knows no leader that has a quorum".to_owned());
    }
    let lag = cluster.committed_index.saturating_sub(cluster.applied_index);
    if lag > LAG_MAX {
        return not_ready(format!("this node is {lag} entries behind"));
    }
    Ok("ok\n".into_response())
}

/// `GET /metrics`, in the OpenMetrics text format.
pub(super) async fn metrics(call: Call) -> Answered {
    call.query(&[])?;
    let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(media))];
    Ok((headers, call.edge.backend.metrics()).into_response())
}
