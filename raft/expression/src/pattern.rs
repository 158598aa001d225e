//! Formats of dates: `%Y%m%d`, as in C and Python, or `yyyyMMdd`, as in Java.
//!
//! Which of the two a format is needs no saying: without a `%`, the first would be a text that
//! never changes.

use jiff::Zoned;
use jiff::fmt::strtime;

/// The longest format, in bytes.
const FORMAT_BYTES_MAX: usize = 256;

/// Formats an instant.
pub(crate) fn format(instant: &Zoned, format: &str) -> Result<String, String> {
    if format.len() > FORMAT_BYTES_MAX {
        return Err(format!(
            "the format takes {} bytes; {FORMAT_BYTES_MAX} is the most",
            format.len()
        ));
    }
    if format.contains('%') {
        return strtime::format(format, instant)
            .map_err(|error| format!("format {format:?}: {error}"));
    }
    let mut text = String::new();
    let mut rest = format;
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            rest = literal(&rest[1..], &mut text)?;
            continue;
        }
        let run = rest.find(|other| other != first).unwrap_or(rest.len());
        if first.is_ascii_alphabetic() {
            let width = run / first.len_utf8();
            let field = field(instant, first, width);
            text.push_str(&field.ok_or_else(|| unknown(&rest[..run], format))?);
        } else {
            text.push_str(&rest[..run]);
        }
        rest = &rest[run..];
    }
    Ok(text)
}

fn unknown(letters: &str, format: &str) -> String {
    format!(
        "format {format:?}: `{letters}` stands for nothing; yyyy MM dd HH mm ss do, and so do %Y %m %d %H %M %S; text goes between single quotes"
    )
}

/// What stands between quotes; two of them are one.
fn literal<'f>(rest: &'f str, text: &mut String) -> Result<&'f str, String> {
    if let Some(rest) = rest.strip_prefix('\'') {
        text.push('\'');
        return Ok(rest);
    }
    let mut parts = rest;
    loop {
        let Some((part, behind)) = parts.split_once('\'') else {
            return Err("a quote in the format is never closed".to_owned());
        };
        text.push_str(part);
        match behind.strip_prefix('\'') {
            Some(behind) => {
                text.push('\'');
                parts = behind;
            }
            None => return Ok(behind),
        }
    }
}

/// A field by its letter and how often it stands there. Weeks are those of ISO 8601: Java's
/// depend on where it runs.
fn field(instant: &Zoned, letter: char, width: usize) -> Option<String> {
    let padded = |number: i64| format!("{number:0width$}");
    let strftime = |format: &str| strtime::format(format, instant).ok();
    let week = instant.date().iso_week_date();
    let hour = i64::from(instant.hour());
    Some(match (letter, width) {
        ('y' | 'u', 2) => format!("{:02}", instant.year().rem_euclid(100)),
        ('y' | 'u', _) => padded(instant.year().into()),
        ('Y', 2) => format!("{:02}", week.year().rem_euclid(100)),
        ('Y', _) => padded(week.year().into()),
        ('Q' | 'q', 1 | 2) => padded(i64::from((instant.month() - 1) / 3 + 1)),
        ('M' | 'L', 1 | 2) => padded(instant.month().into()),
        ('M' | 'L', 3) => strftime("%b")?,
        ('M' | 'L', 4) => strftime("%B")?,
        ('w', 1 | 2) => padded(week.week().into()),
        ('d', 1 | 2) => padded(instant.day().into()),
        ('D', 1..=3) => padded(instant.day_of_year().into()),
        ('E', 1..=3) => strftime("%a")?,
        ('E', 4) => strftime("%A")?,
        ('e', 1 | 2) => padded(instant.weekday().to_monday_one_offset().into()),
        ('a', 1) => strftime("%p")?,
        ('H', 1 | 2) => padded(hour),
        ('k', 1 | 2) => padded(if hour == 0 { 24 } else { hour }),
        ('K', 1 | 2) => padded(hour % 12),
        ('h', 1 | 2) => padded(if hour % 12 == 0 { 12 } else { hour % 12 }),
        ('m', 1 | 2) => padded(instant.minute().into()),
        ('s', 1 | 2) => padded(instant.second().into()),
        ('S', 1..=9) => format!("{:09}", instant.subsec_nanosecond())[..width].to_owned(),
        ('X', _) if instant.offset().is_zero() => "Z".to_owned(),
        ('X' | 'x', 1) => strftime("%z")?[..3].to_owned(),
        ('X' | 'x', 2) | ('Z', 1..=3) => strftime("%z")?,
        ('X' | 'x', 3) => strftime("%:z")?,
        ('z', 1..=3) => strftime("%Z")?,
        ('V', 2) => strftime("%Q")?,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::time::{Moment, Zone};

    fn format(format: &str) -> Result<String, String> {
        let zone = Zone::named("Europe/Paris").unwrap();
        let moment = Moment::read("2027-01-02T00:04:05.067+01:00", &zone).unwrap();
        super::format(&moment.begin(&zone).unwrap(), format)
    }

    #[test]
    fn knows_the_letters_of_java() {
        for (pattern, expected) in [
            ("yyyyMMddHHmmss", "20270102000405"),
            ("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "2027-01-02T00:04:05.067+01:00"),
            ("yy M d H m s", "27 1 2 0 4 5"),
            ("YYYY-'W'ww", "2026-W53"),
            ("EEE, d MMM yyyy", "Sat, 2 Jan 2027"),
            ("EEEE MMMM", "Saturday January"),
            ("h:mm a", "12:04 AM"),
            ("kk KK", "24 00"),
            ("D DDD e Q", "2 002 6 1"),
            ("Z X VV", "+0100 +01 Europe/Paris"),
            ("''yy'o''clock'", "'27o'clock"),
            ("", ""),
            ("2026年", "2026年"),
        ] {
            assert_eq!(format(pattern).as_deref(), Ok(expected), "{pattern}");
        }
    }

    #[test]
    fn knows_the_directives_of_c() {
        assert_eq!(
            format("%Y%m%d %G-W%V %j %H%M%S").as_deref(),
            Ok("20270102 2026-W53 002 000405")
        );
    }

    #[test]
    fn refuses_what_stands_for_nothing() {
        assert!(format("yyyy-mm-dd at").unwrap_err().contains("`t` stands for nothing"));
        assert!(format("yyyyy-MMMMM").unwrap_err().contains("`MMMMM`"));
        assert!(format("'open").unwrap_err().contains("never closed"));
        assert!(format("%J").is_err());
        assert!(format(&"%Y".repeat(200)).unwrap_err().contains("256 is the most"));
    }
}
