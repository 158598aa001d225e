//! Reads mappings and values of the tree, and reports whatever is not as it should be.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use quorate_model::{DurationMs, Name};

use super::document::{Key, Node, Place, Scalar, Value};
use super::report::{Path, Report};
use super::template::Template;
use super::{Code, Diagnostic, Severity, duration, name};

/// Bytes of a label's value, or of a title.
pub(super) const LABEL_BYTES_MAX: usize = 256;

/// Labels of a workflow, or of the worker that a task asks for.
pub(super) const LABELS_MAX: usize = 16;

/// The keys that a mapping may have.
#[derive(Debug)]
pub(super) struct Schema {
    /// What the mapping is, for messages.
    pub(super) what: &'static str,
    /// Its keys, in the order in which they are best written.
    pub(super) keys: &'static [&'static str],
    /// Other programs' words, and ours.
    pub(super) spellings: &'static [(&'static str, &'static str)],
    /// Keys that a later release will know.
    pub(super) later: &'static [&'static str],
    /// Keys that belong elsewhere, and where.
    pub(super) hints: &'static [(&'static str, &'static str)],
}

/// A node, and the way to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'n, 'p> {
    pub(super) node: &'n Node<'n>,
    /// The key it stands behind, if it does.
    pub(super) key: Option<&'n Key<'n>>,
    pub(super) path: Path<'p>,
}

impl Item<'_, '_> {
    /// How to call it in a message.
    fn label(&self) -> String {
        self.path.label()
    }
}

/// The fields of a mapping that has a [`Schema`].
#[derive(Debug)]
pub(super) struct Fields<'n, 'p> {
    pub(super) place: Place,
    /// Some key is not known here; what seems to be missing may be that one.
    pub(super) is_refused: bool,
    parent: &'p Path<'p>,
    found: Vec<(&'static str, &'n Key<'n>, &'n Node<'n>)>,
}

impl<'n, 'p> Fields<'n, 'p> {
    /// Whether a key is there, with a value or without.
    pub(super) fn has(&self, key: &str) -> bool {
        self.found.iter().any(|(name, ..)| *name == key)
    }

    /// The value of a key, unless it is not there or null.
    pub(super) fn get(&self, key: &str) -> Option<Item<'n, 'p>>
    where
        'n: 'p,
    {
        let (_, key, node) = self.found.iter().find(|(name, ..)| *name == key)?;
        if matches!(&node.value, Value::Scalar(scalar) if scalar.is_null()) {
            return None;
        }
        Some(Item { node, key: Some(key), path: Path::Key(self.parent, &key.text) })
    }
}

/// What reads a document: what it found wrong, and the templates to look at in the end.
#[derive(Debug)]
pub(super) struct Reader<'n> {
    pub(super) report: Report<'n>,
    pub(super) templates: Vec<Template<'n>>,
    /// Tasks and those whose state their conditions look at, by position.
    pub(super) judged: Vec<(usize, usize)>,
    /// The mappings that were read by a table of keys, each by its first byte.
    pub(super) shapes: Vec<(usize, &'static Schema)>,
    /// The keys that are other programs' words.
    pub(super) respellings: Vec<Respelling>,
}

/// A key in another program's word.
#[derive(Debug)]
pub(super) struct Respelling {
    /// Where it stands.
    pub(super) key: Place,
    /// Our word for it.
    pub(super) ours: &'static str,
    /// The unit that the other word implies, and the byte where the value ends that lacks it.
    pub(super) unit: Option<(usize, &'static str)>,
}

impl<'n> Reader<'n> {
    pub(super) fn new(source: &'n str) -> Self {
        Self {
            report: Report::new(source),
            templates: Vec::new(),
            judged: Vec::new(),
            shapes: Vec::new(),
            respellings: Vec::new(),
        }
    }

