//! Workflow files at the command line: begun, formatted, drawn, compared.

use std::fs;

use super::user::{Server, User, one_at_a_time};

#[test]
fn begins_a_file_that_runs_as_it_is() {
    let _gate = one_at_a_time();
    let user = User::new();
    let file = user.home.path().join("words.quorate.yaml");
    let line = format!("quorate init {}", file.display());
    user.types(&line).exits(0).says("quorate run ");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# yaml-language-server: $schema="), "{text}");
    assert!(text.contains("\nname: words\n"), "{text}");
    user.types(&line).exits(7).says("is there already");
    user.types(&format!("quorate validate {}", file.display())).exits(0).prints("words, 2 tasks");
    user.types(&format!("quorate fmt --check {}", file.display())).exits(0);
    user.types(&format!("quorate run {}", file.display())).exits(0).prints("words=3\n");
    user.types("quorate init ./.yaml").exits(2).says("quorate init daily-sales");
}

#[test]
fn tasks_in_sequence_come_one_after_another() {
    let _gate = one_at_a_time();
    let user = User::new();
    let ran = user.types("quorate run examples/sequential.quorate.yaml").exits(0);
    let at = |text: &str| ran.err.find(text).expect("it is said");
    assert!(at("✓ pack") < at("✓ check") && at("✓ check") < at("✓ report"), "{ran:#?}");
    user.types("quorate graph examples/sequential.quorate.yaml -o dot")
        .exits(0)
        .prints("\"pack\" -> \"check\";\n  \"check\" -> \"report\";\n}");
}

#[test]
fn prints_the_schema_for_editors() {
    let schema = User::new().types("quorate schema").exits(0).out;
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["$defs"]["task"]["properties"]["id"]["type"], "string");
}

#[test]
fn formats_in_place_and_says_what_it_changed() {
    let user = User::new();
    let messy = "tasks:\n- command: echo hi # loudly\n  id: a\n";
    let formatted = "tasks:\n  - id: a\n    run: echo hi # loudly\n";
    let file = user.file("messy.yaml", messy);
    user.types(&format!("quorate fmt --check {file}")).exits(1).prints("messy.yaml\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), messy, "--check writes nothing");
    user.types(&format!("quorate fmt {file}")).exits(0).prints("messy.yaml\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), formatted);
    assert_eq!(user.types(&format!("quorate fmt {file}")).exits(0).out, "");
    user.types(&format!("quorate fmt --check {file}")).exits(0);

    let broken = user.file("broken.yaml", "tasks:\n- id: a\n");
    user.types(&format!("quorate fmt {broken}")).exits(1).says("left as it is");
    assert_eq!(fs::read_to_string(&broken).unwrap(), "tasks:\n- id: a\n");
}

#[test]
fn draws_a_file_in_each_language() {
    let user = User::new();
    let etl = "examples/etl.quorate.yaml";
    user.types(&format!("quorate graph {etl}")).exits(0).prints("<svg ").prints("id=\"transform\"");
    user.types(&format!("quorate graph {etl} -o dot")).exits(0).prints("digraph \"etl\" {");
    user.types(&format!("quorate graph {etl} -o mermaid")).exits(0).prints("flowchart TB\n");
    user.types("quorate graph tests/cli/bad.yaml").exits(1).says("no valid workflow");
}

#[test]
fn tells_what_differs_by_meaning_and_by_exit_code() {
    let _gate = one_at_a_time();
    let mut user = User::new();
    let _server = Server::start(&mut user);
    let one = "name: twice\ntasks:\n  - {id: a, run: echo a, timeout: 60s}\n";
    let file = user.file("twice.yaml", one);
    user.types(&format!("quorate diff {file}")).exits(1).prints("+ twice: new, 1 tasks");
    user.types(&format!("quorate apply -f {file}")).exits(0);
    let same = "# The same.\nname: twice\ntasks:\n  - {timeout: 1m, run: echo a, id: a}\n";
    let same = user.file("same.yaml", same);
    assert_eq!(user.types(&format!("quorate diff {same}")).exits(0).out, "");

    let other = one.replace("60s", "2m") + "  - {id: b, needs: a, run: echo b}\n";
    let other = user.file("other.yaml", &other);
    let differs = user.types(&format!("quorate diff {other}")).exits(1);
    differs.prints("~ tasks.a.timeout: 1m -> 2m\n").prints("+ tasks.b: ");
    user.types(&format!("quorate apply -f {other}")).exits(0);
    user.types("quorate diff twice@1 twice").exits(1).prints("+ tasks.b: ");
    user.types("quorate diff twice twice@1").exits(1).prints("- tasks.b: ");
    let json = user.types(&format!("quorate diff twice {file} -o json")).exits(1).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["items"][0]["path"], "tasks.a.timeout");
    user.types("quorate diff tests/cli/bad.yaml").exits(2).says("no valid workflow");
    user.types("quorate diff nothing twice").exits(6);
    user.types("quorate graph twice@1 -o dot").exits(0).prints("\"a\";");
}
