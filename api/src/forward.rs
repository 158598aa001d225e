//! Reads that this node cannot answer, passed on to the leader.
//!
//! A node whose disk is full stores no news, and so cannot show what was just committed. It
//! still knows who can.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::edge::Edge;
use crate::error::{Code, Failure};

/// On a request that another node has passed on: its id. It is not passed on again, or two
/// nodes that take each other for the leader could go on for ever.
const FORWARDED: HeaderName = HeaderName::from_static("quorate-forwarded");

/// How long the leader may take to accept a connection.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(2);

/// What belongs to a connection, and not to what is said on it.
const OF_THE_CONNECTION: [HeaderName; 4] =
    [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::HOST];

/// Has the leader answer reads that fail here because the disk of this node is full.
pub(crate) async fn forward(
    State(edge): State<Arc<Edge>>,
    request: Request,
    next: Next,
) -> Response {
    let may_forward = request.method() == Method::GET && !request.headers().contains_key(FORWARDED);
    let asked = may_forward.then(|| (request.uri().clone(), request.headers().clone()));
    let response = next.run(request).await;
    let failure = response.extensions().get::<Failure>();
    let is_full = failure.is_some_and(|failure| failure.code == Code::DiskFull);
    let Some((uri, headers)) = asked.filter(|_| is_full) else { return response };
    match ask_leader(&edge, &uri, headers).await {
        Ok(answered) => answered.unwrap_or(response),
        Err(error) => {
            tracing::debug!(%uri, %error, "the leader does not answer for this node");
            response
        }
    }
}

/// The leader's answer; `None` if no other node is known to lead.
async fn ask_leader(
    edge: &Edge,
    uri: &Uri,
    mut headers: HeaderMap,
) -> Result<Option<Response>, reqwest::Error> {
    let cluster = edge.backend.cluster();
    let leader = cluster.members.iter().find(|member| Some(member.id) == cluster.leader);
    let Some(leader) = leader.filter(|leader| leader.id != cluster.node) else { return Ok(None) };
    OF_THE_CONNECTION.iter().for_each(|name| drop(headers.remove(name)));
    headers.insert(FORWARDED, HeaderValue::from(cluster.node));
    let url = format!("http://{}{uri}", leader.address);
    let answer = edge.http.get(url).headers(headers).send().await?;
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    OF_THE_CONNECTION.iter().for_each(|name| drop(headers.remove(name)));
    let mut response = Response::new(Body::from_stream(answer.bytes_stream()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(Some(response))
}
