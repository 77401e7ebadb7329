"""Durations and sizes as people write them: ``"500ms"``, ``"1h30m"``, ``"512M"``."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZE_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw]))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)

DURATION_HELP = 'a duration with a unit, like "500ms", "5s", "1m30s", "2h" or "30d"'
SIZE_HELP = 'a size with a unit, like "64K", "512M" or "2G" (1K is 1024 bytes)'
ABSOLUTE = "^/"
PATH_HELP = 'an absolute path, like "/var/lib/nagios4/rw/nagios.cmd"'


def parse_duration(value: object) -> float:
    """Seconds in a duration string; ``ValueError`` says what would be valid."""
    if isinstance(value, float):  # a default of the model, already in seconds
        return value
    if value == "0":
        return 0.0
    if isinstance(value, str) and _DURATION.fullmatch(value.replace(" ", "")):
        parts = _DURATION_PART.findall(value.replace(" ", ""))
        return float(sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts))
    raise ValueError(f"expected {DURATION_HELP}")


def parse_size(value: object) -> int:
    """Bytes in a size string; ``ValueError`` says what would be valid."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and len(value) < 40 and (match := _SIZE.fullmatch(value.strip())):
        return int(float(match[1]) * _SIZE_UNITS[match[2].upper()])
    raise ValueError(f"expected {SIZE_HELP}")


def format_duration(seconds: float) -> str:
    """The shortest exact spelling: 0.5 is ``500ms``, 90 is ``1m30s``."""
    if seconds == 0:
        return "0s"
    if seconds < 1:
        return f"{_plain(seconds * 1000)}ms"
    if seconds < 60 or seconds != int(seconds):
        return f"{_plain(seconds)}s"
    out, rest = "", int(seconds)
    for unit, width in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, width)
        if count:
            out += f"{count}{unit}"
    return out


def format_size(size_bytes: float) -> str:
    """A size for people: 1536 is ``1.5K``."""
    for unit in ("B", "K", "M", "G"):
        if size_bytes < 1024:
            return f"{_plain(round(size_bytes, 2))}{unit}"
        size_bytes /= 1024
    return f"{_plain(round(size_bytes, 2))}T"


def _plain(number: float) -> str:
    """Without an exponent and without zeros at the end."""
    return f"{number:.6f}".rstrip("0").rstrip(".")


def _schema(help_text: str, pattern: str) -> WithJsonSchema:
    schema: dict[str, Any] = {"type": "string", "pattern": pattern, "description": help_text}
    return WithJsonSchema(schema)


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    _schema(DURATION_HELP, r"^0$|^(\d+(\.\d+)?(ms|[smhdw]) ?)+$"),
]
Size = Annotated[
    int, BeforeValidator(parse_size), _schema(SIZE_HELP, r"^\d+(\.\d+)? ?[KMGTkmgt]?i?B?$")
]
AbsolutePath = Annotated[str, Field(pattern=ABSOLUTE)]
