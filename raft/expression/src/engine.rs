//! The template engine, as it is set up here, and the ways to ask it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value as Item, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::Value;

use crate::{Context, ExpressionError, filter};

/// What one text may cost: instructions, and 64 bytes handled for each. A loop over a few
/// thousand items fits; text that doubles itself until the leader is out of memory does not.
pub const FUEL: u64 = 100_000;

/// What one text may come to, in bytes: it travels through the log.
pub const RENDERED_BYTES_MAX: usize = 256 * 1024;

/// A condition, or what stands between `${{` and `}}` where that is the whole text, in bytes.
/// Far beyond what a person can follow.
pub const EXPRESSION_BYTES_MAX: usize = 16 * 1024;

/// Names shown of those a text looks up; more do not help to find the mistake.
const NAMES_SHOWN_MAX: usize = 10;

/// Bytes shown of a value that is not what was wanted.
const VALUE_SHOWN_MAX: usize = 60;

const OPEN: &str = "${{";
const CLOSE: &str = "}}";

/// Building an engine costs more than most templates.
static ENGINE: LazyLock<Environment<'static>> = LazyLock::new(engine);

/// Why a text cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct SyntaxError {
    /// In the words of the engine.
    pub reason: String,
    /// The line of the text it stands in, from 1.
    pub line: usize,
}

/// Whether there is anything in a text to evaluate.
#[must_use]
pub fn is_template(text: &str) -> bool {
    text.contains(OPEN)
}

/// What a text comes to.
///
/// # Errors
///
/// If it cannot be read, refers to what is not there, or costs or comes to too much.
pub fn render(text: &str, context: &Context) -> Result<String, ExpressionError> {
    let rendered = if is_template(text) {
        ENGINE.render_str(text, context.item()).map_err(|error| failed(&error, || names(text)))?
    } else {
        text.to_owned()
    };
    bounded(rendered.len())?;
    Ok(rendered)
}

/// What a text comes to, as a value: where all of it is one `${{ ... }}`, whatever stands in
/// there comes to, and text otherwise.
///
/// # Errors
///
/// As [`render`].
pub fn evaluate(text: &str, context: &Context) -> Result<Value, ExpressionError> {
    let Some(expression) = only_expression(text) else {
        return render(text, context).map(Value::String);
    };
    let value = value_of(expression, context)?;
    let text = filter::json(&value).map_err(|error| failed(&error, BTreeSet::new))?;
    // Deeper than JSON may be nested, it can be written and not be read.
    serde_json::from_str(&text)
        .map_err(|error| ExpressionError::Failed { reason: format!("comes to no value: {error}") })
}

/// Whether a condition holds: an expression, with or without `${{ }}` around it, that comes to
/// true or false. Nothing else counts as either: the text `"false"` would count as true.
///
/// # Errors
///
/// As [`render`], and if it comes to something else.
pub fn evaluate_condition(text: &str, context: &Context) -> Result<bool, ExpressionError> {
    let value = value_of(only_expression(text).unwrap_or(text), context)?;
    if value.kind() == ValueKind::Bool {
        return Ok(value.is_true());
    }
    let mut shown = if value.is_none() {
        "nothing".to_owned()
    } else if value.kind() == ValueKind::String {
        format!("the text {:?}", value.to_string())
    } else if value.is_number() {
        format!("the number {value}")
    } else {
        // Not the value itself: it may be small only until it is written.
        format!("a {}", value.kind())
    };
    if shown.len() > VALUE_SHOWN_MAX {
        shown.truncate(shown.floor_char_boundary(VALUE_SHOWN_MAX));
        shown.push('…');
    }
    Err(ExpressionError::NotACondition { value: shown })
}

/// The names that a text looks up, with their fields: `tasks.fetch.outputs.rows`. Nothing for
/// a text that is no template. A field given as a text, as in `tasks["fetch"]`, is left out:
/// then it is only `tasks`.
///
/// # Errors
///
/// If the text cannot be read.
pub fn references(text: &str) -> Result<BTreeSet<String>, SyntaxError> {
    if !is_template(text) {
        return Ok(BTreeSet::new());
    }
    let template = ENGINE.template_from_str(text).map_err(|error| syntax(&error))?;
    Ok(without_functions(template.undeclared_variables(true)))
}

