//! Writing down what a task prints, line by line, while it prints.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufRead as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::net::unix::pipe;

use super::Follow;
use crate::worker::attempt::outputs::{LINE_PREFIX, Outputs};
use crate::worker::attempt::{Place, open_plain};

/// What is kept of the output of one attempt. More would fill the disk and nobody's mind.
pub(crate) const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// A longer line is written in pieces, so that one without an end takes no memory.
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024;

/// What is read at once: the size of a pipe.
const READ_BYTES: usize = 64 * 1024;

thread_local! {
    /// One for all attempts: they run on one thread, and none keeps it over an await.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// A line on its way into the log, and the stream that it is from.
#[derive(Debug)]
struct Stream {
    name: &'static str,
    pipe: Option<pipe::Receiver>,
    /// What came after the last newline.
    begun: Vec<u8>,
    /// A piece of the present line is in the log already.
    is_split: bool,
    /// That piece, where an earlier agent had to write down what it had of a line.
    carried: Vec<u8>,
}

/// The two pipes of a task, and the file that they go to.
#[derive(Debug)]
pub(crate) struct Capture {
    stdout: Stream,
    stderr: Stream,
    log: Log,
    /// What it put out on stdout.
    pub(crate) outputs: Outputs,
}

impl Capture {
    /// Captures what comes out of two pipes in a file, which is created with the first line.
    pub(crate) fn new(
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
        place: Place,
        follow: Arc<Follow>,
    ) -> Self {
        let log = Log { place, file: None, bytes: 0, state: Writing::Open, follow };
        let (stdout, stderr) = (Stream::new("stdout", stdout), Stream::new("stderr", stderr));
        Self { stdout, stderr, log, outputs: Outputs::default() }
    }

    /// Goes on where an earlier agent left off.
    pub(crate) fn resume(
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
        place: Place,
        follow: Arc<Follow>,
    ) -> Self {
        let path = place.log();
        let mut new = Self::new(stdout, stderr, place, follow);
        match open_plain(File::options().read(true), &path) {
            Ok(file) => new.recall(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the output so far cannot be read");
                new.log.state = Writing::Over;
            }
        }
        new
    }

    /// Takes in what is in the log already: its length, outputs, and lines that go on.
    fn recall(&mut self, file: File) {
        let mut lines = io::BufReader::new(file);
        let mut line = Vec::new();
        // A file that cannot be read to its end was read as far as it can be.
        while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            self.log.bytes += line.len() as u64;
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let mut fields = text.splitn(4, |&byte| byte == b' ').skip(1);
            let (name, piece, text) = (fields.next(), fields.next(), fields.next());
            let stream = if name == Some(b"stdout") { &mut self.stdout } else { &mut self.stderr };
            stream.carried.extend_from_slice(text.unwrap_or_default());
            stream.carried.truncate(LINE_BYTES_MAX + 1);
            stream.is_split = piece == Some(b"P");
            if !stream.is_split {
                let text = std::mem::take(&mut stream.carried);
                if name == Some(b"stdout") {
                    output_in(&text, &mut self.outputs);
                }
            }
            line.clear();
        }
        if self.log.bytes >= LOG_BYTES_MAX {
            self.log.state = Writing::Over;
        }
        self.log.follow.grown(self.log.bytes);
    }

    /// The two pipes, stdout first.
    pub(crate) fn pipes(&self) -> [BorrowedFd<'_>; 2] {
        [&self.stdout, &self.stderr]
            .map(|stream| stream.pipe.as_ref().expect("they are open until they are read").as_fd())
    }

    /// Reads until both pipes have ended. May be dropped and called again.
    pub(crate) async fn pump(&mut self) {
        loop {
            let Self { stdout, stderr, .. } = self;
            let (is_stdout, ready) = match (&stdout.pipe, &stderr.pipe) {
                (Some(out), Some(err)) => tokio::select! {
                    ready = out.readable() => (true, ready),
                    ready = err.readable() => (false, ready),
                },
                (Some(out), None) => (true, out.readable().await),
                (None, Some(err)) => (false, err.readable().await),
                (None, None) => return,
            };
            let read =
                READ.with_borrow_mut(|buffer| ready.and_then(|()| self.read(is_stdout, buffer)));
            let stream = if is_stdout { &mut self.stdout } else { &mut self.stderr };
            match read {
                Ok(false) => {}
                Ok(true) => stream.pipe = None,
                Err(error) => {
                    tracing::warn!(%error, "the output of a task cannot be read on");
                    stream.pipe = None;
                }
            }
        }
    }

    /// Takes in what there is. Whether that was the end.
    fn read(&mut self, is_stdout: bool, buffer: &mut [u8]) -> io::Result<bool> {
        let stream = if is_stdout { &mut self.stdout } else { &mut self.stderr };
        let Some(pipe) = &stream.pipe else { return Ok(true) };
        let size = match pipe.try_read(buffer) {
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        let outputs = is_stdout.then_some(&mut self.outputs);
        let mut lines = Vec::new();
        stream.split(&buffer[..size], size == 0, outputs, &mut lines);
        if !lines.is_empty() {
            self.log.write(&lines);
        }
        Ok(size == 0)
    }
}

impl Drop for Capture {
    /// Whoever follows the log learns that it is whole. If this agent leaves while the task goes
    /// on, the next one finds here what was read of its last line.
    fn drop(&mut self) {
        let (now, mut pieces) = (Timestamp::now(), Vec::new());
        for stream in [&mut self.stdout, &mut self.stderr] {
            if stream.pipe.is_some() && !stream.begun.is_empty() {
                emit(&mut pieces, now, stream.name, 'P', &stream.begun);
            }
        }
        if !pieces.is_empty() {
            self.log.write(&pieces);
        }
        self.log.follow.end();
    }
}

impl Stream {
    fn new(name: &'static str, pipe: pipe::Receiver) -> Self {
        let (begun, carried) = (Vec::new(), Vec::new());
        Self { name, pipe: Some(pipe), begun, is_split: false, carried }
    }

    /// Turns what was read into lines of the log.
    fn split(
        &mut self,
        mut read: &[u8],
        is_end: bool,
        mut outputs: Option<&mut Outputs>,
        lines: &mut Vec<u8>,
    ) {
        let now = Timestamp::now();
        while let Some(at) = read.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&read[..at], &read[at + 1..]);
            read = rest;
            self.begun.extend_from_slice(line);
            self.pieces(now, lines);
            self.line(now, outputs.as_deref_mut(), lines);
        }
        self.begun.extend_from_slice(read);
        self.pieces(now, lines);
        if is_end && (!self.begun.is_empty() || self.is_split) {
            self.line(now, outputs, lines);
        }
    }

    /// Writes whole pieces of a line that is too long.
    fn pieces(&mut self, now: Timestamp, lines: &mut Vec<u8>) {
        while self.begun.len() > LINE_BYTES_MAX {
            let rest = self.begun.split_off(LINE_BYTES_MAX);
            emit(lines, now, self.name, 'P', &self.begun);
            self.is_split = true;
            self.begun = rest;
        }
    }

    /// Writes the line, or the last piece of it.
    fn line(&mut self, now: Timestamp, outputs: Option<&mut Outputs>, lines: &mut Vec<u8>) {
        emit(lines, now, self.name, 'F', &self.begun);
        match outputs {
            Some(outputs) if !self.is_split => output_in(&self.begun, outputs),
            Some(outputs) if !self.carried.is_empty() => {
                self.carried.extend_from_slice(&self.begun);
                output_in(&self.carried, outputs);
            }
            Some(_) | None => {}
        }
        self.begun.clear();
        self.carried.clear();
        self.is_split = false;
    }
}

