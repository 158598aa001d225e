//! The canonical form of a workflow file, comments kept.
//!
//! What it does, and all that it does: our words for other programs', keys that the reader knows
//! in the order of its tables, two spaces a level, lists indented below their key, no more than
//! one blank line in a row, no space at the end of a line, one line end at the end of the file.
//! What stands in `{}` or `[]`, quotes, long lines and the insides of scripts stay as they are
//! written. Where a text has anchors, keys stay where they are: an alias must come later.
//!
//! It works on lines, for no YAML writer keeps comments. So it does not trust itself: what
//! comes out must mean what went in, and have the same comments, or the text is left alone.

mod respell;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use super::document::{self, Key, Marks, Node, Scalar, Style, Value};
use super::section::{Reader, Schema};
use super::{Code, Diagnostic, Severity, parse, workflow};

/// Spaces a level.
const INDENT: usize = 2;

/// Writes a workflow file in its canonical form. `default_name` is its name if it does not say
/// so itself.
///
/// # Errors
///
/// What is wrong with it, if it is no workflow; or that it is laid out in a way that cannot be
/// followed.
pub fn format(text: &str, default_name: Option<&str>) -> Result<String, Vec<Diagnostic>> {
    let before = parse(text, default_name)?;
    let in_form = |text: &str| laid_out(&respell::ours(text, default_name), default_name);
    let is_kept = |formatted: &String| {
        let Ok(mut after) = parse(formatted, default_name) else { return false };
        after.definition.source.clone_from(&before.definition.source);
        (&after.name, &after.definition) == (&before.name, &before.definition)
            && comments(formatted) == comments(text)
            // Whoever formats it again changes nothing.
            && in_form(formatted).as_ref() == Some(formatted)
    };
    in_form(text).filter(is_kept).ok_or_else(|| {
        let message = "it is laid out in a way that cannot be kept; it stays as it is";
        let found = Diagnostic::new(Severity::Error, Code::Syntax, message);
        vec![found.with_help("indent with two spaces a level, each key on a line of its own")]
    })
}

/// What comments say, in the order of the alphabet: keys may change places.
fn comments(text: &str) -> Vec<String> {
    let mut comments = document::marks(text).comments;
    comments.sort_unstable();
    comments
}

/// The text with its lines where they belong; `None` if it has a form that is not known here.
fn laid_out(text: &str, default_name: Option<&str>) -> Option<String> {
    let root = document::read(text).ok()?;
    let mut reader = Reader::new(text);
    workflow::read(&mut reader, &root, text, default_name);
    let Marks { comment_lines, has_anchors, .. } = document::marks(text);
    let lines: Vec<&str> = text.lines().collect();
    let tables = if has_anchors { HashMap::new() } else { reader.shapes.into_iter().collect() };
    let region = 0..lines.len();
    let mut format = Format { text, lines, comment_lines, tables, out: String::new() };
    match &root.value {
        Value::Map(entries) if !text[root.place.from..].starts_with('{') => {
            format.mapping(&root, entries, region, 0, None)?;
        }
        Value::Map(_) | Value::List(_) | Value::Scalar(_) => {
            region.for_each(|line| format.shifted(line, 0));
        }
    }
    let mut out = format.out;
    out.truncate(out.trim_end().len());
    out.push('\n');
    Some(out)
}

/// A text that is being laid out.
#[derive(Debug)]
struct Format<'t> {
    text: &'t str,
    lines: Vec<&'t str>,
    /// Lines with nothing but a comment, from 0.
    comment_lines: BTreeSet<usize>,
    /// The table of keys that a mapping was read by, by its first byte.
    tables: HashMap<usize, &'static Schema>,
    out: String,
}

/// The lines of one entry of a mapping or a list.
#[derive(Debug)]
struct Part {
    /// Comments and blank lines before it.
    leading: Range<usize>,
    /// Its own, with comments that stand deeper than it.
    body: Range<usize>,
}

