"""Decides whose each singleton is, from what a majority of etcd says and from this engine."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from everup.kernel.ctx import Ctx
from everup.kernel.room import Quiet
from everup.observer.events import Journaled
from everup.observer.world import View
from everup.rooms.cluster.actions import Acquire, Hurry, Join, Leave, Move, Release, Say, Tell
from everup.rooms.cluster.config import Cluster
from everup.rooms.cluster.entries import (
    DENIED,
    JOINED,
    LOST,
    MOVE_ASKED,
    OWNED,
    REFUSED,
    TWICE,
    Denied,
    Joined,
    Lost,
    Owned,
    Refused,
    Twice,
)
from everup.rooms.cluster.facts import Local, Missed, NotTaken, Turned
from everup.rooms.cluster.lease import Item, Look

MEMBERS, OWNERS, MOVES, LEADER = "members/", "owners/", "moves/", "leader"
_MOST_SHOWN: Final = 200
_STOPPING: Final = "engine.stopping"
Heard = Turned | NotTaken | Missed | Journaled


class Member(Quiet):
    """One machine's part of the agreement. It owns a singleton while etcd has the key of it with
    this machine's session, and says so to the engine with each turn, for as long as that session
    certainly lives.

    What keeps two from owning it: the engine starts it only by what it was told, the keeper kills
    it when that was not told again in time, and the key is dropped only after the engine says that
    no process is left. A token that was given up is never used again, whatever etcd answered.
    """

    hears: ClassVar[tuple[type, ...]] = Heard.__args__

    def __init__(self) -> None:
        self._session = 0
        self._is_gone = False
        """etcd has no session of this machine: nothing can be ours."""
        self._owned: dict[str, tuple[str, int]] = {}
        """Owner and token of each singleton, as the journal has it."""
        self._shy: dict[str, float] = {}
        """Until when we do not try to get what our guard has refused."""
        self._given_up: dict[str, int] = {}
        self._denied: set[str] = set()
        self._told_twice = ""
        self._missed = ""

    def step(self, event: Heard, ctx: Ctx[View]) -> None:
        match event:
            case Turned():
                self._turned(event, ctx)
            case NotTaken(service=service, token=token, why=why):
                self._shy[service] = ctx.now + _table(ctx).ttl
                self._given_up[service] = token
                ctx.write(REFUSED, service, Refused(why))
            case Missed(why=why):
                self._missed = why
            case Journaled(entry=entry, past=past):
                if past and entry.kind == OWNED.value:
                    said = entry.payload
                    self._owned[entry.subject] = str(said.get("node")), int(said.get("token", 0))
                elif entry.kind == MOVE_ASKED.value and not past:
                    ctx.do(Move(entry.subject, str(entry.payload.get("to"))))
                elif entry.kind == _STOPPING and not past:
                    ctx.do(Hurry())  # everup goes down, and waits a moment for us

    def view(self) -> Mapping[str, object]:
        return {"session": self._session, "missed": self._missed, "given_up": dict(self._given_up)}

    # -- one turn

    def _turned(self, event: Turned, ctx: Ctx[View]) -> None:
        table = _table(ctx)
        assert table.node is not None
        self._missed = ""
        self._tell_owners(event, ctx)
        says: dict[str, Say] = {}
        if self._is_member(event, table.node, ctx):
            for service, local in sorted(event.local.items()):
                self._singleton(service, local, event, says, ctx)
            for service, item in sorted(_owners(event.look).items()):
                if item.session == event.session and service not in event.local:
                    ctx.do(Release(OWNERS + service, item.token))  # our config has it no more
            owns = any(item.session == event.session for item in _owners(event.look).values())
            if event.leaving and not owns:
                ctx.do(Leave())
            elif LEADER not in event.look.items and not event.leaving:
                ctx.do(Acquire(LEADER))
        elif self._is_gone:
            for service, local in sorted(event.local.items()):
                self._not_ours(service, local, "", says, ctx)
        view = view_of(event.look, table, self._session)
        ctx.do(Tell(event.until or 0.0, tuple(says.values()), view))

    def _is_member(self, event: Turned, node: str, ctx: Ctx[View]) -> bool:
        """Whether our session and our name are there; else it is seen to."""
        me = event.look.items.get(MEMBERS + node)
        self._is_gone = False
        if event.session and me is not None and me.session == event.session:
            if self._session != event.session:
                self._session = event.session
                ctx.write(JOINED, node, Joined(node, str(_table(ctx).name)))
            self._told_twice = ""
            return event.until is not None
        if self._session:
            owned = [s for s, (owner, _) in self._owned.items() if owner == node]
            ctx.write(LOST, node, Lost(node, sorted(owned)))
            self._session = 0
        if me is not None and _said(me).get("id") == event.identity:
            ctx.do(Join(me.session))  # of an observer before this one: nothing is lost
            return False
        self._is_gone = True
        if me is None and not event.leaving:
            ctx.do(Join())
        elif me is not None and self._told_twice != me.value:
            self._told_twice = me.value
            ctx.write(TWICE, node, Twice(node, me.value[:_MOST_SHOWN]))
        return False

    def _singleton(
        self, service: str, local: Local, event: Turned, says: dict[str, Say], ctx: Ctx[View]
    ) -> None:
        owner = event.look.items.get(OWNERS + service)
        if owner is not None and owner.session == event.session:
            self._ours(service, local, event, owner, says, ctx)
            return
        self._given_up.pop(service, None)
        if self._not_ours(service, local, "" if owner is None else owner.value, says, ctx):
            return
        if event.leaving and local.token:
            says[service] = Say(service, 0)  # it was released: everup may end
            return
        if owner is None and self._may_have(service, local, event, ctx):
            move = event.look.items.get(MOVES + service)
            drop = (MOVES + service,) if move is not None else ()
            ctx.do(Acquire(OWNERS + service, drop))

    def _not_ours(
        self, service: str, local: Local, owner: str, says: dict[str, Say], ctx: Ctx[View]
    ) -> bool:
        """Whether the engine may still act as if it were: then it is told."""
        if not local.alive and (not local.token or local.given_up):
            self._denied.discard(service)
            return False
        says[service] = Say(service, 0)
        if local.alive and service not in self._denied:
            self._denied.add(service)
            ctx.write(DENIED, service, Denied(owner[:_MOST_SHOWN]))
        return True

    def _ours(
        self, service: str, local: Local, event: Turned, owner: Item, says: dict[str, Say],
        ctx: Ctx[View],
    ) -> None:  # fmt: skip
        self._denied.discard(service)
        token = owner.token
        if local.given_up and local.token == token:
            self._given_up[service] = token
        target = _target(event.look, service)
        away = target is not None and target != _table(ctx).node
        if event.leaving or away:
            self._given_up[service] = token
        if self._given_up.get(service) != token:
            says[service] = Say(service, token)
            return
        # Only once the engine knows: what was told to it before may reach it late.
        if local.token == token and local.given_up and not local.alive:
            ctx.do(Release(OWNERS + service, token))
        else:
            says[service] = Say(service, token, yields=True)

    def _may_have(self, service: str, local: Local, event: Turned, ctx: Ctx[View]) -> bool:
        target = _target(event.look, service)
        if event.leaving or not local.wanted or self._shy.get(service, 0.0) > ctx.now:
            return False
        return target is None or target == _table(ctx).node

    # -- what others are told

    def _tell_owners(self, event: Turned, ctx: Ctx[View]) -> None:
        there = _owners(event.look)
        for service in sorted(event.local):
            item = there.get(service)
            now = ("", 0) if item is None else (item.value[:_MOST_SHOWN], item.token)
            before = self._owned.get(service, ("", 0))
            if now != before:
                self._owned[service] = now
                ctx.write(OWNED, service, Owned(*now, before[0]))


def view_of(look: Look, table: Cluster, session: int) -> dict[str, Any]:
    """Show how the cluster stands, as plain data."""
    nodes = {k.removeprefix(MEMBERS): i for k, i in look.items.items() if k.startswith(MEMBERS)}
    owners = _owners(look)
    leader = look.items.get(LEADER)
    return {
        "cluster": table.name,
        "node": table.node,
        "member": bool(session),
        "ttl_s": table.ttl,
        "leader": None if leader is None else leader.value,
        "nodes": [
            {"node": name, "host": _said(item).get("host"), "everup": _said(item).get("everup")}
            for name, item in sorted(nodes.items())
        ],
        "owners": {s: {"node": i.value, "token": i.token} for s, i in sorted(owners.items())},
        "moves": {
            service: target
            for service in sorted(k.removeprefix(MOVES) for k in look.items if k.startswith(MOVES))
            if (target := _target(look, service)) is not None
        },
    }


def _target(look: Look, service: str) -> str | None:
    """Where it is to move to, if that is a member; a move to nobody keeps nobody waiting."""
    item = look.items.get(MOVES + service)
    return item.value if item is not None and MEMBERS + item.value in look.items else None


def _said(item: Item) -> Mapping[str, Any]:
    """What a member says of itself; whoever may write to etcd may have written anything."""
    try:
        found = json.loads(item.value)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _owners(look: Look) -> Mapping[str, Item]:
    return {k.removeprefix(OWNERS): i for k, i in look.items.items() if k.startswith(OWNERS)}


def _table(ctx: Ctx[View]) -> Cluster:
    return ctx.table("cluster", Cluster)
