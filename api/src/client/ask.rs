//! One request, asked as often as it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderName};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::Error;
use crate::error::Problem;
use crate::request::IDEMPOTENCY_KEY;

/// How long one try may take, besides what the request itself asks to wait: a second longer
/// than the server takes to give up, so that it is the server that says what became of it.
const TRY_MAX: Duration = Duration::from_secs(6);

/// How long it may take to connect. On a network of machines in racks that is plenty.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// The first pause once every address was tried; each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// The longest pause: about an election.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The largest answer that is taken in whole, in bytes: a thousand tasks with full outputs.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Where to ask. Shared by the clones of a client.
#[derive(Debug)]
pub(super) struct Line {
    http: reqwest::Client,
    pub(super) addresses: Vec<String>,
    urls: Vec<Url>,
    /// The address that answered last.
    preferred: AtomicUsize,
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    headers: Vec<(HeaderName, String)>,
    body: Option<Bytes>,
    /// How long the server is asked to wait with its answer.
    patience: Duration,
    /// Whether to ask again when it is not known what became of a try.
    is_repeatable: bool,
}

impl Ask {
    fn new(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            patience: Duration::ZERO,
            is_repeatable: true,
        }
    }

    /// A read.
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path.into())
    }

    /// A write, named by a key of its own so that it can be repeated.
    pub(super) fn write(method: Method, path: impl Into<String>) -> Self {
        Self::new(method, path.into()).key(Uuid::now_v7().to_string())
    }

    /// Named by this key rather than one of its own.
    pub(super) fn key(mut self, key: String) -> Self {
        self.headers.retain(|(name, _)| *name != IDEMPOTENCY_KEY);
        self.header(IDEMPOTENCY_KEY, key)
    }

    /// A write that the server does not remember by its key.
    pub(super) fn once(self) -> Self {
        Self { is_repeatable: false, ..self }
    }

    /// A parameter more.
    pub(super) fn query(mut self, name: &'static str, value: &impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    /// A parameter more, if it has a value.
    pub(super) fn query_if(self, name: &'static str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, &value),
            None => self,
        }
    }

    /// A header more.
    pub(super) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With a body of JSON.
    pub(super) fn json(self, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("bodies have string keys only");
        self.body("application/json", body)
    }

    /// With a body of this media type.
    pub(super) fn body(self, media: &str, body: impl Into<Bytes>) -> Self {
        Self { body: Some(body.into()), ..self.header(CONTENT_TYPE, media) }
    }

    /// Allows for the time that the server is asked to wait.
    pub(super) fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }
}

/// How much of an answer is taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Take {
    /// All of it: a try that breaks off in the middle is none.
    Whole,
    /// Its head.
    Head,
}

/// An answer.
enum Taken {
    Whole(Bytes),
    Head(Response),
}

/// What became of one try.
enum Try {
    Done(Taken),
    /// It did not get there.
    Unheard(String),
    /// It may have got there.
    Lost(String),
    /// The server says no.
    Refused(Box<Problem>),
    /// It was answered, though not by Quorate.
    Odd(String),
}

