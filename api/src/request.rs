//! What a request says: its query, its headers and its body, each refused where it makes no
//! sense, so that a slip of the pen never widens a list or a deletion.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Query as Pairs, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, Uri, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use quorate_model::{IdempotencyKey, KEY_BYTES_MAX};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_64;

use crate::edge::Edge;
use crate::error::{Code, Failure, Fault};
use crate::page::{self, PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX, Page};
use crate::time::{Span, Time};

/// The largest body, in bytes: a workflow of ten thousand tasks takes about two million.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How much of a body that is too large is read, so that the client comes to see the answer.
const BODY_BYTES_DRAINED: usize = 4 * BODY_BYTES_MAX;

/// How long a body may take to arrive: 4 MiB at 1 Mbit/s.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(34);

/// Names the request for repeats of it.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Parameters that say how to read, and do not name what is read.
const READING: [&str; 5] = ["limit", "page_token", "stale", "index", "wait"];

/// How far a word may be from a known one to be taken for it: 1 is the same, 0 has nothing
/// in common.
const SIMILARITY_MIN: f64 = 0.6;

/// A request without its body.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) edge: Arc<Edge>,
    pub(crate) headers: HeaderMap,
    method: Method,
    uri: Uri,
    pairs: Vec<(String, String)>,
}

impl FromRequestParts<Arc<Edge>> for Call {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, edge: &Arc<Edge>) -> Result<Self, Failure> {
        let Pairs(pairs) = Pairs::try_from_uri(&parts.uri)
            .map_err(|error| Failure::new(Code::BadQuery, error.body_text()))?;
        let (method, uri) = (parts.method.clone(), parts.uri.clone());
        Ok(Self { edge: Arc::clone(edge), headers: parts.headers.clone(), method, uri, pairs })
    }
}

impl Call {
    /// The query; refuses parameters that are not known here.
    pub(crate) fn query(&self, known: &[&str]) -> Result<Query<'_>, Failure> {
        match self.pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => {
                let detail = format!("no parameter {name:?} here{}", nearest(name, known));
                Err(Failure::new(Code::UnknownParameter, detail))
            }
            None => Ok(Query { call: self }),
        }
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &HeaderName) -> Result<Option<&str>, Failure> {
        let Some(value) = self.headers.get(name) else { return Ok(None) };
        let text = value.to_str();
        Ok(Some(text.map_err(|_| bad_header(name, "use visible ASCII characters"))?))
    }

    /// Whether the client would rather have `media` than what comes by default.
    pub(crate) fn accepts(&self, media: &str) -> bool {
        let accept = self.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        let offers = accept.unwrap_or_default().split(',');
        offers.map(|offer| offer.split(';').next().unwrap_or_default().trim()).any(|m| m == media)
    }

    /// How the request names itself to those who repeat it. Covers all that it says, so that
    /// a key cannot stand for two requests.
    fn key(&self, body: &[u8]) -> Result<Option<IdempotencyKey>, Failure> {
        let Some(key) = self.header(&IDEMPOTENCY_KEY)? else { return Ok(None) };
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            let detail = format!("an idempotency key has 1 to {KEY_BYTES_MAX} characters");
            return Err(Failure::new(Code::BadKey, detail));
        }
        let mut said = format!("{} {}\n", self.method, self.uri.path());
        if let Some(query) = self.uri.query() {
            said.push_str(query);
        }
        let mut said = said.into_bytes();
        said.push(0);
        said.extend_from_slice(body);
        Ok(Some(IdempotencyKey { key: key.to_owned(), request_hash: xxh3_64(&said) }))
    }
}

pub(crate) fn bad_header(name: &HeaderName, why: impl Display) -> Failure {
    Failure::new(Code::BadHeader, format!("header {name}: {why}"))
}

/// The query of a call, of which every parameter is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a> {
    call: &'a Call,
}

