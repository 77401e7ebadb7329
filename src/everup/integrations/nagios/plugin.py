"""What a Nagios plugin says: its exit status, its text, its performance data.

Pure: this reads what ``edge.plugins`` has run, and what the engine's exec probe has.
"""

import math
import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

MOST_BYTES: Final = 64 << 10
"""Of an output no more is read; Nagios itself keeps some more, its status page less."""
MOST_VALUES: Final = 1000
_STDERR_BYTES: Final = 300


class State(IntEnum):
    """The four answers of a plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class Value:
    """One value of the performance data, as the plugin wrote it."""

    label: str
    value: float | None
    """None: the plugin could not tell (``U``)."""
    unit: str = ""
    warn: str | None = None
    """A range; ``Range.parse`` reads it."""
    crit: str | None = None
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """The parts of an output."""

    text: str
    """The first line without its performance data."""
    long: str = ""
    """The lines after it."""
    perf: tuple[Value, ...] = ()
    not_understood: int = 0
    """Pieces of performance data that are no ``label=value``."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an ended plugin means."""

    state: State
    text: str
    """One line for people."""
    said: str = ""
    """Where the exit status is none of a plugin's, or lies: what it was, and how it was read."""

    @property
    def serves(self) -> bool | None:
        """Tell whether the service serves; None: the plugin does not know."""
        return None if self.state is State.UNKNOWN else self.state is not State.CRITICAL


# The label may be quoted, with '' for a quote in it; else it is all before the first "=".
_PIECE = re.compile(r"'((?:[^']|'')*+)'=([^\s|]*)|([^\s|]+)")
_VALUE = re.compile(
    r"([+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d{1,3})?)([^\W\d_]*(?:/\w+)?|%)"
)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d{1,3})?")
_LONGEST_NUMBER: Final = 400


def parse(output: bytes | str) -> Output:
    """Read an output as Nagios does: text and performance data of the first line, long text, and
    from the second ``|`` on performance data again. Nothing that can be in it is an error."""
    text = output.decode("utf-8", "replace") if isinstance(output, bytes) else output
    text = text[:MOST_BYTES].partition("\0")[0].replace("\r\n", "\n").rstrip("\r\n")
    first, _, rest = text.partition("\n")
    head, _, perf = first.partition("|")
    long, _, more = rest.partition("|")
    values, strange = _perf(f"{perf}\n{more}")
    return Output(head.strip(), long.rstrip(), values, strange)


def _perf(text: str) -> tuple[tuple[Value, ...], int]:
    values: list[Value] = []
    strange = 0
    for match in _PIECE.finditer(text):
        if match[3] is not None:
            label, equals, data = match[3].rpartition("=")
            if not equals and set(match[3]) <= {",", ";"}:
                continue
            found = _value(label, data) if label else None
        else:
            found = _value(match[1].replace("''", "'"), match[2]) if match[1] else None
        if found is None:
            strange += 1
        elif len(values) < MOST_VALUES:
            values.append(found)
    return tuple(values), strange


def _value(label: str, data: str) -> Value | None:
    value, *limits = data.rstrip(",").split(";")
    limits += [""] * 4
    if value == "U":
        number, unit = None, ""
    else:
        match = _VALUE.fullmatch(value) if len(value) < _LONGEST_NUMBER else None
        number = None if match is None else _number(match[1])
        if match is None or number is None:
            return None
        unit = match[2]
    low, high = _number(limits[2]), _number(limits[3])
    return Value(label, number, unit, limits[0] or None, limits[1] or None, low, high)


def _number(text: str) -> float | None:
    """A number with a dot or, from a plugin under another locale, a comma."""
    if len(text) >= _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        return None
    number = float(text.replace(",", "."))
    return number if math.isfinite(number) else None


@dataclass(frozen=True, slots=True)
class Range:
    """A threshold: ``[@]start:end``. It alerts outside, with ``@`` inside; the ends belong to the
    inside."""

    start: float
    end: float
    inverted: bool = False

    @classmethod
    def parse(cls, text: str) -> "Range":
        """Read ``10``, ``10:``, ``~:10``, ``10:20``, ``@10:20``. Raises ``ValueError`` with what
        would be valid."""
        body = text.removeprefix("@")
        low, colon, high = body.rpartition(":")
        start = -math.inf if low == "~" else _number(low) if low else 0.0
        end = math.inf if high in ("", "~") and colon else _number(high)
        if start is None or end is None or start > end:
            raise ValueError(f'no range: {text!r}; valid: "10", "10:", "~:10", "10:20", "@10:20"')
        return cls(start, end, text.startswith("@"))

    def alerts(self, value: float) -> bool:
        """Tell whether the value is one to alert of."""
        return (self.start <= value <= self.end) is self.inverted


_USAGE = re.compile(
    r"^usage:|: error: |^Traceback \(most recent call last\)|"
    r" at .{1,200} line \d+\.?$|^Can't locate .{1,200} in @INC",
    re.IGNORECASE | re.MULTILINE,
)


def judge(status: int, stdout: bytes, stderr: bytes = b"") -> Verdict:
    """Read how a plugin ended. ``status`` as ``Popen.returncode``: below zero for a signal."""
    output = parse(stdout)
    said = stderr[:MOST_BYTES].decode("utf-8", "replace").strip()
    last = said.splitlines()[-1][:_STDERR_BYTES] if said else ""
    text = output.text or (f"(nothing on stdout) stderr: {last}" if last else "(no output)")
    if status < 0:
        return Verdict(State.UNKNOWN, text, f"it was killed by signal {-status}")
    if status in (126, 127):
        how = "could not be executed" if status == 126 else "or what it starts was not found"
        return Verdict(State.UNKNOWN, text, f"it {how} (exit status {status})")
    if status > State.UNKNOWN:
        return Verdict(State.UNKNOWN, text, f"exit status {status} is none of a plugin's (0 to 3)")
    if status == State.CRITICAL and not stdout.strip() and _USAGE.search(said):
        return Verdict(State.UNKNOWN, text, "exit status 2 with an error of the plugin itself")
    return Verdict(State(status), text)
