"""Journal lines and numbers as text, at most 100 columns wide."""

import json
from collections.abc import Iterator, Sequence

from _demo.control import Event
from _demo.incident import Step
from _demo.load import Sample, Window, window

_WIDTH = 98
_SHOWN = ("cause", "reason", "verdict", "sign", "detail", "delay_s", "pid", "replicas", "lag_s")
_ENDS = ("instance.exited", "instance.stopped")


def journal_lines(events: Sequence[Event], zero_s: float) -> Iterator[str]:
    """One line an event; what the line before has said already is left out."""
    said = ""
    for event in events:
        words = []
        for key in _SHOWN:
            value = event.payload.get(key)
            if value in (None, "") or (key == "pid" and event.kind in _ENDS):
                continue
            text = value if isinstance(value, str) else json.dumps(value)
            if key in ("cause", "reason", "verdict", "sign", "detail"):
                if text in said:
                    continue
                said = text
                words.append(text)
            else:
                words.append(f"{key}={text}")
        head = f"{event.mono_s - zero_s:+8.3f} s  {event.subject:<8} {event.kind:<19}"
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
    late = f"over {slow_s:g} s"
    head = ("fault", "noticed", "ready again", "sent", "answered", "lost", late, "slowest")
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
