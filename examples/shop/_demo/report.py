"""Journal lines and numbers as text, at most 100 columns wide."""

import json
from collections.abc import Iterator, Sequence

from _demo.control import Event
from _demo.incident import Step
from _demo.load import Sample, Window, window

_WIDTH = 98
_WORDS = ("cause", "sign", "reason", "verdict", "detail")
_NUMBERS = {
    "instance.spawned": "pid",
    "instance.backoff": "delay_s",
    "instance.parked": "delay_s",
    "balance.changed": "replicas",
}
_ALWAYS = ("instance.exited", "instance.running")
"""Their reason is repeated: why it ended, and why it is no longer ready."""


def journal_lines(events: Sequence[Event], zero_s: float) -> Iterator[str]:
    """One line an event; a reason that the line before has given already is left out."""
    said = ""
    for event in events:
        words = []
        for text in (str(event.payload.get(key) or "") for key in _WORDS):
            short = text.replace(f" ({said})", "") if said else text
            if short and (short not in said or event.kind in _ALWAYS):
                words.append(short)
            said = text or said
        key = _NUMBERS.get(event.kind)
        if key is not None and key in event.payload:
            words.append(f"{key}={json.dumps(event.payload[key])}")
        head = f"{event.mono_s - zero_s:+8.3f} s  {event.subject:<8} {event.kind:<18}"
        line = f"{head} {', '.join(words)}".rstrip()
        yield line if len(line) <= _WIDTH else line[: _WIDTH - 3] + "..."


def requests_text(part: Window, slow_s: float) -> str:
    """The same numbers as in the result, as a sentence."""
    text = f"{part.sent} requests: {part.answered} answered, {part.lost} lost"
    if part.slow:
        text += f"; {part.slow} waited over {slow_s:g} s, the slowest {part.slowest_s:.2f} s"
    return text


def result_rows(
    steps: Sequence[Step], samples: Sequence[Sample], slow_s: float
) -> tuple[list[tuple[str, ...]], Window]:
    """The table and its last row: every request is in exactly one row."""
    head = ("fault", "noticed", "ready again", "sent", "answered", "lost", "slow", "slowest")
    rows: list[tuple[str, ...]] = [head]
    for step in steps:
        part = window(samples, step.from_s, step.to_s, slow_s)
        rows.append((step.name, _seconds(step.noticed_s), _seconds(step.ready_s), *_numbers(part)))
    total = window(samples, float("-inf"), float("inf"), slow_s)
    rows.append(("all", "", "", *_numbers(total)))
    return rows, total


def _seconds(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s:.3f} s"


def _numbers(part: Window) -> tuple[str, ...]:
    counts = (part.sent, part.answered, part.lost, part.slow)
    return (*(str(count) for count in counts), f"{part.slowest_s:.3f} s")
