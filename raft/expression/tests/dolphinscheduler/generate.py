"""What DolphinScheduler's time expressions come to, computed apart from this program.

    python3 tests/dolphinscheduler/generate.py > tests/dolphinscheduler/expected.tsv

Follows the rules of Java that DolphinScheduler calls, with nothing but Python's own dates and
zones: `Calendar.add` with days and months keeps the time of day, with minutes it counts real
ones; `Calendar.add` with months stops at the end of the shorter month; a week begins on
Monday and is the first of its year if 4 days of it are in that year
(`setMinimalDaysInFirstWeek(4)`); days of `$[yyyyMMdd-1]` are 1,440 minutes each.
A line is: zone, the time of the run in milliseconds since 1970, expression, what it comes to.
"""

import calendar
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

FIELDS = [("yyyy", "%Y"), ("MM", "%m"), ("dd", "%d"), ("HH", "%H"), ("mm", "%M"), ("ss", "%S")]


def text(at, pattern):
    for java, python in FIELDS:
        pattern = pattern.replace(java, python)
    return at.strftime(pattern)


def minutes(at, count):
    return (at.astimezone(UTC) + timedelta(minutes=count)).astimezone(at.tzinfo)


def days(at, count):
    moved = at.replace(tzinfo=None) + timedelta(days=count)
    # A time of day that clocks skip is moved on, as Calendar does when it is lenient.
    return moved.replace(tzinfo=at.tzinfo).astimezone(UTC).astimezone(at.tzinfo)


def months(at, count):
    month = at.year * 12 + at.month - 1 + count
    year, month = divmod(month, 12)
    day = min(at.day, calendar.monthrange(year, month + 1)[1])
    moved = datetime(year, month + 1, day, at.hour, at.minute, at.second, at.microsecond)
    return moved.replace(tzinfo=at.tzinfo).astimezone(UTC).astimezone(at.tzinfo)


def month_first(at):
    return days(at, 1 - at.day)


def month_last(at):
    return days(at, calendar.monthrange(at.year, at.month)[1] - at.day)


def monday(at):
    return days(at, -at.weekday())


def sunday(at):
    return days(at, 6 - at.weekday())


def week_of_year(at, first=0):
    """`Calendar.WEEK_OF_YEAR`, where weeks begin on the weekday `first`, from 0 for Monday."""
    start = at.date() - timedelta(days=(at.weekday() - first) % 7)

    def begin(year):
        """The first day of the first week of a year: the week with at least 4 of its days."""
        january = datetime(year, 1, 1).date()
        begun = january - timedelta(days=(january.weekday() - first) % 7)
        return begun if (begun + timedelta(days=7) - january).days >= 4 else begun + timedelta(days=7)

    year = at.year + 1 if start >= begin(at.year + 1) else at.year
    year = year if start >= begin(year) else year - 1
    return (start - begin(year)).days // 7 + 1


