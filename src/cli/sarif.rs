//! Findings as SARIF 2.1.0, which code hosts and editors gather.

use quorate_api::spec::{Diagnostic, Label, Severity, Span};
use serde_json::{Value, json};

/// The log of one run of the checker over files, each with what was found in it.
pub(super) fn log<'a>(files: impl IntoIterator<Item = (&'a str, &'a [Diagnostic])>) -> Value {
    let mut results = Vec::new();
    let mut rules: Vec<Value> = Vec::new();
    for (file, found) in files {
        for finding in found {
            let rule = json!({"id": finding.code});
            if !rules.contains(&rule) {
                rules.push(rule);
            }
            results.push(result(file, finding));
        }
    }
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "quorate",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn result(file: &str, finding: &Diagnostic) -> Value {
    let Diagnostic { severity, code, message, span, pointer: _, labels, help } = finding;
    let text = match help {
        Some(help) => format!("{message}; {help}"),
        None => message.clone(),
    };
    let level = match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let mut result = json!({
        "ruleId": code,
        "level": level,
        "message": {"text": text},
        "locations": [location(file, *span)],
    });
    if !labels.is_empty() {
        result["relatedLocations"] = labels.iter().map(|label| related(file, label)).collect();
    }
    result
}

fn related(file: &str, label: &Label) -> Value {
    let mut location = location(file, Some(label.span));
    location["message"] = json!({"text": label.message});
    location
}

fn location(file: &str, span: Option<Span>) -> Value {
    let mut place = json!({"artifactLocation": {"uri": uri(file)}});
    if let Some(Span { line, column, end_line, end_column }) = span {
        place["region"] = json!({
            "startLine": line,
            "startColumn": column,
            "endLine": end_line,
            "endColumn": end_column,
        });
    }
    json!({"physicalLocation": place})
}

/// A path as a relative URI.
fn uri(file: &str) -> String {
    let mut uri = String::with_capacity(file.len());
    for byte in file.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use quorate_api::spec::Code;

    use super::*;

    #[test]
    fn a_finding_has_its_rule_its_place_and_the_places_beside() {
        let at = |line| Span { line, column: 2, end_line: line, end_column: 5 };
        let found = Diagnostic::new(Severity::Warning, Code::Cycle, "round and round")
            .with_help("stop")
            .at(at(3), "/tasks/0")
            .with_label(at(7), "and back");
        let log = log([("a b.yaml", &[found.clone(), found][..])]);
        let run = &log["runs"][0];
        assert_eq!(run["tool"]["driver"]["rules"], json!([{"id": "cycle"}]));
        let result = &run["results"][1];
        assert_eq!(result["ruleId"], "cycle");
        assert_eq!(result["level"], "warning");
        assert_eq!(result["message"]["text"], "round and round; stop");
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "a%20b.yaml");
        assert_eq!(place["region"]["startLine"], 3);
        let beside = &result["relatedLocations"][0];
        assert_eq!(beside["message"]["text"], "and back");
        assert_eq!(beside["physicalLocation"]["region"]["startLine"], 7);
    }
}
