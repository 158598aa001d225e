//! The functions and filters over dates and date-times.

use jiff::Span;
use minijinja::value::{Kwargs, Object, Value as Item};
use minijinja::{Environment, Error, ErrorKind, State};

use crate::context::ZONE;
use crate::pattern;
use crate::time::{Moment, Period, Zone};

/// The days of a week, from that of ISO 8601 on.
const DAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

impl Object for Zone {}

type Added = fn(i64) -> Result<Span, jiff::Error>;
type Number = fn(&Moment) -> i64;

/// Filters that move a date by a number of units.
const ADDED: [(&str, Added); 7] = [
    ("add_seconds", |number| Span::new().try_seconds(number)),
    ("add_minutes", |number| Span::new().try_minutes(number)),
    ("add_hours", |number| Span::new().try_hours(number)),
    ("add_days", |number| Span::new().try_days(number)),
    ("add_weeks", |number| Span::new().try_weeks(number)),
    ("add_months", |number| Span::new().try_months(number)),
    ("add_years", |number| Span::new().try_years(number)),
];

/// Filters that find the first and the last day of what a date is in. Those of a week are
/// apart, for a week may begin on any day.
const PERIODS: [(&str, &str, Period); 3] = [
    ("first_day_of_month", "last_day_of_month", Period::Month),
    ("first_day_of_quarter", "last_day_of_quarter", Period::Quarter),
    ("first_day_of_year", "last_day_of_year", Period::Year),
];

/// Filters that say a number of a date.
const NUMBERS: [(&str, Number); 3] = [
    ("weekday", |moment| moment.day().weekday().to_monday_one_offset().into()),
    ("quarter", |moment| i64::from((moment.day().month() - 1) / 3 + 1)),
    ("day_of_year", |moment| moment.day().day_of_year().into()),
];

pub(crate) fn add(engine: &mut Environment<'static>) {
    engine.add_filter("date", date);
    engine.add_filter("timestamp", timestamp);
    engine.add_filter("first_day_of_week", first_day_of_week);
    engine.add_filter("last_day_of_week", last_day_of_week);
    engine.add_filter("week", |state: &State<'_, '_>, text: &Item, start: Option<&str>| {
        week_of_year("week", state, text, start).map(|(_, week)| week)
    });
    engine.add_filter("week_year", |state: &State<'_, '_>, text: &Item, start: Option<&str>| {
        week_of_year("week_year", state, text, start).map(|(year, _)| year)
    });
    for (name, added) in ADDED {
        engine.add_filter(name, move |state: &State<'_, '_>, text: &Item, number: i64| {
            let zone = zone(state);
            let span = added(number).map_err(|error| invalid(format!("{name}: {error}")))?;
            let moved = moment(name, text, &zone)?.plus(span, &zone);
            moved.map(|moved| moved.to_string()).ok_or_else(|| out_of_range(name))
        });
    }
    for (first, last, period) in PERIODS {
        engine.add_filter(first, move |state: &State<'_, '_>, text: &Item| {
            let day = moment(first, text, &zone(state))?.day();
            period.first(day).map(|day| day.to_string()).ok_or_else(|| out_of_range(first))
        });
        engine.add_filter(last, move |state: &State<'_, '_>, text: &Item| {
            let day = moment(last, text, &zone(state))?.day();
            period.last(day).map(|day| day.to_string()).ok_or_else(|| out_of_range(last))
        });
    }
    for (name, number) in NUMBERS {
        engine.add_filter(name, move |state: &State<'_, '_>, text: &Item| {
            moment(name, text, &zone(state)).map(|moment| number(&moment))
        });
    }
}

/// The date of a date-time, or either by a format; in another zone, if one is named.
#[expect(clippy::needless_pass_by_value, reason = "the engine calls it so")]
fn date(
    state: &State<'_, '_>,
    text: &Item,
    format: Option<&str>,
    options: Kwargs,
) -> Result<String, Error> {
    let name: Option<&str> = options.get("zone")?;
    options.assert_all_used()?;
    let from = zone(state);
    let zone = match name {
        Some(name) => Zone::named(name)
            .ok_or_else(|| invalid(format!("date: there is no time zone {name:?}")))?,
        None => from.clone(),
    };
    let instant = moment("date", text, &from)?.within(&from, &zone);
    let instant = instant.ok_or_else(|| out_of_range("date"))?;
    match format {
        Some(format) => {
            pattern::format(&instant, format).map_err(|reason| invalid(format!("date: {reason}")))
        }
        None => Ok(instant.date().to_string()),
    }
}

/// Seconds since 1970.
fn timestamp(state: &State<'_, '_>, text: &Item) -> Result<i64, Error> {
    let zone = zone(state);
    let instant = moment("timestamp", text, &zone)?.begin(&zone);
    instant.map(|at| at.timestamp().as_second()).ok_or_else(|| out_of_range("timestamp"))
}

