"""From evidence to causes: each with how sure it is, its evidence, and what to look at next."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from everup.rooms.locate.episode import Entry, Story, changes_before, stories
from everup.rooms.locate.exits import code_words, signal_words
from everup.rooms.locate.output import Line, Said, events, last_error
from everup.rooms.locate.rules import match

CONFIDENT: Final = 0.5
"""A cause that is less sure than this is told as a guess."""
CHANGE_S: Final = 900.0
"""A change that is older than this, at the first failure, is none of its causes."""
_LAST_WORDS_S: Final = 10.0
_DEPTH: Final = 4
_TOGETHER_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that was seen."""

    source: str
    """``journal``, ``output`` or ``config``."""
    text: str
    at: float | None = None
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One hypothesis."""

    kind: str
    says: str
    """The end of a sentence that begins with "because"."""
    confidence: float
    """0 to 1."""
    evidence: tuple[Evidence, ...] = ()
    then: tuple[str, ...] = ()
    through: tuple[str, ...] = ()
    """The services that lead to it, the one where it began last."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Why something failed, or that it did not."""

    subject: str
    sentence: str
    failing: bool
    since: float | None = None
    """When the first failure of this story was, in seconds since 1970."""
    last: float | None = None
    """When the last one was."""
    causes: tuple[Cause, ...] = ()
    """The most likely one first."""
    done: str = ""
    """What everup did about it."""
    path: tuple[str, ...] = ()
    """From the subject to the service where it began."""

    @property
    def cause(self) -> Cause | None:
        """The first cause, if it is sure enough."""
        found = self.causes[0] if self.causes else None
        return found if found is not None and found.confidence >= CONFIDENT else None


@dataclass(frozen=True)
class Known:
    """All that there is to go by."""

    entries: Sequence[Entry]
    """Of the journal, oldest first."""
    output: Callable[[str, float, float], Sequence[Line]]
    """Lines of an instance between two times."""
    addresses: Mapping[str, Sequence[str]]
    """Where each service listens."""
    needs: Mapping[str, Collection[str]] = field(default_factory=dict)
    """What each service needs, as far as that is declared or was seen."""

    @cached_property
    def told(self) -> Mapping[str, Story]:
        """The entries as stories, read once however many subjects are asked for."""
        return stories(self.entries)


def why(subject: str, known: Known) -> Answer:
    """Say why a service or an instance failed last. Raises ``LookupError`` where the journal knows
    nothing of it."""
    return _why(subject, known, ())


def _why(subject: str, known: Known, path: tuple[str, ...]) -> Answer:
    told = known.told
    mine = [story for story in told.values() if subject in (story.slot, story.service)]
    if not mine:
        raise LookupError(subject)
    story = max(mine, key=lambda s: (s.is_down, (s.last or {"at": -1.0})["at"]))
    path = (*path, story.service)
    if story.waiting is not None and (answer := _held_back(story, known, path)):
        return replace(answer, subject=subject)
    if story.last is None:
        state = f"is {story.state}" if story.state else "has not been started"
        text = f"{subject} {state}; the journal has no failure of it"
        return Answer(subject, text, failing=False)
    found = sorted(_causes(story, known, path), key=lambda c: -c.confidence)
    answer = Answer(
        subject,
        "",
        story.is_down,
        story.failures[0]["at"],
        story.last["at"],
        tuple(found),
        _done(story),
        (*path, *(found[0].through if found and found[0].confidence >= CONFIDENT else ())),
    )
    return replace(answer, sentence=_sentence(story, answer))


def _held_back(story: Story, known: Known, path: tuple[str, ...]) -> Answer | None:
    """It waits for what it depends on: the cause is there."""
    assert story.waiting is not None
    reason = str(story.waiting.get("reason", ""))
    names = re.sub(r"^waits for ", "", reason).split(", ") if "waits for" in reason else []
    for name in names:
        if (
            name in path
            or len(path) > _DEPTH
            or not any(s.service == name for s in known.told.values())
        ):
            continue
        inner = _why(name, known, path)
        seen = Evidence("journal", f"{story.slot} {reason}", story.waiting["at"])
        cause = inner.cause
        says = f"{name} is not up" + (f", because {cause.says}" if cause else "")
        mine = Cause(
            "dependency", says, 0.95, (seen, *(cause.evidence if cause else ())),
            cause.then if cause else (f"everup why {name}",),
        )  # fmt: skip
        text = f"{story.slot} is not started, because {says}"
        at = story.waiting["at"]
        return Answer(story.slot, text, True, at, at, (mine,), inner.done, inner.path)
    return None


