"""The first and the last moments of an engine: taking over, and leaving to another."""

import contextlib
import hashlib
import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everup.adapters import accepted, aside, named, proof, python
from everup.adapters.aside import Shelf
from everup.adapters.fdstore import FdStore
from everup.adapters.leftovers import end_leftovers
from everup.adapters.place import Place
from everup.api import first
from everup.api.commands import Refusal
from everup.config import MAX_BYTES, ConfigError, load
from everup.daemon import fencing, handover
from everup.daemon.doors import Doors
from everup.engine.core import Engine
from everup.engine.fold import ChildFact, bearable, fold, gave_up, reload_is_open, replicas
from everup.engine.records import CannotChangeError
from everup.engine.reload import plan_of
from everup.keeper.starts import FAILED_STARTS, MOST_FAILED_STARTS
from everup.model.display import shown_line
from everup.model.event import Reload, Up
from everup.model.instance import Slot
from everup.model.journal import Entry, Kind
from everup.model.spec import Service, Spec

if TYPE_CHECKING:
    from everup.daemon.runtime import Runtime

_READ_S = 2.0
_FIRST_DELAY_S = 0.1
_LEFT_OUT = "an entry of the journal is damaged and nothing goes by it"
_MAX_DELAY_S = 5.0


def begin(runtime: "Runtime", hello: Mapping[str, Any], held: dict[str, int]) -> None:
    """The keeper has told all it holds: start, or take over. ``held`` are its descriptors."""
    for name in ("lock", "api", "console"):  # the client has one, too
        if (copy := held.pop(name, None)) is not None:
            os.close(copy)
    _open_notify(runtime, held.pop("notify", None))
    takeover = hello["engine_starts"] > 1
    latest = runtime.journal.latest()
    candidate = None if runtime.next_is_over else _candidate(runtime.place)
    if candidate and (why := gave_up(latest, digest(runtime.place.next))):
        runtime.record(Kind.ROLLED_BACK, "everup", reason=f"{why}; what runs stays as it is")
        discard(runtime.place, runtime.shelf)
        candidate, latest = None, runtime.journal.latest()
    is_open = reload_is_open(latest) and _is_about_next(runtime.place, latest)
    pending = candidate if is_open else None
    added = pending.service if pending else {}
    names = {*runtime.engine.services, *added}
    for name in [n for n in held if n.startswith("sock:")]:
        runtime.bank.adopt(name, held.pop(name))
    runtime.bank.forget_unused(list(names))
    fencing.keep(held, hello["children"])
    known = _known(hello, held)
    facts, ended = _children(runtime, hello, held, added)
    _salvage(runtime, held)
    _tell(runtime, hello, takeover)
    if not takeover or any(child.get("stranger") for child in hello["children"]):
        users = proof.users(runtime.engine.spec)
        found = end_leftovers(runtime.place.state_dir, runtime.cgroups, hello["children"], users)
        for name, pids in found.items():
            runtime.record(Kind.LEFTOVER, name, pids=pids)
    if not takeover:
        latest = [entry for entry in latest if not _stale(entry)]
    up = _fold(runtime, latest, facts, pending, takeover=takeover)
    adopted = (
        replace(a, facts={"uid": proof.real_uid(a.pid)} | dict(a.facts) | known[a.slot, a.run])
        for a in up.adopted
    )
    up = replace(up, adopted=tuple(adopted))
    runtime.dispatch(up)
    for report in ended:
        runtime.crew.reported(report)
    if pending is None:
        _apply_next(runtime, candidate, up)
    if systemd := os.environ.get("NOTIFY_SOCKET"):
        FdStore(systemd).ready()


def _fold(
    runtime: "Runtime",
    latest: list[Entry],
    facts: list[ChildFact],
    pending: Spec | None,
    *,
    takeover: bool,
) -> Up:
    """What is known. An entry that it fails at is damaged: that one is left out, and said. After
    engines that could not begin, the first step is tried with it as well, by an engine that does
    nothing: half of what it knows is better than to fail at it for ever."""
    spec, boot, now = runtime.engine.spec, runtime.boot, time.monotonic()

    def check(entries: list[Entry]) -> Up:
        up = fold(spec, entries, facts, boot, now, candidate=pending, takeover=takeover)
        for adopted in up.adopted:
            dict(adopted.facts)
        if careful:
            Engine(spec, random=random.random, scaled=replicas(entries)).handle(up, now)
        return up

    careful = int(os.environ.pop(FAILED_STARTS, "0")) >= MOST_FAILED_STARTS
    for what in runtime.journal.damaged:
        _left_out(runtime, what)
    try:
        return check(latest)
    except MemoryError:
        raise
    except Exception:
        good, bad = bearable(latest, check)
    for entry in bad:
        _left_out(runtime, f"{entry.kind} of {entry.subject} (number {entry.seq})")
    careful = careful and bool(good)  # where all fails, what runs is known at least
    return check(good)


