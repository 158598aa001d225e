//! The JSON Schema of the workflow file, for editors: completion, hover, and red lines.
//!
//! `workflow.schema.json` is written by hand, for it says more than a table of keys can: types,
//! patterns, defaults, examples. The tests hold it to the tables that [`super::section`] reads
//! by, so that neither knows a key that the other does not, and to the reader itself: what
//! suits the schema is read, as far as a schema can say.
//!
//! It knows our words alone. Other programs' are understood by the reader, and `fmt` makes ours
//! of them.

/// The schema: draft 2020-12.
pub const JSON_SCHEMA: &str = include_str!("workflow.schema.json");

#[cfg(test)]
pub(super) mod generate;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::document::{self, Node};
    use super::super::kind::http;
    use super::super::section::Schema;
    use super::super::{Code, Severity, name_of_file, parse, render_text};
    use super::super::{approval, branch, hooks, params, retry, task, workflow};
    use super::{JSON_SCHEMA, generate};

    /// Each table of keys, and the mapping in the schema that it is of.
    const TABLES: [(&str, &Schema); 13] = [
        ("", &workflow::FILE),
        ("/$defs/task", &task::TASK),
        ("/$defs/defaults", &workflow::DEFAULTS),
        ("/$defs/arm", &branch::ARM),
        ("/$defs/approval", &approval::APPROVAL),
        ("/$defs/hooks", &hooks::HOOKS),
        ("/$defs/hook", &hooks::HOOK),
        ("/$defs/http", &http::HTTP),
        ("/$defs/expect", &http::EXPECT),
        ("/$defs/tls", &http::TLS),
        ("/$defs/job", &http::JOB),
        ("/$defs/retry", &retry::RETRY),
        ("/$defs/declared_param", &params::PARAM),
    ];

    fn schema() -> Value {
        serde_json::from_str(JSON_SCHEMA).expect("it is JSON")
    }

    #[test]
    fn knows_the_keys_that_the_reader_knows() {
        let schema = schema();
        for (pointer, table) in TABLES {
            let mapping = schema.pointer(pointer).expect("the mapping is described");
            let properties = mapping["properties"].as_object().expect("it has properties");
            let described: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
            let read: BTreeSet<&str> = table.keys.iter().copied().collect();
            assert_eq!(described, read, "workflow.schema.json{pointer}: {}", table.what);
        }
    }

    #[test]
    fn every_table_of_keys_is_held_to_it() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/spec");
        let tables: usize = sources(&folder)
            .iter()
            .map(|path| fs::read_to_string(path).expect("a source file is text"))
            .map(|text| text.matches(concat!(": Schema", " = Schema {")).count())
            .sum();
        assert_eq!(tables, TABLES.len(), "name each table here, and describe its mapping");
    }

    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).expect("the folder is there").flatten();
        let (folders, mut files): (Vec<_>, Vec<_>) =
            entries.map(|entry| entry.path()).partition(|path| path.is_dir());
        files.retain(|path| path.extension().is_some_and(|ending| ending == "rs"));
        files.extend(folders.iter().flat_map(|folder| sources(folder)));
        files
    }

    #[test]
    fn every_key_is_explained() {
        let schema = schema();
        for (pointer, _) in TABLES {
            let mapping = schema.pointer(pointer).expect("the mapping is described");
            for (key, property) in mapping["properties"].as_object().expect("it has properties") {
                let mut property = property;
                while property["description"].is_null() {
                    let path = property["$ref"].as_str().and_then(|path| path.strip_prefix('#'));
                    let path =
                        path.unwrap_or_else(|| panic!("{pointer}: `{key}` is not explained"));
                    property = schema.pointer(path).expect("what is referred to is there");
                }
            }
        }
    }

    #[test]
    fn is_a_schema_and_takes_what_the_reader_takes_without_a_remark() {
        let schema = schema();
        jsonschema::draft202012::meta::validate(&schema).expect("it is a schema");
        let validator = jsonschema::draft202012::new(&schema).expect("it can be used");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folders = [root.join("../examples"), root.join("../examples/postgres")];
        let mut checked = 0;
        for folder in folders.iter().chain([&root.join("testdata/spec")]) {
            for path in fs::read_dir(folder).expect("the folder is there").flatten() {
                let path = path.path();
                let Some(file) = path.to_str().filter(|file| file.ends_with(".yaml")) else {
                    continue;
                };
                let text = fs::read_to_string(&path).expect("a workflow file is text");
                let read = parse(&text, name_of_file(file).as_deref());
                if !read.is_ok_and(|read| read.warnings.is_empty()) {
                    continue;
                }
                let root = document::read(&text).expect("it was read before");
                let wrong: Vec<String> = validator
                    .iter_errors(&json(&root))
                    .map(|error| format!("{}: {error}", error.instance_path()))
                    .collect();
                assert!(wrong.is_empty(), "{file}: {wrong:#?}");
                checked += 1;
            }
        }
        assert!(checked >= 8, "{checked} files were checked");
    }

    fn json(node: &Node<'_>) -> Value {
        match &node.value {
            document::Value::Scalar(scalar) => scalar.json(),
            document::Value::List(items) => items.iter().map(json).collect(),
            document::Value::Map(entries) => {
                entries.iter().map(|(key, node)| (key.text.clone(), json(node))).collect()
            }
        }
    }

    /// What no schema says: which tasks there are, what comes before what, what a template
    /// looks up, and how much it is in all.
    const BEYOND: [Code; 8] = [
        Code::DuplicateTask,
        Code::UnknownTask,
        Code::Cycle,
        Code::TemplateSyntax,
        Code::UnknownReference,
        Code::Limit,
        Code::Conflict,
        Code::NotSupportedYet,
    ];

    proptest! {
        #[test]
        fn what_suits_the_schema_is_read(document in generate::document(&schema())) {
            let text = document.to_string();
            let found = parse(&text, Some("generated")).err().unwrap_or_default();
            let wrong: Vec<_> = found
                .into_iter()
                .filter(|found| found.severity == Severity::Error)
                // Whether a default is of its type is for the reader to say.
                .filter(|found| !found.pointer.starts_with("/params/"))
                .filter(|found| !found.pointer.contains("/inputs"))
                .filter(|found| !BEYOND.contains(&found.code))
                .collect();
            prop_assert!(wrong.is_empty(), "{}", render_text(&wrong, "generated", &text));
        }
    }
}