impl<'t> Format<'t> {
    /// A mapping in block style. `dash` is what stands before its first key in a list.
    fn mapping(
        &mut self,
        node: &Node<'t>,
        entries: &[(Key<'t>, Node<'t>)],
        region: Range<usize>,
        indent: usize,
        dash: Option<&str>,
    ) -> Option<()> {
        let starts: Vec<usize> = entries.iter().map(|(key, _)| line_of(key)).collect();
        let column = column_of(&entries.first()?.0);
        let (mut parts, closing) = self.parts(&starts, region, column)?;
        let mut order: Vec<usize> = (0..entries.len()).collect();
        if let Some(table) = self.tables.get(&node.place.from) {
            let rank = |at: &usize| table.keys.iter().position(|key| *key == entries[*at].0.text);
            // What the table does not know is an error, and those are not laid out.
            order.sort_by_key(|at| rank(at).unwrap_or(usize::MAX));
        }
        if dash.is_none() && order.first() != Some(&0) {
            // What stands above the first key is about the whole.
            let head = std::mem::replace(&mut parts[0].leading, 0..0);
            self.remarks(head, indent, true);
        }
        for (position, at) in order.into_iter().enumerate() {
            let ((key, value), part) = (&entries[at], &parts[at]);
            let is_first = position == 0;
            match dash.filter(|_| is_first) {
                Some(dash) => {
                    self.remarks(part.leading.clone(), indent - INDENT, is_first);
                    self.out.push_str(&format!("{:1$}- {dash}", "", indent - INDENT));
                }
                None => {
                    self.remarks(part.leading.clone(), indent, is_first && indent > 0);
                    self.out.push_str(&" ".repeat(indent));
                }
            }
            let line = self.lines[part.body.start];
            let end_of_key = column_after(line, key)?;
            let rest = line[end_of_key..].trim_start().strip_prefix(':')?;
            self.out.push_str(self.text.get(key.place.from..key.place.to)?);
            self.out.push(':');
            self.value(rest, value, part.body.clone(), column, indent)?;
        }
        self.remarks(closing, indent, false);
        Some(())
    }

