//! The log of an attempt: all of it, the last lines, from a place on, or as it is written.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::stream;
use quorate_model::{DurationMs, RunId};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

use super::file::{Source, send};
use super::task::{Which, find_attempt};
use crate::answer::{Answered, At, LOG_OFFSET};
use crate::backend::{Chunk, READ_BYTES_MAX, READ_WAIT_MAX, ReadError, ReadFrom};
use crate::edge::Edge;
use crate::error::Failure;
use crate::lines::{Line, Lines};
use crate::request::{Call, Query, bad_query};
use crate::view::LogStream;

/// Lines of which a tail may consist.
const TAIL_MAX: u64 = 100_000;

/// How long a log that is followed may be out of reach: an election and a new session of the
/// worker, several times over.
const UNREACHABLE_MAX: Duration = Duration::from_secs(30);

/// How long to wait before asking again for what is out of reach.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// `GET /v1/runs/{run}/tasks/{task}/attempts/{attempt}/log`.
pub(super) async fn get(
    At((run, task, which)): At<(RunId, String, Which)>,
    call: Call,
) -> Answered {
    let query = call.query(&["follow", "tail", "offset", "stream", "format", "stale"])?;
    let wanted = Wanted::of(query)?;
    let form = Form::of(&call, query)?;
    call.refresh(query).await?;
    let (task, attempt) = find_attempt(&call.edge, run, &task, which)?;
    let source = Source { task, attempt, artifact: None };
    let Some(form) = form else {
        return send(&call, source, HeaderValue::from_static("text/plain; charset=utf-8")).await;
    };
    let permit = call.edge.open_stream()?;
    let first = source.read(&call.edge, wanted.from, READ_BYTES_MAX, DurationMs(0)).await?;
    let (offset, until) = (first.offset, (!wanted.follow).then_some(first.size));
    let reading = Reading {
        edge: Arc::clone(&call.edge),
        source,
        form,
        stream: wanted.stream,
        lines: Lines::new(offset),
        next: offset,
        until,
        read: Some(first),
        reached: Instant::now(),
        _permit: permit,
    };
    let body = Body::from_stream(stream::try_unfold(Some(reading), Reading::next));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(form.media())),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (LOG_OFFSET, HeaderValue::from(offset)),
        // Terminal colours and all: no browser shall take it for anything but text.
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    Ok((headers, body).into_response())
}

/// Which part of the log is asked for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    from: ReadFrom,
    follow: bool,
    stream: Option<LogStream>,
}

impl Wanted {
    fn of(query: Query<'_>) -> Result<Self, Failure> {
        let (tail, offset) = (query.parsed("tail")?, query.parsed("offset")?);
        let from = match (tail, offset) {
            (None, offset) => ReadFrom::Offset(offset.unwrap_or(0)),
            (Some(tail), None) if tail <= TAIL_MAX => ReadFrom::Tail(tail),
            (Some(_), None) => return Err(bad_query("tail", format!("{TAIL_MAX} is the most"))),
            (Some(_), Some(_)) => return Err(bad_query("tail", "give it or offset, not both")),
        };
        let stream = match query.one("stream")? {
            None => None,
            Some("stdout") => Some(LogStream::Stdout),
            Some("stderr") => Some(LogStream::Stderr),
            Some(_) => return Err(bad_query("stream", "say stdout or stderr")),
        };
        Ok(Self { from, follow: query.flag("follow")?, stream })
    }
}

/// How lines are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As the task wrote them.
    Text,
    /// A JSON object a line.
    Ndjson,
    /// An event a line; its id is where the next begins.
    Sse,
}

impl Form {
    /// What the request wants; `None` for the file as the worker keeps it.
    fn of(call: &Call, query: Query<'_>) -> Result<Option<Self>, Failure> {
        match query.one("format")? {
            None if call.accepts("application/x-ndjson") => Ok(Some(Self::Ndjson)),
            None if call.accepts("text/event-stream") => Ok(Some(Self::Sse)),
            None | Some("text") => Ok(Some(Self::Text)),
            Some("ndjson") => Ok(Some(Self::Ndjson)),
            Some("sse") => Ok(Some(Self::Sse)),
            Some("raw") => Ok(None),
            Some(_) => Err(bad_query("format", "say text, ndjson, sse or raw")),
        }
    }