/// As [`references`], of a condition.
///
/// # Errors
///
/// If it cannot be read.
pub fn references_of_condition(text: &str) -> Result<BTreeSet<String>, SyntaxError> {
    let text = only_expression(text).unwrap_or(text);
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(SyntaxError { reason: too_long(text), line: 1 });
    }
    let expression = ENGINE.compile_expression(text).map_err(|error| syntax(&error))?;
    Ok(without_functions(expression.undeclared_variables(true)))
}

/// What stands between `${{` and `}}`, if that is all there is.
fn only_expression(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix(OPEN)?.strip_suffix(CLOSE)?;
    // One more `${{` within would be another expression behind the first; within quotes it
    // is taken for one as well, and the text is rendered instead.
    (!inner.contains(OPEN) && !inner.starts_with('#')).then_some(inner)
}

fn value_of(expression: &str, context: &Context) -> Result<Item, ExpressionError> {
    if expression.len() > EXPRESSION_BYTES_MAX {
        return Err(ExpressionError::Failed { reason: too_long(expression) });
    }
    let names = || references_of_condition(expression).unwrap_or_default();
    let compiled = ENGINE.compile_expression(expression).map_err(|error| failed(&error, names))?;
    let value = compiled.eval(context.item()).map_err(|error| failed(&error, names))?;
    if value.is_undefined() {
        return Err(failed(&Error::from(ErrorKind::UndefinedError), names));
    }
    Ok(value)
}

fn too_long(expression: &str) -> String {
    let bytes = expression.len();
    format!("the expression takes {bytes} bytes; {EXPRESSION_BYTES_MAX} is the most")
}

fn bounded(bytes: usize) -> Result<(), ExpressionError> {
    if bytes > RENDERED_BYTES_MAX { Err(ExpressionError::TooLarge { bytes }) } else { Ok(()) }
}

fn names(text: &str) -> BTreeSet<String> {
    references(text).unwrap_or_default()
}

fn without_functions(names: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = names.into_iter().collect();
    for (function, _) in ENGINE.globals() {
        names.remove(function);
    }
    names
}

fn syntax(error: &Error) -> SyntaxError {
    SyntaxError { reason: words(error), line: error.line().unwrap_or(1) }
}

