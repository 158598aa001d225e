//! The values that a parameter takes: types, and the rules beyond them.

use std::cmp::Ordering;

use quorate_expression::{Zone, read_date, read_date_time};
use quorate_model::Json;
use quorate_model::workflow::{ParamKind, Rules};
use regex::{Regex, RegexBuilder};
use serde_json::Value;

/// What a compiled pattern may take, in bytes. Matching takes time linear in the text.
const PATTERN_COMPILED_MAX: usize = 1 << 20;

/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1024;

/// Values shown of those that a parameter takes.
const CHOICES_SHOWN_MAX: usize = 20;

/// How a type is called in the file.
pub(super) const KINDS: [(&str, ParamKind); 8] = [
    ("string", ParamKind::String),
    ("int", ParamKind::Int),
    ("float", ParamKind::Float),
    ("bool", ParamKind::Bool),
    ("date", ParamKind::Date),
    ("datetime", ParamKind::Datetime),
    ("list", ParamKind::List),
    ("map", ParamKind::Map),
];

pub(super) fn kind_name(kind: ParamKind) -> &'static str {
    KINDS.iter().find(|(_, other)| *other == kind).map_or("", |(name, _)| name)
}

/// The type of a value that says of none.
pub(super) fn kind_of(value: &Value) -> ParamKind {
    match value {
        Value::Null | Value::String(_) => ParamKind::String,
        Value::Bool(_) => ParamKind::Bool,
        Value::Number(number) if number.is_f64() => ParamKind::Float,
        Value::Number(_) => ParamKind::Int,
        Value::Array(_) => ParamKind::List,
        Value::Object(_) => ParamKind::Map,
    }
}

/// A value as a run keeps it, if it is of the type: a date in its one form, everything else
/// as it is. A whole number is a float, too.
pub(super) fn of_kind(kind: ParamKind, value: &Value, zone: &Zone) -> Option<Value> {
    let fits = match kind {
        ParamKind::String => value.is_string(),
        ParamKind::Int => value.is_i64() || value.is_u64(),
        ParamKind::Float => value.is_number(),
        ParamKind::Bool => value.is_boolean(),
        ParamKind::Date => return read_date(value.as_str()?).map(Value::String),
        ParamKind::Datetime => return read_date_time(value.as_str()?, zone).map(Value::String),
        ParamKind::List => value.is_array(),
        ParamKind::Map => value.is_object(),
    };
    fits.then(|| value.clone())
}

/// The value that a text stands for, if it is of the type; of lists and maps it is JSON.
pub(super) fn of_text(kind: ParamKind, text: &str, zone: &Zone) -> Option<Value> {
    let value: Value = match kind {
        ParamKind::String | ParamKind::Date | ParamKind::Datetime => text.into(),
        ParamKind::Int => text.parse::<i64>().ok()?.into(),
        ParamKind::Float => serde_json::Number::from_f64(text.parse().ok()?)?.into(),
        ParamKind::Bool => text.parse::<bool>().ok()?.into(),
        ParamKind::List | ParamKind::Map => serde_json::from_str(text).ok()?,
    };
    of_kind(kind, &value, zone)
}

/// What a value of the right type breaks, in words that follow "must".
pub(super) fn broken(rules: &Rules, kind: ParamKind, value: &Value, zone: &Zone) -> Option<String> {
    let is = |one: &Json| {
        let one = one.value();
        one == *value || compare(kind, &one, value, zone) == Some(Ordering::Equal)
    };
    if !rules.choices.is_empty() && !rules.choices.iter().any(is) {
        return Some(format!("be one of {}", choices(&rules.choices)));
    }
    if let (Some(pattern), Some(text)) = (&rules.pattern, value.as_str())
        && compile(pattern).is_ok_and(|pattern| !pattern.is_match(text))
    {
        return Some(format!("match {pattern}"));
    }
    let is_beyond = |limit: &Option<Json>, beyond| {
        let limit = limit.as_ref().map(Json::value)?;
        (compare(kind, value, &limit, zone) == Some(beyond)).then_some(plain(&limit))
    };
    let is_time = matches!(kind, ParamKind::Date | ParamKind::Datetime);
    let (less, more) = if is_time { ("earlier", "later") } else { ("less", "more") };
    if let Some(limit) = is_beyond(&rules.min, Ordering::Less) {
        return Some(format!("be {limit} or {more}"));
    }
    if let Some(limit) = is_beyond(&rules.max, Ordering::Greater) {
        return Some(format!("be {limit} or {less}"));
    }
    let (length, of) = length(value)?;
    if let Some(min) = rules.length_min.filter(|&min| length < min as usize) {
        return Some(format!("have at least {min} {of}, not {length}"));
    }
    let max = rules.length_max.filter(|&max| length > max as usize)?;
    Some(format!("have at most {max} {of}, not {length}"))
}