/// Takes in the output in a line, if it is short enough and has one.
fn output_in(line: &[u8], outputs: &mut Outputs) {
    if line.len() <= LINE_BYTES_MAX
        && let Some(text) = line.strip_prefix(LINE_PREFIX)
    {
        outputs.line(text);
    }
}

fn emit(lines: &mut Vec<u8>, now: Timestamp, stream: &str, piece: char, text: &[u8]) {
    // Writing to memory does not fail.
    let _ = write!(lines, "{now:.6} {stream} {piece} ");
    lines.extend_from_slice(text);
    lines.push(b'\n');
}

/// The file.
#[derive(Debug)]
struct Log {
    place: Place,
    file: Option<File>,
    bytes: u64,
    state: Writing,
    follow: Arc<Follow>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    Open,
    /// It is full, or the disk is: the rest is read and dropped, as a task that prints must
    /// not hang.
    Over,
}

impl Log {
    fn write(&mut self, lines: &[u8]) {
        if self.state == Writing::Over {
            return;
        }
        let room = usize::try_from(LOG_BYTES_MAX - self.bytes).unwrap_or(usize::MAX);
        if lines.len() <= room {
            self.append(lines);
            return;
        }
        // Whole lines only.
        let fitting = lines[..room].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.append(&lines[..fitting]);
        let mut marker = Vec::new();
        let text = format!("quorate: output beyond {} MiB is dropped", LOG_BYTES_MAX >> 20);
        emit(&mut marker, Timestamp::now(), "stderr", 'F', text.as_bytes());
        self.append(&marker);
        self.state = Writing::Over;
    }

