//! The task kind `http`: a request, what its response must be, and what of it is put out.
//!
//! ```json
//! {
//!   "method": "GET", "url": "https://rates.example/v1", "query": {"day": "2026-11-23"},
//!   "headers": {"accept": "application/json"}, "body": {"json": {"a": 1}},
//!   "timeout_ms": 30000, "redirects": 5, "tls": {"ca": null, "verify": true},
//!   "response": {"status": [200], "condition": "response.json.eur > 0",
//!                "outputs": {"eur": "${{ response.json.eur }}"}}
//! }
//! ```
//! What stands under `response` is evaluated here, once there is one. With `job`, the request
//! starts something that goes on beyond it: see [`job`].

mod exchange;
mod job;
mod reach;
mod tls;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use quorate_expression::Context as Known;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::child::{Failure, Outputs, Told, say};
use super::{Context, Invocation, TaskKind};
use exchange::{Question, Response, Way};
pub(crate) use reach::{LOOPBACK, Network};
use tls::Trust;

/// How long a request may take that does not say.
const TIMEOUT_DEFAULT_MS: u64 = 30_000;

/// Redirects that are followed where the task does not say.
const REDIRECTS_DEFAULT: u32 = 5;

/// Characters of a response that are shown when it is not what it must be.
const SHOWN_CHARS_MAX: usize = 2_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default)]
    query: BTreeMap<String, String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<Body>,
    #[serde(default)]
    timeout_ms: Option<u64>,
    #[serde(default)]
    redirects: Option<u32>,
    #[serde(default)]
    tls: Trust,
    #[serde(default)]
    response: Expected,
    #[serde(default)]
    job: Option<job::Job>,
}

fn get() -> String {
    "GET".to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Body {
    Text(String),
    Json(Value),
    Form(BTreeMap<String, String>),
}

/// What a response must be, and what of it is put out. Evaluated over `response`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// Statuses; any of 200 to 299 if there is none.
    #[serde(default)]
    status: Vec<u16>,
    #[serde(default)]
    condition: Option<String>,
    #[serde(default)]
    outputs: BTreeMap<String, String>,
    /// Of a job: whether it has ended well.
    #[serde(default)]
    done: Option<String>,
    /// Of a job: whether it has failed.
    #[serde(default)]
    failed: Option<String>,
}

/// What the process of a task is given.
#[derive(Debug, Deserialize)]
struct Spec {
    params: Params,
    allowed: Vec<Network>,
}

/// The kind `http`.
pub(super) struct Http {
    /// What may be reached besides what always may.
    allowed: Vec<Network>,
}

impl Http {
    pub(super) fn new(allowed: Vec<Network>) -> Self {
        Self { allowed }
    }
}

impl TaskKind for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn prepare(&self, params: &Value, context: &Context<'_>) -> Result<Invocation, String> {
        let read = Params::deserialize(params)
            .map_err(|error| format!("the params of a task of kind http: {error}"))?;
        question(&read).map_err(|failure| failure.message().to_owned())?;
        let spec = json!({ "params": params, "allowed": self.allowed });
        Ok(Invocation::of_child(self.name(), &spec, context))
    }
}

/// Asks, judges the response, and puts out what it was asked for.
pub(super) async fn carry_out(spec: Value, told: &Told) -> Result<Outputs, Failure> {
    let Spec { params, allowed } =
        Spec::deserialize(spec).map_err(|error| Failure::lasting(error.to_string()))?;
    let way = Way {
        allowed: &allowed,
        trust: &params.tls,
        redirects_max: params.redirects.unwrap_or(REDIRECTS_DEFAULT),
        timeout: Duration::from_millis(params.timeout_ms.unwrap_or(TIMEOUT_DEFAULT_MS)),
        told,
    };
    let question = question(&params)?;
    let response = match &params.job {
        None => way.ask(question).await?,
        Some(job) => job::attend(job, &way, question, &params.response).await?,
    };
    let known = response.known();
    if params.job.is_none() {
        judge(&response, &params.response, &known)?;
    }
    let outputs = params.response.outputs.iter().map(|(name, text)| {
        let value = quorate_expression::evaluate(text, &known)
            .map_err(|error| Failure::lasting(format!("outputs.{name}: {error}")))?;
        Ok((name.clone(), value))
    });
    outputs.collect()
}

