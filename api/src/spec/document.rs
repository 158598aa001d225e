//! YAML, and so JSON, as a tree that remembers where everything stands.
//!
//! The only file that knows the YAML library: the event parser inside of serde-saphyr. Its
//! serde side stops at the first value of a wrong type; a workflow file is checked as a whole.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use serde_saphyr::granit_parser::{
    self as yaml, ErrorKind, Event, Parser, ScalarStyle, ScanError, Tag,
};

use super::{Code, Diagnostic, Severity, Span};

/// Bytes of a document: what the API takes as a body.
pub const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Mappings and lists within each other. A workflow needs six.
pub const DEPTH_MAX: usize = 32;

/// Keys, values, lists and mappings, aliases counted as what they stand for: ten thousand
/// tasks of twenty each, and fifty thousand edges.
pub const NODES_MAX: usize = 250_000;

/// Bytes of text that aliases may add.
const ALIASED_BYTES_MAX: usize = DOCUMENT_BYTES_MAX;

/// A node of the tree.
#[derive(Clone, Debug)]
pub(super) struct Node<'t> {
    pub(super) value: Value<'t>,
    pub(super) place: Place,
}

/// What a node is. Lists and mappings are shared: an alias costs nothing.
#[derive(Clone, Debug)]
pub(super) enum Value<'t> {
    Scalar(Scalar<'t>),
    List(Rc<Vec<Node<'t>>>),
    Map(Rc<Vec<(Key<'t>, Node<'t>)>>),
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Key<'t> {
    pub(super) text: Cow<'t, str>,
    pub(super) place: Place,
}

/// A text as written; what it stands for is asked later, when it is known what is expected.
#[derive(Clone, Debug)]
pub(super) struct Scalar<'t> {
    pub(super) text: Cow<'t, str>,
    pub(super) style: Style,
}

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Bare: may be a number, a boolean or nothing.
    Plain,
    /// In quotes: a text.
    Quoted,
    /// Behind `|`: a text whose lines are lines of the document.
    Literal,
    /// Behind `>`: a text.
    Folded,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) span: Span,
    /// The first byte.
    pub(super) from: usize,
    /// The byte behind the last.
    pub(super) to: usize,
}

impl Scalar<'_> {
    /// What a plain scalar stands for by the core schema of YAML 1.2: `no` is a text.
    pub(super) fn json(&self) -> serde_json::Value {
        if self.style != Style::Plain {
            return self.text.as_ref().into();
        }
        match self.text.as_ref() {
            "" | "~" | "null" | "Null" | "NULL" => serde_json::Value::Null,
            "true" | "True" | "TRUE" => true.into(),
            "false" | "False" | "FALSE" => false.into(),
            text => number(text).map_or_else(|| text.into(), serde_json::Value::Number),
        }
    }

    pub(super) fn is_null(&self) -> bool {
        self.style == Style::Plain && self.json().is_null()
    }
}

fn number(text: &str) -> Option<serde_json::Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Into::into);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Into::into);
    }
    // Not what Rust takes beyond the schema: inf, nan and infinity.
    if !text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E')) {
        return None;
    }
    let whole = text.parse().map(i64::into).ok().or_else(|| text.parse().map(u64::into).ok());
    whole.or_else(|| serde_json::Number::from_f64(text.parse().ok()?))
}

/// Reads a document.
///
/// # Errors
///
/// The first thing that makes it no document.
pub(super) fn read(text: &str) -> Result<Node<'_>, Diagnostic> {
    if text.len() > DOCUMENT_BYTES_MAX {
        let bytes = text.len();
        let message = format!("it takes {bytes} bytes; {DOCUMENT_BYTES_MAX} is the most");
        return Err(refusal(Code::Limit, message, Span::default()));
    }
    let mut options = yaml::Options::default();
    options.set_emit_comments(false);
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| malformed(text, &error))?;
        builder.take(event, place(&span), tag_place(&span))?;
    }
    let nothing = Value::Scalar(Scalar { text: "".into(), style: Style::Plain });
    let span = Span { line: 1, column: 1, end_line: 1, end_column: 1 };
    let place = Place { span, ..Place::default() };
    Ok(builder.root.unwrap_or(Node { value: nothing, place }))
}