impl<'a> Query<'a> {
    /// Every value of a parameter that may come more than once.
    pub(crate) fn all(self, name: &str) -> impl Iterator<Item = &'a str> {
        let pairs = self.call.pairs.iter().filter(move |pair| pair.0 == name);
        pairs.map(|pair| pair.1.as_str())
    }

    /// The value of a parameter that may come once.
    pub(crate) fn one(self, name: &str) -> Result<Option<&'a str>, Failure> {
        let mut values = self.all(name);
        let value = values.next();
        if values.next().is_some() {
            return Err(bad_query(name, "it may be given once only"));
        }
        Ok(value)
    }

    /// The value of a parameter, read as what it is.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(self, name: &str) -> Result<Option<T>, Failure> {
        let parse = |text: &str| text.parse().map_err(|error| bad_query(name, error));
        self.one(name)?.map(parse).transpose()
    }

    /// A parameter that is `true`, `false`, or there without a value.
    pub(crate) fn flag(self, name: &str) -> Result<bool, Failure> {
        match self.one(name)? {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(_) => Err(bad_query(name, "say true or false")),
        }
    }

    /// A span of time, cut at `max`.
    pub(crate) fn span(
        self,
        name: &str,
        default: Duration,
        max: Duration,
    ) -> Result<Duration, Failure> {
        let span: Option<Span> = self.parsed(name)?;
        Ok(span.map_or(default, Span::duration).min(max))
    }

    /// An instant.
    pub(crate) fn time(self, name: &str) -> Result<Option<Time>, Failure> {
        self.parsed(name)
    }

    /// How many items a page may have.
    pub(crate) fn limit(self) -> Result<usize, Failure> {
        match self.parsed("limit")? {
            None => Ok(PAGE_LIMIT_DEFAULT),
            Some(limit @ 1..=PAGE_LIMIT_MAX) => Ok(limit),
            Some(_) => Err(bad_query("limit", format!("say 1 to {PAGE_LIMIT_MAX}"))),
        }
    }

    /// Where the page before ended.
    pub(crate) fn page_position(self) -> Result<Option<Vec<u8>>, Failure> {
        let Some(token) = self.one("page_token")? else { return Ok(None) };
        page::open(&self.list(), token).map(Some).ok_or_else(|| {
            let detail = "take the token of a page of this list, with the same filters";
            Failure::new(Code::BadPageToken, detail)
        })
    }

    /// A page that ends at a position, or is the last.
    pub(crate) fn page<T>(self, items: Vec<T>, end: Option<&[u8]>) -> Page<T> {
        Page { items, next_page_token: end.map(|position| page::seal(&self.list(), position)) }
    }

    /// Names what is listed: the path and the filters.
    fn list(self) -> String {
        let filters = self.call.pairs.iter().filter(|(name, _)| !READING.contains(&name.as_str()));
        let mut filters: Vec<_> = filters.collect();
        filters.sort_unstable();
        format!("{}?{filters:?}", self.call.uri.path())
    }
}

pub(crate) fn bad_query(name: &str, why: impl Display) -> Failure {
    Failure::new(Code::BadQuery, format!("parameter {name}: {why}"))
}

/// A request with its body.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) call: Call,
    pub(crate) body: Bytes,
    /// Names it for repeats.
    pub(crate) key: Option<IdempotencyKey>,
}

impl FromRequest<Arc<Edge>> for Write {
    type Rejection = Failure;

    async fn from_request(request: Request, edge: &Arc<Edge>) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        let call = Call::from_request_parts(&mut parts, edge).await?;
        let read = tokio::time::timeout(BODY_TIME_MAX, read_body(body)).await;
        let body = read.map_err(|_| {
            let detail = format!("a body must arrive within {}", Span::from(BODY_TIME_MAX));
            Failure::new(Code::BodyTimeout, detail)
        })??;
        let key = call.key(&body)?;
        Ok(Self { call, body, key })
    }
}

/// Reads a body. One that is too large is read on for a while, as many a client does not
/// look at the answer before it has sent everything.
async fn read_body(body: Body) -> Result<Bytes, Failure> {
    let (mut chunks, mut bytes, mut read) = (body.into_data_stream(), 0, BytesMut::new());
    while let Some(chunk) = chunks.next().await {
        let broken = |error| Failure::new(Code::Syntax, format!("the body broke off: {error}"));
        let chunk = chunk.map_err(broken)?;
        bytes += chunk.len();
        if bytes > BODY_BYTES_DRAINED {
            break;
        }
        if bytes <= BODY_BYTES_MAX {
            read.extend_from_slice(&chunk);
        }
    }
    if bytes > BODY_BYTES_MAX {
        let mib = BODY_BYTES_MAX / (1024 * 1024);
        let detail = format!("a body may take {mib} MiB at the most");
        return Err(Failure::new(Code::BodyTooLarge, detail));
    }
    Ok(read.freeze())
}

/// The longest reason or comment, in bytes: it stays with what it is about.
pub(crate) const REASON_BYTES_MAX: usize = 1_024;

/// The longest name that somebody goes by, in bytes.
pub(crate) const BY_BYTES_MAX: usize = 128;

/// What a body is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Anything that is not said to be JSON: YAML contains it.
    Yaml,
    /// Said to be JSON.
    Json,
}

