//! Dates and date-times in expressions.
//!
//! Both are texts: a date is `2026-02-28`, a date-time is `2026-02-28T02:30:00+01:00`, in the
//! zone of the run. So they compare, travel and print as what they are, and a param of type
//! `date` is no different from what a filter makes. Arithmetic with days and longer is that of
//! the calendar; with hours and shorter, that of the clock: across a change to summer time a
//! day has 23 hours.

use std::sync::LazyLock;

use jiff::civil::{Date, DateTime, Weekday};
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};
use jiff::{Span, Timestamp, Zoned};

/// The zone where nothing else is said.
pub const ZONE_DEFAULT: &str = "UTC";

/// Those that come with the program, and not those of the machine: every node knows the same.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

static PARSER: DateTimeParser = DateTimeParser::new();

/// A time zone, by its rules as they come with the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// The zone of this IANA name, as `Europe/Paris`; `None` if there is none.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        if name == ZONE_DEFAULT {
            return Some(Self::default());
        }
        ZONES.get(name).ok().map(Self)
    }

    /// A point in time, in milliseconds since 1970, as a date-time of this zone.
    #[must_use]
    pub fn date_time(&self, unix_ms: u64) -> String {
        let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
        let instant = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
        Moment::Instant(instant.to_zoned(self.0.clone())).to_string()
    }

    /// The milliseconds since 1970 of a date, which is its beginning, or of a date-time; one
    /// without an offset is in this zone. `None` if the text is neither, or before 1970.
    #[must_use]
    pub fn unix_ms(&self, text: &str) -> Option<u64> {
        let instant = Moment::read(text, self)?.begin(self)?;
        u64::try_from(instant.timestamp().as_millisecond()).ok()
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

/// A date as it is written here, if the text is one: `20260228` becomes `2026-02-28`.
#[must_use]
pub fn read_date(text: &str) -> Option<String> {
    match Moment::read(text, &Zone::default())? {
        Moment::Day(day) => Some(day.to_string()),
        Moment::Instant(_) => None,
    }
}

/// A date-time as it is written here, if the text is one; one without an offset is in `zone`.
#[must_use]
pub fn read_date_time(text: &str, zone: &Zone) -> Option<String> {
    match Moment::read(text, zone)? {
        Moment::Day(_) => None,
        instant @ Moment::Instant(_) => Some(instant.to_string()),
    }
}

/// What a text says of time.
#[derive(Clone, Debug)]
pub(crate) enum Moment {
    /// A date.
    Day(Date),
    /// A date-time in the zone of the run.
    Instant(Zoned),
}

/// A span of the calendar, of which a date or its year is in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Period {
    /// Begins on a day from 1, Monday, to 7.
    Week(i8),
    Month,
    Quarter,
    Year,
}

impl Moment {
    pub(crate) fn read(text: &str, zone: &Zone) -> Option<Self> {
        let text = text.trim();
        if !text.contains(['T', 't', ' ', ':']) {
            return PARSER.parse_date(text).ok().map(Self::Day);
        }
        let instant = match PARSER.parse_timestamp(text) {
            Ok(instant) => instant.to_zoned(zone.0.clone()),
            Err(_) => {
                let civil: DateTime = PARSER.parse_datetime(text).ok()?;
                civil.to_zoned(zone.0.clone()).ok()?
            }
        };
        Some(Self::Instant(instant))
    }

    pub(crate) fn day(&self) -> Date {
        match self {
            Self::Day(day) => *day,
            Self::Instant(instant) => instant.date(),
        }
    }

    /// The instant, or that at which the day begins: not always midnight.
    pub(crate) fn begin(self, zone: &Zone) -> Option<Zoned> {
        match self {
            Self::Day(day) => day.to_zoned(zone.0.clone()).ok()?.start_of_day().ok(),
            Self::Instant(instant) => Some(instant),
        }
    }

    /// In another zone.
    pub(crate) fn within(self, from: &Zone, zone: &Zone) -> Option<Zoned> {
        Some(self.begin(from)?.with_time_zone(zone.0.clone()))
    }

    /// Later by a span: one of the calendar keeps a day a day.
    pub(crate) fn plus(self, span: Span, zone: &Zone) -> Option<Self> {
        let is_of_clock =
            span.get_hours() != 0 || span.get_minutes() != 0 || span.get_seconds() != 0;
        match self {
            Self::Day(day) if !is_of_clock => day.checked_add(span).ok().map(Self::Day),
            Self::Day(_) | Self::Instant(_) => {
                self.begin(zone)?.checked_add(span).ok().map(Self::Instant)
            }
        }
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Day(day) => day.fmt(f),
            Self::Instant(instant) if instant.offset() == Offset::UTC => {
                write!(f, "{}Z", instant.datetime())
            }
            Self::Instant(instant) => {
                instant.timestamp().display_with_offset(instant.offset()).fmt(f)
            }
        }
    }
}

impl Period {
    /// The first day of the period that a day is in.
    pub(crate) fn first(self, day: Date) -> Option<Date> {
        match self {
            Self::Week(start) => {
                let start = Weekday::from_monday_one_offset(start).ok()?;
                day.checked_sub(Span::new().days(day.weekday().since(start))).ok()
            }
            Self::Month => Some(day.first_of_month()),
            Self::Quarter => Date::new(day.year(), (day.month() - 1) / 3 * 3 + 1, 1).ok(),
            Self::Year => Some(day.first_of_year()),
        }
    }

    /// The last day of the period that a day is in.
    pub(crate) fn last(self, day: Date) -> Option<Date> {
        let length = match self {
            Self::Week(_) => Span::new().days(7),
            Self::Month => Span::new().months(1),
            Self::Quarter => Span::new().months(3),
            Self::Year => Span::new().years(1),
        };
        self.first(day)?.checked_add(length).ok()?.yesterday().ok()
    }
}
