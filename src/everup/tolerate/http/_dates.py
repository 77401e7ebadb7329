"""Times that headers say, which are of the wall clock: the only place here that looks at it."""

import time
from collections.abc import Callable

_LONGEST_DATE = 64


def retry_after(text: str | None) -> float | None:
    """Seconds that a ``Retry-After`` asks to wait: a number of them, or an HTTP date (RFC 9110,
    10.2.3), by this machine's wall clock; 0.0 for a date that is past. None: it says nothing."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text) if len(text) < 10 else None
    if not text or len(text) > _LONGEST_DATE:
        return None
    from email.utils import mktime_tz, parsedate_tz

    parts = parsedate_tz(text)
    if parts is None:
        return None
    try:
        return max(0.0, mktime_tz(parts) - time.time())
    except (ValueError, OverflowError):
        return None


def waited_s(header: Callable[[str], str | None], name: str | None) -> float:
    """By ``X-Request-Start`` or what it is called: ``t=`` before it or not, a time in seconds,
    milliseconds or microseconds. Nonsense, and what is an hour ago or to come, is no wait."""
    text = None if name is None else header(name)
    if text is None:
        return 0.0
    try:
        at: float = float(text.strip().removeprefix("t="))
    except ValueError:
        return 0.0
    for unit in (1.0, 1e3, 1e6):
        found_s = time.time() - at / unit
        if 0.0 <= found_s <= 3600.0:
            return found_s
    return 0.0
