//! Workflow files and what becomes of them: `testdata/spec/*.yaml`, each beside its `.out`.
//!
//! `UPDATE_GOLDENFILES=1 cargo test -p quorate-api --test spec` writes the outputs anew; read
//! the difference.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use quorate_api::spec::{self, name_of_file};

#[test]
fn every_file_becomes_what_is_expected() {
    let mut wrong = Vec::new();
    for path in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/spec")) {
        let source = fs::read_to_string(&path).unwrap();
        let file = path.file_name().unwrap().to_str().unwrap();
        let actual = outcome(file, &source);
        let golden = path.with_extension("out");
        if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
            fs::write(&golden, &actual).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != actual {
            wrong.push(format!("{file}: expected {}, found:\n{actual}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_example_is_accepted_without_a_remark() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut examples = files(&folder);
    examples.extend(files(&folder.join("postgres")));
    assert!(examples.len() >= 3, "the examples are where they are looked for");
    for path in examples {
        let source = fs::read_to_string(&path).unwrap();
        let file = path.file_name().unwrap().to_str().unwrap();
        let found = match spec::parse(&source, name_of_file(file).as_deref()) {
            Ok(parsed) => parsed.warnings,
            Err(found) => found,
        };
        assert!(found.is_empty(), "{}", spec::render_text(&found, file, &source));
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let is_document = |path: &PathBuf| {
        path.extension().is_some_and(|ending| ending == "yaml" || ending == "json")
    };
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(is_document).collect();
    files.sort();
    files
}

fn outcome(file: &str, source: &str) -> String {
    match spec::parse(source, name_of_file(file).as_deref()) {
        Ok(parsed) => {
            assert_eq!(parsed.definition.source, source);
            let mut definition = serde_json::to_value(&parsed.definition).unwrap();
            definition.as_object_mut().unwrap().remove("source");
            let warnings = spec::render_text(&parsed.warnings, file, source);
            format!("{warnings}{} = {definition:#}\n", parsed.name)
        }
        Err(found) => spec::render_text(&found, file, source),
    }
}
