//! A web site of one test: answers as it is told, and keeps what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// A request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// A status, headers and a body.
pub(crate) type Answer = (u16, Vec<(&'static str, String)>, String);

type Answers = dyn Fn(&Asked) -> Answer + Send + Sync;

/// A body and nothing else to tell.
pub(crate) fn ok(body: &str) -> Answer {
    (200, Vec::new(), body.to_owned())
}

pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Site {
    pub(crate) fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::default();
        let (answer, kept): (Arc<Answers>, _) = (Arc::new(answer), Arc::clone(&asked));
        // Ends with the test.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, asked) = (Arc::clone(&answer), Arc::clone(&kept));
                thread::spawn(move || serve(&stream.unwrap(), &*answer, &asked));
            }
        });
        Self { address, asked }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often it was asked so.
    pub(crate) fn count(&self, method: &str, path: &str) -> usize {
        let is_it = |asked: &&Asked| asked.method == method && asked.path == path;
        self.asked().iter().filter(is_it).count()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn serve(stream: &TcpStream, answer: &Answers, asked: &Mutex<Vec<Asked>>) {
    // Somebody who connects and says nothing is no mistake of the site.
    let Some(question) = read(&mut BufReader::new(stream)) else { return };
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(question.clone());
    let (status, headers, body) = answer(&question);
    let mut head = format!("HTTP/1.1 {status} As-Told\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = stream;
    // Whoever asked may be dead by now: that is what some tests are about.
    drop(stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes()));
}

fn read(stream: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let bytes = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; bytes];
    stream.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).ok()?;
    Some(Asked { method, path, headers, body })
}
