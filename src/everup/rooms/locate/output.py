"""Output as events: the lines of one traceback are one; the last error of a process is found."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MOST_LINES: Final = 400
"""Lines of one event; what is longer is told by its end."""
_MOST_TEXT: Final = 2000
"""Characters of one line that are looked at."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line that a process wrote, as text. ``at`` is in seconds since 1970."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Said:
    """One event in the output of a process: a line, or all lines of a traceback."""

    at: float
    """When its last line was written, in seconds since 1970."""
    lines: tuple[str, ...]
    traceback: bool = False

    @property
    def headline(self) -> str:
        """The line that names the error."""
        if not self.traceback:
            return self.lines[-1].strip()
        named = [line.strip() for line in self.lines if _NAMES.match(line.strip())]
        return (named[-1] if named else self.lines[-1]).strip()

    @property
    def where(self) -> str:
        """The innermost place in the code that the traceback names; "" where there is none."""
        places = [match for line in self.lines if (match := _PLACE.match(line))]
        if not places:
            return ""
        own = [p for p in places if "site-packages" not in p["file"] and "<frozen" not in p["file"]]
        last = (own or places)[-1]
        return f"{last['file']}:{last['line']}"


_NAMES = re.compile(
    r"(?:\| *)?(?:[\w.$]*(?:Error|Exception|Exit|Interrupt|Warning|Group|Iteration|Fault)\b"
    r"|[\w]+(?:\.[\w]+)+(?::|$)|Caused by: |panic: |fatal error: |thread '.*' panicked at)"
)
_PLACE = re.compile(r'[ |+-]*File "(?P<file>[^"]+)", line (?P<line>\d+)')
_BEGINS = re.compile(
    r"[ |+-]*(?:Exception Group )?Traceback \(most recent call last\):"
    r"|Exception in thread |panic: |fatal error: |thread '.*' panicked at"
    r"|\S*Error: .*|Uncaught \S+"
)
_GOES_ON = re.compile(
    r"\s+\S|\s*$|[ |+-]*Traceback|During handling of the above|The above exception was"
    r"|Caused by: |\[signal |\}$|goroutine \d+|created by |\S+\(.*\)$|\t|[ |+-]+(?:\||\+)"
    r"|note: run with|node:internal|Node\.js v|stack backtrace:|\s*\d+: "
)
_CHAINED = re.compile(r"During handling of the above|The above exception was")
_BAD = re.compile(
    r"\b(?:error|fatal|critical|panic|emerg|alert|exception|failed|failure|cannot|can't|unable"
    r"|denied|refused|not found|no such|abort(?:ed|ing)?|segmentation fault|killed)\b",
    re.IGNORECASE,
)
_FINE = re.compile(r"\b(?:info|debug|trace|notice)\b|\b0 (?:errors|failed)\b", re.IGNORECASE)


def events(lines: Sequence[Line]) -> list[Said]:
    """Join the lines of tracebacks (Python, Java, Go, Node, Rust); every other line is an event."""
    out: list[Said] = []
    open_: list[str] = []
    at = 0.0
    named = False
    for line in lines:
        text = line.text[:_MOST_TEXT]
        if open_ and _is_another(text, open_, named):
            out.append(_closed(at, open_))
            open_, named = [], False
        if open_ and (_continues(text, named) and len(open_) < MOST_LINES):
            open_.append(text)
            named = bool(_NAMES.match(text.strip())) and not text.startswith((" ", "\t"))
            at = line.at
            continue
        if open_:
            out.append(_closed(at, open_))
            open_, named = [], False
        if _BEGINS.match(text):
            open_, at = [text], line.at
            named = "Traceback" not in text
        elif text.strip():
            out.append(Said(line.at, (text,)))
    if open_:
        out.append(_closed(at, open_))
    return out


def _closed(at: float, lines: list[str]) -> Said:
    while len(lines) > 1 and not lines[-1].strip():
        lines.pop()
    return Said(at, tuple(lines), traceback=len(lines) > 1)


def _is_another(text: str, before: Sequence[str], named: bool) -> bool:
    """Whether a traceback begins that has nothing to do with the one before: nothing between them
    says that one came of the other."""
    if not named or not text.startswith("Traceback"):
        return False
    last = next((line for line in reversed(before) if line.strip()), "")
    return not _CHAINED.match(last)


def _continues(text: str, named: bool) -> bool:
    """Whether a line belongs to the traceback before it. The line that names the error is the
    first that is not indented; after it only chained tracebacks and frames go on."""
    if _GOES_ON.match(text):
        return True
    return not named and bool(_NAMES.match(text.strip()))


def last_error(said: Sequence[Said]) -> Said | None:
    """Give the last traceback, else the last line that speaks of an error; None: there is none."""
    for event in reversed(said):
        if event.traceback:
            return event
    for event in reversed(said):
        line = event.headline
        if _NAMES.match(line) or (_BAD.search(line) and not _FINE.search(line)):
            return event
    return None
