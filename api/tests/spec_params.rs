//! What a run is given, against what its workflow declares.

use quorate_api::spec::{self, Code};
use quorate_model::command::PARAMS_BYTES_MAX;
use quorate_model::workflow::Definition;
use serde_json::{Value, json};

fn definition() -> Definition {
    let text = r#"
params:
  lockfile: {type: string, required: true, description: the file to look at}
  region: eu
  count: 3
  ratio: 0.5
  dry: false
  regions: [fr, de]
  options: {type: map, default: {a: 1}}
run: "true"
"#;
    spec::parse(text, Some("params")).expect("the document is right").definition
}

fn resolve(given: &Value) -> Result<Value, String> {
    let given = given.as_object().expect("parameters are an object").clone();
    spec::resolve_params(&definition(), given)
        .map(|params| params.value())
        .map_err(|found| spec::render_text(&found, "params", ""))
}

#[test]
fn defaults_are_filled_in() {
    let params = resolve(&json!({"lockfile": "/x", "count": 5, "ratio": 2})).unwrap();
    let expected = json!({
        "lockfile": "/x", "region": "eu", "count": 5, "ratio": 2, "dry": false,
        "regions": ["fr", "de"], "options": {"a": 1},
    });
    assert_eq!(params, expected);
}

#[test]
fn everything_wrong_is_said_at_once() {
    let found =
        resolve(&json!({"regoin": "us", "count": "5", "dry": 1, "options": []})).unwrap_err();
    let expected = "\
params: error: the parameter `count` must be of type int
  = help: say, for example, -p count=3
params: error: the parameter `dry` must be of type bool
  = help: say, for example, -p dry=true
params: error: the parameter `lockfile` is missing
  = help: add -p lockfile=...: the file to look at
params: error: the parameter `options` must be of type map
  = help: say, for example, -p options='{\"a\": 1}'
params: error: the workflow has no parameter `regoin`
  = help: did you mean `region`?
";
    assert_eq!(found, expected);
}

#[test]
fn texts_of_the_command_line_become_what_is_declared() {
    let definition = definition();
    let read = |key, text| spec::coerce(&definition, key, text);
    assert_eq!(read("lockfile", "5"), Ok(json!("5")));
    assert_eq!(read("count", "-5"), Ok(json!(-5)));
    assert_eq!(read("ratio", "1e3"), Ok(json!(1000.0)));
    assert_eq!(read("dry", "true"), Ok(json!(true)));
    assert_eq!(read("regions", r#"["us"]"#), Ok(json!(["us"])));
    assert_eq!(read("options", r#"{"b": [1]}"#), Ok(json!({"b": [1]})));
    for (key, text) in [
        ("count", "5.0"),
        ("count", ""),
        ("ratio", "inf"),
        ("dry", "yes"),
        ("regions", "us,eu"),
        ("regions", "{}"),
        ("options", "[]"),
    ] {
        assert_eq!(read(key, text).unwrap_err().code, Code::WrongType, "{key}={text}");
    }
    let unknown = read("lockfiel", "/x").unwrap_err();
    assert_eq!(unknown.code, Code::UnknownParam);
    assert_eq!(unknown.help.as_deref(), Some("did you mean `lockfile`?"));
    assert_eq!(unknown.pointer, "/params/lockfiel");
}

#[test]
fn parameters_are_limited_in_size() {
    let bytes = |text: &str| {
        let params = resolve(&json!({"lockfile": text, "regions": []}));
        params.map(|params| params.to_string().len())
    };
    let rest = bytes("").unwrap();
    let longest = "x".repeat(PARAMS_BYTES_MAX - rest);
    assert_eq!(bytes(&longest), Ok(PARAMS_BYTES_MAX));
    assert!(bytes(&format!("{longest}x")).unwrap_err().contains("262144 is the most"));
}

#[test]
fn findings_read_and_write_as_flat_json() {
    let found = spec::parse("name: a\nrun: \"true\"\nshel: sh\n", None).unwrap_err().remove(0);
    let expected = json!({
        "severity": "error", "code": "unknown_key", "message": "unknown key `shel` in a workflow",
        "line": 3, "column": 1, "end_line": 3, "end_column": 5, "pointer": "/shel",
        "help": "did you mean `shell`?",
    });
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json, expected);
    assert_eq!(serde_json::from_value::<spec::Diagnostic>(json).unwrap(), found);

    let nowhere = spec::coerce(&definition(), "count", "x").unwrap_err();
    let json = serde_json::to_value(&nowhere).unwrap();
    assert_eq!(json.get("line"), None);
    assert_eq!(serde_json::from_value::<spec::Diagnostic>(json).unwrap(), nowhere);
}
