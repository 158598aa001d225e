//! Lines out of the bytes of a log, as workers keep it: `TIME stdout|stderr F|P TEXT`.

use jiff::Timestamp;

use crate::view::{LogLine, LogStream};

/// A line that is longer is passed on in pieces. Workers break lines well before.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// A line, or a piece of one, as the task wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Empty where the worker noted none.
    ts: String,
    pub(crate) stream: LogStream,
    /// Whatever bytes it wrote, without the line feed.
    pub(crate) text: Vec<u8>,
    /// It goes on in the next line of the same stream.
    pub(crate) partial: bool,
    /// Where the log goes on behind it.
    pub(crate) next: u64,
}

impl Line {
    /// The line on the wire, where all text is UTF-8.
    pub(crate) fn view(&self) -> LogLine {
        let line = String::from_utf8_lossy(&self.text).into_owned();
        let (ts, stream) = (self.ts.clone(), self.stream);
        LogLine { ts, stream, line, partial: self.partial, next: self.next }
    }
}

/// Splits what comes in pieces into lines.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    /// Where the log goes on behind what was split.
    next: u64,
    /// The beginning of a line that goes on.
    open: Vec<u8>,
    /// Whether the very first bytes may be the middle of a line.
    is_first: bool,
}

impl Lines {
    /// Begins at an offset of the log.
    pub(crate) fn new(offset: u64) -> Self {
        Self { next: offset, open: Vec::new(), is_first: offset > 0 }
    }

    /// Takes the next bytes, and gives the lines that are complete with them.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.open.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.open.len() >= LINE_BYTES_MAX {
                lines.extend(self.rest());
            }
        }
        lines
    }

    /// A last line that nobody ended.
    pub(crate) fn rest(&mut self) -> Option<Line> {
        if self.open.is_empty() {
            return None;
        }
        let line = std::mem::take(&mut self.open);
        self.next += line.len() as u64;
        let is_first = std::mem::take(&mut self.is_first);
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        match parse(text, self.next) {
            // Somebody asked for an offset within a line: there the log is not cut.
            Some(line) if is_first && line.ts.parse::<Timestamp>().is_err() => None,
            None if is_first => None,
            Some(line) => Some(line),
            None => Some(Line {
                ts: String::new(),
                stream: LogStream::Stdout,
                text: text.to_vec(),
                partial: false,
                next: self.next,
            }),
        }
    }
}

fn parse(line: &[u8], next: u64) -> Option<Line> {
    let mut words = line.splitn(4, |&byte| byte == b' ');
    let ts = std::str::from_utf8(words.next()?).ok()?;
    let stream = match words.next()? {
        b"stdout" => LogStream::Stdout,
        b"stderr" => LogStream::Stderr,
        _ => return None,
    };
    let partial = match words.next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    let text = words.next().unwrap_or_default().to_vec();
    Some(Line { ts: ts.to_owned(), stream, text, partial, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"2026-11-20T09:30:00.1Z stdout F one\n\
        2026-11-20T09:30:00.2Z stderr P tw\n\
        2026-11-20T09:30:00.3Z stderr F o  o\n\
        2026-11-20T09:30:00.4Z stdout F \n\
        not ours\n\
        2026-11-20T09:30:00.5Z stdout F end";

    fn shown(lines: &[Line]) -> Vec<(&str, LogStream, bool)> {
        lines.iter().map(|l| (str::from_utf8(&l.text).unwrap(), l.stream, l.partial)).collect()
    }

    #[test]
    fn splits_a_log_however_it_comes() {
        let expected = [
            ("one", LogStream::Stdout, false),
            ("tw", LogStream::Stderr, true),
            ("o  o", LogStream::Stderr, false),
            ("", LogStream::Stdout, false),
            ("not ours", LogStream::Stdout, false),
            ("end", LogStream::Stdout, false),
        ];
        for size in [1, 2, 7, 40, 1_000] {
            let mut lines = Lines::new(0);
            let mut all: Vec<_> = LOG.chunks(size).flat_map(|piece| lines.push(piece)).collect();
            assert_eq!(shown(&all), expected[..5]);
            all.extend(lines.rest());
            assert_eq!(shown(&all), expected);
            assert_eq!(all[5].next, LOG.len() as u64);
            assert_eq!(lines.rest(), None);
        }
    }

    #[test]
    fn goes_on_where_a_line_said() {
        let all = Lines::new(0).push(LOG);
        let from = usize::try_from(all[0].next).unwrap();
        let rest = Lines::new(all[0].next).push(&LOG[from..]);
        assert_eq!(rest, all[1..]);
    }

    #[test]
    fn passes_over_half_a_line_at_the_beginning_only() {
        let lines = Lines::new(3).push(&LOG[3..]);
        assert_eq!(shown(&lines)[0], ("tw", LogStream::Stderr, true));
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn passes_on_a_line_without_end_in_pieces() {
        let mut lines = Lines::new(0);
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        assert_eq!(lines.push(&long).len(), 1);
        assert!(lines.open.len() <= LINE_BYTES_MAX);
    }
}