def _causes(story: Story, known: Known, path: tuple[str, ...]) -> list[Cause]:
    last = story.last
    assert last is not None
    found = [*_ending(story, last), *_output(story, last, known, path)]
    changes = changes_before(known.entries, story.service, story.failures[0]["at"], CHANGE_S)
    if changes:
        found = _with_change(found, changes[-1], story)
    siblings = _siblings(story, known.told)
    return [replace(c, evidence=(*c.evidence, *siblings)) for c in found]


def _ending(story: Story, last: Entry) -> list[Cause]:
    """How the process ended tells something by itself."""
    text, at = str(last.get("cause", "")), last["at"]
    times = f", {len(story.failures)} times" if len(story.failures) > 1 else ""
    up = f" after {last['up_s']:.3g} s" if "up_s" in last else ""
    seen = (Evidence("journal", f"{story.slot} ended: {text}{up}{times}", at),)
    match last.get("exit_kind"):
        case "oom":
            says = "the kernel killed it for using more memory than it may"
            then = ("limits.memory of the service, or a leak: everup status",)
            return [Cause("memory_limit", says, 0.97, seen, then)]
        case "spawn":
            then = ("everup check",)
            return [Cause("start", f"it could not be started: {text}", 0.96, seen, then)]
        case "hook":
            return [Cause("hook", f"a hook failed: {text}", 0.9, seen)]
        case "signal" if last.get("killed_for"):
            verdict = str(last["killed_for"])
            says = f"it did not answer any more ({verdict}), so everup killed it"
            return [Cause("hung", says, 0.6, seen, ("is it stuck, or too slow for the probe?",))]
        case "signal":
            words = signal_words(text)
            sure = 0.55 if text.startswith(("SIGKILL", "SIGTERM", "SIGINT")) else 0.7
            return [Cause("signal", words or f"it was ended by {text}", sure, seen)]
        case "code":
            code = int(last.get("value") or 0)
            words = code_words(code)
            if code == 0:
                says = "it ended by itself without an error, though it should go on"
                then = ("does it go into the background? run it in the foreground",)
                return [Cause("ended", says, 0.5, seen, then)]
            says = words or f"it ended with exit code {code}, which only its own program explains"
            return [Cause("exit", says, 0.5 if words else 0.3, seen)]
        case _:
            return [Cause("unseen", "it ended while nobody looked", 0.2, seen)]


def _output(story: Story, last: Entry, known: Known, path: tuple[str, ...]) -> list[Cause]:
    """What it said last."""
    begin = last["at"] - max(min(float(last.get("up_s") or 0.0), 600.0), _LAST_WORDS_S)
    said = events(known.output(story.slot, begin, last["at"] + 1.0))
    error = last_error(said)
    if error is None:
        return []
    near = last["at"] - error.at <= _LAST_WORDS_S or error.traceback
    matched = next((m for text in _candidates(error) if (m := match(text))), None)
    where = f" at {error.where}" if error.where else ""
    seen = Evidence("output", f"{error.headline}{where}", error.at)
    if matched is None:
        says = f"it ended with {error.headline}{where}" if error.traceback else (
            f"it said: {error.headline}"
        )  # fmt: skip
        sure = 0.8 if error.traceback else 0.5
        return [
            Cause("error", says, sure if near else 0.3, (seen,), (f"everup logs {story.slot}",))
        ]
    if matched.line not in error.headline:
        seen = Evidence("output", matched.line, error.at)
    cause = Cause(matched.rule.kind, matched.says, 0.9 if near else 0.45, (seen,), (matched.then,))
    return [through(cause, address_of(matched.found), last["at"], known, path)]


def _candidates(error: Said) -> list[str]:
    """The lines of an event, the one that names the error first, then upwards."""
    lines = [line.strip() for line in error.lines if line.strip()]
    return [error.headline, *reversed(lines)]


def address_of(found: Mapping[str, str]) -> str:
    """Give the address that a rule has found in a line; "" where there is none."""
    return found.get("at") or (f":{found['port']}" if found.get("port") else "")


