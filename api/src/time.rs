//! Time on the wire: instants in RFC 3339, spans with their unit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use quorate_model::{DurationMs, UnixMs};
use serde::{Deserialize, Serialize};

/// An instant, written `2026-11-20T09:30:00.123Z`: UTC, to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(pub UnixMs);

impl Time {
    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Span {
        Span(self.0.since(earlier.0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0.0).unwrap_or(i64::MAX);
        let instant = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
        write!(f, "{instant:.3}")
    }
}

/// Why a text is no [`Time`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an instant; write 2026-11-20T09:30:00Z")]
pub struct TimeError(String);

impl FromStr for Time {
    type Err = TimeError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || TimeError(text.to_owned());
        let instant: Timestamp = text.parse().map_err(|_| error())?;
        let ms = u64::try_from(instant.as_millisecond()).map_err(|_| error())?;
        Ok(Self(UnixMs(ms)))
    }
}

impl TryFrom<String> for Time {
    type Error = TimeError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Time> for String {
    fn from(time: Time) -> Self {
        time.to_string()
    }
}

/// A span of time, written with its units: `90ms`, `1.5s`, `2m30s`, `1h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub DurationMs);

impl Span {
    /// For timers.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0.0)
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(DurationMs(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.0;
        if ms < 1_000 {
            return write!(f, "{ms}ms");
        }
        let (hours, minutes, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms % 60_000);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        match (ms / 1_000, ms % 1_000) {
            (0, 0) => Ok(()),
            (seconds, 0) => write!(f, "{seconds}s"),
            (seconds, rest) => {
                let rest = format!("{rest:03}");
                write!(f, "{seconds}.{}s", rest.trim_end_matches('0'))
            }
        }
    }
}

/// Why a text is no [`Span`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a span of time; write it with a unit: 500ms, 30s, 5m or 1h30m")]
pub struct SpanError(String);

impl FromStr for Span {
    type Err = SpanError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || SpanError(text.to_owned());
        let span: SignedDuration = text.parse().map_err(|_| error())?;
        let ms = u64::try_from(span.as_millis()).map_err(|_| error())?;
        Ok(Self(DurationMs(ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_an_instant_to_the_millisecond() {
        let time = Time(UnixMs(1_795_167_000_000));
        assert_eq!(time.to_string(), "2026-11-20T09:30:00.000Z");
        assert_eq!("2026-11-20T10:30:00+01:00".parse(), Ok(time));
        assert_eq!(Time(UnixMs(u64::MAX)).to_string(), "9999-12-30T22:00:00.999Z");
        assert!("yesterday".parse::<Time>().is_err());
        assert!("1969-12-31T23:59:59Z".parse::<Time>().is_err());
    }

    #[test]
    fn shows_a_span_so_that_it_reads_back() {
        let shown = |ms| Span(DurationMs(ms)).to_string();
        assert_eq!(shown(0), "0ms");
        assert_eq!(shown(90), "90ms");
        assert_eq!(shown(1_050), "1.05s");
        assert_eq!(shown(60_000), "1m");
        assert_eq!(shown(5_430_000), "1h30m30s");
        for ms in [0, 1, 999, 1_000, 1_001, 59_999, 61_234, 3_600_000, 86_400_001] {
            assert_eq!(shown(ms).parse(), Ok(Span(DurationMs(ms))));
        }
        assert!("30".parse::<Span>().is_err());
        assert!("-30s".parse::<Span>().is_err());
    }
}
