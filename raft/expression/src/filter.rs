//! What expressions can do beyond what the engine brings: functions and filters.

use minijinja::value::{Value as Item, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use crate::context::OUTCOME;

pub(crate) fn add(engine: &mut Environment<'static>) {
    engine.add_function("success", |state: &State<'_, '_>| outcome(state));
    engine.add_function("failure", |state: &State<'_, '_>| outcome(state).map(|good| !good));
    engine.add_function("always", || true);
    engine.add_filter("json", json);
    engine.add_filter("from_json", from_json);
    engine.add_filter("shell_quote", shell_quote);
}

/// Whether no predecessor failed.
fn outcome(state: &State<'_, '_>) -> Result<bool, Error> {
    state.lookup(OUTCOME).map(|good| good.is_true()).ok_or_else(|| {
        invalid("success() and failure() are about what a task comes after: not known here")
    })
}

/// As JSON, on one line. `tojson`, which the engine brings, escapes for HTML.
fn json(value: &Item) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| invalid(format!("no JSON: {error}")))
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
    let is_tree = matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable);
    let text = if is_tree { json(value)? } else { value.to_string() };
    if text.contains('\0') {
        return Err(invalid("shell_quote: no word of a shell can hold a zero byte"));
    }
    // Within single quotes a shell reads nothing but the next single quote.
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

fn invalid(reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}
