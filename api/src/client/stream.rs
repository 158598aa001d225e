//! Logs and changes as they come, over as many connections as it takes.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use quorate_model::RunId;
use reqwest::Response;
use reqwest::header::{ACCEPT, HeaderName};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::ask::{Ask, innermost};
use super::run::path_of_task;
use super::{Client, Error};
use crate::answer::{INDEX, LOG_OFFSET};
use crate::view::{ChangeView, LogLine, LogStream};

/// How long a stream may be silent: the server shows every 15 s that it is there.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// The longest line that a stream may have, in bytes: a task with all that it may put out.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Connections in a row that bring nothing. After them the stream fails: whatever is at the
/// other end is not doing what it should.
const EMPTY_MAX: u32 = 20;

/// How long to wait after a connection that brought nothing.
const EMPTY_PAUSE: Duration = Duration::from_millis(200);

/// Which part of a log to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Go on until the attempt has ended.
    pub follow: bool,
    /// Begin with the last so many lines, rather than at `offset`.
    pub tail: Option<u64>,
    /// Begin there; see [`LogLine::next`].
    pub offset: u64,
    /// Only what was written there.
    pub stream: Option<LogStream>,
}

/// What to watch; everything if nothing is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// These runs and their tasks.
    pub runs: Vec<RunId>,
    /// The runs of these workflows, and their versions.
    pub workflows: Vec<String>,
    /// Who leads, and the workers.
    pub cluster: bool,
    /// Changes after this entry; from now on if `None`.
    pub index: Option<u64>,
}

impl Client {
    /// The lines of an attempt. Goes on by itself after a lost connection; an error is the end.
    pub fn log(
        &self,
        run: RunId,
        task: &str,
        attempt: u32,
        query: LogQuery,
    ) -> impl Stream<Item = Result<LogLine, Error>> + Send + Unpin + use<> {
        let path = format!("{}/attempts/{attempt}/log", path_of_task(run, task));
        let lines = Lines { path, query, next: None };
        Over::new(self.clone(), lines).stream()
    }

    /// Changes as they happen. Goes on by itself after a lost connection: a change may come
    /// twice then, and none is missed without a [`ChangeView::Reset`]. An error is the end.
    pub fn changes(
        &self,
        watch: Watch,
    ) -> impl Stream<Item = Result<ChangeView, Error>> + Send + Unpin + use<> {
        Over::new(self.clone(), Changes { watch, seen: None }).stream()
    }
}

/// Something that is read item by item, and can be gone on with.
trait Resume: Send + 'static {
    type Item: DeserializeOwned + Send;

    /// Asks for what follows what was seen.
    fn ask(&self, client: &Client) -> Ask;

    /// Notes where a new connection begins.
    fn begin(&mut self, response: &Response);

    /// Notes that an item was seen.
    fn see(&mut self, item: &Self::Item);

    /// Whether the end of the answer is the end of it all.
    fn ends(&self) -> bool;
}

struct Lines {
    path: String,
    query: LogQuery,
    next: Option<u64>,
}

impl Resume for Lines {
    type Item = LogLine;

    fn ask(&self, client: &Client) -> Ask {
        let LogQuery { follow, tail, offset, stream } = &self.query;
        let stream = stream.map(|stream| match stream {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
        });
        let ask = client.read(self.path.clone()).query("follow", follow).query_if("stream", stream);
        match (self.next, tail) {
            (Some(next), _) => ask.query("offset", &next),
            (None, Some(tail)) => ask.query("tail", tail),
            (None, None) => ask.query("offset", offset),
        }
    }

    fn begin(&mut self, response: &Response) {
        self.next = number(response, &LOG_OFFSET).or(self.next);
    }

    fn see(&mut self, line: &LogLine) {
        self.next = Some(line.next);
    }

    fn ends(&self) -> bool {
        true
    }
}

struct Changes {
    watch: Watch,
    /// The last entry of which something was seen.
    seen: Option<u64>,
}

impl Resume for Changes {
    type Item = ChangeView;

