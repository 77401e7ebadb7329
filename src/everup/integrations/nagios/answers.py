"""What everup answers a plugin's question with: all services, one of them, or the objectives.

Pure, of the standard library alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from everup.integrations import standing, telling
from everup.integrations.nagios.command import one_line, performance
from everup.integrations.standing import Level

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a plugin."""

    level: Level
    text: str

    @classmethod
    def of(
        cls,
        level: Level,
        text: str,
        numbers: Mapping[str, float] | None = None,
        more: Iterable[str] = (),
    ) -> "Answer":
        """Put together an answer: text, performance data, further lines."""
        perf = f" | {performance(numbers)}" if numbers else ""
        lines = [f"EVERUP {level.name} - {one_line(text)}{perf}", *map(one_line, more)]
        return cls(level, "\n".join(lines))


def unknown(text: str) -> Answer:
    """Answer that it cannot be told, and why."""
    return Answer.of(Level.UNKNOWN, text)


def services(
    status: Mapping[str, Any], subject: str = "", causes: Mapping[str, str] | None = None
) -> Answer:
    """Answer how all services are, or one of them; with causes by service where they are known."""
    found = telling.with_causes(standing.of_all(status), causes or {})
    if subject:
        one = next((s for s in found if s.service == subject), None)
        if one is None:
            names = ", ".join(s.service for s in found)
            return unknown(f"there is no service {subject}; there are: {names or 'none'}")
        return Answer.of(one.level, one.text, one.numbers)
    itself = standing.of_everup(status, found)
    bad = sorted((s for s in found if s.level), key=lambda s: (-s.level, s.service))
    level = max([itself.level, *(s.level for s in bad)])
    text = "; ".join(s.text for s in bad[:_MOST_NAMED]) if bad else itself.text
    if itself.level and bad:
        text = f"{itself.text}; {text}"
    if len(bad) > _MOST_NAMED:
        text += f"; and {len(bad) - _MOST_NAMED} more"
    numbers = dict(itself.numbers)
    for s in found:
        numbers[f"{s.service}_ready"] = s.numbers["ready"]
    return Answer.of(level, text, numbers, [f"{s.service}: {s.level.name} {s.text}" for s in found])


def objectives(events: Iterable[Mapping[str, Any]], subject: str = "") -> Answer:
    """Answer whether error budgets are spent too fast, from the events ``slo.burning`` and
    ``slo.calm``, oldest first."""
    last: dict[str, Mapping[str, Any]] = {}
    for event in events:
        if event["kind"] in ("slo.burning", "slo.calm") and subject in ("", event["subject"]):
            last[event["subject"]] = event
    burning = {name: event for name, event in last.items() if event["kind"] == "slo.burning"}
    if not burning:
        return Answer.of(Level.OK, "no error budget is spent too fast")
    level = Level.WARNING
    words = []
    for name, event in sorted(burning.items()):
        if event.get("urgency") == "page":
            level = Level.CRITICAL
        words.append(f"{name} spends its error budget {event['burn_rate']:.3g} times too fast")
    numbers = {f"{name}_burn_rate": float(e["burn_rate"]) for name, e in sorted(burning.items())}
    return Answer.of(level, "; ".join(words), numbers)
