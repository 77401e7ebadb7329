"""Reload and reexec: what changes everup itself or its config, as requests."""

import contextlib
import os
from pathlib import Path
from typing import Any

from everup import config
from everup.adapters import accepted, aside, named, trusted
from everup.adapters.launch import user_exists
from everup.adapters.place import Place
from everup.api import first
from everup.api.backend import Backend
from everup.api.commands import Refusal, overlaps
from everup.engine.records import CannotChangeError, Plan
from everup.engine.reload import plan_of
from everup.model.event import Reload
from everup.model.spec import Spec

_MAX_WORDS = 16
_READ_S = 10.0
_WRITE_S = 10.0


async def reload(backend: Backend, body: dict[str, Any], by: str) -> dict[str, Any]:
    """Apply the config file as it is now, or only say what that would change (``dry_run``)."""
    place = backend.place
    text, spec = await _read(place)
    overlap = overlaps(body)
    plan, answer = _plan(backend, spec, overlap)
    await first.can_apply(backend, spec, plan)
    if body.get("dry_run"):
        return answer
    _refuse_while_busy(backend, plan)
    await _store(backend, text, waits=bool(plan))
    if plan:
        try:
            _refuse_while_busy(backend, plan)  # meanwhile another one may have come
            _plan(backend, spec, overlap)
        except Refusal:
            if backend.engine.reloading is None:
                backend.shelf.put(lambda: Path(place.next).unlink(missing_ok=True))
            raise
        backend.dispatch(Reload(spec, by, overlap))
    return answer


def _plan(backend: Backend, spec: Spec, overlap: bool) -> tuple[Plan, dict[str, Any]]:
    """What would change, also in words for whoever asks."""
    engine = backend.engine
    if engine.quitting:
        raise Refusal(409, "everup is stopping", "wait for it, then: everup up")
    try:
        plan = plan_of(engine, spec)
    except CannotChangeError as error:
        raise Refusal(409, f"{error}; nothing was changed", "look: everup status") from None
    answer: dict[str, Any] = {"plan": plan_payload(engine.spec, spec, plan, overlap)}
    return plan, answer | {
        "after": backend.journal.last_seq,
        "changed": bool(plan),
        "slots": [],
    }


def _refuse_while_busy(backend: Backend, plan: Plan) -> None:
    engine = backend.engine
    busy = sorted(engine.rolling) if plan else []
    if engine.reloading is not None or busy:
        what = "another reload" if engine.reloading is not None else f"a restart of {busy[0]}"
        raise Refusal(409, f"{what} is under way", "look: everup status")


async def _read(place: Place) -> tuple[str, Spec]:
    def check() -> tuple[str, config.Report]:
        text = named.read_text(place.config, config.MAX_BYTES)
        return text, config.check(
            text, path=place.config, directory=place.config_dir, known_users=user_exists
        )

    try:
        text, report = await aside.run(_READ_S, check)
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(400, f"cannot read {place.config}: {error}; nothing was changed") from None
    if report.spec is None:
        problems = "".join(f"\n  {problem}" for problem in report.problems[:20])
        raise Refusal(
            400, f"{place.config} is not valid; nothing was changed:{problems}", "everup check"
        )
    return text, report.spec


async def _store(backend: Backend, text: str, *, waits: bool) -> None:
    """Nothing is changed where the text cannot be kept for the next engine."""
    place, shelf = backend.place, backend.shelf

    def write() -> None:
        trusted.write_file(place.next, text) if waits else accepted.write(place, text)

    try:
        await shelf.done(write, _WRITE_S)
    except OSError as error:
        if waits:  # should it get there after all, it must not be applied some time
            with contextlib.suppress(OSError):
                shelf.put(lambda: Path(place.next).unlink(missing_ok=True))
        why = error.strerror or str(error)
        raise Refusal(
            507, f"cannot write to {place.state_dir}: {why}; nothing was changed"
        ) from error


def plan_payload(old: Spec, new: Spec, plan: Plan, overlap: bool = True) -> dict[str, Any]:
    """The plan as data: what is added, removed, changed, and how."""

    def how(restart: bool, cold: bool, overlaps: bool) -> str:
        if not restart:
            return "in place"
        if cold:
            return "stop and start"
        return "rolling" if overlaps and overlap else "one by one"

    return {
        "added": list(plan.added),
        "removed": list(plan.removed),
        "changed": [
            {
                "service": change.service,
                "keys": list(change.keys),
                "how": how(change.restart, change.cold, new.service[change.service].overlaps),
            }
            for change in plan.changed
        ],
        "settings": list(plan.settings),
    }


def argvs(body: dict[str, Any]) -> tuple[list[str], list[str], str]:
    """The keeper and the engine to become, and their version."""
    out = []
    for key in ("argv", "engine"):
        words = body.get(key)
        if not isinstance(words, list) or not 0 < len(words) <= _MAX_WORDS:
            raise Refusal(400, f"{key}: expected a list of words")
        if not all(isinstance(word, str) and "\0" not in word for word in words):
            raise Refusal(400, f"{key}: expected a list of words")
        if not os.path.isabs(words[0]):
            raise Refusal(400, f"{key}: {words[0]!r} is no absolute path")
        out.append(list(words))
    return out[0], out[1], str(body.get("version", ""))[:100]