    /// Opens a mapping and reports every key that should not be there.
    pub(super) fn fields<'p>(
        &mut self,
        node: &'n Node<'n>,
        path: &'p Path<'p>,
        schema: &'static Schema,
    ) -> Option<Fields<'n, 'p>> {
        let Some(entries) = self.mapping(node, path) else {
            let message = format!("{} must be a mapping, not {}", schema.what, kind(node));
            self.report.error(Code::WrongType, node.place, path, message);
            return None;
        };
        self.shapes.push((node.place.from, schema));
        let mut fields =
            Fields { place: node.place, is_refused: false, parent: path, found: Vec::new() };
        for (key, node) in entries {
            let Some(name) = self.known(key, path, schema) else {
                fields.is_refused = true;
                continue;
            };
            if let Some((_, first, _)) = fields.found.iter().find(|(found, ..)| *found == name) {
                let message = format!("`{}` and `{}` are the same key", first.text, key.text);
                self.report.error(Code::Conflict, key.place, &Path::Key(path, &key.text), message);
                continue;
            }
            if key.text != name {
                let is_number =
                    matches!(&node.value, Value::Scalar(scalar) if scalar.json().is_number());
                let unit = implied_unit(&key.text).filter(|_| is_number);
                let unit = unit.map(|(unit, _)| (node.place.to, unit));
                self.respellings.push(Respelling { key: key.place, ours: name, unit });
            }
            fields.found.push((name, key, node));
        }
        Some(fields)
    }

    /// Our word for a key of a mapping.
    fn known(&mut self, key: &Key<'_>, path: &Path<'_>, schema: &Schema) -> Option<&'static str> {
        let text = key.text.as_ref();
        let path = Path::Key(path, text);
        let spelling = schema.spellings.iter().find(|(other, _)| *other == text);
        let word = spelling.map_or(text, |(_, ours)| ours);
        if schema.later.contains(&word) {
            let message = format!("not supported yet: {text}");
            self.report.error(Code::NotSupportedYet, key.place, &path, message);
            return None;
        }
        if let Some(&ours) = schema.keys.iter().find(|known| **known == word) {
            if spelling.is_some() {
                let message = format!("`{text}` is read as `{ours}`");
                let found = Diagnostic::new(Severity::Note, Code::OtherSpelling, message);
                self.report.add(found.at(key.place.span, path.to_string()));
            }
            return Some(ours);
        }
        self.unknown(key, &path, schema);
        None
    }

    fn unknown(&mut self, key: &Key<'_>, path: &Path<'_>, schema: &Schema) {
        let text = key.text.as_ref();
        let message = format!("unknown key `{text}` in {}", schema.what);
        let hint = schema.hints.iter().find(|(other, _)| *other == text);
        let known = schema.keys.iter().chain(schema.later).copied();
        let help = match (hint, name::nearest(text, known)) {
            (Some((_, hint)), _) => (*hint).to_owned(),
            (None, Some(near)) => format!("did you mean `{near}`?"),
            (None, None) => format!("known are {}", schema.keys.join(", ")),
        };
        self.report.error_with_help(Code::UnknownKey, key.place, path, message, help);
    }

    /// The entries of a mapping, each key once.
    pub(super) fn entries(
        &mut self,
        item: Item<'n, '_>,
        what: &str,
    ) -> Option<Vec<(&'n Key<'n>, &'n Node<'n>)>> {
        let entries = self.mapping(item.node, &item.path);
        if entries.is_none() {
            self.wrong_type(item, what);
        }
        entries
    }

    fn mapping(
        &mut self,
        node: &'n Node<'n>,
        path: &Path<'_>,
    ) -> Option<Vec<(&'n Key<'n>, &'n Node<'n>)>> {
        let Value::Map(entries) = &node.value else { return None };
        let mut seen = Seen::default();
        let mut unique = Vec::with_capacity(entries.len());
        for (key, node) in entries.iter() {
            if let Some(first) = seen.insert(key) {
                let line = first.place.span.line;
                let message = format!("`{}` is given twice; first on line {line}", key.text);
                let path = Path::Key(path, &key.text);
                self.report.error(Code::DuplicateKey, key.place, &path, message);
            } else {
                unique.push((key, node));
            }
        }
        Some(unique)
    }

