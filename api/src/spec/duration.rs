//! Time spans as people write them: always with a unit.

use jiff::{Span, SpanRelativeTo, Unit};
use quorate_model::DurationMs;

/// The longest time span that a workflow may name: ten years.
pub const DURATION_MAX: DurationMs = DurationMs(3_652 * 24 * 3_600 * 1_000);

/// Reads `90s`, `1h 30m` or `PT5M`. Days are 24 hours and weeks are 7 days.
///
/// # Errors
///
/// What is wrong with it, and what to say instead.
pub(super) fn parse(text: &str) -> Result<DurationMs, (String, String)> {
    let trimmed = text.trim();
    if !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let message = format!("{text:?} has no unit");
        return Err((message, format!("say {trimmed}s or {trimmed}m")));
    }
    let example = || "say, for example, 90s, 1h 30m or PT5M".to_owned();
    let wrong = || (format!("{text:?} is no time span"), example());
    // A clock's 1:30 could be minutes or hours.
    let span: Span = if trimmed.contains(':') { Err(wrong()) } else { parse_span(trimmed, wrong) }?;
    if span.get_years() != 0 || span.get_months() != 0 {
        let message = format!("{text:?} depends on the calendar");
        return Err((message, "say it in days, hours, minutes or seconds".to_owned()));
    }
    let total = span.total((Unit::Millisecond, SpanRelativeTo::days_are_24_hours()));
    from_ms(total.map_err(|_| wrong())?).map_err(|message| (message, example()))
}

fn parse_span<E>(text: &str, wrong: impl FnOnce() -> E) -> Result<Span, E> {
    text.parse().map_err(|_| wrong())
}

/// A time span from a number of milliseconds.
pub(super) fn from_ms(ms: f64) -> Result<DurationMs, String> {
    if ms < 0.0 {
        return Err("a time span cannot be negative".to_owned());
    }
    if ms > 0.0 && ms < 1.0 {
        return Err("a millisecond is the shortest time span".to_owned());
    }
    if !ms.is_finite() || ms > DURATION_MAX.0 as f64 {
        return Err("ten years is the longest time span".to_owned());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    Ok(DurationMs(ms.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> u64 {
        parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}")).0
    }

    #[test]
    fn takes_what_people_write() {
        assert_eq!(ms("90s"), 90_000);
        assert_eq!(ms("1h 30m"), 5_400_000);
        assert_eq!(ms("1h30m"), 5_400_000);
        assert_eq!(ms("PT5M"), 300_000);
        assert_eq!(ms("250ms"), 250);
        assert_eq!(ms("0.5s"), 500);
        assert_eq!(ms("2 days"), 172_800_000);
        assert_eq!(ms("1w"), 604_800_000);
        assert_eq!(ms("0s"), 0);
        assert_eq!(ms("3652d"), DURATION_MAX.0);
    }

    #[test]
    fn refuses_what_can_be_misread() {
        let refused = |text| parse(text).unwrap_err();
        assert_eq!(refused("30").1, "say 30s or 30m");
        assert_eq!(refused("1.5").1, "say 1.5s or 1.5m");
        for text in ["", "soon", "1:30", "10us", "-5s", "1mo", "1y", "3653d", "1e3s", "9999999999h"]
        {
            refused(text);
        }
    }
}
