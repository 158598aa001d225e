//! What expressions can do beyond what the engine brings: functions and filters.

use std::io;

use minijinja::value::{Value as Item, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State};

use crate::calendar;
use crate::context::OUTCOME;
use crate::engine::RENDERED_BYTES_MAX;

/// Every filter that there is.
pub const FILTERS: &[&str] = &[
    "abs",
    "add_days",
    "add_hours",
    "add_minutes",
    "add_months",
    "add_seconds",
    "add_weeks",
    "add_years",
    "attr",
    "batch",
    "bool",
    "capitalize",
    "chain",
    "count",
    "d",
    "date",
    "day_of_year",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "first_day_of_month",
    "first_day_of_quarter",
    "first_day_of_week",
    "first_day_of_year",
    "float",
    "format",
    "from_json",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "json",
    "last",
    "last_day_of_month",
    "last_day_of_quarter",
    "last_day_of_week",
    "last_day_of_year",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "quarter",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "shell_quote",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "timestamp",
    "title",
    "trim",
    "unique",
    "upper",
    "week",
    "week_year",
    "weekday",
    "zip",
];

pub(crate) fn add(engine: &mut Environment<'static>) {
    engine.add_function("success", |state: &State<'_, '_>| outcome(state));
    engine.add_function("failure", |state: &State<'_, '_>| outcome(state).map(|good| !good));
    engine.add_function("always", || true);
    engine.add_filter("json", json);
    engine.add_filter("from_json", from_json);
    engine.add_filter("shell_quote", shell_quote);
    calendar::add(engine);
    engine.remove_filter("tojson");
    engine.remove_filter("pprint");
    engine.set_formatter(write);
}

/// Whether no predecessor failed.
fn outcome(state: &State<'_, '_>) -> Result<bool, Error> {
    state.lookup(OUTCOME).map(|good| good.is_true()).ok_or_else(|| {
        invalid("success() and failure() are about what a task comes after: not known here")
    })
}

/// As JSON, on one line. `tojson`, which the engine brings, escapes for HTML, and knows no
/// limit: a list that repeats a long text a million times is small until it is written.
pub(crate) fn json(value: &Item) -> Result<String, Error> {
    let mut bounded = Bounded(Vec::new());
    serde_json::to_writer(&mut bounded, value)
        .map_err(|error| invalid(format!("no JSON: {error}")))?;
    Ok(String::from_utf8(bounded.0).expect("JSON is text"))
}

/// Takes up to [`RENDERED_BYTES_MAX`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > RENDERED_BYTES_MAX {
            let told = format!("it takes more than {RENDERED_BYTES_MAX} bytes");
            return Err(io::Error::other(told));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How a value stands in a text: as in JSON, and not as in Python, what has another form there.
/// Nothing at all for none.
pub(crate) fn write(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Item,
) -> Result<(), Error> {
    if value.is_none() {
        return Ok(());
    }
    let shown = match is_tree(value) || value.kind() == ValueKind::Bool {
        true => &Item::from(json(value)?),
        false => value,
    };
    minijinja::escape_formatter(out, state, shown)
}

fn is_tree(value: &Item) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable)
}

/// What a JSON text says.
fn from_json(text: &str) -> Result<Item, Error> {
    let value: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| invalid(format!("from_json: not JSON: {error}")))?;
    Ok(Item::from(minijinja::value::Serde(value)))
}

/// One word of a POSIX shell that stands for exactly this text, whatever is in it.
fn shell_quote(value: &Item) -> Result<String, Error> {
    if value.is_undefined() || value.is_none() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let is_plain = !is_tree(value) && value.kind() != ValueKind::Bool;
    let text = if is_plain { value.to_string() } else { json(value)? };
    if text.contains('\0') {
        return Err(invalid("shell_quote: no word of a shell can hold a zero byte"));
    }
    // Within single quotes a shell reads nothing but the next single quote.
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

fn invalid(reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, evaluate};

    #[test]
    fn every_filter_is_listed() {
        let is_filter = |name: &str| {
            let text = format!("${{{{ '{name}' is filter }}}}");
            evaluate(&text, &Context::default()).unwrap() == true
        };
        for name in FILTERS {
            assert!(is_filter(name), "{name}");
        }
        assert!(FILTERS.is_sorted() && !is_filter("dates"));
    }
}