    /// The items of a list.
    pub(super) fn list(&mut self, item: Item<'n, '_>, what: &str) -> Option<&'n [Node<'n>]> {
        if let Value::List(items) = &item.node.value {
            return Some(items);
        }
        self.wrong_type(item, what);
        None
    }

    pub(super) fn wrong_type(&mut self, item: Item<'_, '_>, what: &str) {
        let message = format!("`{}` must be {what}, not {}", item.label(), kind(item.node));
        self.report.error(Code::WrongType, item.node.place, &item.path, message);
    }

    pub(super) fn bad_value(&mut self, item: Item<'_, '_>, code: Code, message: String) {
        self.report.error(code, item.node.place, &item.path, message);
    }

    /// A scalar that is there.
    pub(super) fn scalar(&mut self, item: Item<'n, '_>, what: &str) -> Option<&'n Scalar<'n>> {
        match &item.node.value {
            Value::Scalar(scalar) if !scalar.is_null() => Some(scalar),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => {
                self.wrong_type(item, what);
                None
            }
        }
    }

    /// A scalar as it is written: `1.10` stays `1.10`.
    pub(super) fn text(&mut self, item: Item<'n, '_>) -> Option<&'n str> {
        let text = self.scalar(item, "a text")?.text.as_ref();
        if text.contains('\0') {
            let message = format!("`{}` contains a zero byte", item.label());
            self.bad_value(item, Code::BadValue, message);
            return None;
        }
        Some(text)
    }

    /// A text that is not a template, and will not be taken for one.
    pub(super) fn fixed(&mut self, item: Item<'n, '_>) -> Option<&'n str> {
        let text = self.text(item)?;
        if text.contains("${{") {
            let message = format!("not supported yet: a template in `{}`", item.label());
            self.bad_value(item, Code::NotSupportedYet, message);
            return None;
        }
        Some(text)
    }

    /// A fixed text of limited length.
    pub(super) fn short(&mut self, item: Item<'n, '_>) -> Option<&'n str> {
        let text = self.fixed(item)?;
        if text.len() > LABEL_BYTES_MAX {
            let bytes = text.len();
            let label = item.label();
            let message = format!("`{label}` takes {bytes} bytes; {LABEL_BYTES_MAX} is the most");
            self.bad_value(item, Code::Limit, message);
            return None;
        }
        Some(text)
    }

    /// `true` or `false`; `false` for what is neither.
    pub(super) fn flag(&mut self, item: Item<'n, '_>) -> bool {
        let flag = self.scalar(item, "true or false").map(|scalar| scalar.json().as_bool());
        if flag == Some(None) {
            self.wrong_type(item, "true or false");
        }
        flag.flatten().unwrap_or(false)
    }

    /// A whole number from 0 to `max`.
    pub(super) fn whole(&mut self, item: Item<'n, '_>, max: u32) -> Option<u32> {
        let what = "a whole number";
        let number = self.scalar(item, what)?.json();
        let Some(number) = number.as_number() else {
            self.wrong_type(item, what);
            return None;
        };
        let found = number.as_u64().and_then(|whole| u32::try_from(whole).ok());
        let found = found.filter(|&whole| whole <= max);
        if found.is_none() {
            let message = format!("`{}` must be a whole number from 0 to {max}", item.label());
            self.bad_value(item, Code::BadValue, message);
        }
        found
    }

    /// A time span. Keys that name their unit take a number.
    pub(super) fn duration(&mut self, item: Item<'n, '_>) -> Option<DurationMs> {
        let scalar = self.scalar(item, "a time span such as 90s")?;
        let unit_ms = item.key.and_then(|key| implied_unit(&key.text)).map(|(_, ms)| ms);
        let count = scalar.json().as_f64();
        let read = match unit_ms.zip(count) {
            Some((unit_ms, count)) => {
                let help = "say, for example, 90s, 1h 30m or PT5M".to_owned();
                duration::from_ms(count * unit_ms).map_err(|message| (message, help))
            }
            None => duration::parse(&scalar.text),
        };
        let report = &mut self.report;
        let place = item.node.place;
        read.map_err(|(message, help)| {
            let message = format!("`{}`: {message}", item.label());
            report.error_with_help(Code::BadDuration, place, &item.path, message, help);
        })
        .ok()
    }

    /// A time span after which something is killed.
    pub(super) fn timeout(&mut self, item: Item<'n, '_>) -> Option<DurationMs> {
        let timeout = self.duration(item)?;
        if timeout.0 == 0 {
            let message = format!("`{}` of 0 would kill it before it starts", item.label());
            self.bad_value(item, Code::BadDuration, message);
            return None;
        }
        Some(timeout)
    }

    /// A mapping of names to short texts.
    pub(super) fn labels(&mut self, item: Item<'n, '_>) -> BTreeMap<Name, String> {
        let mut labels = BTreeMap::new();
        let entries = self.entries(item, "a mapping such as {zone: eu}").unwrap_or_default();
        if entries.len() > LABELS_MAX {
            let label = item.label();
            let message =
                format!("`{label}` has {} entries; {LABELS_MAX} is the most", entries.len());
            self.bad_value(item, Code::Limit, message);
            return labels;
        }
        for (key, node) in entries {
            let path = Path::Key(&item.path, &key.text);
            let text = self.short(Item { node, key: Some(key), path });
            let name = self.name(name::any(&key.text), key.place, &path);
            labels.extend(name.zip(text.map(str::to_owned)));
        }
        labels
    }

    /// One of a few words; the default if it is none of them.
    pub(super) fn one_of<T: Copy + Default>(
        &mut self,
        item: Item<'n, '_>,
        known: &[(&str, T)],
        what: &str,
    ) -> T {
        let Some(text) = self.fixed(item) else { return T::default() };
        if let Some((_, found)) = known.iter().find(|(name, _)| *name == text) {
            return *found;
        }
        let names = || known.iter().map(|(name, _)| *name);
        let help = match name::nearest(text, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known are {}", names().collect::<Vec<_>>().join(", ")),
        };
        let message = format!("{text:?} is no {what}");
        let place = item.node.place;
        self.report.error_with_help(Code::BadValue, place, &item.path, message, help);
        T::default()
    }

    /// Shows a node itself, or each item of it if it is a list.
    pub(super) fn one_or_more(
        &mut self,
        item: Item<'n, '_>,
        what: &str,
        mut each: impl FnMut(&mut Self, Item<'n, '_>),
    ) {
        match &item.node.value {
            Value::Scalar(_) => each(self, item),
            Value::List(items) => {
                for (index, node) in items.iter().enumerate() {
                    let path = Path::Index(&item.path, index);
                    each(self, Item { node, key: None, path });
                }
            }
            Value::Map(_) => self.wrong_type(item, what),
        }
    }

    /// A name, or a report of what is wrong with it.
    pub(super) fn name<T>(
        &mut self,
        read: Result<T, String>,
        place: Place,
        path: &Path<'_>,
    ) -> Option<T> {
        read.map_err(|message| self.report.error(Code::BadName, place, path, message)).ok()
    }
}

