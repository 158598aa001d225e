//! The parameters that a run is given, against those that its workflow declares.

use quorate_model::workflow::{Definition, Param, ParamKind};
use quorate_model::{Json, Name};
use serde_json::{Map, Value};

use super::params::{is_of_kind, kind_name};
use super::{Code, Diagnostic, Severity, name};

/// Bytes of all parameters of a run, as the model takes them.
const PARAMS_BYTES_MAX: usize = quorate_model::command::PARAMS_BYTES_MAX;

/// Completes what a run is given with the defaults, and checks the types.
///
/// # Errors
///
/// Everything that is wrong: parameters that are missing, not declared or of another type.
#[expect(clippy::needless_pass_by_value, reason = "the caller has no more use for it")]
pub fn resolve_params(
    definition: &Definition,
    given: Map<String, Value>,
) -> Result<Json, Vec<Diagnostic>> {
    let mut found = Vec::new();
    let mut resolved = Map::new();
    for (name, param) in &definition.params {
        match given
            .get(name.as_str())
            .map_or_else(|| default(name, param), |v| typed(name, param, v))
        {
            Ok(value) => {
                resolved.insert(name.to_string(), value);
            }
            Err(error) => found.push(error),
        }
    }
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

/// Reads the value of `-p key=text` by the declared type: lists and maps as JSON.
///
/// # Errors
///
/// If there is no such parameter, or the text is no value of its type.
pub fn coerce(definition: &Definition, key: &str, text: &str) -> Result<Value, Diagnostic> {
    let Some((name, param)) = definition.params.get_key_value(key) else {
        return Err(unknown(definition, key));
    };
    let value = match param.kind {
        ParamKind::String => Some(text.into()),
        ParamKind::Int => text.parse::<i64>().ok().map(Into::into),
        ParamKind::Float => {
            text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Into::into)
        }
        ParamKind::Bool => text.parse::<bool>().ok().map(Into::into),
        ParamKind::List | ParamKind::Map => serde_json::from_str(text).ok(),
    };
    let fits = value.filter(|value| is_of_kind(param.kind, value));
    fits.ok_or_else(|| {
        let message = format!("{text:?} is no value of the parameter `{name}`");
        let help = format!("say {}", example(name, param.kind));
        about(Code::WrongType, name.as_str(), message).with_help(help)
    })
}

fn default(name: &Name, param: &Param) -> Result<Value, Diagnostic> {
    param.default.as_ref().map(Json::value).ok_or_else(|| {
        let message = format!("the parameter `{name}` is missing");
        let mut help = format!("add {}", example(name, param.kind));
        if !param.description.is_empty() {
            help = format!("{help}: {}", param.description);
        }
        about(Code::MissingParam, name.as_str(), message).with_help(help)
    })
}

fn typed(name: &Name, param: &Param, value: &Value) -> Result<Value, Diagnostic> {
    if is_of_kind(param.kind, value) {
        return Ok(value.clone());
    }
    let message = format!("the parameter `{name}` must be of type {}", kind_name(param.kind));
    let help = format!("say, for example, {}", example(name, param.kind));
    Err(about(Code::WrongType, name.as_str(), message).with_help(help))
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
fn example(name: &Name, kind: ParamKind) -> String {
    match kind {
        ParamKind::String => format!("-p {name}=..."),
        ParamKind::Int => format!("-p {name}=3"),
        ParamKind::Float => format!("-p {name}=0.5"),
        ParamKind::Bool => format!("-p {name}=true"),
        ParamKind::List => format!("-p {name}='[\"a\", \"b\"]'"),
        ParamKind::Map => format!("-p {name}='{{\"a\": 1}}'"),
    }
}
