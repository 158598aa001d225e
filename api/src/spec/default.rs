//! Defaults of parameters that are templates, over the run and other parameters.

use std::collections::BTreeSet;

use quorate_expression::ExpressionError;
use serde_json::Value;

use super::template;

/// Whether some string in a default is to be evaluated.
pub(super) fn is_template(default: &Value) -> bool {
    match default {
        Value::String(text) => quorate_expression::is_template(text),
        Value::Array(items) => items.iter().any(is_template),
        Value::Object(fields) => fields.values().any(is_template),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The parameters that a default refers to.
pub(super) fn params_of(default: &Value) -> BTreeSet<String> {
    let mut params = BTreeSet::new();
    collect(default, &mut params);
    params
}

fn collect(value: &Value, params: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            let names = quorate_expression::references(text).unwrap_or_default();
            let found = template::references_in(names, text).into_iter();
            params.extend(found.filter_map(template::Reference::param));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, params)),
        Value::Object(fields) => fields.values().for_each(|field| collect(field, params)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Evaluates every string in a default.
pub(super) fn evaluate(
    value: &mut Value,
    by: &impl Fn(&str) -> Result<Value, ExpressionError>,
) -> Result<(), ExpressionError> {
    match value {
        Value::String(text) => *value = by(text)?,
        Value::Array(items) => items.iter_mut().try_for_each(|item| evaluate(item, by))?,
        Value::Object(fields) => fields.values_mut().try_for_each(|field| evaluate(field, by))?,
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Ok(())
}