/// The request that the params describe.
fn question(params: &Params) -> Result<Question, Failure> {
    let method = Method::from_bytes(params.method.as_bytes())
        .map_err(|_| Failure::lasting(format!("{:?} is no method", params.method)))?;
    let mut url = address(&params.url)?;
    if !params.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&params.query);
    }
    let mut headers = HeaderMap::new();
    let body = match &params.body {
        None => Bytes::new(),
        Some(Body::Text(text)) => text.clone().into(),
        Some(Body::Json(value)) => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            value.to_string().into()
        }
        Some(Body::Form(fields)) => {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(CONTENT_TYPE, form);
            let mut text = url::form_urlencoded::Serializer::new(String::new());
            text.extend_pairs(fields).finish().into()
        }
    };
    for (name, value) in &params.headers {
        // Not the value: it may be secret.
        let failed = || Failure::lasting(format!("the header {name:?} or its value is none"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| failed())?;
        headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| failed())?);
    }
    Ok(Question { method, url, headers, body })
}

/// A URL that a request may go to.
fn address(text: &str) -> Result<Url, Failure> {
    let url = Url::parse(text)
        .map_err(|error| Failure::lasting(format!("`url` is no address: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        let message = format!("`url` begins with http:// or https://, not {}:", url.scheme());
        return Err(Failure::lasting(message));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let message = "`url` has a user or a password in it; say it in a header, from a secret";
        return Err(Failure::lasting(message));
    }
    Ok(url)
}

fn judge(response: &Response, expected: &Expected, known: &Known) -> Result<(), Failure> {
    let status = response.status;
    let is_expected = match expected.status.as_slice() {
        [] => status.is_success(),
        some => some.contains(&status.as_u16()),
    };
    if !is_expected {
        show(response);
        let wanted: Vec<_> = expected.status.iter().map(u16::to_string).collect();
        let wanted = if wanted.is_empty() { "200 to 299".to_owned() } else { wanted.join(" or ") };
        let message = format!("the status is {status}, and must be {wanted}");
        return Err(of_status(status, message));
    }
    let Some(condition) = &expected.condition else { return Ok(()) };
    if holds(condition, known)? {
        return Ok(());
    }
    show(response);
    Err(Failure::lasting(format!("the response is not what it must be: {condition}")))
}

fn holds(condition: &str, known: &Known) -> Result<bool, Failure> {
    quorate_expression::evaluate_condition(condition, known)
        .map_err(|error| Failure::lasting(format!("{condition}: {error}")))
}

/// Too much to do, or something behind the server is not there: that passes.
fn of_status(status: StatusCode, message: String) -> Failure {
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        Failure::passing(message)
    } else {
        Failure::lasting(message)
    }
}

fn show(response: &Response) {
    let text = response.text();
    let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    say(shown.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question_of(params: &Value) -> Result<Question, String> {
        let params = Params::deserialize(params).map_err(|error| error.to_string())?;
        question(&params).map_err(|failure| failure.message().to_owned())
    }

    #[test]
    fn a_query_is_encoded_and_added_to_that_of_the_url() {
        let params = json!({"url": "http://x/a?b=1", "query": {"day": "1&2=3", "\u{e4}": "#"}});
        let url = question_of(&params).unwrap().url;
        assert_eq!(url.as_str(), "http://x/a?b=1&day=1%262%3D3&%C3%A4=%23");
    }

    #[test]
    fn a_body_says_what_it_is_unless_the_task_says_otherwise() {
        let of = |params: &Value| {
            let question = question_of(params).unwrap();
            let kind = question.headers.get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap());
            let body = String::from_utf8(question.body.to_vec()).unwrap();
            (kind.map(str::to_owned), body)
        };
        let json = "application/json".to_owned();
        let form = "application/x-www-form-urlencoded".to_owned();
        let params = json!({"url": "http://x", "body": {"json": {"a": [1, "b"]}}});
        assert_eq!(of(&params), (Some(json), r#"{"a":[1,"b"]}"#.to_owned()));
        let params = json!({"url": "http://x", "body": {"form": {"a": "1 &"}}});
        assert_eq!(of(&params), (Some(form), "a=1+%26".to_owned()));
        let params = json!({"url": "http://x", "body": {"json": 1},
            "headers": {"content-type": "application/cbor"}});
        assert_eq!(of(&params).0.as_deref(), Some("application/cbor"));
        assert_eq!(of(&json!({"url": "http://x", "body": {"text": "t"}})).0, None);
    }

    #[test]
    fn refuses_what_is_no_request() {
        for (params, word) in [
            (json!({"url": "ftp://x"}), "ftp:"),
            (json!({"url": "x"}), "no address"),
            (json!({"url": "http://u:p@x"}), "secret"),
            (json!({"url": "http://x", "method": "G T"}), "no method"),
            (json!({"url": "http://x", "headers": {"a b": "1"}}), "a b"),
            (json!({"url": "http://x", "headers": {"a": "1\n2"}}), "value"),
            (json!({"url": "http://x", "urn": 1}), "urn"),
        ] {
            let refused = question_of(&params).unwrap_err();
            assert!(refused.contains(word), "{params}: {refused}");
        }
    }
}