def _left_out(runtime: "Runtime", what: str) -> None:
    runtime.record(Kind.FACILITY, "everup", detail=f"{_LEFT_OUT}: {what}")


def _salvage(runtime: "Runtime", held: dict[str, int]) -> None:
    """The pipes of processes that are gone: their last words are stored, then nobody needs them."""
    streams: dict[tuple[str, int], dict[str, int]] = {}
    for name, fd in held.items():
        kind, _, rest = name.partition(":")
        slot, _, rest = rest.partition(":")
        number, _, stream = rest.partition(":")
        if kind == "pipe" and slot.rpartition(".")[0] in runtime.engine.services:
            streams.setdefault((slot, int(number)), {})[f"std{stream}"] = fd
        else:
            os.close(fd)
    for (slot, run), fds in streams.items():
        log = runtime.service(slot.rpartition(".")[0]).log
        runtime.logs.attach(slot, run, log, fds, resumed=True)
        runtime.logs.ended(slot, run)
    if held:
        runtime.keeper.drop(list(held))
    held.clear()


def _open_notify(runtime: "Runtime", held: int | None) -> None:
    fd = runtime.ears.open(runtime.place.notify_socket, held)
    if held is None:
        runtime.keeper.hold(["notify"], [fd])
    runtime.loop.add_reader(fd, runtime.ears.readable)
    doors = Doors(runtime)
    runtime.spawn_task(doors.keep_notify())
    runtime.spawn_task(doors.keep_lock())


def _children(
    runtime: "Runtime",
    hello: Mapping[str, Any],
    held: dict[str, int],
    added: Mapping[str, Service],
) -> tuple[list[ChildFact], list[dict[str, Any]]]:
    facts, ended = [], []
    for child in hello["children"]:
        meta = child["meta"]
        if meta["role"] == "aid":
            runtime.aids.adopt(child, held)
            continue
        slot = Slot.parse(meta["slot"])
        if meta["role"] == "main" and _is_known(runtime, slot, added):
            service = runtime.engine.services.get(slot.service) or added[slot.service]
            runtime.crew.adopt(child, held, service.log)
            facts.append(
                ChildFact(
                    slot,
                    meta["run"],
                    child["pid"],
                    int(meta.get("restarts", 0)),
                    int(meta.get("lane") or slot.replica),
                    int(meta.get("gen", 0)),
                    bool(child.get("stranger")),
                )
            )
        elif "exit" not in child:
            runtime.keeper.signal(child["id"], signal.SIGKILL, "all")
        if "left" in child and "exit" not in child:
            ended.append(child["left"])
        if "exit" in child:
            ended.append(child["exit"])
    return facts, ended


def _known(
    hello: Mapping[str, Any], held: Mapping[str, int]
) -> dict[tuple[Slot, int], dict[str, Any]]:
    """What it takes to find each process again: the journal lacks it where the engine before was
    killed before it heard that the process had been born."""
    known = {}
    for child in hello["children"]:
        meta = child["meta"]
        if meta["role"] == "main":
            slot, run = Slot.parse(meta["slot"]), int(meta["run"])
            facts = {name: child.get(name) for name in ("start", "leader", "cgroup")}
            if child.get("leader") != child["pid"]:
                facts["leader_start"] = child.get("leader_start")
            names = [f"pipe:{slot}:{meta['pipes']}:{stream}" for stream in ("out", "err")]
            if all(name in held for name in names):
                facts["pipes"] = [os.fstat(held[name]).st_ino for name in names]
            known[slot, run] = facts
    return known


def _is_known(runtime: "Runtime", slot: Slot, added: Mapping[str, Service]) -> bool:
    """Whether it is a slot of the config, or of one that is about to be."""
    if slot.service in runtime.engine.services:
        return slot in runtime.engine.instances
    return slot.service in added and slot.replica <= added[slot.service].slots


def _tell(runtime: "Runtime", hello: Mapping[str, Any], takeover: bool) -> None:
    if runtime.journal.set_aside is not None:
        note = f"the journal was corrupt; it is kept as {runtime.journal.set_aside}"
        runtime.record(Kind.FACILITY, "everup", detail=note)
    for subject, text in hello.get("notes", ()):
        runtime.record(Kind.FACILITY, subject, detail=text)
    keeper, pid = hello["keeper"], os.getpid()
    runtime.record(Kind.ENGINE_STARTED, "everup", pid=pid, keeper=keeper, takeover=takeover)


