"""When a route may be used. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Final

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTES: Final = 24 * 60


def is_open(at: datetime, hours: str | None, days: Sequence[str]) -> bool:
    """Whether a local time is within the hours, on one of the days (all of them, where none is
    named). Hours over midnight belong to the day on which they begin."""
    if hours is None:
        return not days or DAYS[at.weekday()] in days
    begins, ends = (_minute(part) for part in hours.split("-"))
    minute = at.hour * 60 + at.minute
    if begins < ends:
        inside, day = begins <= minute < ends, at.weekday()
    elif begins == ends:
        inside, day = True, (at if minute >= begins else at - timedelta(days=1)).weekday()
    else:
        inside = minute >= begins or minute < ends
        day = (at if minute >= begins else at - timedelta(days=1)).weekday()
    return inside and (not days or DAYS[day] in days)


def opens_at(now: float, zone: tzinfo | None, hours: str | None, days: Sequence[str]) -> float:
    """Give when it opens next, in seconds since the epoch, to the minute: ``now`` if it is open."""
    at = datetime.fromtimestamp(now, zone).astimezone(zone)
    if is_open(at, hours, days):
        return now
    first = now - at.second - at.microsecond / 1e6
    for step in range(1, 8 * _MINUTES):
        # Each minute by the clock on the wall: days are of 23 and 25 hours where clocks change.
        moment = first + 60.0 * step
        if is_open(datetime.fromtimestamp(moment, zone).astimezone(zone), hours, days):
            return moment
    raise ValueError(f"hours {hours!r} on {list(days)} never come")


def _minute(text: str) -> int:
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)