impl Line {
    pub(super) fn new(addresses: Vec<String>) -> Result<Arc<Self>, Error> {
        let urls: Result<Vec<Url>, Error> = addresses.iter().map(|address| url(address)).collect();
        let urls = urls?;
        let bad = |reason: String| Error::BadAddress { address: addresses.join(","), reason };
        if urls.is_empty() {
            return Err(bad("give one at least".to_owned()));
        }
        // No proxies: a node is asked itself, and a proxy would not find a loopback address.
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_MAX)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| bad(error.to_string()))?;
        let preferred = AtomicUsize::new(0);
        Ok(Arc::new(Self { http, addresses, urls, preferred }))
    }

    /// Asks until there is an answer, and reads it as JSON.
    pub(super) async fn view<T: DeserializeOwned>(
        &self,
        ask: Ask,
        deadline: Duration,
    ) -> Result<T, Error> {
        let bytes = self.bytes(ask, deadline).await?;
        let odd = |error: serde_json::Error| Error::Unexpected { reason: error.to_string() };
        serde_json::from_slice(&bytes).map_err(odd)
    }

    /// Asks until there is an answer, and takes it in whole.
    pub(super) async fn bytes(&self, ask: Ask, deadline: Duration) -> Result<Bytes, Error> {
        match self.retry(ask, deadline, Take::Whole).await? {
            Taken::Whole(bytes) => Ok(bytes),
            Taken::Head(_) => unreachable!("all of it was asked for"),
        }
    }

    /// Asks until there is an answer, and leaves it to the caller to read it.
    pub(super) async fn open(&self, ask: Ask, deadline: Duration) -> Result<Response, Error> {
        match self.retry(ask, deadline, Take::Head).await? {
            Taken::Head(response) => Ok(response),
            Taken::Whole(_) => unreachable!("its head was asked for"),
        }
    }

    async fn retry(&self, ask: Ask, deadline: Duration, take: Take) -> Result<Taken, Error> {
        let deadline = Instant::now() + deadline + ask.patience;
        let (mut pause, mut tries, mut is_lost) = (PAUSE_MIN, 0, false);
        let mut at = self.preferred.load(Ordering::Relaxed);
        loop {
            let now = Instant::now();
            let time = (TRY_MAX + ask.patience).min(deadline.saturating_duration_since(now));
            let tried = timeout(time, self.try_once(&ask, at, take)).await;
            let lost = |_| Try::Lost(format!("{} did not answer", self.addresses[at]));
            let error = match tried.unwrap_or_else(lost) {
                Try::Done(done) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(done);
                }
                Try::Odd(reason) => return Err(Error::Unexpected { reason }),
                Try::Refused(problem) => {
                    is_lost |= problem.status == StatusCode::GATEWAY_TIMEOUT.as_u16();
                    if !problem.retryable || (is_lost && !ask.is_repeatable) {
                        return Err(Error::Problem(problem));
                    }
                    Error::Problem(problem)
                }
                Try::Unheard(reason) => self.gone(is_lost, reason),
                Try::Lost(reason) => {
                    is_lost |= ask.method != Method::GET;
                    if is_lost && !ask.is_repeatable {
                        return Err(Error::Unknown { reason });
                    }
                    self.gone(is_lost, reason)
                }
            };
            tries += 1;
            at = (at + 1) % self.urls.len();
            if tries % self.urls.len() == 0 {
                if Instant::now() + pause >= deadline {
                    return Err(error);
                }
                sleep(pause).await;
                pause = (2 * pause).min(PAUSE_MAX);
            } else if Instant::now() >= deadline {
                return Err(error);
            }
        }
    }

    fn gone(&self, is_lost: bool, reason: String) -> Error {
        if is_lost {
            return Error::Unknown { reason };
        }
        Error::Unreachable { addresses: self.addresses.join(", "), reason }
    }

    async fn try_once(&self, ask: &Ask, at: usize, take: Take) -> Try {
        let mut url = self.urls[at].clone();
        url.set_path(&ask.path);
        let mut request = self.http.request(ask.method.clone(), url).query(&ask.query);
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if let Some(body) = &ask.body {
            request = request.body(body.clone());
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_builder() => return Try::Odd(innermost(&error)),
            Err(error) if error.is_connect() => return Try::Unheard(innermost(&error)),
            Err(error) => return Try::Lost(innermost(&error)),
        };
        match take {
            _ if !response.status().is_success() => refused(response).await,
            Take::Head => Try::Done(Taken::Head(response)),
            Take::Whole => match read(response).await {
                Ok(bytes) => Try::Done(Taken::Whole(bytes)),
                Err(reason) => Try::Lost(reason),
            },
        }
    }
}

async fn read(mut response: Response) -> Result<Bytes, String> {
    let mut read = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| innermost(&error))? {
        if read.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("the answer has more than {ANSWER_BYTES_MAX} bytes"));
        }
        read.extend_from_slice(&chunk);
    }
    Ok(read.into())
}

async fn refused(response: Response) -> Try {
    let status = response.status();
    match read(response).await {
        Ok(body) => match serde_json::from_slice(&body) {
            Ok(problem) => Try::Refused(Box::new(problem)),
            Err(_) => Try::Odd(format!("status {status} without a problem to go with it")),
        },
        Err(reason) => Try::Lost(reason),
    }
}

/// What an HTTP error is about in the end: those around it only repeat the address.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn url(address: &str) -> Result<Url, Error> {
    let bad = |reason: String| Error::BadAddress { address: address.to_owned(), reason };
    let text = match address.split_once("://") {
        Some(("http", _)) => address.to_owned(),
        Some((scheme, _)) => return Err(bad(format!("{scheme} is not spoken; use http"))),
        None => format!("http://{address}"),
    };
    let url: Url = text.parse().map_err(|error| bad(format!("{error}")))?;
    if url.path() != "/" || url.query().is_some() {
        return Err(bad("give no path".to_owned()));
    }
    Ok(url)
}

/// A piece of a path, whatever it contains.
pub(super) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_addresses_as_people_write_them() {
        assert!(url("127.0.0.1:7117").is_ok());
        assert!(url("http://node-1:7117/").is_ok());
        assert!(url("[::1]:7117").is_ok());
        for bad in ["", "https://node-1", "http://node-1/v1", "a b"] {
            assert!(matches!(url(bad), Err(Error::BadAddress { .. })), "{bad}");
        }
    }

    #[test]
    fn keeps_a_path_in_its_place() {
        assert_eq!(segment("etl.v2_x-1"), "etl.v2_x-1");
        assert_eq!(segment("a/b?c é"), "a%2Fb%3Fc%20%C3%A9");
    }
}
