//! F7: whatever an expression says, it comes to a bounded value or to a reason, and soon; what
//! can be evaluated can be checked before.

use std::path::Path;

use quorate_expression::{
    Context, Outcome, RENDERED_BYTES_MAX, RunFacts, Zone, evaluate, evaluate_condition, references,
    references_of_condition, render,
};
use quorate_fuzz::Fuzz;
use serde_json::json;

/// What a reason may come to: it is shown to people, and stands in the log.
const REASON_BYTES_MAX: usize = 64 * 1024;

/// The input is an expression, and behind the first zero the value of a param.
fn evaluate_all(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    let (expression, value) = text.split_once('\0').unwrap_or((&text, "2028-02-29"));
    let context = context(value);
    let whole = format!("${{{{ {expression} }}}}");
    if let Ok(rendered) = render(&whole, &context) {
        assert!(rendered.len() <= RENDERED_BYTES_MAX);
        assert!(references(&whole).is_ok(), "what can be rendered can be read");
    }
    if let Ok(value) = evaluate(&whole, &context) {
        assert!(value.to_string().len() <= RENDERED_BYTES_MAX);
    }
    match evaluate_condition(expression, &context) {
        Ok(holds) => {
            assert!(references_of_condition(expression).is_ok(), "what holds can be read");
            if holds { "true" } else { "false" }.to_owned()
        }
        Err(error) => {
            assert!(error.to_string().len() <= REASON_BYTES_MAX, "a reason is for people");
            "a reason".to_owned()
        }
    }
}

fn context(value: &str) -> Context {
    let mut context = Context::default();
    context.set_run(&RunFacts {
        id: "7".to_owned(),
        trigger: "manual".to_owned(),
        logical_time_ms: 1_774_744_200_000,
        zone: Zone::named("Europe/Paris").expect("a zone"),
    });
    context.set("params", &json!({"value": value, "n": 3, "list": ["a", {"b": null}]}));
    context.set_outcome(Outcome::Failure);
    context
}

#[test]
fn no_expression_panics_or_goes_on_for_ever() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz/expression");
    let demanded = &["true", "false", "a reason"];
    Fuzz { corpus, seeds: Vec::new(), demanded }.run(evaluate_all);
}
