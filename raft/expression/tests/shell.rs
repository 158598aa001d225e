//! F7: whatever a value says, `shell_quote` makes one word of it that a real shell takes for
//! exactly that value.

use std::path::Path;
use std::process::{Command, Stdio};

use quorate_expression::{Context, render};
use quorate_fuzz::Fuzz;
use serde_json::json;

/// What one argument of a process may take, with its script around it: Linux has 128 KiB.
const VALUE_BYTES_MAX: usize = 16 * 1024;

/// The input is the value.
fn quote(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(&input[..input.len().min(VALUE_BYTES_MAX)]);
    let mut context = Context::default();
    context.set("params", &json!({"value": text}));
    // Words before and behind, to see that it is one, and that the script ends where it should.
    let script = "printf '%s|' a ${{ params.value | shell_quote }} b; printf '%s' \"$#\"";
    let Ok(script) = render(script, &context) else {
        assert!(text.contains('\0'), "only a zero byte is refused");
        return "refused".to_owned();
    };
    let output = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .output()
        .expect("there is a shell");
    assert!(output.status.success(), "{script:?}: {output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("a|{text}|b|0"), "{script:?}");
    let is_plain = text.chars().all(|char| char.is_alphanumeric());
    if is_plain { "a plain word" } else { "a word with more in it" }.to_owned()
}

#[test]
fn no_value_gets_out_of_its_quotes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz/shell_quote");
    let demanded = &["a plain word", "a word with more in it", "refused"];
    Fuzz { corpus, seeds: Vec::new(), demanded }.run(quote);
}