fn first_day_of_week(
    state: &State<'_, '_>,
    text: &Item,
    start: Option<&str>,
) -> Result<String, Error> {
    let day = moment("first_day_of_week", text, &zone(state))?.day();
    let first = week(start)?.first(day);
    first.map(|day| day.to_string()).ok_or_else(|| out_of_range("first_day_of_week"))
}

fn last_day_of_week(
    state: &State<'_, '_>,
    text: &Item,
    start: Option<&str>,
) -> Result<String, Error> {
    let day = moment("last_day_of_week", text, &zone(state))?.day();
    let last = week(start)?.last(day);
    last.map(|day| day.to_string()).ok_or_else(|| out_of_range("last_day_of_week"))
}

/// The year and the number of a week. A week is of the year that most of its days are in;
/// beginning on Mondays, as weeks do unless one says otherwise, that is ISO 8601.
fn week_of_year(
    filter: &str,
    state: &State<'_, '_>,
    text: &Item,
    start: Option<&str>,
) -> Result<(i64, i64), Error> {
    let day = moment(filter, text, &zone(state))?.day();
    let middle =
        week(start)?.first(day).and_then(|first| first.checked_add(Span::new().days(3)).ok());
    let middle = middle.ok_or_else(|| out_of_range(filter))?;
    Ok((middle.year().into(), i64::from((middle.day_of_year() - 1) / 7 + 1)))
}

fn week(start: Option<&str>) -> Result<Period, Error> {
    let Some(start) = start else { return Ok(Period::Week(1)) };
    let mut days = (1..).zip(DAYS);
    days.find(|(_, day)| *day == start).map(|(number, _)| Period::Week(number)).ok_or_else(|| {
        invalid(format!("{start:?} is no day of the week; they are {}", DAYS.join(", ")))
    })
}

/// The zone of the run.
fn zone(state: &State<'_, '_>) -> Zone {
    let zone = state.lookup(ZONE);
    zone.and_then(|zone| zone.downcast_object_ref::<Zone>().cloned()).unwrap_or_default()
}

fn moment(filter: &str, value: &Item, zone: &Zone) -> Result<Moment, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let moment = value.as_str().and_then(|text| Moment::read(text, zone));
    moment.ok_or_else(|| {
        let shown = match value.as_str() {
            Some(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
            None => format!("a {}", value.kind()),
        };
        invalid(format!("{filter}: {shown} is neither a date nor a date-time"))
    })
}

fn out_of_range(filter: &str) -> Error {
    invalid(format!("{filter}: beyond the calendar"))
}