ROWS = [
    ("$[yyyyMMddHHmmss]", lambda t: text(t, "yyyyMMddHHmmss")),
    ("$[yyyy-MM-dd]", lambda t: text(t, "yyyy-MM-dd")),
    ("$[HHmmss]", lambda t: text(t, "HHmmss")),
    ("$[yyyyMMdd+1]", lambda t: text(minutes(t, 1440), "yyyyMMdd")),
    ("$[yyyyMMdd-1]", lambda t: text(minutes(t, -1440), "yyyyMMdd")),
    ("$[yyyyMMdd-7*2]", lambda t: text(minutes(t, -1440 * 14), "yyyyMMdd")),
    ("$[yyyyMMddHHmmss-3/24]", lambda t: text(minutes(t, -180), "yyyyMMddHHmmss")),
    ("$[yyyyMMddHHmm+15/24/60]", lambda t: text(minutes(t, 15), "yyyyMMddHHmm")),
    ("$[add_months(yyyyMMdd,1)]", lambda t: text(months(t, 1), "yyyyMMdd")),
    ("$[add_months(yyyyMMdd,-1)]", lambda t: text(months(t, -1), "yyyyMMdd")),
    ("$[add_months(yyyyMMdd,12*1)]", lambda t: text(months(t, 12), "yyyyMMdd")),
    ("$[this_day(yyyy-MM-dd)]", lambda t: text(t, "yyyy-MM-dd")),
    ("$[last_day(yyyy-MM-dd)]", lambda t: text(days(t, -1), "yyyy-MM-dd")),
    ("$[month_first_day(yyyy-MM-dd)]", lambda t: text(month_first(t), "yyyy-MM-dd")),
    ("$[month_first_day(yyyy-MM-dd,-1)]", lambda t: text(months(month_first(t), -1), "yyyy-MM-dd")),
    ("$[month_last_day(yyyy-MM-dd)]", lambda t: text(month_last(t), "yyyy-MM-dd")),
    ("$[month_last_day(yyyy-MM-dd,-1)]", lambda t: text(month_last(months(t, -1)), "yyyy-MM-dd")),
    ("$[week_first_day(yyyy-MM-dd)]", lambda t: text(monday(t), "yyyy-MM-dd")),
    ("$[week_first_day(yyyy-MM-dd,-1)]", lambda t: text(days(monday(t), -7), "yyyy-MM-dd")),
    ("$[week_last_day(yyyy-MM-dd)]", lambda t: text(sunday(t), "yyyy-MM-dd")),
    ("$[week_last_day(yyyy-MM-dd,1)]", lambda t: text(days(sunday(t), 7), "yyyy-MM-dd")),
    ("$[month_begin(yyyyMMdd,1)]", lambda t: text(days(month_first(t), 1), "yyyyMMdd")),
    ("$[month_end(yyyyMMdd,-1)]", lambda t: text(days(month_last(t), -1), "yyyyMMdd")),
    ("$[week_begin(yyyyMMdd,1)]", lambda t: text(days(monday(t), 1), "yyyyMMdd")),
    ("$[week_end(yyyyMMdd,-1)]", lambda t: text(days(sunday(t), -1), "yyyyMMdd")),
    ("$[year_week(yyyy-MM-dd)]", lambda t: f"{t.year}-{week_of_year(t):02}"),
    ("$[year_week(yyyyMMdd)]", lambda t: f"{t.year}{week_of_year(t):02}"),
    ("$[year_week(yyyyMMdd,7)]", lambda t: f"{t.year}{week_of_year(t, 6):02}"),
    # Java reads its own text again, and takes the second of two equal hours for the first.
    ("$[timestamp(yyyyMMddHHmmss)]", lambda t: None if t.fold else str(int(t.timestamp()))),
    ("$[timestamp(yyyyMMdd000000)]", lambda t: str(int(datetime(t.year, t.month, t.day, tzinfo=t.tzinfo).timestamp()))),
    ("${system.biz.date}", lambda t: text(days(t, -1), "yyyyMMdd")),
    ("${system.biz.curdate}", lambda t: text(t, "yyyyMMdd")),
    ("${system.datetime}", lambda t: text(t, "yyyyMMddHHmmss")),
]

# Every eleventh day of a leap year and its ends, and the hours around both changes of the clocks.
TIMES = [("Asia/Shanghai", datetime(2028, 1, 1, 9, 30) + timedelta(days=11 * n)) for n in range(34)]
TIMES += [("Asia/Shanghai", datetime(2028, m, d, 23, 59, 59)) for m, d in [(2, 28), (2, 29), (3, 1), (12, 30), (12, 31)]]
TIMES += [("Asia/Shanghai", datetime(y, m, d)) for y, m, d in [(2026, 12, 31), (2027, 1, 1), (2027, 1, 3), (2027, 1, 4), (2029, 1, 1), (2100, 2, 28)]]
TIMES += [("Europe/Paris", datetime(2026, 3, 27, 22) + timedelta(hours=n)) for n in range(0, 60, 3)]
TIMES += [("Europe/Paris", datetime(2026, 10, 23, 21) + timedelta(hours=n)) for n in range(0, 60, 3)]
TIMES += [("America/New_York", datetime(2028, 3, 11, 12)), ("America/New_York", datetime(2028, 11, 4, 13))]

for zone, local in TIMES:
    # Around a change the times of the list are those of UTC, so that each is there once.
    utc = local.replace(tzinfo=UTC) if zone == "Europe/Paris" else local.replace(tzinfo=ZoneInfo(zone))
    at = utc.astimezone(ZoneInfo(zone))
    for expression, expected in ROWS:
        if (found := expected(at)) is not None:
            print(zone, int(at.timestamp() * 1000), expression, found, sep="\t")