    fn media(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Ndjson => "application/x-ndjson",
            Self::Sse => "text/event-stream",
        }
    }

    fn write(self, line: &Line, out: &mut Vec<u8>) {
        let json = || serde_json::to_vec(&line.view()).expect("a line has string keys only");
        match self {
            Self::Text => out.extend_from_slice(&line.text),
            Self::Ndjson => out.extend(json()),
            Self::Sse => {
                out.extend(format!("id: {}\nevent: log\ndata: ", line.next).into_bytes());
                out.extend(json());
                out.extend_from_slice(b"\n");
            }
        }
        if self != Self::Text || !line.partial {
            out.push(b'\n');
        }
    }

    /// What shows that the stream is alive where there is nothing to tell.
    fn ping(self) -> &'static [u8] {
        match self {
            Self::Text => b"",
            Self::Ndjson => b"\n",
            Self::Sse => b": ping\n\n",
        }
    }
}

/// A log on its way to a client.
struct Reading {
    edge: Arc<Edge>,
    source: Source,
    form: Form,
    stream: Option<LogStream>,
    lines: Lines,
    /// Where to read next.
    next: u64,
    /// Where to stop; `None` to go on until the attempt has ended.
    until: Option<u64>,
    /// What was read and not yet told.
    read: Option<Chunk>,
    /// When its worker last answered.
    reached: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Reading {
    /// The next bytes to send, and what is left to do.
    async fn next(reading: Option<Self>) -> io::Result<Option<(Bytes, Option<Self>)>> {
        let Some(mut reading) = reading else { return Ok(None) };
        loop {
            let chunk = reading.chunk().await.map_err(io::Error::other)?;
            let is_idle = chunk.bytes.is_empty();
            let (text, is_over) = reading.tell(chunk);
            if is_over {
                return Ok(Some((text, None)));
            }
            if !text.is_empty() {
                return Ok(Some((text, Some(reading))));
            }
            let ping = reading.form.ping();
            if is_idle && !ping.is_empty() {
                return Ok(Some((Bytes::from_static(ping), Some(reading))));
            }
        }
    }

    async fn chunk(&mut self) -> Result<Chunk, ReadError> {
        if let Some(chunk) = self.read.take() {
            return Ok(chunk);
        }
        let wait = if self.until.is_none() { READ_WAIT_MAX } else { DurationMs(0) };
        loop {
            let from = ReadFrom::Offset(self.next);
            match self.source.read(&self.edge, from, READ_BYTES_MAX, wait).await {
                Ok(chunk) => {
                    self.reached = Instant::now();
                    return Ok(chunk);
                }
                Err(error @ ReadError::NotFound(_)) => return Err(error),
                Err(error @ ReadError::Unavailable(_)) => {
                    if self.reached.elapsed() > UNREACHABLE_MAX {
                        return Err(error);
                    }
                    sleep(ASK_AGAIN_AFTER).await;
                }
            }
        }
    }

    /// Turns what was read into what is sent, and tells whether that was all.
    fn tell(&mut self, chunk: Chunk) -> (Bytes, bool) {
        let Chunk { offset, bytes, size, complete } = chunk;
        self.next = offset + bytes.len() as u64;
        let is_over = match self.until {
            Some(until) => self.next >= until || bytes.is_empty(),
            None => complete && self.next >= size,
        };
        let mut lines = self.lines.push(&bytes);
        if is_over && complete {
            lines.extend(self.lines.rest());
        }
        let mut text = Vec::new();
        for line in lines {
            if self.stream.is_none_or(|stream| stream == line.stream) {
                self.form.write(&line, &mut text);
            }
        }
        (text.into(), is_over)
    }
}