/// The unit that a key in another program's word implies, and its milliseconds.
fn implied_unit(key: &str) -> Option<(&'static str, f64)> {
    if key.ends_with("_sec") {
        Some(("s", 1_000.0))
    } else if key.ends_with("-minutes") {
        Some(("m", 60_000.0))
    } else {
        None
    }
}

/// Keys seen so far. Most mappings have a few: those are compared one by one.
#[derive(Default)]
struct Seen<'n> {
    few: Vec<&'n Key<'n>>,
    many: HashMap<&'n str, &'n Key<'n>>,
}

impl<'n> Seen<'n> {
    const FEW: usize = 16;

    /// Adds a key; answers the same key, if it was seen before.
    fn insert(&mut self, key: &'n Key<'n>) -> Option<&'n Key<'n>> {
        let before = self.few.iter().copied().find(|few| few.text == key.text);
        if before.is_some() {
            return before;
        }
        if self.few.len() < Self::FEW {
            self.few.push(key);
            return None;
        }
        match self.many.entry(&key.text) {
            Entry::Occupied(before) => Some(before.get()),
            Entry::Vacant(place) => {
                place.insert(key);
                None
            }
        }
    }
}

/// What a node is, for messages.
fn kind(node: &Node<'_>) -> &'static str {
    match &node.value {
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
        Value::Scalar(scalar) => match scalar.json() {
            serde_json::Value::Null => "nothing",
            serde_json::Value::Bool(_) => "a boolean",
            serde_json::Value::Number(_) => "a number",
            serde_json::Value::String(_)
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_) => "a text",
        },
    }
}
