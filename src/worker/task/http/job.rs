//! Work elsewhere that outlives the request that starts it.
//!
//! It goes by a name that is known beforehand: the URL of its state, made of the id of the run,
//! is the same for every attempt at the task. So an attempt asks first whether the job is there.
//! If it is, an earlier attempt had started it, whose worker was lost since, and this one waits
//! for its end; only if it is not, the request goes out that starts it. Should two such requests
//! meet, the server tells them for one by their `Idempotency-Key`.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderMap};
use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::super::child::{Failure, say};
use super::exchange::{Question, Response, Way};
use super::{Expected, address, holds, judge, of_status, show};

/// Between two looks at a job where the task does not say.
const EVERY_DEFAULT_MS: u64 = 5_000;

/// Looks that may fail one after another, as while a server is started anew.
const FAILED_LOOKS_MAX: u32 = 10;

/// `job`, as the params have it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Job {
    /// Where its state is.
    poll: String,
    #[serde(default)]
    every_ms: Option<u64>,
}

/// What a look at a job showed.
enum Look {
    Absent,
    There(Response),
}

/// Starts a job, unless it was started before, and waits for its end. Answers its last state.
pub(super) async fn attend(
    job: &Job,
    way: &Way<'_>,
    start: Question,
    expected: &Expected,
) -> Result<Response, Failure> {
    let poll = poll(job, &start.headers)?;
    let mut look = steadily(way, &poll, job).await?;
    if matches!(look, Look::Absent) {
        let response = way.ask(start).await?;
        judge(&response, expected, &response.known())?;
        say(format_args!("started {}", poll.url));
    } else {
        say(format_args!("{} was started before: waiting for its end", poll.url));
    }
    loop {
        if let Look::There(response) = look
            && has_ended(&response, expected)?
        {
            return Ok(response);
        }
        tokio::time::sleep(job.every()).await;
        look = steadily(way, &poll, job).await?;
    }
}

impl Job {
    fn every(&self) -> Duration {
        Duration::from_millis(self.every_ms.unwrap_or(EVERY_DEFAULT_MS))
    }
}

/// The question after its state: with what the request that starts it says of who asks.
fn poll(job: &Job, headers: &HeaderMap) -> Result<Question, Failure> {
    let mut kept = HeaderMap::new();
    for name in [ACCEPT, AUTHORIZATION] {
        if let Some(value) = headers.get(&name) {
            kept.insert(name, value.clone());
        }
    }
    let url = address(&job.poll)?;
    Ok(Question { method: Method::GET, url, headers: kept, body: Bytes::new() })
}

/// Looks, and again while the server does not answer as it should.
async fn steadily(way: &Way<'_>, poll: &Question, job: &Job) -> Result<Look, Failure> {
    let mut failed = 0;
    loop {
        let found = look(way, poll).await;
        match found {
            Err(failure) if failure.may_pass() && failed < FAILED_LOOKS_MAX => {
                failed += 1;
                say(failure.message());
                tokio::time::sleep(job.every()).await;
            }
            found => return found,
        }
    }
}

async fn look(way: &Way<'_>, poll: &Question) -> Result<Look, Failure> {
    let response = way.ask(poll.clone()).await?;
    let status = response.status;
    if status == StatusCode::NOT_FOUND {
        return Ok(Look::Absent);
    }
    if !status.is_success() {
        show(&response);
        return Err(of_status(status, format!("the state of the job cannot be had: {status}")));
    }
    Ok(Look::There(response))
}

fn has_ended(response: &Response, expected: &Expected) -> Result<bool, Failure> {
    let known = response.known();
    if let Some(failed) = &expected.failed
        && holds(failed, &known)?
    {
        show(response);
        return Err(Failure::lasting(format!("the job has failed: {failed}")));
    }
    expected.done.as_ref().map_or(Ok(true), |done| holds(done, &known))
}
