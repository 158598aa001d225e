//! What every answer carries, whatever it is about; and the last layer before the client,
//! where failures get their words.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use quorate_model::LogIndex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::edge::Edge;
use crate::error::{Code, Failure, PROBLEM_JSON};

/// The entry that last changed what is answered: ask with `?index=` to wait for the next.
pub const INDEX: HeaderName = HeaderName::from_static("quorate-index");

/// The node that answered.
pub const NODE: HeaderName = HeaderName::from_static("quorate-node");

/// The leader that this node knows; absent if it knows none.
pub const KNOWN_LEADER: HeaderName = HeaderName::from_static("quorate-known-leader");

/// How long ago the node heard the leader, or as leader its quorum, in milliseconds.
pub const LAST_CONTACT: HeaderName = HeaderName::from_static("quorate-last-contact");

/// Where in a log the answer begins: ask with `?offset=` for the same place.
pub const LOG_OFFSET: HeaderName = HeaderName::from_static("quorate-log-offset");

/// `true` on the answer to an earlier request with the same idempotency key.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Names a request, to find it again in logs. Taken from the client if it is fit to print.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// The longest request id that is taken from a client, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// The largest head of a request, in bytes of names and values.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

/// What a handler comes to.
pub(crate) type Answered = Result<Response, Failure>;

/// A view as JSON, and the entry that last changed it.
pub(crate) fn found<T: Serialize>(index: LogIndex, view: &T) -> Response {
    ([(INDEX, HeaderValue::from(index.0))], Json(view)).into_response()
}

/// Marks the answer to an earlier request with the same key.
pub(crate) fn mark_replayed(headers: &mut HeaderMap) {
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
}

/// What the path of a route names.
#[derive(Clone, Debug)]
pub(crate) struct At<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Edge>> for At<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, edge: &Arc<Edge>) -> Result<Self, Failure> {
        let path = Path::from_request_parts(parts, edge).await;
        path.map(|Path(names)| Self(names))
            .map_err(|error| Failure::new(Code::BadPath, error.body_text()))
    }
}

/// The outermost layer: tells who answers, and puts failures into words.
pub(crate) async fn seal(
    State(edge): State<Arc<Edge>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = request_id(request.headers());
    let checked = check_head(&request);
    // So that another node to which it is passed on calls it the same.
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    };
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        if failure.code.status() == StatusCode::INTERNAL_SERVER_ERROR {
            let detail = failure.detail.as_str();
            tracing::error!(%method, path, request_id = ?id, detail, "a request broke something");
        }
        response = in_words(response, failure, path, &id);
    }
    let cluster = edge.backend.cluster();
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(NODE, HeaderValue::from(cluster.node));
    if let Some(leader) = cluster.leader {
        headers.insert(KNOWN_LEADER, HeaderValue::from(leader));
    }
    if let Some(ms) = cluster.last_contact_ms {
        headers.insert(LAST_CONTACT, HeaderValue::from(ms));
    }
    response
}

fn check_head(request: &Request) -> Result<(), Failure> {
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if headers.sum::<usize>() + target <= HEADER_BYTES_MAX {
        return Ok(());
    }
    let detail = format!("path and headers may take {HEADER_BYTES_MAX} bytes together");
    Err(Failure::new(Code::HeadersTooLarge, detail))
}

fn in_words(response: Response, failure: Failure, path: String, id: &HeaderValue) -> Response {
    let mut problem = failure.problem();
    problem.instance = path;
    problem.request_id = id.to_str().unwrap_or_default().to_owned();
    let (mut parts, _) = response.into_parts();
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    parts.headers.remove(header::CONTENT_LENGTH);
    let body = serde_json::to_vec(&problem).expect("a problem has string keys only");
    Response::from_parts(parts, body.into())
}

fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID).or_else(|| headers.get("x-request-id"));
    let fit = |id: &&HeaderValue| id.len() <= REQUEST_ID_BYTES_MAX && id.to_str().is_ok();
    given.filter(fit).cloned().unwrap_or_else(|| {
        let id = Uuid::now_v7().to_string();
        HeaderValue::from_str(&id).expect("a UUID is fit for a header")
    })
}