fn words(error: &Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

/// Says what is wrong, and where. Of what is undefined the engine does not know the name; so
/// all that the text looks up are named.
fn failed(error: &Error, names: impl FnOnce() -> BTreeSet<String>) -> ExpressionError {
    let mut reason = words(error);
    if error.kind() == ErrorKind::UndefinedError {
        let names = names();
        let names: Vec<&str> = names.iter().map(String::as_str).take(NAMES_SHOWN_MAX).collect();
        reason = format!("{reason} among {}", names.join(", "));
    }
    if let Some(line) = error.line().filter(|&line| line > 1) {
        reason = format!("{reason} (line {line})");
    }
    ExpressionError::Failed { reason }
}

fn engine() -> Environment<'static> {
    let mut engine = Environment::new();
    let syntax = SyntaxConfig::builder()
        .block_delimiters("${%", "%}")
        .variable_delimiters(OPEN, CLOSE)
        // Not `${#`: that is the length of a variable in every shell.
        .comment_delimiters("${{#", "#}}")
        .keep_trailing_newline(true)
        .build()
        .expect("the delimiters differ");
    engine.set_syntax(syntax);
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_fuel(Some(FUEL));
    engine.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    filter::add(&mut engine);
    engine
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Outcome;

    fn names(text: &str) -> Vec<String> {
        references(text).unwrap().into_iter().collect()
    }

    #[test]
    fn names_what_a_template_looks_up() {
        assert_eq!(names("no template: ${HOME} {{ dbt }} ${#HOME}"), Vec::<String>::new());
        let text = "${{ params.day }} ${{ tasks.a.outputs.n | int + range(3)[0] }}";
        assert_eq!(names(text), ["params.day", "tasks.a.outputs.n"]);
        assert_eq!(names("${{ tasks['a b'].state }}"), ["tasks"]);
        assert_eq!(names("${{ success() or params.x }}"), ["params.x"]);
    }

    #[test]
    fn leaves_the_expansions_of_a_shell_alone() {
        let text = "${#list} ${{ params.day }} ${list#*} ${{# gone #}}!";
        assert_eq!(names(text), ["params.day"]);
        assert_eq!(rendered(text).unwrap(), "${#list} monday ${list#*} !");
    }

    #[test]
    fn tells_the_line_of_a_mistake() {
        let error = references("a\nb\nc ${{ params. }}").unwrap_err();
        let expected = "unexpected end of variable block, expected identifier or integer";
        assert_eq!((error.line, error.reason.as_str()), (3, expected));
    }

    fn context() -> Context {
        let mut context = Context::default();
        let params = json!({
            "day": "monday", "n": 3, "yes": true, "list": ["a", "b"], "long": "x".repeat(200_000),
            "text": "false", "quote": "it's $(a) \"test\"", "none": null,
        });
        context.set("params", &params);
        context.set("tasks", &json!({"a": {"state": "failed", "outputs": {"rows": "12"}}}));
        context.set_outcome(Outcome::Failure);
        context
    }

    fn rendered(text: &str) -> Result<String, ExpressionError> {
        render(text, &context())
    }

    fn reason(text: &str) -> String {
        rendered(text).unwrap_err().to_string()
    }

    #[test]
    fn evaluates_expressions() {
        assert_eq!(rendered("${{ params.day | upper }} ${{ 1 + 1 }}").unwrap(), "MONDAY 2");
        assert_eq!(rendered("a\n${{ params['day'] }}\n").unwrap(), "a\nmonday\n");
        assert_eq!(rendered("${{ '<&>' }}").unwrap(), "<&>", "nothing is escaped");
        assert_eq!(rendered("${{ params.yes }} ${{ 1 > 2 }}").unwrap(), "true false");
        assert_eq!(
            rendered("${{ params.list }} ${{ {'a': none} }}").unwrap(),
            r#"["a","b"] {"a":null}"#
        );
        assert_eq!(rendered("<${{ params.none }}>").unwrap(), "<>");
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        assert_eq!(reason("${{ params.month }}"), "undefined value among params.month");
        assert_eq!(reason("\n${{ nothing }}"), "undefined value among nothing (line 2)");
        assert_eq!(rendered("${{ params.month | default('may') }}").unwrap(), "may");
    }

    #[test]
    fn the_leader_outlives_every_template() {
        for text in [
            "${{ 'x' * 100000000 }}",
            "${{ range(100000) | join('x' * 1000) }}",
            "${% for a in range(1000) %}${% for b in range(1000) %}x${% endfor %}${% endfor %}${{ 1 }}",
            "${% set x = namespace(v='xx') %}${% for i in range(60) %}${% set x.v = x.v ~ x.v %}${% endfor %}${{ 1 }}",
            "${% macro f() %}${{ f() }}${% endmacro %}${{ f() }}",
            "${{ params.long ~ params.long }}",
            "${{ [params.long] * 1000 }}",
            "${{ ([params.long] * 1000) | json }}",
            "${{ ([params.long] * 1000) | shell_quote }}",
            "${{ ([params.long] * 1000) | date }}",
        ] {
            assert!(rendered(text).is_err(), "{text}");
            assert!(evaluate(text, &context()).is_err(), "{text}");
        }
        let deep = format!("{}1{}", "(".repeat(8_000), ")".repeat(8_000));
        assert!(evaluate_condition(&deep, &context()).is_err());
        let long = format!("true{}", " ".repeat(EXPRESSION_BYTES_MAX));
        assert!(evaluate_condition(&long[..EXPRESSION_BYTES_MAX], &context()).unwrap());
        let told = "the expression takes 16388 bytes; 16384 is the most";
        assert_eq!(evaluate_condition(&long, &context()).unwrap_err().to_string(), told);
        assert_eq!(references_of_condition(&long).unwrap_err().reason, told);
    }

    #[test]
    fn a_whole_expression_keeps_its_type() {
        let evaluate = |text| evaluate(text, &context()).unwrap();
        assert_eq!(evaluate("${{ params.list }}"), json!(["a", "b"]));
        assert_eq!(evaluate(" ${{ params.n + 1 }}\n"), json!(4));
        assert_eq!(evaluate("${{ params.none }}"), json!(null));
        assert_eq!(evaluate("${{ '[1, {\"k\": 2}]' | from_json }}"), json!([1, {"k": 2}]));
        assert_eq!(evaluate("n=${{ params.n }}"), json!("n=3"));
        assert_eq!(evaluate("${{ params.n }}${{ params.n }}"), json!("33"));
        assert_eq!(evaluate("${{ '${{' }}"), json!("${{"));
        let mut deep = Context::default();
        deep.set("it", &(0..120).fold(json!(1), |inner, _| json!([inner])));
        assert!(super::evaluate("${{ it }}", &deep).is_ok());
        assert!(super::evaluate("${{ [[[[[[[[[[it]]]]]]]]]] }}", &deep).is_err());
        assert_eq!(evaluate("plain"), json!("plain"));
    }

    #[test]
    fn a_condition_is_true_or_false_and_nothing_else() {
        let holds = |text| evaluate_condition(text, &context()).map_err(|error| error.to_string());
        assert_eq!(holds("params.day == 'monday' and tasks.a.outputs.rows | int > 10"), Ok(true));
        assert_eq!(holds("${{ params.n > 3 }}"), Ok(false));
        assert_eq!(holds("params.yes"), Ok(true));
        assert_eq!(
            holds("tasks.a.state == 'failed' and tasks['a'].outputs.rows == '12'"),
            Ok(true)
        );
        assert_eq!(holds("tasks.b is defined"), Ok(false));
        assert_eq!(holds("failure() and always() and not success()"), Ok(true));

        let other = "which is neither true nor false; compare it with something";
        assert_eq!(holds("params.text"), Err(format!("comes to the text \"false\", {other}")));
        assert_eq!(holds("params.n"), Err(format!("comes to the number 3, {other}")));
        assert_eq!(holds("params.none"), Err(format!("comes to nothing, {other}")));
        assert!(holds("params.long").unwrap_err().len() < 200);
        assert_eq!(holds("params.list"), Err(format!("comes to a sequence, {other}")));
        assert_eq!(holds("params.gone"), Err("undefined value among params.gone".to_owned()));
        assert_eq!(holds("params.gone > 1"), Err("undefined value among params.gone".to_owned()));
        assert!(holds("params.n = 3").is_err() && holds("").is_err() && holds("1 2").is_err());
        assert!(holds("${{ true }} ${{ true }}").is_err());
    }

    #[test]
    fn the_outcome_is_known_only_where_it_is_given() {
        let told = "success() and failure() are about what a task comes after: not known here";
        let error = evaluate_condition("success()", &Context::default()).unwrap_err();
        assert_eq!(error.to_string(), told);
        assert!(evaluate_condition("always()", &Context::default()).unwrap());
    }

    #[test]
    fn quotes_one_word_for_a_shell() {
        let quoted = rendered("${{ params.quote | shell_quote }}").unwrap();
        assert_eq!(quoted, r#"'it'\''s $(a) "test"'"#);
        assert_eq!(rendered("${{ params.list | shell_quote }}").unwrap(), r#"'["a","b"]'"#);
        assert_eq!(rendered("${{ params.n | shell_quote }}").unwrap(), "'3'");
        assert_eq!(rendered("${{ params.yes | shell_quote }}").unwrap(), "'true'");
        assert!(rendered("${{ params.none | shell_quote }}").is_err());
        assert!(rendered("${{ 'a\\0b' | shell_quote }}").is_err());
    }

    #[test]
    fn json_is_not_escaped_for_html() {
        assert_eq!(rendered("${{ {'a': '<&>'} | json }}").unwrap(), r#"{"a":"<&>"}"#);
        assert!(reason("${{ 'nope' | from_json }}").starts_with("from_json: not JSON"));
    }
}
