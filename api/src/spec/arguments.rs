//! The parameters that a run is given, against those that its workflow declares.

use std::collections::BTreeSet;

use quorate_expression::{Context, Zone, evaluate};
use quorate_model::workflow::{Definition, Param, ParamKind};
use quorate_model::{Json, Name};
use serde_json::{Map, Value};

use super::value::{broken, kind_name, of_kind, of_text};
use super::{Code, Diagnostic, Severity, default, name};

/// Bytes of all parameters of a run, as the model takes them.
const PARAMS_BYTES_MAX: usize = quorate_model::command::PARAMS_BYTES_MAX;

/// Completes what a run is given with the defaults, and checks types and rules. Defaults are
/// evaluated in a context that knows the run; what is given is taken as it is.
///
/// # Errors
///
/// Everything that is wrong: parameters that are missing, not declared, of another type or
/// against a rule.
pub fn resolve_params(
    definition: &Definition,
    given: &Map<String, Value>,
    context: Context,
) -> Result<Json, Vec<Diagnostic>> {
    let zone = definition.timezone.as_deref().and_then(Zone::named).unwrap_or_default();
    let (mut found, mut resolved, mut open) = (Vec::new(), Map::new(), Vec::new());
    for (name, param) in &definition.params {
        let value = match (given.get(name.as_str()), &param.default) {
            (Some(value), _) => typed(name, param, value, &zone),
            (None, Some(default)) => {
                let default = default.value();
                let waits_for = default::params_of(&default);
                open.push(Open { name, param, default, waits_for });
                continue;
            }
            (None, None) => Err(missing(name, param)),
        };
        match value {
            Ok(value) => drop(resolved.insert(name.to_string(), value)),
            Err(error) => found.push(error),
        }
    }
    complete(open, &mut resolved, &mut found, context, &zone);
    found.sort_by(|one, other| one.pointer.cmp(&other.pointer));
    let extra = given.keys().filter(|key| !definition.params.contains_key(key.as_str()));
    found.extend(extra.map(|key| unknown(definition, key)));
    let params = Json::new(&Value::Object(resolved));
    if params.as_str().len() > PARAMS_BYTES_MAX {
        let bytes = params.as_str().len();
        let message = format!("the parameters take {bytes} bytes; {PARAMS_BYTES_MAX} is the most");
        found.push(Diagnostic::new(Severity::Error, Code::Limit, message));
    }
    if found.is_empty() { Ok(params) } else { Err(found) }
}

/// A parameter that the run is not given.
struct Open<'a> {
    name: &'a Name,
    param: &'a Param,
    default: Value,
    waits_for: BTreeSet<String>,
}

/// Evaluates the defaults, each after those it refers to. One that refers to a parameter
/// that is wrong itself is passed over: one report of it is enough.
fn complete(
    mut open: Vec<Open<'_>>,
    resolved: &mut Map<String, Value>,
    found: &mut Vec<Diagnostic>,
    mut context: Context,
    zone: &Zone,
) {
    while !open.is_empty() {
        let waits =
            |one: &Open<'_>| open.iter().any(|other| one.waits_for.contains(other.name.as_str()));
        // All wait: they refer to each other, which the file is not allowed to say.
        let at = open.iter().position(|one| !waits(one)).unwrap_or(0);
        let Open { name, param, mut default, .. } = open.remove(at);
        if default::is_template(&default) {
            context.set("params", &Value::Object(resolved.clone()));
            let evaluated = default::evaluate(&mut default, &|text| evaluate(text, &context));
            if let Err(error) = evaluated {
                if found.is_empty() {
                    let message = format!("the default of the parameter `{name}`: {error}");
                    found.push(about(Code::BadValue, name.as_str(), message));
                }
                continue;
            }
        }
        // What a template comes to may be text where the type is not.
        let text = default.as_str().filter(|_| param.kind != ParamKind::String);
        let read = text.and_then(|text| of_text(param.kind, text, zone));
        match typed(name, param, &read.unwrap_or(default), zone) {
            Ok(value) => drop(resolved.insert(name.to_string(), value)),
            Err(error) => found.push(error),
        }
    }
}

/// Reads the value of `-p key=text` by the declared type: lists and maps as JSON.
///
/// # Errors
///
/// If there is no such parameter, or the text is no value of its type.
pub fn coerce(definition: &Definition, key: &str, text: &str) -> Result<Value, Diagnostic> {
    let Some((name, param)) = definition.params.get_key_value(key) else {
        return Err(unknown(definition, key));
    };
    let zone = definition.timezone.as_deref().and_then(Zone::named).unwrap_or_default();
    of_text(param.kind, text, &zone).ok_or_else(|| {
        let message = format!("{text:?} is no value of the parameter `{name}`");
        let help = format!("say {}", example(name, param));
        about(Code::WrongType, name.as_str(), message).with_help(help)
    })
}

fn missing(name: &Name, param: &Param) -> Diagnostic {
    let message = format!("the parameter `{name}` is missing");
    let mut help = format!("add {}", example(name, param));
    if !param.description.is_empty() {
        help = format!("{help}: {}", param.description);
    }
    about(Code::MissingParam, name.as_str(), message).with_help(help)
}

fn typed(name: &Name, param: &Param, value: &Value, zone: &Zone) -> Result<Value, Diagnostic> {
    let Some(value) = of_kind(param.kind, value, zone) else {
        let message = format!("the parameter `{name}` must be of type {}", kind_name(param.kind));
        let help = format!("say, for example, {}", example(name, param));
        return Err(about(Code::WrongType, name.as_str(), message).with_help(help));
    };
    match broken(&param.rules, param.kind, &value, zone) {
        None => Ok(value),
        Some(rule) => {
            let message = format!("the parameter `{name}` must {rule}");
            Err(about(Code::BadValue, name.as_str(), message))
        }
    }
}

fn unknown(definition: &Definition, key: &str) -> Diagnostic {
    let message = format!("the workflow has no parameter `{key}`");
    let names = || definition.params.keys().map(Name::as_str);
    let help = match name::nearest(key, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if definition.params.is_empty() => "it has none".to_owned(),
        None => format!("it has {}", names().collect::<Vec<_>>().join(", ")),
    };
    about(Code::UnknownParam, key, message).with_help(help)
}

fn about(code: Code, key: &str, message: String) -> Diagnostic {
    let mut found = Diagnostic::new(Severity::Error, code, message);
    found.pointer = format!("/params/{}", key.replace('~', "~0").replace('/', "~1"));
    found
}

/// How to give a parameter on the command line.
fn example(name: &Name, param: &Param) -> String {
    match param.kind {
        ParamKind::String => format!("-p {name}=..."),
        ParamKind::Int => format!("-p {name}=3"),
        ParamKind::Float => format!("-p {name}=0.5"),
        ParamKind::Bool => format!("-p {name}=true"),
        ParamKind::Date => format!("-p {name}=2026-02-28"),
        ParamKind::Datetime => format!("-p {name}=2026-02-28T09:30"),
        ParamKind::List => format!("-p {name}='[\"a\", \"b\"]'"),
        ParamKind::Map => format!("-p {name}='{{\"a\": 1}}'"),
    }
}