    fn ask(&self, _: &Client) -> Ask {
        let Watch { runs, workflows, cluster, index } = &self.watch;
        let runs = runs.iter().map(|run| format!("run:{run}"));
        let workflows = workflows.iter().map(|name| format!("workflow:{name}"));
        let cluster = cluster.then(|| "cluster".to_owned());
        let topics: Vec<String> = runs.chain(workflows).chain(cluster).collect();
        let topics = (!topics.is_empty()).then(|| topics.join(","));
        let ask = Ask::get("/v1/events").query_if("topics", topics);
        match self.seen {
            Some(seen) => ask.header(HeaderName::from_static("last-event-id"), seen.to_string()),
            None => ask.query_if("index", *index),
        }
    }

    fn begin(&mut self, response: &Response) {
        if self.seen.is_none() && self.watch.index.is_none() {
            self.watch.index = number(response, &INDEX);
        }
    }

    fn see(&mut self, change: &ChangeView) {
        self.seen = change.index().or(self.seen);
    }

    /// Changes never end; only servers do.
    fn ends(&self) -> bool {
        false
    }
}

fn number(response: &Response, name: &HeaderName) -> Option<u64> {
    response.headers().get(name)?.to_str().ok()?.parse().ok()
}

/// Something read over one connection after the other.
struct Over<R: Resume> {
    client: Client,
    resume: R,
    body: Option<BoxStream<'static, reqwest::Result<Bytes>>>,
    /// The beginning of a line that goes on.
    open: Vec<u8>,
    items: VecDeque<R::Item>,
    /// Connections in a row that brought nothing.
    empty: u32,
}

impl<R: Resume> Over<R> {
    fn new(client: Client, resume: R) -> Self {
        Self { client, resume, body: None, open: Vec::new(), items: VecDeque::new(), empty: 0 }
    }

    fn stream(self) -> impl Stream<Item = Result<R::Item, Error>> + Send + Unpin {
        let next = async |over: Option<Self>| {
            let mut over = over?;
            match over.next().await {
                Ok(Some(item)) => Some((Ok(item), Some(over))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        };
        Box::pin(stream::unfold(Some(self), next))
    }

    async fn next(&mut self) -> Result<Option<R::Item>, Error> {
        loop {
            if let Some(item) = self.items.pop_front() {
                self.resume.see(&item);
                self.empty = 0;
                return Ok(Some(item));
            }
            let Some(body) = &mut self.body else {
                self.connect().await?;
                continue;
            };
            match timeout(SILENCE_MAX, body.next()).await {
                Ok(Some(Ok(bytes))) => self.push(&bytes)?,
                Ok(None) if self.resume.ends() => return Ok(None),
                Ok(None) => self.lose("it ended").await?,
                Ok(Some(Err(error))) => self.lose(&innermost(&error)).await?,
                Err(_) => self.lose("it fell silent").await?,
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Error> {
        let ask = self.resume.ask(&self.client).header(ACCEPT, "application/x-ndjson");
        let response = self.client.line.open(ask, self.client.deadline).await?;
        self.resume.begin(&response);
        self.open.clear();
        self.body = Some(response.bytes_stream().boxed());
        Ok(())
    }

    /// A connection is lost; the next goes on where it was.
    async fn lose(&mut self, reason: &str) -> Result<(), Error> {
        self.body = None;
        self.empty += 1;
        if self.empty > EMPTY_MAX {
            let addresses = self.client.addresses().join(", ");
            return Err(Error::Unreachable { addresses, reason: format!("a stream: {reason}") });
        }
        if self.empty > 1 {
            tokio::time::sleep(EMPTY_PAUSE).await;
        }
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.open.extend_from_slice(piece);
            if self.open.len() > LINE_BYTES_MAX {
                let reason = format!("a line has more than {LINE_BYTES_MAX} bytes");
                return Err(Error::Unexpected { reason });
            }
            if !piece.ends_with(b"\n") {
                break;
            }
            let line = std::mem::take(&mut self.open);
            if line.len() > 1 {
                let odd =
                    |error: serde_json::Error| Error::Unexpected { reason: error.to_string() };
                self.items.push_back(serde_json::from_slice(&line).map_err(odd)?);
            }
        }
        Ok(())
    }
}
