"""The ways in which people write dates, as templates for ``str.format``."""

import datetime
import string
from collections.abc import Sequence

MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

SOURCE_LENGTH = 29
"""Characters of a source text, padded with spaces: those of "wednesday, september 27, 1994"."""

ALPHABET = " ,-./0123456789ABCDEFGHIJLMNOPRSTUVWYabcdefghijlmnoprstuvwy"
"""The 59 characters that dates are written with: digits, the letters of English months and weekdays, and separators."""

TEXTBOOK_FORMATS = (
    "{month_name} {day}, {year}",
    "{month_abbr} {day}, {year}",
    "{month}/{day}/{yy}",
    "{weekday}, {month_name} {day}, {year}",
)
"""The kinds of "Deep Learning from Scratch 2", chapter 8."""

FORMATS = (
    *TEXTBOOK_FORMATS,
    "{weekday_abbr}, {month_abbr} {day}, {year}",
    "{month_name} {ordinal}, {year}",
    "{month:02}/{day:02}/{year}",
    "{day} {month_name} {year}",
    "{day} {month_abbr} {year}",
    "{day:02}-{month_abbr}-{yy}",
    "{weekday}, {day} {month_name} {year}",
    "the {ordinal} of {month_name} {year}",
    "{day}.{month}.{year}",
    "{day:02}.{month:02}.{yy}",
    "{year}-{month:02}-{day:02}",
    "{year}/{month}/{day}",
)
"""Month first with slashes, day first with dots, year first with dashes or a year of four digits: no two dates are
written alike."""

CASES = (str.lower, str, str.upper)
"""How letters are written: "may", "May", "MAY"."""


def write(template: str, date: datetime.date) -> str:
    """A date as text, names capitalised.

    >>> write("{weekday_abbr}, {ordinal} of {month_name} {yy}", datetime.date(1984, 9, 25))
    'Tue, 25th of September 84'

    Args:
        template: with the fields year, yy, month, day (numbers; ``{day:02}`` has two digits), ordinal, month_name,
            month_abbr, weekday, weekday_abbr.
        date: the date.
    """
    return template.format(**_fields(date))


def _fields(date: datetime.date) -> dict[str, int | str]:
    month, weekday = MONTHS[date.month - 1].capitalize(), WEEKDAYS[date.weekday()].capitalize()
    return {
        "year": date.year,
        "yy": f"{date.year % 100:02}",
        "month": date.month,
        "day": date.day,
        "ordinal": f"{date.day}{_suffix(date.day)}",
        "month_name": month,
        "month_abbr": month[:3],
        "weekday": weekday,
        "weekday_abbr": weekday[:3],
    }


def check_formats(formats: Sequence[str], first_year: int, last_year: int) -> None:
    """Refuses formats that cannot be read back.

    Args:
        formats: templates as for ``write``.
        first_year: of the dates that are written.
        last_year: of the dates that are written.

    Raises:
        ValueError: there is none, a template is not one that ``write`` fills in, a text is longer than
            ``SOURCE_LENGTH`` or has a character that ``ALPHABET`` lacks, or two dates are written alike, as when a
            format lacks the month, or the years are so many that their last two digits repeat.
    """
    if not formats:
        raise ValueError("formats is empty, but must name at least one way to write a date.")
    for template in formats:
        try:
            names = {field for _, field, _, _ in string.Formatter().parse(template)}
            write(template, datetime.date(2000, 1, 1))
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ValueError(
                f"formats holds {template!r}, but the fields are year, yy, month, day, ordinal, month_name, "
                "month_abbr, weekday and weekday_abbr, in braces."
            ) from error
        if "yy" in names and "year" not in names and last_year - first_year >= 100:
            raise ValueError(
                f"formats holds {template!r}, whose two digits would mean several of the years from {first_year} to "
                f"{last_year}; give a range of at most 100."
            )
    seen: dict[str, datetime.date] = {}
    # What can be confused shows within a century, and a look at all of ten thousand years would take minutes.
    day, last = datetime.date(first_year, 1, 1), datetime.date(min(last_year, first_year + 99), 12, 31)
    while day <= last:
        fields = _fields(day)
        for template in formats:
            text = template.format(**fields)
            _check_text(template, text)
            other = seen.setdefault(text, day)
            if other != day:
                raise ValueError(f"formats holds {template!r}, but {text!r} may then mean both {other} and {day}.")
        day += datetime.timedelta(days=1)


def _check_text(template: str, text: str) -> None:
    if len(text) > SOURCE_LENGTH:
        raise ValueError(
            f"formats holds {template!r}, but {text!r} has {len(text)} characters, and at most {SOURCE_LENGTH} fit."
        )
    unknown = set(text).difference(ALPHABET)
    if unknown:
        raise ValueError(f"formats holds {template!r}, but {min(unknown)!r} is none of the characters {ALPHABET!r}.")


def _suffix(day: int) -> str:
    return "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
