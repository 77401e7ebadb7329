"""What the journal says of a change of an instance."""

from collections.abc import Mapping
from typing import Any

from everup.model.action import Record
from everup.model.instance import ExitCause, State
from everup.model.journal import Kind
from everup.model.record import Instance

_NONE: Mapping[str, Any] = {}
_KINDS = {
    State.STARTING: Kind.STARTING,
    State.RUNNING: Kind.RUNNING,
    State.READY: Kind.READY,
    State.DRAINING: Kind.DRAINING,
    State.STOPPING: Kind.STOPPING,
    State.BACKOFF: Kind.BACKOFF,
    State.PARKED: Kind.PARKED,
    State.FAILED: Kind.FAILED,
    State.STOPPED: Kind.STOPPED,
}


def cause_payload(cause: ExitCause) -> dict[str, Any]:
    payload = {"cause": str(cause), "exit_kind": cause.kind.value, "value": cause.value}
    return payload | ({"killed_for": cause.killed_for} if cause.killed_for else {})


def spawned_payload(instance: Instance) -> dict[str, Any]:
    """All that it takes to find the process again."""
    return {
        "run": instance.run,
        "pid": instance.pid,
        "lane": instance.lane,
        "gen": instance.gen,
        "restarts": instance.restarts,
    } | dict(instance.facts)


def records(
    old: Instance, new: Instance, now: float, evidence: Mapping[str, Any] = _NONE
) -> list[Record]:
    """The journal entries of one change, in their order. ``evidence``: what is known of when it
    really happened, see ``onset``."""
    subject, out = str(new.slot), []
    told: dict[str, Any] = {"run": new.run} | dict(evidence)
    if old.pid and not new.pid and new.last_exit is not None:
        payload = {"run": old.run, "pid": old.pid} | cause_payload(new.last_exit)
        if old.spawned_at is not None:
            payload["up_s"] = round(now - old.spawned_at, 4)
        payload |= evidence
        out.append(Record(Kind.EXITED, subject, payload))
    elif not old.pid and old.state is State.STARTING and new.last_exit is not old.last_exit:
        assert new.last_exit is not None
        out.append(Record(Kind.EXITED, subject, {"run": old.run} | cause_payload(new.last_exit)))
    if new.pid and not old.pid:
        out.append(Record(Kind.SPAWNED, subject, spawned_payload(new)))
    if new.verdict and not old.verdict:
        out.append(Record(Kind.UNHEALTHY, subject, told | {"reason": new.verdict}))
    if new.state is not old.state:
        out.extend(_entered(old, new, now, evidence))
    if old.attempt and new.attempt == 0 and new.state in (State.READY, State.RUNNING):
        out.append(Record(Kind.STABLE, subject, {"run": new.run}))
    if new.suspected and not old.suspected:
        out.append(Record(Kind.SUSPECTED, subject, told | {"reason": new.reason}))
    elif old.suspected and not new.suspected and new.pid:
        out.append(Record(Kind.CLEARED, subject, {"run": new.run}))
    return out


def _entered(old: Instance, new: Instance, now: float, told: Mapping[str, Any]) -> list[Record]:
    if new.state is State.STOPPED and new.want and not new.done:
        return []  # a passage on the way back up: what follows is told, or why it waits
    payload: dict[str, Any] = {"run": new.run}
    if new.reason:
        payload["reason"] = new.reason
    if State.READY in (old.state, new.state) and new.state in (State.RUNNING, State.READY):
        payload |= told
    if new.state is State.STARTING:
        payload |= {"lane": new.lane, "gen": new.gen}
    if new.state in (State.BACKOFF, State.PARKED) and new.deadline is not None:
        payload |= {"delay_s": round(new.deadline - now, 4), "attempt": new.attempt}
    if new.state is State.READY and old.state is State.STARTING:
        payload["took_s"] = round(now - old.since, 4)
    if new.state is State.STOPPED and new.done:
        payload["done"] = True
    return [Record(_KINDS[new.state], str(new.slot), payload)]
