//! One request and its response, over as many redirects as are allowed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode, http};
use hyper_util::rt::TokioIo;
use quorate_expression::Context;
use quorate_model::plan::RESPONSE;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use url::{Host, Position, Url};

use super::super::child::{Failure, Told, say};
use super::reach::{self, Network};
use super::tls::Trust;

/// The longest response. It is held in memory, and what is larger is no answer but a file: for
/// that, there is a task of kind `run` with an artifact.
const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Lets a server tell an older attempt from a newer one.
const FENCING_TOKEN: HeaderName = HeaderName::from_static("quorate-fencing-token");

/// Lets a server tell a repeat of a request.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A response.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: StatusCode,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    url: Url,
}

impl Response {
    /// What expressions know: `response`.
    pub(super) fn known(&self) -> Context {
        let text = self.text();
        let mut response = json!({
            "status": self.status.as_u16(),
            "headers": self.headers,
            "url": self.url.as_str(),
        });
        // What is no JSON has no field `json`: a reference to it is then a mistake that is told.
        if let Ok(body) = serde_json::from_str::<Value>(&text) {
            response["json"] = body;
        }
        response["text"] = text.into();
        let mut known = Context::default();
        known.set(RESPONSE, &response);
        known
    }

    /// The body, as far as it is text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// How requests go out.
pub(super) struct Way<'a> {
    /// What may be reached besides what always may.
    pub(super) allowed: &'a [Network],
    /// Who is believed.
    pub(super) trust: &'a Trust,
    /// Redirects that are followed.
    pub(super) redirects_max: u32,
    /// How long all of it may take.
    pub(super) timeout: Duration,
    /// The attempt.
    pub(super) told: &'a Told,
}

impl Way<'_> {
    /// Asks, and follows redirects.
    ///
    /// # Errors
    ///
    /// If there is no response, or it leads where no request may go.
    pub(super) async fn ask(&self, question: Question) -> Result<Response, Failure> {
        let (began, method) = (Instant::now(), question.method.clone());
        let shown = question.url.clone();
        let asked = tokio::time::timeout(self.timeout, self.follow(question)).await;
        let response = asked.unwrap_or_else(|_| {
            let timeout = self.timeout;
            Err(Failure::passing(format!("{} did not answer in {timeout:?}", origin(&shown))))
        })?;
        let (bytes, ms) = (response.body.len(), began.elapsed().as_millis());
        let path = &response.url[..Position::AfterPath];
        say(format_args!("{method} {path}: {}, {bytes} bytes in {ms} ms", response.status));
        Ok(response)
    }

    async fn follow(&self, mut question: Question) -> Result<Response, Failure> {
        question.headers.insert(FENCING_TOKEN, value(&self.told.token)?);
        if question.method != Method::GET && question.method != Method::HEAD {
            question.headers.insert(IDEMPOTENCY_KEY, value(&self.told.key)?);
        }
        for _ in 0..=self.redirects_max {
            let response = self.exchange(&question).await?;
            let to = match response.headers.get("location") {
                Some(to) if response.status.is_redirection() && self.redirects_max > 0 => to,
                Some(_) | None => return Ok(response),
            };
            let to = question.url.join(to).map_err(|error| {
                Failure::lasting(format!("a redirect leads nowhere: {to:?}: {error}"))
            })?;
            redirect(&mut question, response.status, to)?;
        }
        Err(Failure::lasting(format!("more than {} redirects", self.redirects_max)))
    }

    async fn exchange(&self, question: &Question) -> Result<Response, Failure> {
        let url = &question.url;
        let stream = self.connect(url).await?;
        if url.scheme() == "http" {
            return converse(stream, question).await;
        }
        let failed = |error: &dyn std::fmt::Display| {
            Failure::passing(format!("{} speaks no TLS that is believed: {error}", origin(url)))
        };
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|error| failed(&error))?;
        let connector = TlsConnector::from(Arc::new(self.trust.config()?));
        let stream = connector.connect(name, stream).await.map_err(|error| failed(&error))?;
        converse(stream, question).await
    }

    /// Connects to an address that may be reached: the very one that was looked at.
    async fn connect(&self, url: &Url) -> Result<TcpStream, Failure> {
        let port = url.port_or_known_default().unwrap_or(80);
        let addresses: Vec<SocketAddr> = match url.host() {
            Some(Host::Domain(name)) => {
                let found = tokio::net::lookup_host((name, port)).await;
                let unknown = |error| Failure::passing(format!("{name} is not known: {error}"));
                found.map_err(unknown)?.collect()
            }
            Some(Host::Ipv4(address)) => vec![(address, port).into()],
            Some(Host::Ipv6(address)) => vec![(address, port).into()],
            None => Vec::new(),
        };
        let may = |address: &&SocketAddr| reach::admits(self.allowed, address.ip());
        let mut last = None;
        for address in addresses.iter().filter(may) {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        match (last, addresses.first()) {
            (Some(error), _) => {
                Err(Failure::passing(format!("{} cannot be reached: {error}", origin(url))))
            }
            (None, Some(address)) => Err(denied(url, address.ip())),
            (None, None) => Err(Failure::passing(format!("{} has no address", origin(url)))),
        }
    }
}

