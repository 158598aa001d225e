//! What a task puts out: small values that its successors and its run can refer to.
//!
//! From the file `$QUORATE_OUTPUT`, as lines `key=value`, as
//!
//! ```text
//! key<<END
//! many lines
//! END
//! ```
//! or as one JSON object; and from lines `::output key=value` on stdout, which the file
//! overrules. A value is text, except in JSON.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use quorate_model::{Json, Name, OUTPUT_BYTES_MAX};
use serde_json::Value;

use super::place::open_plain;

/// How a line on stdout that is an output begins.
pub(crate) const LINE_PREFIX: &[u8] = b"::output ";

/// The file may be larger than what it says, by blanks and delimiters, but not by much.
const FILE_BYTES_MAX: usize = 2 * OUTPUT_BYTES_MAX;

/// Outputs, while they are gathered.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    values: BTreeMap<String, Value>,
    bytes: usize,
    /// The first thing that was wrong.
    fault: Option<String>,
}

impl Outputs {
    /// Takes in what follows [`LINE_PREFIX`] on a line.
    pub(crate) fn line(&mut self, text: &[u8]) {
        let taken = str::from_utf8(text)
            .map_err(|_| "an output on stdout is not UTF-8".to_owned())
            .and_then(|text| {
                let (key, value) = text.split_once('=').ok_or_else(|| no_key(text))?;
                self.insert(key.trim(), value.trim_end_matches('\r').into())
            });
        if let Err(reason) = taken {
            self.fault(reason);
        }
    }

    /// Remembers that something was wrong; the first counts.
    pub(crate) fn fault(&mut self, reason: String) {
        self.fault.get_or_insert(reason);
    }

    /// Takes in the file, if there is one, and gives everything: a JSON object, or nothing.
    ///
    /// # Errors
    ///
    /// If something is malformed or too large, in words for people.
    pub(crate) fn finish(mut self, file: &Path) -> Result<Option<Json>, String> {
        if let Some(text) = read(file)? {
            self.parse(&text)?;
        }
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if self.values.is_empty() {
            return Ok(None);
        }
        let outputs = Json::new(&Value::Object(self.values.into_iter().collect()));
        let bytes = outputs.as_str().len();
        if bytes > OUTPUT_BYTES_MAX { Err(too_large(bytes)) } else { Ok(Some(outputs)) }
    }

    fn parse(&mut self, text: &str) -> Result<(), String> {
        if text.trim_start().starts_with('{') {
            return self.parse_object(text);
        }
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let heredoc = line.split_once("<<").filter(|(key, _)| !key.contains('='));
            if let Some((key, end)) = heredoc {
                let value = until(&mut lines, end.trim())
                    .ok_or_else(|| format!("the output {key:?} does not end with {end:?}"))?;
                self.insert(key.trim(), value.into())?;
            } else if let Some((key, value)) = line.split_once('=') {
                self.insert(key.trim(), value.into())?;
            } else if !line.trim().is_empty() {
                return Err(no_key(line));
            }
        }
        Ok(())
    }

    fn parse_object(&mut self, text: &str) -> Result<(), String> {
        let object: BTreeMap<String, Value> = serde_json::from_str(text)
            .map_err(|error| format!("$QUORATE_OUTPUT is not a JSON object: {error}"))?;
        object.into_iter().try_for_each(|(key, value)| self.insert(&key, value))
    }

    fn insert(&mut self, key: &str, value: Value) -> Result<(), String> {
        key.parse::<Name>().map_err(|error| format!("an output has a bad name: {error}"))?;
        // An estimate, to bound the memory of a task that prints outputs for ever.
        let more = key.len() + value.as_str().map_or(0, str::len);
        self.bytes = self.bytes.saturating_add(more);
        if self.bytes > FILE_BYTES_MAX {
            self.values.clear();
            return Err(too_large(self.bytes));
        }
        self.values.insert(key.to_owned(), value);
        Ok(())
    }
}