impl Write {
    /// What the body is written in.
    pub(crate) fn format(&self) -> Result<Format, Failure> {
        let media = self.call.header(&header::CONTENT_TYPE)?.unwrap_or("application/yaml");
        match media.split(';').next().unwrap_or_default().trim() {
            "application/json" => Ok(Format::Json),
            "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => {
                Ok(Format::Yaml)
            }
            other => {
                let detail = format!("send application/yaml or application/json, not {other}");
                Err(Failure::new(Code::UnsupportedMediaType, detail))
            }
        }
    }

    /// The body as text.
    pub(crate) fn text(&self) -> Result<&str, Failure> {
        std::str::from_utf8(&self.body)
            .map_err(|error| Failure::new(Code::Syntax, format!("the body is not UTF-8: {error}")))
    }

    /// The fields of a JSON body, where an empty body has none; refuses those not known here.
    pub(crate) fn fields(&self, known: &[&str]) -> Result<Fields, Failure> {
        let bytes = if self.body.is_empty() { b"{}" } else { &self.body[..] };
        let fields: Map<String, Value> = serde_json::from_slice(bytes).map_err(|error| {
            let number = |at: usize| u32::try_from(at).ok();
            let (line, column) = (number(error.line()), number(error.column()));
            let fault = Fault { line, column, ..Fault::at("", error.to_string()) };
            Failure::new(Code::Syntax, "the body is not a JSON object").with_errors(vec![fault])
        })?;
        let unknown = fields.keys().filter(|name| !known.contains(&name.as_str()));
        let faults: Vec<Fault> = unknown
            .map(|name| {
                let message = format!("no field {name:?} here{}", nearest(name, known));
                Fault::at(pointer(name), message)
            })
            .collect();
        match faults.first() {
            None => Ok(Fields(fields.into_iter().collect())),
            Some(first) => {
                let detail = first.message.clone();
                Err(Failure::new(Code::UnknownField, detail).with_errors(faults))
            }
        }
    }
}

/// Who asks for something, and why: the body of whatever people do by hand.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    /// As they call themselves; may be empty.
    pub(crate) by: String,
    /// May be empty.
    pub(crate) reason: String,
}

impl Words {
    /// A body that says nothing else.
    pub(crate) fn of(write: &Write) -> Result<Self, Failure> {
        Self::take(&mut write.fields(&["by", "reason"])?)
    }

    /// Takes them out of a body that says more.
    pub(crate) fn take(fields: &mut Fields) -> Result<Self, Failure> {
        let by = fields.words("by", BY_BYTES_MAX)?;
        let reason = fields.words("reason", REASON_BYTES_MAX)?;
        Ok(Self { by, reason })
    }
}

/// The fields of a JSON object, of which every one is known.
#[derive(Clone, Debug)]
pub(crate) struct Fields(BTreeMap<String, Value>);

impl Fields {
    /// Takes a field out. One that is null is as good as absent.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Failure> {
        let value = self.0.remove(name).filter(|value| !value.is_null());
        let parse = |value| serde_json::from_value(value).map_err(|error| invalid(name, error));
        value.map(parse).transpose()
    }

    /// Takes a text for people out; empty if it is absent.
    pub(crate) fn words(&mut self, name: &str, bytes_max: usize) -> Result<String, Failure> {
        let words: String = self.take(name)?.unwrap_or_default();
        if words.len() > bytes_max {
            return Err(invalid(name, format!("it has at most {bytes_max} bytes")));
        }
        Ok(words)
    }

    /// Takes a field out that must be there.
    pub(crate) fn need<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Failure> {
        self.take(name)?.ok_or_else(|| invalid(name, "it is missing"))
    }
}

/// A field of the body that cannot be what it is.
pub(crate) fn invalid(name: &str, why: impl Display) -> Failure {
    let fault = Fault::at(pointer(name), why.to_string());
    Failure::new(Code::Validation, format!("field {name}: {why}")).with_errors(vec![fault])
}

/// The JSON pointer to a field of the body.
fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Guesses what was meant, for the end of a sentence.
pub(crate) fn nearest(word: &str, known: &[&str]) -> String {
    let scored = known.iter().map(|&known| (strsim::jaro_winkler(word, known), known));
    let near = scored.filter(|&(score, _)| score >= SIMILARITY_MIN);
    match near.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((_, known)) => format!("; did you mean {known:?}?"),
        None if known.is_empty() => "; it takes none".to_owned(),
        None => format!("; known are {}", known.join(", ")),
    }
}
