//! What editors ask for.

use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;

use crate::answer::Answered;
use crate::request::Call;
use crate::spec::JSON_SCHEMA;

/// `GET /v1/schema/workflow.json`: the JSON Schema of a workflow file, as this node reads it.
pub(super) async fn workflow(call: Call) -> Answered {
    call.query(&[])?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/schema+json")),
        // Editors ask at each start; another release may know more.
        (header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600")),
        // Editors in a browser may read it: it is the same for all, and no secret.
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    ];
    Ok((headers, JSON_SCHEMA).into_response())
}