    /// A list in block style.
    fn sequence(&mut self, items: &[Node<'t>], region: Range<usize>, indent: usize) -> Option<()> {
        let first = region.clone().find(|line| self.is_content(*line))?;
        let column = indent_of(self.lines[first]);
        let is_start = |line: &usize| {
            let text = self.lines[*line];
            let rest = text.get(column..).and_then(|rest| rest.strip_prefix('-'));
            self.is_content(*line)
                && indent_of(text) == column
                && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        let starts: Vec<usize> = region.clone().filter(is_start).collect();
        if starts.len() != items.len() {
            return None;
        }
        let (parts, closing) = self.parts(&starts, region, column)?;
        for (at, (item, part)) in items.iter().zip(parts).enumerate() {
            let line = self.lines[part.body.start];
            let (leading, body) = (part.leading, part.body);
            self.remarks(leading, indent, at == 0);
            match (self.compact(item, &body, column), &item.value) {
                (Some((keys, dash)), Value::Map(entries)) => {
                    self.mapping(item, entries, keys, indent + INDENT, Some(dash))?;
                }
                _ => {
                    self.out.push_str(&format!("{:indent$}-", ""));
                    self.value(&line[column + 1..], item, body, column, indent)?;
                }
            }
        }
        self.remarks(closing, indent, false);
        Some(())
    }

    /// If an item of a list is a mapping whose first key can stand on the line of the dash: the
    /// lines of its keys, and what stands between the dash and the first.
    fn compact(
        &self,
        item: &Node<'t>,
        body: &Range<usize>,
        column: usize,
    ) -> Option<(Range<usize>, &'t str)> {
        let Value::Map(entries) = &item.value else { return None };
        let (line, key) = (self.lines[body.start], &entries.first()?.0);
        if line_of(key) == body.start {
            let before = line.get(column + 1..column_of(key))?;
            return (!before.contains('{')).then(|| (body.clone(), before.trim_start()));
        }
        let below = body.start + 1..body.end;
        let first = below.clone().find(|line| self.is_content(*line))?;
        let opens_flow = self.lines[first].trim_start().starts_with('{');
        let is_bare = line[column + 1..].trim().is_empty();
        (is_bare && !opens_flow).then_some((below, ""))
    }

    /// What stands behind a key or a dash, which is at `column` and goes to `indent`.
    fn value(
        &mut self,
        rest: &str,
        node: &Node<'t>,
        body: Range<usize>,
        column: usize,
        indent: usize,
    ) -> Option<()> {
        let rest = rest.trim();
        if !rest.is_empty() {
            self.out.push(' ');
            self.out.push_str(rest);
        }
        self.out.push('\n');
        let below = body.start + 1..body.end;
        let first = below.clone().find(|line| self.is_content(*line));
        let opens_flow = first.is_some_and(|line| self.lines[line].trim().starts_with(['{', '[']));
        let is_below = !opens_flow && first.is_some() && is_property(rest);
        match &node.value {
            Value::Map(entries) if is_below => {
                self.mapping(node, entries, below, indent + INDENT, None)
            }
            Value::List(items) if is_below => self.sequence(items, below, indent + INDENT),
            Value::Scalar(Scalar { style: Style::Literal | Style::Folded, .. }) => {
                self.script(rest, below, column, indent);
                Some(())
            }
            Value::Map(_) | Value::List(_) | Value::Scalar(_) => {
                let shift = indent.cast_signed() - column.cast_signed();
                let end = self.content_end(below.clone());
                for line in below.start..end {
                    self.shifted(line, shift);
                }
                self.remarks(end..below.end, indent, false);
                Some(())
            }
        }
    }

    /// The lines of a text behind `|` or `>`. They are moved, and nothing else.
    fn script(&mut self, header: &str, lines: Range<usize>, column: usize, indent: usize) {
        let end = self.content_end(lines.clone());
        let is_fixed =
            header.split('#').next().is_some_and(|h| h.contains(|c: char| c.is_ascii_digit()));
        let is_blank = |line: &usize| self.lines[*line].trim().is_empty();
        let least = (lines.start..end).filter(|line| !is_blank(line));
        let least = least.map(|line| indent_of(self.lines[line])).min().unwrap_or(0);
        let shift = if is_fixed {
            indent.cast_signed() - column.cast_signed()
        } else {
            (indent + INDENT).cast_signed() - least.cast_signed()
        };
        for line in lines.start..end {
            match self.lines[line].get(least..).filter(|_| self.lines[line].trim().is_empty()) {
                // Spaces beyond those of the indentation belong to the text.
                Some(spaces) if !spaces.is_empty() => {
                    let indent = least.saturating_add_signed(shift);
                    self.out.push_str(&format!("{:indent$}{spaces}\n", ""));
                }
                Some(_) | None => self.shifted(line, shift),
            }
        }
        self.remarks(end..lines.end, indent, false);
    }

    /// A line with its beginning moved.
    fn shifted(&mut self, line: usize, shift: isize) {
        let text = self.lines[line];
        let (blank, content) = text.split_at(indent_of(text));
        if !content.is_empty() {
            let indent = blank.len().saturating_add_signed(shift);
            self.out.push_str(&" ".repeat(indent));
            self.out.push_str(content);
        }
        self.out.push('\n');
    }

    /// Comments and blank lines: at most one of these in a row, and none at the beginning.
    fn remarks(&mut self, lines: Range<usize>, indent: usize, is_beginning: bool) {
        let mut is_begun = !is_beginning;
        for line in lines {
            let text = self.lines[line].trim();
            if !text.is_empty() {
                self.out.push_str(&format!("{:indent$}{text}\n", ""));
                is_begun = true;
            } else if is_begun && !self.out.is_empty() && !self.out.ends_with("\n\n") {
                self.out.push('\n');
            }
        }
    }

    /// Divides a region among the entries that start on these lines; answers also what stands
    /// behind the last.
    fn parts(
        &self,
        starts: &[usize],
        region: Range<usize>,
        column: usize,
    ) -> Option<(Vec<Part>, Range<usize>)> {
        let is_within = starts.iter().all(|start| region.contains(start));
        if !is_within || !starts.is_sorted_by(|a, b| a < b) {
            return None;
        }
        let mut parts = Vec::with_capacity(starts.len());
        let mut leading = region.start..*starts.first()?;
        for (at, &start) in starts.iter().enumerate() {
            let end = starts.get(at + 1).copied().unwrap_or(region.end);
            let content = self.content_end(start..end);
            let is_deeper = |line: &usize| {
                self.comment_lines.contains(line) && indent_of(self.lines[*line]) > column
            };
            let inner = (content..end).rfind(is_deeper).map_or(content, |line| line + 1);
            parts.push(Part { leading, body: start..inner });
            leading = inner..end;
        }
        Some((parts, leading))
    }

    /// The line behind the last that is neither blank nor a comment.
    fn content_end(&self, lines: Range<usize>) -> usize {
        let start = lines.start;
        lines.rev().find(|line| self.is_content(*line)).map_or(start, |line| line + 1)
    }

    fn is_content(&self, line: usize) -> bool {
        !self.lines[line].trim().is_empty() && !self.comment_lines.contains(&line)
    }
}

fn line_of(key: &Key<'_>) -> usize {
    (key.place.span.line as usize).saturating_sub(1)
}

/// Characters before a key on its line.
fn column_of(key: &Key<'_>) -> usize {
    (key.place.span.column as usize).saturating_sub(1)
}

/// The byte of a line behind a key that stands on it.
fn column_after(line: &str, key: &Key<'_>) -> Option<usize> {
    let start = line.char_indices().nth(column_of(key))?.0;
    let end = start + (key.place.to - key.place.from);
    line.is_char_boundary(end).then_some(end)
}

/// Whether what stands behind a key is no value, but an anchor, a tag or a comment.
fn is_property(rest: &str) -> bool {
    let mut words = rest.split(' ').filter(|word| !word.is_empty());
    words.find(|word| !word.starts_with(['&', '!'])).is_none_or(|word| word.starts_with('#'))
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::super::schema::generate;
    use super::super::{JSON_SCHEMA, name_of_file, render_text};
    use super::*;

    #[track_caller]
    fn formatted(text: &str) -> String {
        match format(text, Some("formatted")) {
            Ok(formatted) => formatted,
            Err(found) => panic!("{}\n{text}", render_text(&found, "formatted", text)),
        }
    }

    #[test]
    fn brings_keys_indentation_blank_lines_and_words_into_form() {
        let messy = include_str!("../../testdata/format/messy.yaml");
        let expected = include_str!("../../testdata/format/messy.formatted.yaml");
        assert_eq!(formatted(messy), expected);
        assert_eq!(formatted(expected), expected);
    }

    #[test]
    fn what_is_named_stays_before_what_refers_to_it() {
        let text = "tasks:\n  - run: &hello echo hello\n    id: a\n  - {id: b, run: *hello}\n";
        assert_eq!(formatted(text), text);
    }

    #[test]
    fn a_json_document_stays_json() {
        let text = "{\"steps\": [\n {\"id\": \"a\", \"command\": \"true\"}]}";
        let expected = "{\"tasks\": [\n {\"id\": \"a\", \"run\": \"true\"}]}\n";
        assert_eq!(formatted(text), expected);
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        let found = format("? run\n: 'true'\n", Some("w")).unwrap_err();
        assert!(found[0].message.contains("cannot be kept"), "{found:?}");
        assert_eq!(format("run: ''\n", Some("w")).unwrap_err()[0].code, Code::BadValue);
    }

    #[test]
    fn every_workflow_that_is_read_can_be_formatted_once() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut count = 0;
        for folder in ["../examples", "../examples/postgres", "testdata/spec"] {
            for path in fs::read_dir(root.join(folder)).expect("it is there").flatten() {
                let Some(file) = path.path().to_str().map(str::to_owned) else { continue };
                let Some(name) = name_of_file(&file).filter(|_| file.ends_with(".yaml")) else {
                    continue;
                };
                let text = fs::read_to_string(&file).expect("a workflow file is text");
                if parse(&text, Some(&name)).is_err() {
                    continue;
                }
                let once = match format(&text, Some(&name)) {
                    Ok(once) => once,
                    Err(found) => panic!("{}", render_text(&found, &file, &text)),
                };
                assert_eq!(format(&once, Some(&name)).expect("it was read"), once, "{file}");
                count += 1;
            }
        }
        assert!(count >= 10, "{count} files");
    }

    /// Writes a value in block style, each level indented and remarked upon as the dice fall.
    fn write(out: &mut String, value: &Json, indent: usize, roll: &mut dyn FnMut() -> u8) {
        match value {
            Json::Object(fields) if !fields.is_empty() => {
                out.push('\n');
                for (key, value) in fields {
                    remark(out, indent, roll());
                    write!(out, "{:indent$}{}:", "", Json::from(key.as_str())).unwrap();
                    out.push_str(&" ".repeat(usize::from(roll() % 2)));
                    let deeper = indent + 1 + usize::from(roll() % 4);
                    write(out, value, deeper, roll);
                }
            }
            Json::Array(items) if !items.is_empty() => {
                out.push('\n');
                for item in items {
                    remark(out, indent, roll());
                    write!(out, "{:indent$}-", "").unwrap();
                    let deeper = indent + 1 + usize::from(roll() % 4);
                    write(out, item, deeper, roll);
                }
            }
            Json::String(text) if roll() < 128 && text.starts_with("echo") => {
                let margin = " ".repeat(indent);
                writeln!(out, " | # a script\n{margin}{text}\n\n{margin} # in it").unwrap();
            }
            Json::Null
            | Json::Bool(_)
            | Json::Number(_)
            | Json::String(_)
            | Json::Array(_)
            | Json::Object(_) => writeln!(out, " {value} # {}", roll()).unwrap(),
        }
    }

    fn remark(out: &mut String, indent: usize, roll: u8) {
        match roll % 8 {
            0 => writeln!(out, "{:indent$}# remark {roll}", "").unwrap(),
            1 => out.push_str("\n\n \n"),
            2 => writeln!(out, "\n  # aside {roll}\n").unwrap(),
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn form_is_reached_at_once_and_keeps_meaning_and_comments(
            document in generate::document(&serde_json::from_str(JSON_SCHEMA).unwrap()),
            dice in proptest::collection::vec(any::<u8>(), 64),
        ) {
            let mut text = String::new();
            let mut dice = dice.into_iter().cycle();
            write(&mut text, &document, 0, &mut || dice.next().unwrap_or(0));
            let Ok(before) = parse(&text, Some("w")) else { return Ok(()) };
            let once = format(&text, Some("w")).expect("it was read");
            prop_assert_eq!(&format(&once, Some("w")).expect("it was read"), &once);
            let mut after = parse(&once, Some("w")).unwrap();
            after.definition.source.clone_from(&before.definition.source);
            prop_assert_eq!(after.definition, before.definition);
        }
    }
}