/// What the tree of a text does not tell.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Lines with nothing but a comment, from 0.
    pub(super) comment_lines: BTreeSet<usize>,
    /// What the comments say, without `#`.
    pub(super) comments: Vec<String>,
    /// Whether something is named, to be referred to later.
    pub(super) has_anchors: bool,
}

/// The marks of a text, as far as it is a document.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's other events say nothing")]
pub(super) fn marks(text: &str) -> Marks {
    let lines: Vec<&str> = text.lines().collect();
    let mut marks = Marks::default();
    for (event, span) in Parser::new_from_str(text).map_while(Result::ok) {
        match event {
            Event::Comment(said, _) => {
                let line = span.start.line().saturating_sub(1);
                if lines.get(line).is_some_and(|line| line.trim_start().starts_with('#')) {
                    marks.comment_lines.insert(line);
                }
                marks.comments.push(said.trim().to_owned());
            }
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(_, anchor, _)
            | Event::MappingStart(_, anchor, _) => marks.has_anchors |= anchor > 0,
            _ => {}
        }
    }
    marks
}

fn malformed(text: &str, error: &ScanError) -> Diagnostic {
    let span = place(&yaml::Span::empty(*error.marker())).span;
    let found = refusal(Code::Syntax, error.info(), span);
    let line = text.lines().nth(span.line.saturating_sub(1) as usize).unwrap_or("");
    if matches!(
        error.kind(),
        ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation | ErrorKind::TabInIndentation
    ) {
        found.with_help("indent with spaces")
    } else if line.contains("${{") {
        found.with_help("put the template into quotes: \"${{ ... }}\"")
    } else if matches!(error.kind(), ErrorKind::MappingValueNotAllowed) {
        found.with_help("put a text with a colon into quotes, or on a line of its own behind `|`")
    } else {
        found
    }
}

fn refusal(code: Code, message: impl Into<String>, span: Span) -> Diagnostic {
    let found = Diagnostic::new(Severity::Error, code, message);
    if span == Span::default() { found } else { found.at(span, "") }
}

fn place(span: &yaml::Span) -> Place {
    let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let (start, end) = (span.start, span.end);
    Place {
        span: Span {
            line: short(start.line()),
            column: short(start.col() + 1),
            end_line: short(end.line()),
            end_column: short(end.col() + 1),
        },
        from: start.byte_offset().unwrap_or(0),
        to: end.byte_offset().unwrap_or(0),
    }
}

/// Where the tag of a node stands, if it has one.
fn tag_place(span: &yaml::Span) -> Place {
    place(&span.tag_span().unwrap_or(*span))
}

/// Builds the tree from events.
#[derive(Debug, Default)]
struct Builder<'t> {
    root: Option<Node<'t>>,
    documents: usize,
    open: Vec<Open<'t>>,
    anchors: HashMap<usize, Node<'t>>,
    nodes: usize,
    aliased_bytes: usize,
}

/// A list or mapping whose end has not come yet.
#[derive(Debug)]
struct Open<'t> {
    place: Place,
    anchor: usize,
    content: Content<'t>,
}

