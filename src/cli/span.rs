//! Spans of time, as people type and read them.

use std::time::Duration;

/// Reads `90s`, `1h 30m` or `PT90S`. A number without a unit is refused: peers disagree on
/// whether it means seconds or minutes.
///
/// # Errors
///
/// If it is no span, is negative, or has no unit.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text} of what? Say {text}s or {text}m"));
    }
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| format!("{text:?} is no span of time; say 90s or 1h30m"))?;
    Duration::try_from(span).map_err(|_| "a span of time cannot be negative".to_owned())
}

/// Writes a span in at most two units and seven characters, to be compared at a glance.
pub(crate) fn show(span_ms: u64) -> String {
    let seconds = span_ms / 1_000;
    match seconds {
        0 => format!("{span_ms}ms"),
        1..=9 => format!("{}.{}s", seconds, span_ms % 1_000 / 100),
        10..=59 => format!("{seconds}s"),
        60..=3_599 => two(seconds / 60, 'm', seconds % 60, 's'),
        3_600..=86_399 => two(seconds / 3_600, 'h', seconds / 60 % 60, 'm'),
        86_400.. => two(seconds / 86_400, 'd', seconds / 3_600 % 24, 'h'),
    }
}

fn two(great: u64, great_unit: char, small: u64, small_unit: char) -> String {
    if small == 0 {
        format!("{great}{great_unit}")
    } else {
        format!("{great}{great_unit}{small}{small_unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_needs_a_unit() {
        assert_eq!(parse("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(parse("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse("30").unwrap_err(), "30 of what? Say 30s or 30m");
        assert_eq!(parse("-3s").unwrap_err(), "a span of time cannot be negative");
        assert!(parse("soon").unwrap_err().contains("90s"));
    }

    #[test]
    fn a_span_is_shown_in_two_units() {
        let shown = [0, 999, 1_000, 9_990, 12_345, 60_000, 61_000, 3_600_000, 100_000_000];
        let shown: Vec<_> = shown.into_iter().map(show).collect();
        assert_eq!(shown, ["0ms", "999ms", "1.0s", "9.9s", "12s", "1m", "1m1s", "1h", "1d3h"]);
    }
}
