//! A router over a bare backend, asked without a network.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use futures_util::StreamExt;
use quorate_model::RunId;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceExt;

use crate::bare::Bare;

/// How long anything in a test may take that does not wait on purpose.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Two tasks, one after the other; the run's output is the second's.
pub(crate) const CHAIN: &str = "\
name: chain
labels: {team: data}
params:
  day: {type: string, default: today}
tasks:
  - {id: first, run: echo 1}
  - {id: second, needs: first, run: echo 2, artifacts: [report.md]}
outputs:
  rows: ${{ tasks.second.outputs.rows }}
";

/// One task.
pub(crate) const ONE: &str = "{name: one, tasks: [{id: only, run: echo hi}]}";

pub(crate) struct Site {
    pub(crate) bare: Arc<Bare>,
    pub(crate) router: Router,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// A problem with this code; returns it.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text);
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(self.status, status, "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("urn:quorate:problem:{code}"));
        assert_eq!(problem["request_id"], self.header("request-id").unwrap());
        problem
    }

    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }
}

impl Site {
    /// Must be called within a runtime.
    pub(crate) fn new() -> Self {
        let bare = Arc::new(Bare::new());
        let router = quorate_api::router(Arc::clone(&bare) as _);
        Self { bare, router }
    }

    /// Answers on loopback as well, for as long as the test takes.
    pub(crate) async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = self.router.clone();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let response = self.open(method, path, headers, body).await;
        let (parts, body) = response.into_parts();
        let text = tokio::time::timeout(SOON, to_bytes(body, usize::MAX)).await;
        let text = String::from_utf8(text.unwrap().unwrap().to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    /// Sends a request whose answer may have no end.
    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> axum::response::Response {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        let answer = tokio::time::timeout(SOON, self.router.clone().oneshot(request)).await;
        answer.unwrap().unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.send(Method::POST, path, &json, body.to_string()).await
    }

    pub(crate) async fn put_yaml(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        text: &str,
    ) -> Answer {
        let mut all = vec![("content-type", "application/yaml")];
        all.extend_from_slice(headers);
        self.send(Method::PUT, path, &all, text.to_owned()).await
    }

    /// Starts a run of a document.
    pub(crate) async fn start(&self, source: &str) -> RunId {
        let started = self.post("/v1/runs", &json!({ "workflow": source })).await.is(201);
        started["id"].as_str().unwrap().parse().unwrap()
    }

    /// Starts a run of one task and lets it succeed; it is live still.
    pub(crate) async fn finish(&self, source: &str) -> RunId {
        let run = self.start(source).await;
        let worker = self.bare.worker();
        self.bare.succeed(worker, run, 0, "{}");
        run
    }

    pub(crate) async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Stream {
        let response = self.open(Method::GET, path, headers, Body::empty()).await;
        assert_eq!(response.status(), StatusCode::OK);
        let headers = response.headers().clone();
        Stream { headers, body: response.into_body().into_data_stream(), read: String::new() }
    }
}

/// An answer that may have no end.
pub(crate) struct Stream {
    pub(crate) headers: HeaderMap,
    body: BodyDataStream,
    read: String,
}

impl Stream {
    /// Reads until `end` came; returns what came up to there, and no more.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.read.find(end) {
                let rest = self.read.split_off(at + end.len());
                return std::mem::replace(&mut self.read, rest);
            }
            let next = tokio::time::timeout(SOON, self.body.next()).await;
            let next = next.unwrap_or_else(|_| panic!("no {end:?} after {:?}", self.read));
            let next = next.unwrap_or_else(|| panic!("the end, no {end:?}: {:?}", self.read));
            self.read.push_str(std::str::from_utf8(&next.unwrap()).unwrap());
        }
    }

    /// Reads to the end.
    pub(crate) async fn rest(mut self) -> String {
        while let Some(next) = tokio::time::timeout(SOON, self.body.next()).await.unwrap() {
            self.read.push_str(std::str::from_utf8(&next.unwrap()).unwrap());
        }
        self.read
    }
}