/// The lines before `end`, joined; `None` if it never comes.
fn until(lines: &mut std::str::Lines<'_>, end: &str) -> Option<String> {
    let mut value = Vec::new();
    for line in lines {
        if line == end {
            return Some(value.join("\n"));
        }
        value.push(line);
    }
    None
}

fn read(path: &Path) -> Result<Option<String>, String> {
    let failed = |error: io::Error| format!("$QUORATE_OUTPUT cannot be read: {error}");
    let file = match open_plain(File::options().read(true), path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    let bytes = text.len();
    if bytes > FILE_BYTES_MAX { Err(too_large(bytes)) } else { Ok(Some(text)) }
}

fn too_large(bytes: usize) -> String {
    let kib_max = OUTPUT_BYTES_MAX / 1024;
    format!("the outputs take {bytes} bytes or more; {kib_max} KiB is the most: use an artifact")
}

fn no_key(line: &str) -> String {
    let shown: String = line.chars().take(80).collect();
    format!("an output is written key=value, key<<END or as a JSON object, not {shown:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs_of(lines: &[&str], file: Option<&str>) -> Result<Option<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("output");
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
        }
        let mut outputs = Outputs::default();
        lines.iter().for_each(|line| outputs.line(line.as_bytes()));
        Ok(outputs.finish(&path)?.map(|json| json.as_str().to_owned()))
    }

    fn of_file(text: &str) -> Result<Option<String>, String> {
        outputs_of(&[], Some(text))
    }

    #[test]
    fn a_task_that_puts_out_nothing_has_no_outputs() {
        assert_eq!(outputs_of(&[], None), Ok(None));
        assert_eq!(of_file("\n\n"), Ok(None));
    }

    #[test]
    fn reads_lines_heredocs_and_json() {
        let lines = "a=1\n\nurl=http://x/?q=1\nlong<<END\nl1\n\nl2=x\nEND\nempty=\n";
        let expected = r#"{"a":"1","empty":"","long":"l1\n\nl2=x","url":"http://x/?q=1"}"#;
        assert_eq!(of_file(lines), Ok(Some(expected.to_owned())));
        let json = r#" {"n": 3, "list": [1, "x"]}"#;
        assert_eq!(of_file(json), Ok(Some(r#"{"list":[1,"x"],"n":3}"#.to_owned())));
    }

    #[test]
    fn the_file_overrules_stdout() {
        let outputs = outputs_of(&["a=1", "b=2"], Some("a=3\n"));
        assert_eq!(outputs, Ok(Some(r#"{"a":"3","b":"2"}"#.to_owned())));
    }

    #[test]
    fn says_what_is_malformed() {
        for (text, word) in [
            ("no equals sign\n", "key=value"),
            ("a b=1\n", "bad name"),
            ("x<<END\nnever ends\n", "does not end with \"END\""),
            ("{\"a\": ", "not a JSON object"),
            ("{\"\": 1}", "bad name"),
        ] {
            let reason = of_file(text).unwrap_err();
            assert!(reason.contains(word), "{text:?}: {reason}");
        }
        assert!(outputs_of(&["nonsense"], None).unwrap_err().contains("key=value"));
    }

    #[test]
    fn refuses_more_than_64_kib_and_takes_just_that() {
        let overhead = r#"{"k":""}"#.len();
        let fits = format!("k={}", "x".repeat(OUTPUT_BYTES_MAX - overhead));
        assert_eq!(of_file(&fits).unwrap().unwrap().len(), OUTPUT_BYTES_MAX);
        for more in [1, OUTPUT_BYTES_MAX, 10 * OUTPUT_BYTES_MAX] {
            let reason = of_file(&(fits.clone() + &"x".repeat(more))).unwrap_err();
            assert!(reason.contains("64 KiB"), "{reason}");
        }
        let line = format!("k={}", "x".repeat(1_000));
        let reason = outputs_of(&vec![line.as_str(); 200], None).unwrap_err();
        assert!(reason.contains("64 KiB"), "{reason}");
    }
}
