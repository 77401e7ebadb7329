"""What is no request: answered, and told in one line now and then."""

import logging
import time

from aiohttp import http_exceptions

from everup.model.display import shown_line

_TELL_EVERY_S = 60.0


class Told(logging.Filter):
    """One line, at most once a minute, instead of a traceback for each."""

    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = who
        self._count = 0
        self._told_at = -_TELL_EVERY_S

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, http_exceptions.HttpProcessingError):
            what = "was sent what is no HTTP request"
            record.exc_info = None
        else:
            what = f"failed: {record.getMessage()}"
        self._count += 1
        if time.monotonic() - self._told_at < _TELL_EVERY_S:
            return False
        self._told_at = time.monotonic()
        why = " ".join(str(error).split())[:200] if error is not None else ""
        text = f"everup: {self._who} {what}: {why} ({self._count} such so far)"
        record.msg, record.args = shown_line(text), ()
        return True


def logger(name: str = "everup.api", who: str = "the API") -> logging.Logger:
    """For a server of aiohttp's; ``who`` is told of."""
    found = logging.getLogger(name)
    if not found.filters:
        found.addFilter(Told(who))
    return found
