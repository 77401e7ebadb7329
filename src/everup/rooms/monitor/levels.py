"""How grave a line of output says that it is. Pure; one bounded look at the beginning of a line."""

import json
import re
from enum import IntEnum
from typing import Any, Final


class Level(IntEnum):
    """How grave a line is, as far as it says so."""

    UNKNOWN = 0
    DEBUG = 1
    INFO = 2
    WARNING = 3
    ERROR = 4
    FATAL = 5


MOST_CHARACTERS: Final = 600
"""Characters of a line that are looked at."""
_JSON_MOST: Final = 16 << 10
_WORDS: Final = {
    "trace": Level.DEBUG, "debug": Level.DEBUG, "verbose": Level.DEBUG, "info": Level.INFO,
    "information": Level.INFO, "informational": Level.INFO, "notice": Level.INFO,
    "log": Level.INFO, "warn": Level.WARNING, "warning": Level.WARNING, "err": Level.ERROR,
    "error": Level.ERROR, "severe": Level.ERROR, "crit": Level.FATAL, "critical": Level.FATAL,
    "alert": Level.FATAL, "emerg": Level.FATAL, "emergency": Level.FATAL, "fatal": Level.FATAL,
    "panic": Level.FATAL,
}  # fmt: skip
_ALL: Final = "|".join(sorted(_WORDS, key=len, reverse=True))
_KEYS: Final = ("log.level", "level", "severity", "severity_text", "levelname", "lvl", "loglevel")
_LOGFMT: Final = re.compile(rf'(?:^|[\s,])(?:level|lvl|severity)="?({_ALL})\b', re.IGNORECASE)
_BRACKETS: Final = re.compile(rf"[\[<(]({_ALL})[\])>]", re.IGNORECASE)
_UPPER: Final = re.compile(rf"(?:^|[\s|\-:\]])({_ALL.upper()})(?=[\s|:\-\[]|$)")
_COLON: Final = re.compile(rf"(?:^|[\s\])])({_ALL})\s*: ", re.IGNORECASE)
_SYSLOG: Final = re.compile(r"^<(\d{1,3})>")
_KLOG: Final = re.compile(r"^([IWEF])\d{4} \d\d:\d\d:\d\d")
_REDIS: Final = re.compile(r"^\d+:[MCSX] \d\d \w{3} \d{4} [\d:.]+ ([.\-*#]) ")
_ERROR_NAME: Final = re.compile(r"^(?:[\w.$]+\.)?[A-Z]\w*(?:Error|Exception)(?::|$)")
_SYSLOG_LEVELS: Final = (
    Level.FATAL, Level.FATAL, Level.FATAL, Level.ERROR, Level.WARNING, Level.INFO, Level.INFO,
    Level.DEBUG,
)  # fmt: skip
_KLOG_LEVELS: Final = {
    "I": Level.INFO, "W": Level.WARNING, "E": Level.ERROR, "F": Level.FATAL,
}  # fmt: skip
_REDIS_LEVELS: Final = {
    ".": Level.DEBUG, "-": Level.DEBUG, "*": Level.INFO, "#": Level.WARNING,
}  # fmt: skip


def level_of(line: str) -> Level:
    """Say how grave a line is: of JSON (ECS, Bunyan and Pino, slog, zap), logfmt, Python, uvicorn,
    gunicorn, nginx, PostgreSQL, Redis, klog, syslog, and of a bare ``SomeError: ...``."""
    if line[:1] == "{" and len(line) <= _JSON_MOST:
        return _of_json(line)
    text = line[:MOST_CHARACTERS]
    if (found := _SYSLOG.match(text)) is not None:
        return _SYSLOG_LEVELS[int(found[1]) & 7]
    if (found := _KLOG.match(text)) is not None:
        return _KLOG_LEVELS[found[1]]
    if (found := _REDIS.match(text)) is not None:
        return _REDIS_LEVELS[found[1]]
    for pattern in (_LOGFMT, _BRACKETS, _UPPER, _COLON):
        if (found := pattern.search(text)) is not None:
            return _WORDS[found[1].lower()]
    return Level.ERROR if _ERROR_NAME.match(text) else Level.UNKNOWN


def _of_json(line: str) -> Level:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return Level.UNKNOWN
    if not isinstance(document, dict):
        return Level.UNKNOWN
    inner = document.get("log")
    found: Any = inner.get("level") if isinstance(inner, dict) else None
    for key in _KEYS:
        found = document.get(key, found)
        if found is not None:
            break
    if isinstance(found, bool):
        return Level.UNKNOWN
    if isinstance(found, (int, float)):  # Bunyan and Pino: 10 to 60
        steps = ((60, Level.FATAL), (50, Level.ERROR), (40, Level.WARNING), (30, Level.INFO))
        return next((level for least, level in steps if found >= least), Level.DEBUG)
    return _WORDS.get(str(found).lower(), Level.UNKNOWN)


def words_of(line: str) -> str:
    """Give what a line says: of JSON its message, else the line."""
    if line[:1] != "{" or len(line) > _JSON_MOST:
        return line
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return line
    if isinstance(document, dict):
        for key in ("message", "msg", "event", "error"):
            if isinstance(document.get(key), str):
                return str(document[key])
    return line