    fn append(&mut self, bytes: &[u8]) {
        if let Err(error) = self.try_append(bytes) {
            let path = self.place.log();
            tracing::warn!(path = %path.display(), %error, "the output of a task is lost");
            self.state = Writing::Over;
        }
    }

    fn try_append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                self.place.create()?;
                let mut options = File::options();
                // Only what this attempt has printed, to an earlier agent, is gone on with.
                match self.bytes {
                    0 => options.write(true).truncate(true).create(true),
                    _ => options.append(true),
                };
                self.file.insert(open_plain(&mut options, &self.place.log())?)
            }
        };
        file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        self.follow.grown(self.bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::PathBuf;
    use std::time::Duration;

    use quorate_model::{Attempt, TaskId};

    use super::*;

    struct Script {
        dir: tempfile::TempDir,
        capture: Capture,
        stdout: Option<std::io::PipeWriter>,
        stderr: Option<std::io::PipeWriter>,
    }

    fn script() -> Script {
        let dir = tempfile::tempdir().unwrap();
        let ((out_read, stdout), (err_read, stderr)) =
            (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let receiver =
            |read: std::io::PipeReader| pipe::Receiver::from_owned_fd(read.into()).unwrap();
        let place = Place::of(dir.path(), TaskId::default(), Attempt(1));
        let (out, err) = (receiver(out_read), receiver(err_read));
        let capture = Capture::new(out, err, place, Arc::new(Follow::default()));
        Script { dir, capture, stdout: Some(stdout), stderr: Some(stderr) }
    }

    impl Script {
        fn log(&self) -> PathBuf {
            Place::of(self.dir.path(), TaskId::default(), Attempt(1)).log()
        }

        /// The same pipes and the same file, in the hands of the next agent.
        fn handed_over(mut self) -> Self {
            let place = Place::of(self.dir.path(), TaskId::default(), Attempt(1));
            let pipes = self.capture.pipes().map(|pipe| pipe.try_clone_to_owned().unwrap());
            let [out, err] = pipes.map(|pipe| pipe::Receiver::from_owned_fd(pipe).unwrap());
            // What the first does last, the second finds.
            drop(std::mem::replace(&mut self.capture, Self::unused(&place)));
            self.capture = Capture::resume(out, err, place, Arc::default());
            self
        }

        fn unused(place: &Place) -> Capture {
            let receiver = || {
                let (read, _) = std::io::pipe().unwrap();
                pipe::Receiver::from_owned_fd(read.into()).unwrap()
            };
            Capture::new(receiver(), receiver(), place.clone(), Arc::default())
        }

        /// The log, without the times, once both pipes are closed.
        async fn end(mut self) -> Vec<String> {
            drop((self.stdout.take(), self.stderr.take()));
            self.capture.pump().await;
            let text = std::fs::read_to_string(self.log()).unwrap_or_default();
            text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
        }
    }

    #[tokio::test]
    async fn writes_whole_lines_with_their_stream() {
        let mut script = script();
        script.stdout.as_ref().unwrap().write_all(b"one\n\ntwo").unwrap();
        script.stderr.as_ref().unwrap().write_all(b"oops\n").unwrap();
        drop(script.stdout.take());
        let mut lines = script.end().await;
        lines.sort();
        assert_eq!(lines, ["stderr F oops", "stdout F ", "stdout F one", "stdout F two"]);
    }

    #[tokio::test]
    async fn times_are_rfc_3339_in_utc_with_microseconds() {
        let mut script = script();
        script.stdout.as_ref().unwrap().write_all(b"x\n").unwrap();
        drop((script.stdout.take(), script.stderr.take()));
        script.capture.pump().await;
        let text = std::fs::read_to_string(script.log()).unwrap();
        let time = text.split(' ').next().unwrap();
        assert_eq!(time.len(), "2026-11-23T15:00:00.123456Z".len(), "{time}");
        assert!(time.ends_with('Z') && time.parse::<Timestamp>().is_ok(), "{time}");
    }

    #[tokio::test]
    async fn a_task_that_prints_nothing_has_no_file() {
        let mut script = script();
        drop((script.stdout.take(), script.stderr.take()));
        script.capture.pump().await;
        assert!(!script.log().exists());
    }

    #[tokio::test]
    async fn splits_a_line_that_is_too_long() {
        let script = script();
        let line = "x".repeat(2 * LINE_BYTES_MAX + 5);
        script.stdout.as_ref().unwrap().write_all(line.as_bytes()).unwrap();
        script.stdout.as_ref().unwrap().write_all(b"\nnext\n").unwrap();
        let lines = script.end().await;
        let piece = "x".repeat(LINE_BYTES_MAX);
        let pieces = [format!("stdout P {piece}"), format!("stdout P {piece}")];
        assert_eq!(lines[..2], pieces);
        assert_eq!(lines[2..], ["stdout F xxxxx", "stdout F next"]);
    }

    #[tokio::test]
    async fn takes_outputs_from_stdout_only() {
        let mut script = script();
        script.stdout.as_ref().unwrap().write_all(b"::output a=1\nx ::output b=2\n").unwrap();
        script.stderr.as_ref().unwrap().write_all(b"::output c=3\n").unwrap();
        drop((script.stdout.take(), script.stderr.take()));
        script.capture.pump().await;
        let outputs = std::mem::take(&mut script.capture.outputs);
        let outputs = outputs.finish(&script.dir.path().join("output")).unwrap();
        assert_eq!(outputs.unwrap().as_str(), r#"{"a":"1"}"#);
    }

    #[tokio::test]
    async fn goes_on_where_an_earlier_agent_left_off() {
        let mut script = script();
        script.stdout.as_ref().unwrap().write_all(b"::output a=1\n::output b").unwrap();
        script.stderr.as_ref().unwrap().write_all(b"oo").unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(50), script.capture.pump()).await;
        let mut script = script.handed_over();
        script.stdout.as_ref().unwrap().write_all(b"=2\n::output c=3").unwrap();
        script.stderr.as_ref().unwrap().write_all(b"ps\n").unwrap();
        drop((script.stdout.take(), script.stderr.take()));
        script.capture.pump().await;
        let outputs = std::mem::take(&mut script.capture.outputs);
        let outputs = outputs.finish(&script.dir.path().join("output")).unwrap();
        assert_eq!(outputs.unwrap().as_str(), r#"{"a":"1","b":"2","c":"3"}"#);
        let lines = script.end().await;
        let of = |stream| {
            let lines = lines.iter().filter_map(move |line| line.strip_prefix(stream));
            lines.collect::<Vec<_>>()
        };
        assert_eq!(of("stderr "), ["P oo", "F ps"]);
        assert_eq!(of("stdout "), ["F ::output a=1", "P ::output b", "F =2", "F ::output c=3"]);
    }

    #[tokio::test]
    async fn drops_what_is_beyond_the_limit_and_says_so() {
        let mut script = script();
        let stdout = script.stdout.take().unwrap();
        let writer = std::thread::spawn(move || {
            let line = [b'x'; 1023].into_iter().chain(*b"\n").collect::<Vec<u8>>();
            for _ in 0..2 * LOG_BYTES_MAX / 1024 {
                (&stdout).write_all(&line).unwrap();
            }
        });
        drop(script.stderr.take());
        let lines = script.end().await;
        writer.join().unwrap();
        assert_eq!(lines.last().unwrap(), "stderr F quorate: output beyond 10 MiB is dropped");
        assert!(lines[..lines.len() - 1].iter().all(|line| line.len() == "stdout F ".len() + 1023));
    }
}