fn invalid(reason: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

#[cfg(test)]
mod tests {
    use crate::{Context, RunFacts, Zone, evaluate, render};

    /// 2026-03-29 01:30 in Paris, half an hour before clocks go forward.
    const BEFORE_SUMMER: u64 = 1_774_744_200_000;

    fn context(zone: &str, logical_time_ms: u64) -> Context {
        let mut context = Context::default();
        let zone = Zone::named(zone).unwrap();
        let (id, trigger) = ("r".to_owned(), "manual".to_owned());
        context.set_run(&RunFacts { id, trigger, logical_time_ms, zone });
        context
    }

    fn at(logical_time_ms: u64, expression: &str) -> String {
        let context = context("Europe/Paris", logical_time_ms);
        match render(&format!("${{{{ {expression} }}}}"), &context) {
            Ok(text) => text,
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn time_is_that_of_the_zone() {
        let late = BEFORE_SUMMER - 3_600_000 * 2;
        assert_eq!(at(late, "run.logical_time"), "2026-03-28T23:30:00+01:00");
        assert_eq!(at(late, "ds ~ ' ' ~ ds_nodash"), "2026-03-28 20260328");
        assert_eq!(at(late, "run.data_interval.start == data_interval_start"), "true");
        assert_eq!(at(late, "run.logical_time | date"), "2026-03-28");
        assert_eq!(at(late, "run.logical_time | date(zone='Asia/Shanghai')"), "2026-03-29");
        assert_eq!(
            at(late, "run.logical_time | date('%FT%T%:z', zone='UTC')"),
            "2026-03-28T22:30:00+00:00"
        );
        let utc = context("UTC", late);
        assert_eq!(render("${{ run.logical_time }}", &utc).unwrap(), "2026-03-28T22:30:00Z");
        assert_eq!(at(late + 5, "run.logical_time"), "2026-03-28T23:30:00.005+01:00");
    }

    #[test]
    fn a_day_is_a_day_and_an_hour_an_hour() {
        let add = |filter: &str| at(BEFORE_SUMMER, &format!("run.logical_time | {filter}"));
        assert_eq!(add("add_hours(1)"), "2026-03-29T03:30:00+02:00");
        assert_eq!(add("add_days(1)"), "2026-03-30T01:30:00+02:00");
        assert_eq!(add("add_hours(24)"), "2026-03-30T02:30:00+02:00");
        assert_eq!(add("add_minutes(-90)"), "2026-03-29T00:00:00+01:00");
        assert_eq!(add("add_seconds(1) | add_weeks(1)"), "2026-04-05T01:30:01+02:00");
        // What clocks skip is moved on by as much.
        assert_eq!(
            at(BEFORE_SUMMER, "'2026-03-28T02:30:00+01:00' | add_days(1)"),
            "2026-03-29T03:30:00+02:00"
        );
    }

    #[test]
    fn months_end_where_they_end() {
        let day = |expression: &str| at(BEFORE_SUMMER, expression);
        assert_eq!(day("'2028-01-31' | add_months(1)"), "2028-02-29");
        assert_eq!(day("'2027-01-31' | add_months(1)"), "2027-02-28");
        assert_eq!(day("'2028-02-29' | add_years(1)"), "2029-02-28");
        assert_eq!(day("'2028-02-29' | add_days(1) | add_months(-1)"), "2028-02-01");
        assert_eq!(day("'2028-02-10' | last_day_of_month"), "2028-02-29");
        assert_eq!(day("'2028-02-10' | first_day_of_month | add_days(-1)"), "2028-01-31");
        assert_eq!(day("'2026-11-23' | first_day_of_quarter"), "2026-10-01");
        assert_eq!(day("'2026-11-23' | last_day_of_quarter"), "2026-12-31");
        assert_eq!(day("'2026-11-23' | first_day_of_year"), "2026-01-01");
        assert_eq!(day("'2026-11-23' | last_day_of_year"), "2026-12-31");
    }

    #[test]
    fn weeks_begin_where_one_says() {
        let day = |expression: &str| at(BEFORE_SUMMER, expression);
        assert_eq!(day("ds | first_day_of_week"), "2026-03-23");
        assert_eq!(day("ds | last_day_of_week"), "2026-03-29");
        assert_eq!(day("ds | first_day_of_week('sunday')"), "2026-03-29");
        assert_eq!(day("ds | last_day_of_week('sunday')"), "2026-04-04");
        assert_eq!(day("'2027-01-03' | week"), "53");
        assert_eq!(day("'2027-01-03' | week_year"), "2026");
        assert_eq!(day("'2027-01-03' | week('sunday')"), "1");
        assert_eq!(day("'2027-01-03' | week_year('sunday')"), "2027");
        assert_eq!(day("ds | weekday"), "7");
        assert_eq!(day("ds | quarter"), "1");
        assert_eq!(day("'2028-12-31' | day_of_year"), "366");
        assert!(day("ds | first_day_of_week('sun')").contains("\"sun\" is no day of the week"));
    }

    #[test]
    fn reads_what_people_write() {
        let day = |expression: &str| at(BEFORE_SUMMER, expression);
        assert_eq!(day("'20280229' | date"), "2028-02-29");
        assert_eq!(day("'2026-07-01 12:00' | date('HH:mm XXX')"), "12:00 +02:00");
        assert_eq!(day("'2026-07-01T12:00:00Z' | add_days(0)"), "2026-07-01T14:00:00+02:00");
        assert_eq!(day("'2026-07-01' | add_hours(1)"), "2026-07-01T01:00:00+02:00");
        assert_eq!(day("'2026-03-29' | timestamp"), "1774738800");
        for wrong in ["'2027-02-29' | date", "'soon' | add_days(1)", "7 | date", "none | week"] {
            assert!(
                day(wrong).contains("neither a date nor a date-time"),
                "{wrong}: {}",
                day(wrong)
            );
        }
        assert_eq!(day("gone | date"), "error: undefined value among gone");
        assert!(day("ds | date(zone='Mars/Phobos')").contains("no time zone \"Mars/Phobos\""));
        assert!(day("ds | date('nope')").contains("stands for nothing"));
        assert!(day("ds | add_days(99999999999)").starts_with("error: add_days"));
        assert!(day("ds | add_years(9000)").contains("beyond the calendar"));
        assert!(day("ds | add_days('1.5')").starts_with("error"));
    }

    #[test]
    fn times_compare_as_texts() {
        let context = context("UTC", BEFORE_SUMMER);
        let holds = |text| evaluate(text, &context).unwrap() == true;
        assert!(holds("${{ ds >= '2026-03-01' and ds < '2026-04-01' }}"));
        assert!(holds("${{ run.logical_time | weekday in [6, 7] }}"));
    }

    #[test]
    fn a_zone_is_known_by_its_name_only() {
        assert!(Zone::named("Europe/Paris").is_some() && Zone::named("UTC").is_some());
        assert!(Zone::named("Europe/Pari").is_none() && Zone::named("").is_none());
        assert!(Zone::named("../../etc/localtime").is_none());
        let paris = Zone::named("Europe/Paris").unwrap();
        assert_eq!(paris.unix_ms("2026-03-29T01:30"), Some(BEFORE_SUMMER));
        assert_eq!(paris.unix_ms("2026-03-29"), Some(1_774_738_800_000));
        assert_eq!(paris.unix_ms("2026-03-29T01:30Z"), Some(BEFORE_SUMMER + 3_600_000));
        assert_eq!(paris.unix_ms("1969-12-31"), None);
        assert_eq!(paris.unix_ms("soon"), None);
    }
}