def through(cause: Cause, at: str, when: float, known: Known, path: tuple[str, ...]) -> Cause:
    """Follow a cause to the service where it began: nobody answers at an address, and a service of
    ours should."""
    if cause.kind not in ("refused", "timeout") or len(path) > _DEPTH:
        return cause
    name = behind(at, known, path) if at else _failed_behind(when, known, path)
    if name is None:
        return cause
    try:
        inner = _why(name, known, path)
    except LookupError:
        return cause
    if inner.cause is None and not inner.failing:
        said = f"{cause.says} (that is the service {name})" if at else cause.says
        return replace(cause, says=said)
    deeper = f", because {inner.cause.says}" if inner.cause else ""
    more = inner.cause.evidence if inner.cause else ()
    then = inner.cause.then if inner.cause else (f"everup why {name}",)
    says = f"{name}, which it needs, was down{deeper}"
    sure = 0.93 if at else 0.8
    on = inner.path[len(path) :]
    return Cause("dependency", says, sure, (*cause.evidence, *more), then, on or (name,))


def _failed_behind(when: float, known: Known, path: tuple[str, ...]) -> str | None:
    """The one service that this one needs, or where nobody knows what it needs the one that listens
    at all, and that failed at about the same time: the address itself was not said."""
    needed = known.needs.get(path[-1]) or [name for name, at in known.addresses.items() if at]
    failed = {
        story.service
        for story in known.told.values()
        if story.service in needed
        and story.service not in path
        and story.last is not None
        and (story.is_down or abs(story.last["at"] - when) <= _TOGETHER_S)
    }
    return failed.pop() if len(failed) == 1 else None


def behind(at: str, known: Known, path: tuple[str, ...]) -> str | None:
    """Give the service that listens at an address, if it is not in the path already."""
    port = at.rpartition(":")[2]
    for name, addresses in known.addresses.items():
        if name not in path and any(address.rpartition(":")[2] == port for address in addresses):
            return name
    return None


def _with_change(found: list[Cause], change: Entry, story: Story) -> list[Cause]:
    """A change shortly before the first failure supports every other cause, and is one itself."""
    ago_s = story.failures[0]["at"] - change["at"]
    words = {
        "config.reloaded": "the config was changed",
        "service.scaled": f"it was scaled to {change.get('replicas')}",
        "everup.upgrading": "everup itself was replaced",
        "rollout.started": f"its processes were replaced ({change.get('how')})",
    }[str(change["kind"])]
    by = f" by {change['by']}" if change.get("by") else ""
    seen = Evidence("journal", f"{words}{by} {ago_s:.3g} s before the first failure", change["at"])
    sure = 0.6 if ago_s < 60 else 0.45
    own = Cause("change", f"{words}{by} just before", sure, (seen,), ("everup events --since 1h",))
    return [*(replace(cause, evidence=(*cause.evidence, seen)) for cause in found), own]


def _siblings(story: Story, told: Mapping[str, Story]) -> tuple[Evidence, ...]:
    others = [s for s in told.values() if s.service == story.service and s.slot != story.slot]
    well = [s.slot for s in others if s.state == "ready" and not s.is_down]
    bad = [s.slot for s in others if s.is_down]
    if bad and not well:
        return (Evidence("journal", f"{', '.join(bad)} failed too: it is not this replica alone"),)
    if well:
        return (Evidence("journal", f"{', '.join(well)} of the same service goes on serving"),)
    return ()


def _done(story: Story) -> str:
    parts = []
    if n := story.restarts:
        parts.append(f"everup started it again {n} times" if n > 1 else "everup started it again")
    delay_s = story.state_entry.get("delay_s")
    if story.state == "parked":
        parts.append(f"tries every {delay_s:.3g} s" if delay_s else "tries slowly")
    elif story.state == "backoff" and delay_s:
        parts.append(f"tries again after {delay_s:.3g} s")
    elif story.state == "failed":
        parts.append("its restart policy says not to start it again")
    elif story.state == "ready":
        parts.append("it has been ready since")
    return ", ".join(parts)


def _sentence(story: Story, answer: Answer) -> str:
    state = {
        "parked": "is parked (it crashed too often)", "failed": "has failed",
        "backoff": "keeps ending", "starting": "does not come up",
    }.get(story.state, "failed")  # fmt: skip
    if cause := answer.cause:
        return f"{story.slot} {state}, because {cause.says}"
    guess = f"; it may be that {answer.causes[0].says}" if answer.causes else ""
    return f"{story.slot} {state}; no confident cause{guess}"
