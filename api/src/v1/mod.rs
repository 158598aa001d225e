//! Every route on one screen, and the handlers, a noun each.

mod approval;
mod artifact;
mod cluster;
mod decision;
mod document;
mod event;
mod file;
mod listing;
mod log;
mod pause;
mod probe;
mod run;
mod schema;
mod start;
mod task;
mod worker;
mod workflow;

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{delete, get, post};

use crate::edge::Edge;
use crate::error::{Code, Failure};

#[rustfmt::skip]
pub(crate) fn routes() -> Router<Arc<Edge>> {
    Router::new()
        .route("/v1/workflows", get(workflow::list).post(workflow::create))
        .route("/v1/workflows/validate", post(workflow::validate))
        .route("/v1/workflows/{name}", get(workflow::get).put(workflow::put).delete(workflow::delete))
        .route("/v1/workflows/{name}/versions", get(workflow::versions))
        .route("/v1/workflows/{name}/versions/{version}", get(workflow::version))
        .route("/v1/workflows/{name}/pause", post(pause::workflow))
        .route("/v1/workflows/{name}/resume", post(pause::resume_workflow))
        .route("/v1/workflows/{name}/runs", get(listing::of_workflow).post(start::stored))
        .route("/v1/runs", get(listing::all).post(start::inline))
        .route("/v1/runs/{run}", get(run::get))
        .route("/v1/runs/{run}/cancel", post(run::cancel))
        .route("/v1/runs/{run}/pause", post(pause::run))
        .route("/v1/runs/{run}/resume", post(pause::resume_run))
        .route("/v1/runs/{run}/wait", get(run::wait))
        .route("/v1/runs/{run}/events", get(run::events))
        .route("/v1/runs/{run}/tasks", get(task::list))
        .route("/v1/runs/{run}/tasks/{task}", get(task::get))
        .route("/v1/runs/{run}/tasks/{task}/retry", post(decision::retry))
        .route("/v1/runs/{run}/tasks/{task}/approve", post(approval::approve))
        .route("/v1/runs/{run}/tasks/{task}/reject", post(approval::reject))
        .route("/v1/runs/{run}/tasks/{task}/mark-success", post(decision::mark_success))
        .route("/v1/runs/{run}/tasks/{task}/mark-failed", post(decision::mark_failed))
        .route("/v1/runs/{run}/tasks/{task}/attempts/{attempt}", get(task::attempt))
        .route("/v1/runs/{run}/tasks/{task}/attempts/{attempt}/log", get(log::get))
        .route("/v1/runs/{run}/artifacts", get(artifact::list))
        .route("/v1/runs/{run}/artifacts/{*path}", get(artifact::get))
        .route("/v1/workers", get(worker::list))
        .route("/v1/workers/{worker}", get(worker::get))
        .route("/v1/workers/{worker}/drain", post(worker::drain))
        .route("/v1/workers/{worker}/eligible", post(worker::eligible))
        .route("/v1/cluster", get(cluster::get))
        .route("/v1/cluster/members", get(cluster::members).post(cluster::add))
        .route("/v1/cluster/members/{member}", delete(cluster::remove))
        .route("/v1/cluster/leader", post(cluster::transfer))
        .route("/v1/events", get(event::stream))
        .route("/v1/schema/workflow.json", get(schema::workflow))
        .route("/v1/version", get(probe::version))
        .route("/healthz", get(probe::health))
        .route("/readyz", get(probe::ready))
        .route("/metrics", get(probe::metrics))
        .fallback(no_such_route)
        .method_not_allowed_fallback(method_not_allowed)
}

async fn no_such_route(uri: Uri) -> Failure {
    Failure::new(Code::NoSuchRoute, format!("nothing at {}", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Failure {
    Failure::new(Code::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}
