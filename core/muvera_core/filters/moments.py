"""Dates in strings: the moments that they name, and where in the order of strings they stand.

A string names a moment if it is a date, or a date and a time, in ISO 8601's extended form: ``2024-01-31``,
``2024-01-31T08:30``, ``2024-01-31 08:30:15.25+01:00``. A date alone is its midnight. Without an offset the time is
UTC's.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

_ISO = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]+)?)?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])?)?"
)
_FIRST = datetime.min.replace(tzinfo=UTC)
_DAY = 86_400_000_000  # in microseconds
_N_DAYS = date.max.toordinal()
# It comes after every string that names a moment.
_AFTER_ALL = "9999-12-32"


def moment(text: object) -> int | None:
    """The moment that a string names, in microseconds since the beginning of the year 1; None if it names none.

    Digits beyond microseconds are cut off.
    """
    if not isinstance(text, str) or not _ISO.fullmatch(text):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:  # there is no such day
        return None
    since = found - (_FIRST if found.tzinfo else datetime.min)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def window(moment: int) -> tuple[str, str]:
    """Two dates. A string below the first names an earlier moment, if any; one from the second on a later one.

    With its offset, a string can name a moment that is a day before or after the date that it begins with.
    """
    day = moment // _DAY + 1
    lower = date.fromordinal(day - 1).isoformat() if day > 1 else ""
    upper = date.fromordinal(day + 2).isoformat() if day + 2 <= _N_DAYS else _AFTER_ALL
    return lower, upper