def _stale(entry: Entry) -> bool:
    """After a fresh start, a oneshot's success of an earlier run of everup counts no more."""
    return bool(entry.kind == Kind.STOPPED.value)


# -- a config that waits


def _candidate(place: Place) -> Spec | None:
    """The config that a reload was about to bring, or that ``everup up`` left for us."""
    try:
        text = aside.call(_READ_S, named.read_text, place.next, MAX_BYTES)
        return load(text, path=place.config, directory=place.config_dir)
    except (OSError, UnicodeDecodeError, ConfigError):
        return None


def _apply_next(runtime: "Runtime", candidate: Spec | None, up: Up) -> None:
    """``everup up`` found instances alive and a config that has changed since."""
    if candidate is None or up.quitting:
        discard(runtime.place, runtime.shelf)
        return
    runtime.spawn_task(_apply(runtime, candidate))


async def _apply(runtime: "Runtime", candidate: Spec) -> None:
    try:
        plan = plan_of(runtime.engine, candidate)
        await first.can_apply(runtime, candidate, plan, patient=True)
        runtime.dispatch(Reload(candidate, by="everup up"))
    except (CannotChangeError, Refusal) as error:
        if runtime.engine.reloading is not None:
            return  # somebody has asked for another one meanwhile, whose file it is by now
        discard(runtime.place, runtime.shelf)
        runtime.record(Kind.FACILITY, "everup", detail=f"the changed config waits: {error}")


def digest(path: str) -> str:
    """Tells one config text from another in the journal; "" where there is none."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    except OSError:
        return ""


def _is_about_next(place: Place, latest: list[Entry]) -> bool:
    """Whether the last reload in the journal is about the config that waits: ``everup up`` may
    have left another one."""
    opened = _last(latest, Kind.RELOADING)
    text = digest(place.next)
    return bool(text) and opened is not None and opened.payload.get("config", text) == text


def config_in_force(place: Place, shelf: Shelf, latest: list[Entry]) -> tuple[Spec | None, bool]:
    """The end of a reload that an engine wrote down, and died before it had moved the files: the
    spec, if that is another one by that, and whether nothing is left that waits."""
    opened = _last(latest, Kind.RELOADING)
    if opened is None or not _is_about_next(place, latest):
        return None, False
    done, undone = _last(latest, Kind.RELOADED), _last(latest, Kind.ROLLED_BACK)
    if undone is not None and undone.seq > opened.seq:
        discard(place, shelf)
        return None, True
    if done is not None and done.seq > opened.seq:
        candidate = _candidate(place)
        commit(place, shelf)
        return candidate, True
    return None, False


def _last(latest: list[Entry], kind: Kind) -> Entry | None:
    return next((e for e in latest if e.kind == kind.value and e.subject == "everup"), None)


def commit(place: Place, shelf: Shelf) -> None:
    """The config of the reload is the accepted one from now on."""
    shelf.put(lambda: accepted.commit(place))


def discard(place: Place, shelf: Shelf) -> None:
    """The config that waited is not to be applied."""
    shelf.put(lambda: Path(place.next).unlink(missing_ok=True))


# -- leaving


def let_go(runtime: "Runtime") -> None:
    """All services are down: their control groups are of no use any more."""
    for slot in runtime.engine.instances:
        runtime.cgroups.forget(slot)
        runtime.cgroups.forget(slot, second=True)


def clear(runtime: "Runtime") -> None:
    """All is down: what nobody needs any more goes."""
    runtime.keeper.drop(["notify", "api"])
    runtime.shelf.put(runtime.place.clear_sockets)
    runtime.shelf.put(lambda: accepted.forget(runtime.place))


def succeed(runtime: "Runtime", hello: Mapping[str, Any] | None) -> None:
    """The keeper is gone: start another, which starts another engine. Called last of all."""

    def say(text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"everup: {shown_line(text)}\n")

    if hello is None:  # it died before we knew what it held: gather it anew
        place = runtime.place
        words = python.command("-m", "everup.cli", "-c", place.config, "up")
        os.execv(words[0], words)
    if hello["meta"].get("systemd"):
        say("the keeper is gone; systemd starts everup again, services go on")
        return
    delay_s = _FIRST_DELAY_S
    while True:
        try:
            pid = handover.start_keeper(runtime.keeper, hello=hello, log=say)
            say(f"the keeper was killed; another one (pid {pid}) takes over, services go on")
            return
        except BlockingIOError as error:
            say(f"the keeper is gone, and somebody else takes over: {error}")
            return
        except OSError as error:
            say(f"cannot start another keeper: {error}; trying again, services go on")
            time.sleep(delay_s)
            delay_s = min(_MAX_DELAY_S, 2 * delay_s)