fn denied(url: &Url, address: IpAddr) -> Failure {
    let origin = origin(url);
    Failure::lasting(format!(
        "{origin} is at {address}, where tasks may not reach; if they are to, start the worker \
         with --http-allow {address}"
    ))
}

/// Where a URL leads, without what may be secret in it.
fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn value(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|error| Failure::lasting(format!("{text:?}: {error}")))
}

/// Makes of a question the one that a redirect asks for.
fn redirect(question: &mut Question, status: StatusCode, to: Url) -> Result<(), Failure> {
    if !matches!(to.scheme(), "http" | "https") {
        return Err(Failure::lasting(format!("a redirect leads to {}:", to.scheme())));
    }
    if question.url.scheme() == "https" && to.scheme() == "http" {
        let message = format!("a redirect leads from TLS to {} without", origin(&to));
        return Err(Failure::lasting(message));
    }
    let keeps_body =
        matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    if !keeps_body && question.method != Method::HEAD {
        question.method = Method::GET;
        question.body = Bytes::new();
        question.headers.remove(header::CONTENT_TYPE);
    }
    if question.url.origin() != to.origin() {
        // What was meant for one host, as a password in a header, is not for another.
        if !question.body.is_empty() {
            let message = format!("a redirect would send the body to {}", origin(&to));
            return Err(Failure::lasting(message));
        }
        let accept = question.headers.remove(header::ACCEPT);
        question.headers.clear();
        question.headers.extend(accept.map(|accept| (header::ACCEPT, accept)));
    }
    question.url = to;
    Ok(())
}

async fn converse<S>(stream: S, question: &Question) -> Result<Response, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let url = &question.url;
    let failed =
        |error: hyper::Error| Failure::passing(format!("{} broke off: {error}", origin(url)));
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(failed)?;
    let connection = tokio::spawn(connection);
    let request = request(question).map_err(|error| Failure::lasting(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let (status, headers) = (response.status(), texts(response.headers()));
    let body = read(response.into_body(), url).await;
    connection.abort();
    Ok(Response { status, headers, body: body?, url: url.clone() })
}

fn request(question: &Question) -> http::Result<Request<Full<Bytes>>> {
    let Question { method, url, headers, body } = question;
    let host = &url[Position::BeforeHost..Position::AfterPort];
    let mut request = Request::builder()
        .method(method)
        .uri(&url[Position::BeforePath..Position::AfterQuery])
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("quorate/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body.clone()))?;
    for (name, value) in headers {
        request.headers_mut().insert(name, value.clone());
    }
    Ok(request)
}

/// Headers as text; of those that come twice, both.
fn texts(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let text = texts.entry(name.as_str().to_owned()).or_default();
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&value);
    }
    texts
}

async fn read(mut body: Incoming, url: &Url) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Failure::passing(format!("{} broke off: {error}", origin(url))))?;
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |read| read));
        if bytes.len() > RESPONSE_BYTES_MAX {
            return Err(Failure::lasting(format!(
                "the response takes more than {} MiB; fetch it in a task of kind run, and keep it \
                 as an artifact",
                RESPONSE_BYTES_MAX / 1024 / 1024
            )));
        }
    }
    Ok(bytes)
}
