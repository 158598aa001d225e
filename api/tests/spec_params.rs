//! What a run is given, against what its workflow declares.

use quorate_api::spec::{self, Code};
use quorate_expression::{Context, RunFacts, Zone};
use quorate_model::command::PARAMS_BYTES_MAX;
use quorate_model::workflow::Definition;
use serde_json::{Map, Value, json};

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
    resolve_for(&definition(), &given)
}

/// About the end of the leap day of 2028 in Paris, when it is still that day in UTC.
fn resolve_for(definition: &Definition, given: &Map<String, Value>) -> Result<Value, String> {
    let mut context = Context::default();
    let zone = definition.timezone.as_deref().and_then(Zone::named).unwrap_or_default();
    let logical_time_ms = zone.unix_ms("2028-02-29T22:30:00Z").expect("it is a time");
    let (id, trigger) = ("7".to_owned(), "manual".to_owned());
    context.set_run(&RunFacts { id, trigger, logical_time_ms, zone });
    spec::resolve_params(definition, given, context)
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

fn parsed(params: &str) -> Definition {
    let text = format!("timezone: Asia/Shanghai\nparams:\n{params}\nrun: \"true\"\n");
    match spec::parse(&text, Some("params")) {
        Ok(parsed) => parsed.definition,
        Err(found) => panic!("{}", spec::render_text(&found, "params.yaml", &text)),
    }
}

fn refused(params: &str) -> String {
    let text = format!("params:\n{params}\nrun: \"true\"\n");
    let found = spec::parse(&text, Some("params")).expect_err("the document is wrong");
    found.into_iter().map(|one| format!("{}\n", one.message)).collect()
}

fn given(definition: &Definition, given: &Value) -> Result<Value, String> {
    resolve_for(definition, given.as_object().expect("parameters are an object"))
}

#[test]
fn a_default_is_a_template_over_the_run_and_other_parameters() {
    let definition = parsed(
        r#"
  month: {type: string, default: "${{ params.day | date('yyyy-MM') }}"}
  day: {type: date, default: "${{ run.logical_time | date }}"}
  before: {type: date, default: "${{ params['day'] | add_days(-1) }}"}
  at: {type: datetime, default: "${{ run.logical_time }}"}
  count: {type: int, default: "${{ params.parts | length }}"}
  twice: {type: float, default: "${{ params.count }}.5"}
  parts: ["${{ params.month }}", "b"]
  name: "${{ workflow.name }} ${{ run.trigger }} ${{ ds_nodash }}"
  plain: "${HOME} {{ dbt }}""#,
    );
    let all = json!({
        "month": "2028-03", "day": "2028-03-01", "before": "2028-02-29",
        "at": "2028-03-01T06:30:00+08:00", "count": 2, "twice": 2.5, "parts": ["2028-03", "b"],
        "name": "params manual 20280301", "plain": "${HOME} {{ dbt }}",
    });
    let mut context = Context::default();
    context.set("workflow", &json!({"name": "params"}));
    let zone = Zone::named("Asia/Shanghai").unwrap();
    let logical_time_ms = zone.unix_ms("2028-02-29T22:30:00Z").unwrap();
    let (id, trigger) = ("7".to_owned(), "manual".to_owned());
    context.set_run(&RunFacts { id, trigger, logical_time_ms, zone });
    let params = spec::resolve_params(&definition, &Map::new(), context).unwrap();
    assert_eq!(params.value(), all);
}

#[test]
fn what_is_given_is_never_evaluated() {
    let definition = parsed("  a: x\n  b: \"${{ params.a }}\"");
    let params = given(&definition, &json!({"a": "${{ run.id }}"})).unwrap();
    assert_eq!(params, json!({"a": "${{ run.id }}", "b": "${{ run.id }}"}));
}

#[test]
fn a_default_that_does_not_evaluate_is_named() {
    let definition = parsed(
        "  n: {type: int, default: \"${{ ds }}\"}\n  day: {type: date, default: \"${{ '2027-02-29' | date }}\"}",
    );
    let expected = "\
params: error: the default of the parameter `day`: date: \"2027-02-29\" is neither a date nor a date-time
params: error: the parameter `n` must be of type int
  = help: say, for example, -p n=3
";
    assert_eq!(given(&definition, &json!({})).unwrap_err(), expected);
}

const RULES: &str = r#"
  region: {type: enum, enum: [eu, us], default: eu}
  code: {type: string, pattern: "[a-z]{2}[0-9]+", min_length: 4, max_length: 6, default: ab12}
  n: {type: int, min: 1, max: 10, default: 1}
  share: {type: float, min: 0, max: 1.5, enum: [0, 0.5, 1.5, 7], default: 0.5}
  day: {type: date, min: 2026-01-01, max: "20261231", default: 2026-02-28}
  at: {type: datetime, min: 2026-01-01T00:00, default: "2026-02-28T10:00Z"}
  list: {type: list, min_length: 1, max_length: 2, default: [1]}"#;

#[test]
fn values_at_the_limits_are_taken() {
    let definition = parsed(RULES);
    let least = json!({
        "region": "us", "code": "zz99", "n": 1, "share": 0, "day": "2026-01-01",
        "at": "2026-01-01T00:00:00+08:00", "list": [0],
    });
    assert_eq!(given(&definition, &least), Ok(least));
    let most = json!({
        "region": "us", "code": "zz9999", "n": 10, "share": 1.5, "day": "20261231",
        "at": "2026-12-31T23:59:59Z", "list": [0, 0],
    });
    let params = given(&definition, &most).unwrap();
    assert_eq!(params["day"], "2026-12-31");
    assert_eq!(params["at"], "2027-01-01T07:59:59+08:00");
    assert_eq!(given(&definition, &json!({})).unwrap()["at"], "2026-02-28T18:00:00+08:00");
}

#[test]
fn every_rule_that_is_broken_is_told_at_once() {
    let definition = parsed(RULES);
    let wrong = json!({
        "region": "uk", "code": "ab12; rm", "n": 0, "share": 7, "day": "2027-01-01",
        "at": "2025-12-31T23:59:59+08:00", "list": [],
    });
    let expected = "\
params: error: the parameter `at` must be 2026-01-01T00:00:00+08:00 or later
params: error: the parameter `code` must match [a-z]{2}[0-9]+
params: error: the parameter `day` must be 2026-12-31 or earlier
params: error: the parameter `list` must have at least 1 items, not 0
params: error: the parameter `n` must be 1 or more
params: error: the parameter `region` must be one of eu, us
params: error: the parameter `share` must be 1.5 or less
";
    assert_eq!(given(&definition, &wrong).unwrap_err(), expected);
    for (name, value, rule) in [
        ("code", json!("ab1"), "have at least 4 characters, not 3"),
        ("code", json!("ab12345"), "have at most 6 characters, not 7"),
        ("n", json!(11), "be 10 or less"),
        ("share", json!(1), "be one of 0, 0.5, 1.5, 7"),
        ("list", json!([1, 2, 3]), "have at most 2 items, not 3"),
        ("day", json!("2026-02-30"), "be of type date"),
        ("at", json!("2026-02-28"), "be of type datetime"),
    ] {
        let found = given(&definition, &json!({name: value})).unwrap_err();
        assert!(found.contains(&format!("`{name}` must {rule}\n")), "{found}");
    }
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    for (param, told) in [
        ("  a: {type: enum, default: x}", "a parameter of type enum needs its values"),
        ("  a: {enum: [], default: x}", "`enum` has 0 values; give 1 to 256"),
        ("  a: {enum: [x, y], default: z}", "the default must be one of x, y"),
        ("  a: {type: int, enum: [1, x], default: 1}", "`enum[1]` must be of type int, not a text"),
        ("  a: {type: int, pattern: x, default: 1}", "`pattern` is for texts, not for type int"),
        (
            "  a: {pattern: \"[a-\", default: x}",
            "`pattern` is no regular expression: unclosed character class",
        ),
        ("  a: {min: 3, default: x}", "`min` is for numbers and times, not for type string"),
        ("  a: {type: int, min: 3, max: 2, required: true}", "no value is between these limits"),
        (
            "  a: {type: string, min_length: 3, max_length: 2, required: true}",
            "no value is between these limits",
        ),
        ("  a: {type: date, default: 2027-02-29}", "the default must be of type date"),
        ("  a: {type: date, min: soon, required: true}", "`min` must be of type date, not a text"),
        (
            "  a: {type: bool, enum: [true], default: true}",
            "`enum` is for texts, numbers and times, not for type bool",
        ),
        (
            "  a: \"${{ params.b }}\"\n  b: \"${{ params['c'] }}\"\n  c: \"${{ params.a }}\"\n  d: 1",
            "defaults that wait for each other: a, b, c",
        ),
        ("  a: \"${{ params.a }}\"", "defaults that wait for each other: a"),
        ("  a: \"${{ tasks.main.state }}\"", "`tasks.main` cannot be known when the run starts"),
        ("  a: \"${{ workflow.version }}\"", "`workflow` has no field `version`"),
        ("  a: \"${{ params.b }}\"", "`params.b` is not declared"),
    ] {
        assert_eq!(refused(param), format!("{told}\n"), "{param}");
    }
}
