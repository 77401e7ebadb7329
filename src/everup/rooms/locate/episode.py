"""What the journal tells of a failure: which instance, since when, what was done."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Entry = Mapping[str, Any]
"""One event of the journal, as the API gives it, with its time as ``at`` in seconds since 1970."""
GAP_S: Final = 600.0
"""Failures of one instance that are further apart are two stories."""
_STATES: Final = {
    "instance.starting": "starting", "instance.running": "running", "instance.ready": "ready",
    "instance.draining": "draining", "instance.stopping": "stopping",
    "instance.backoff": "backoff", "instance.parked": "parked", "instance.failed": "failed",
    "instance.stopped": "stopped",
}  # fmt: skip


@dataclass(slots=True)
class Story:
    """One instance, as the journal has it."""

    slot: str
    state: str = ""
    state_at: float = 0.0
    state_entry: Entry = field(default_factory=dict)
    waiting: Entry | None = None
    """Why it is not started, if that is the last word on it."""
    asked: set[int] = field(default_factory=set)
    """Runs that were told to stop by an operator, a rollout or a group."""
    failures: list[Entry] = field(default_factory=list)
    """Ends and refused starts that nobody asked for, of one story, oldest first."""
    starts: list[Entry] = field(default_factory=list)
    unhealthy: Entry | None = None

    @property
    def service(self) -> str:
        return self.slot.rpartition(".")[0]

    @property
    def last(self) -> Entry | None:
        return self.failures[-1] if self.failures else None

    @property
    def is_down(self) -> bool:
        """It should run, and does not serve."""
        if self.state in ("parked", "failed", "backoff"):
            return True
        return self.waiting is not None or (self.state == "starting" and bool(self.failures))

    @property
    def restarts(self) -> int:
        """How often it was started again in this story."""
        if not self.failures:
            return 0
        return sum(entry["at"] >= self.failures[0]["at"] for entry in self.starts)


def stories(entries: Iterable[Entry]) -> dict[str, Story]:
    """Read the events of a journal, oldest first, into one story for each instance."""
    out: dict[str, Story] = {}
    for entry in entries:
        kind, subject = str(entry["kind"]), str(entry["subject"])
        if "." not in subject or not kind.startswith(("instance.", "hook.")):
            continue
        _take(out.setdefault(subject, Story(subject)), kind, entry)
    return out


def _take(story: Story, kind: str, entry: Entry) -> None:
    if kind in _STATES:
        story.state, story.state_at, story.state_entry = _STATES[kind], entry["at"], entry
        story.waiting = None
    if kind == "instance.waiting":
        story.waiting = entry
    elif kind == "instance.stopping" and story.unhealthy is None:
        story.asked.add(int(entry.get("run", 0)))
    elif kind == "instance.unhealthy":
        story.unhealthy = entry
    elif kind == "instance.starting":
        story.starts.append(entry)
    elif kind == "instance.exited":
        run, by_verdict = int(entry.get("run", 0)), bool(entry.get("killed_for"))
        story.unhealthy = None
        fine = entry.get("exit_kind") == "code" and entry.get("value") == 0 and not by_verdict
        if by_verdict or run not in story.asked:
            if story.failures and entry["at"] - story.failures[-1]["at"] > GAP_S:
                story.failures.clear()
            story.failures.append({**entry, "clean": fine})
    elif kind == "instance.stopped" and entry.get("done"):
        story.failures.clear()


def changes_before(
    entries: Sequence[Entry], service: str, at: float, within_s: float
) -> list[Entry]:
    """Give what people changed shortly before: config, rollouts, scaling, everup itself; the
    nearest last."""
    kinds = ("config.reloaded", "service.scaled", "everup.upgrading", "rollout.started")
    return [
        entry
        for entry in entries
        if entry["kind"] in kinds
        and entry["subject"] in ("everup", service)
        and entry.get("how") not in ("verdict", "rollback")
        and 0 <= at - entry["at"] <= within_s
    ]
