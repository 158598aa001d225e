//! A client so small that nothing stands between a test and the bytes on the wire.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a test waits for an answer, unless it says otherwise: longer than the server's own
/// limit of five seconds, so that what is heard is the server's word and not ours.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// How long a connection may take on one machine.
const CONNECT: Duration = Duration::from_secs(1);

/// What a server answered.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// The HTTP status.
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// As sent, but for the transfer encoding.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Whether the status is one of success.
    pub(crate) fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{} is not JSON: {error}: {}", self.status, self.text()))
    }

    /// The code of a problem.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Why there is no answer. Tests tell the two apart; the rest is for messages.
#[derive(Debug)]
#[expect(dead_code, reason = "shown by Debug, in the message of a test that fails")]
pub(crate) enum NoAnswer {
    /// The server was never reached: nothing has happened.
    NotReached(io::Error),
    /// The request may have arrived: what has happened is not known.
    Unknown(io::Error),
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    patience: Duration,
}

impl Request {
    pub(crate) fn new(method: &'static str, path: impl Into<String>) -> Self {
        let (headers, body) = (Vec::new(), Vec::new());
        Self { method, path: path.into(), headers, body, patience: PATIENCE }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path)
    }

    pub(crate) fn post(path: impl Into<String>) -> Self {
        Self::new("POST", path)
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    pub(crate) fn yaml(self, body: impl Into<String>) -> Self {
        self.header("content-type", "application/yaml").body(body.into())
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// How long to wait for the whole answer.
    pub(crate) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends it and waits for the answer.
    pub(crate) fn send(&self, to: SocketAddr) -> Result<Response, NoAnswer> {
        let mut stream = TcpStream::connect_timeout(&to, CONNECT).map_err(NoAnswer::NotReached)?;
        self.exchange(&mut stream, to).map_err(NoAnswer::Unknown)
    }

    fn exchange(&self, stream: &mut TcpStream, to: SocketAddr) -> io::Result<Response> {
        let until = Instant::now() + self.patience;
        stream.set_write_timeout(Some(self.patience))?;
        // A server that refuses a large body may answer and hang up before it has read it all.
        let written = self.write(stream, to);
        let mut answer = Vec::new();
        let mut page = vec![0; 64 * 1024];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            match stream.read(&mut page) {
                Ok(0) => break,
                Ok(length) => answer.extend_from_slice(&page[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if answer.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        match parse(&answer) {
            Some(response) => Ok(response),
            None => Err(written.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn write(&self, stream: &mut TcpStream, to: SocketAddr) -> io::Result<()> {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: {to}\r\n", self.method, self.path);
        head.push_str("connection: close\r\n");
        if self.method != "GET" || !self.body.is_empty() {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(&self.body)
    }
}

fn parse(answer: &[u8]) -> Option<Response> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let rest = &answer[end + 4..];
    let value = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, v)| v);
    let body = if value("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        unchunk(rest)?
    } else if let Some(length) = value("content-length") {
        rest.get(..length.parse().ok()?)?.to_vec()
    } else {
        rest.to_vec()
    };
    Some(Response { status, headers, body })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        let chunk = rest.get(end + 2..end + 2 + size)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunk);
        rest = rest.get(end + 2 + size + 2..)?;
    }
}

#[test]
fn reads_a_chunked_answer() {
    let answer =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
    let response = parse(answer).expect("it is an answer");
    assert_eq!((response.status, response.text().as_str()), (200, "abcd"));
}

#[test]
fn takes_an_answer_that_breaks_off_for_none() {
    assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc").is_none());
    assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").is_none());
}
