//! Files that an attempt wrote, from whichever worker has them.

use std::io;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use quorate_model::{Attempt, DurationMs, TaskId};
use tokio::sync::OwnedSemaphorePermit;

use crate::answer::Answered;
use crate::backend::{Chunk, READ_BYTES_MAX, Read, ReadError, ReadFrom};
use crate::edge::Edge;
use crate::error::{Code, Failure};
use crate::request::Call;

/// A file of an attempt.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) task: TaskId,
    pub(super) attempt: Attempt,
    /// An artifact by its path, or the log.
    pub(super) artifact: Option<String>,
}

impl Source {
    /// Reads some bytes, waiting for them if none are there and more may come.
    pub(super) async fn read(
        &self,
        edge: &Edge,
        from: ReadFrom,
        bytes_max: u32,
        wait: DurationMs,
    ) -> Result<Chunk, ReadError> {
        let Self { task, attempt, artifact } = self.clone();
        edge.backend.read(Read { task, attempt, artifact, from, bytes_max, wait }).await
    }

    /// How large it is now, and whether it stays so.
    pub(super) async fn size(&self, edge: &Edge) -> Result<u64, ReadError> {
        let chunk = self.read(edge, ReadFrom::Offset(0), 0, DurationMs(0)).await?;
        Ok(chunk.size)
    }
}

/// Answers with a file as it is, or with the range that the request asks for.
pub(super) async fn send(call: &Call, source: Source, media: HeaderValue) -> Answered {
    let size = source.size(&call.edge).await?;
    let range = call.header(&header::RANGE)?.and_then(|range| Range::parse(range, size));
    let (status, range) = match range {
        None => (StatusCode::OK, Range { from: 0, to: size }),
        Some(Some(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(None) => {
            let detail = format!("the file has {size} bytes");
            return Err(Failure::new(Code::BadRange, detail));
        }
    };
    let permit = call.edge.open_stream()?;
    let edge = std::sync::Arc::clone(&call.edge);
    let sending = Sending { edge, source, at: range.from, to: range.to, _permit: permit };
    let body = Body::from_stream(stream::try_unfold(sending, Sending::next));
    let response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, media)
        .header(header::CONTENT_LENGTH, range.to - range.from)
        .header(header::ACCEPT_RANGES, "bytes")
        // What a task wrote is not ours: no browser shall take it for a page of this site.
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::CONTENT_SECURITY_POLICY, "sandbox");
    let response = if status == StatusCode::PARTIAL_CONTENT {
        let shown = format!("bytes {}-{}/{size}", range.from, range.to - 1);
        response.header(header::CONTENT_RANGE, shown)
    } else {
        response
    };
    let broken = |error| Failure::new(Code::Internal, format!("an answer broke: {error}"));
    response.body(body).map_err(broken)
}

/// Bytes of a file; `to` is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    from: u64,
    to: u64,
}

impl Range {
    /// Reads `bytes=0-99`, `bytes=100-` or `bytes=-100`. `None` for what is passed over, as
    /// several ranges; `Some(None)` for what lies outside of the file.
    fn parse(text: &str, size: u64) -> Option<Option<Self>> {
        let (from, to) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
        let range = match (from.parse::<u64>(), to.parse::<u64>()) {
            (Ok(from), Ok(to)) if from <= to => Self { from, to: to.saturating_add(1).min(size) },
            (Ok(from), Err(_)) if to.is_empty() => Self { from, to: size },
            (Err(_), Ok(last)) if from.is_empty() => {
                Self { from: size.saturating_sub(last), to: size }
            }
            _ => return None,
        };
        Some(Some(range).filter(|range| range.from < range.to))
    }
}

struct Sending {
    edge: std::sync::Arc<Edge>,
    source: Source,
    at: u64,
    to: u64,
    _permit: OwnedSemaphorePermit,
}

impl Sending {
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        let rest = self.to - self.at;
        if rest == 0 {
            return Ok(None);
        }
        let bytes_max = u32::try_from(rest).unwrap_or(u32::MAX).min(READ_BYTES_MAX);
        let from = ReadFrom::Offset(self.at);
        let read = self.source.read(&self.edge, from, bytes_max, DurationMs(0)).await;
        let mut bytes = read.map_err(io::Error::other)?.bytes;
        bytes.truncate(bytes_max as usize);
        if bytes.is_empty() {
            return Err(io::Error::other("the file has become shorter"));
        }
        self.at += bytes.len() as u64;
        Ok(Some((bytes.into(), self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_ranges_that_are_in_use() {
        let range = |text| Range::parse(text, 100);
        assert_eq!(range("bytes=0-9"), Some(Some(Range { from: 0, to: 10 })));
        assert_eq!(range("bytes=90-"), Some(Some(Range { from: 90, to: 100 })));
        assert_eq!(range("bytes=90-1000"), Some(Some(Range { from: 90, to: 100 })));
        assert_eq!(range("bytes=-10"), Some(Some(Range { from: 90, to: 100 })));
        assert_eq!(range("bytes=100-"), Some(None));
        assert_eq!(range("bytes=-0"), Some(None));
        assert_eq!(range("bytes=0-1,5-6"), None);
        assert_eq!(range("bytes=9-0"), None);
        assert_eq!(range("lines=1-2"), None);
    }
}
