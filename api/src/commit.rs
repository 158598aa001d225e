//! From a request to an answer that stands in the log.

use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use quorate_model::{Answer, Command, LogIndex, Reply, Request};

use crate::answer::{INDEX, mark_replayed};
use crate::backend::Committed;
use crate::error::{Code, Failure};
use crate::request::Write;

/// A command that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// The entry; `None` if it was found in the state.
    pub(crate) index: Option<LogIndex>,
    pub(crate) reply: Reply,
    /// Whether this is the answer to an earlier request with the same key.
    pub(crate) replayed: bool,
}

impl Done {
    fn new(index: Option<LogIndex>, answer: Answer) -> Result<Self, Failure> {
        let Answer { reply, replayed } = answer;
        match reply {
            Ok(reply) => Ok(Self { index, reply, replayed }),
            Err(rejection) => Err(Failure { replayed, ..rejection.into() }),
        }
    }

    /// Tells in the headers of an answer where the command stands in the log, and whether it
    /// was asked before.
    pub(crate) fn on(&self, answer: impl IntoResponse) -> Response {
        let mut response = answer.into_response();
        if let Some(LogIndex(index)) = self.index {
            response.headers_mut().insert(INDEX, HeaderValue::from(index));
        }
        if self.replayed {
            mark_replayed(response.headers_mut());
        }
        response
    }

    /// The reply is not one to this command. A key covers method, path and body; so no
    /// request ever gets here.
    pub(crate) fn unexpected(&self) -> Failure {
        Failure::new(Code::Internal, format!("{:?} is no answer to this", self.reply))
    }
}

impl Write {
    /// Commits a command. What the edge has to say against it counts only if the request has
    /// not been accepted before: a repeat is answered as it was the first time.
    pub(crate) async fn commit(&self, command: Result<Command, Failure>) -> Result<Done, Failure> {
        let backend = &self.call.edge.backend;
        match command {
            Ok(command) => {
                let request = Request { key: self.key.clone(), command };
                let Committed { index, answer } = backend.propose(request).await?;
                Done::new(Some(index), answer)
            }
            Err(failure) => {
                let Some(key) = &self.key else { return Err(failure) };
                backend.catch_up().await?;
                match self.call.edge.look(|state| state.answered(key)) {
                    Some(answer) => Done::new(None, answer),
                    None => Err(failure),
                }
            }
        }
    }
}