#[derive(Debug)]
enum Content<'t> {
    List(Vec<Node<'t>>),
    Map(Vec<(Key<'t>, Node<'t>)>, Option<Key<'t>>),
}

impl<'t> Builder<'t> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library's other events say nothing")]
    fn take(&mut self, event: Event<'t>, place: Place, at_tag: Place) -> Result<(), Diagnostic> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a second document begins here";
                    return Err(refusal(Code::Syntax, message, place.span)
                        .with_help("put each workflow into a file of its own"));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = check_tag(tag.as_deref(), at_tag)?;
                let style = match style {
                    ScalarStyle::Plain if is_text => Style::Quoted,
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
                    ScalarStyle::Literal => Style::Literal,
                    ScalarStyle::Folded => Style::Folded,
                };
                let value = Value::Scalar(Scalar { text, style });
                self.add(Node { value, place }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), at_tag)?;
                self.open(Open { place, anchor, content: Content::List(Vec::new()) })
            }
            Event::MappingStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), at_tag)?;
                self.open(Open { place, anchor, content: Content::Map(Vec::new(), None) })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(place),
            Event::Alias(anchor) => self.alias(anchor, place),
            _ => Ok(()),
        }
    }

    fn open(&mut self, open: Open<'t>) -> Result<(), Diagnostic> {
        if self.open.len() >= DEPTH_MAX {
            let message = format!("it is nested deeper than {DEPTH_MAX} levels");
            return Err(refusal(Code::Limit, message, open.place.span));
        }
        if let Some(Open { content: Content::Map(_, None), .. }) = self.open.last() {
            return Err(refusal(Code::Syntax, "a key must be a text", open.place.span));
        }
        self.open.push(open);
        Ok(())
    }

    fn close(&mut self, end: Place) -> Result<(), Diagnostic> {
        let Some(Open { mut place, anchor, content }) = self.open.pop() else { return Ok(()) };
        let last = match &content {
            Content::List(items) => items.last(),
            Content::Map(entries, _) => entries.last().map(|(_, node)| node),
        };
        // A block ends with its last value; the event comes where the next token begins.
        let end = if end.from == end.to { last.map_or(place, |node| node.place) } else { end };
        place.to = end.to.max(place.to);
        (place.span.end_line, place.span.end_column) = (end.span.end_line, end.span.end_column);
        let value = match content {
            Content::List(items) => Value::List(Rc::new(items)),
            Content::Map(entries, _) => Value::Map(Rc::new(entries)),
        };
        self.add(Node { value, place }, anchor)
    }

    /// Puts a copy of what the alias stands for in its place.
    fn alias(&mut self, anchor: usize, place: Place) -> Result<(), Diagnostic> {
        let Some(found) = self.anchors.get(&anchor) else {
            return Err(refusal(Code::Syntax, "an alias within what it stands for", place.span));
        };
        let node = Node { value: found.value.clone(), place };
        weigh(&node, &mut self.nodes, &mut self.aliased_bytes, place.span)?;
        self.add(node, 0)
    }

    /// Adds a complete node to what is open.
    fn add(&mut self, node: Node<'t>, anchor: usize) -> Result<(), Diagnostic> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(too_many_nodes(node.place.span));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map(entries, key @ Some(_))) => {
                entries.extend(key.take().zip(Some(node)))
            }
            Some(Content::Map(_, key @ None)) => {
                let Node { value: Value::Scalar(Scalar { text, style }), place } = node else {
                    return Err(refusal(Code::Syntax, "a key must be a text", node.place.span));
                };
                if text == "<<" && style == Style::Plain {
                    let message = "merge keys are not part of YAML 1.2";
                    return Err(refusal(Code::Syntax, message, place.span)
                        .with_help("repeat the keys, or set them for all tasks under `defaults`"));
                }
                *key = Some(Key { text, place });
            }
        }
        Ok(())
    }
}

/// Counts what an alias adds, and stops when it is too much.
fn weigh(
    node: &Node<'_>,
    nodes: &mut usize,
    bytes: &mut usize,
    at: Span,
) -> Result<(), Diagnostic> {
    *nodes += 1;
    if *nodes > NODES_MAX {
        return Err(too_many_nodes(at));
    }
    match &node.value {
        Value::Scalar(scalar) => *bytes += scalar.text.len(),
        Value::List(items) => {
            items.iter().try_for_each(|item| weigh(item, nodes, bytes, at))?;
        }
        Value::Map(entries) => {
            for (key, value) in entries.iter() {
                *nodes += 1;
                *bytes += key.text.len();
                weigh(value, nodes, bytes, at)?;
            }
        }
    }
    if *bytes > ALIASED_BYTES_MAX {
        let message = format!("aliases stand for more than {ALIASED_BYTES_MAX} bytes");
        return Err(refusal(Code::Limit, message, at));
    }
    Ok(())
}

fn too_many_nodes(at: Span) -> Diagnostic {
    let message = format!("it has more than {NODES_MAX} values, aliases counted in full");
    refusal(Code::Limit, message, at)
}

/// Whether a tag says that a scalar is a text. Of others, those that change nothing are taken.
fn check_tag(tag: Option<&Tag>, place: Place) -> Result<bool, Diagnostic> {
    let Some(tag) = tag else { return Ok(false) };
    match (tag.handle(), tag.suffix()) {
        ("tag:yaml.org,2002:", "str") | ("!" | "", "" | "!") => Ok(true),
        ("tag:yaml.org,2002:", "map" | "seq" | "int" | "float" | "bool" | "null") => Ok(false),
        (handle, suffix) => {
            let message = format!("tags such as {handle}{suffix} mean nothing here");
            Err(refusal(Code::Syntax, message, place.span))
        }
    }
}