/// A pattern that the whole of a text must match.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        let bytes = pattern.len();
        return Err(format!("it takes {bytes} bytes; {PATTERN_BYTES_MAX} is the most"));
    }
    // Alone first: one that closes a group of its own would slip out of ours.
    let build = |text: &str| RegexBuilder::new(text).size_limit(PATTERN_COMPILED_MAX).build();
    let built = build(pattern).and_then(|_| build(&format!("^(?:{pattern})$")));
    // The last line says what; those before it draw it.
    built.map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        last.trim_start_matches("error: ").to_owned()
    })
}

/// How two values of an ordered type compare.
pub(super) fn compare(kind: ParamKind, a: &Value, b: &Value, zone: &Zone) -> Option<Ordering> {
    match kind {
        ParamKind::Int => {
            let whole = |value: &Value| match value.as_i64() {
                Some(number) => Some(i128::from(number)),
                None => value.as_u64().map(i128::from),
            };
            Some(whole(a)?.cmp(&whole(b)?))
        }
        ParamKind::Float => a.as_f64()?.partial_cmp(&b.as_f64()?),
        ParamKind::Date => Some(a.as_str()?.cmp(b.as_str()?)),
        ParamKind::Datetime => Some(zone.unix_ms(a.as_str()?)?.cmp(&zone.unix_ms(b.as_str()?)?)),
        ParamKind::String | ParamKind::Bool | ParamKind::List | ParamKind::Map => None,
    }
}

fn length(value: &Value) -> Option<(usize, &'static str)> {
    match value {
        Value::String(text) => Some((text.chars().count(), "characters")),
        Value::Array(items) => Some((items.len(), "items")),
        Value::Object(fields) => Some((fields.len(), "entries")),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn choices(choices: &[Json]) -> String {
    let mut shown: Vec<String> =
        choices.iter().take(CHOICES_SHOWN_MAX).map(|choice| plain(&choice.value())).collect();
    if choices.len() > CHOICES_SHOWN_MAX {
        shown.push("...".to_owned());
    }
    shown.join(", ")
}

/// Without quotation marks where it is text.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pattern_is_for_the_whole_text() {
        let matches = |pattern: &str, text: &str| compile(pattern).unwrap().is_match(text);
        assert!(matches("[a-z]+", "abc") && matches("a|b", "b") && matches("^x$", "x"));
        assert!(!matches("[a-z]+", "abc;") && !matches("a|b", "ab"));
        assert!(!matches("[a-z]+", "abc\n"), "a line end is no end of the text");
        assert_eq!(compile("a)|(b").unwrap_err(), "unopened group");
        assert_eq!(compile("[a-").unwrap_err(), "unclosed character class");
        assert!(compile(r"(?:\w{500}){500}").is_err(), "takes too much memory");
        assert!(compile(&"x".repeat(PATTERN_BYTES_MAX)).is_ok());
        assert!(compile(&"x".repeat(PATTERN_BYTES_MAX + 1)).unwrap_err().contains("1024"));
    }

    #[test]
    fn a_date_has_one_form() {
        let zone = Zone::named("Europe/Paris").unwrap();
        let read = |kind, text: &str| of_text(kind, text, &zone);
        assert_eq!(read(ParamKind::Date, "20280229"), Some(json!("2028-02-29")));
        assert_eq!(read(ParamKind::Date, "2027-02-29"), None);
        assert_eq!(read(ParamKind::Date, "2028-02-29T10:00"), None);
        let at = Some(json!("2026-07-01T10:00:00+02:00"));
        assert_eq!(read(ParamKind::Datetime, "2026-07-01 10:00"), at);
        assert_eq!(read(ParamKind::Datetime, "2026-07-01T08:00:00Z"), at);
        assert_eq!(read(ParamKind::Datetime, "2026-07-01"), None);
    }
}
