"""Whom a datagram on the notify socket comes from: which instance, and may it speak for that."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Hashable
from typing import NamedTuple

from everup.adapters import notify, proof
from everup.adapters.cgroups import Cgroups
from everup.adapters.notify import Sender
from everup.daemon.crew import Crew
from everup.engine.core import Engine
from everup.keeper import strangers
from everup.model.instance import Slot
from everup.model.record import Instance

_PER_S = 500.0
"""Datagrams of one instance, and looks at who somebody is, a second; as many at once."""
_MAX_BUDGETS = 4096
_LOOK_AGAIN_S = 1.0
_INFO_CGROUP, _INFO_EXIT = 1 << 2, 1 << 3


class Owner(NamedTuple):
    """A process of an instance."""

    slot: Slot
    run: int

    def __str__(self) -> str:
        return str(self.slot)


class Senders:
    """What costs least is asked first, so that a flood from outside takes as little as can be: the
    main process by its pid, then the user, then the budget, and only then where the process
    belongs. ``refuse`` is told why somebody is not heard."""

    def __init__(
        self, engine: Engine, crew: Crew, cgroups: Cgroups, refuse: Callable[[str], None]
    ) -> None:
        self._engine = engine
        self._crew = crew
        self._cgroups = cgroups
        self._refuse = refuse
        self._budgets: dict[Hashable, tuple[float, float]] = {}
        """Left, and when that was so."""
        self._mains: dict[int, Owner] | None = None
        self._users: frozenset[int] = frozenset()
        self._users_at = -_LOOK_AGAIN_S

    def changed(self) -> None:
        """The instances are to be looked at again."""
        self._mains = None

    def owner(self, sender: Sender) -> Owner | None:
        """The instance that the sender may speak for."""
        main = self._by_pid().get(sender.pid)
        if main is None and not self._may_be_ours(sender.uid):
            who = f"pid {sender.pid} (uid {sender.uid})"
            self._refuse(f"a datagram from {who}: no instance runs as that user")
            return None
        if main is None and not self._afford(sender.uid):
            self._refuse(f"more than {_PER_S:g} datagrams a second of uid {sender.uid}")
            return None
        owner = main or self._of(sender)
        if owner is None:
            self._refuse(f"a datagram from pid {sender.pid}, which belongs to no instance")
        elif main is None and sender.uid not in self._users_of(owner):
            self._refuse(
                f"a datagram from pid {sender.pid} of {owner}, which runs as another user "
                f"(uid {sender.uid}) than its main process"
            )
        elif not self._afford((owner, main is None)):
            self._refuse(f"more than {_PER_S:g} datagrams a second of {owner}")
        else:
            return owner
        return None

    def belongs(self, pid: int) -> Owner | None:
        """The process of an instance that a process belongs to: by main pid, control group,
        session, parents."""
        mains = self._by_pid()
        if pid in mains:
            return mains[pid]
        if (group := self._cgroups.owner_group(pid)) is not None:
            return self._in_group(*group)
        return next((mains[one] for one in notify.ancestors(pid) if one in mains), None)

    def may_name(self, sender: Sender, pid: int, owner: Owner) -> bool:
        """Whether the sender may call that process the main one of its instance: it belongs to
        it, and nobody but root hands over to another user."""
        trusted = proof.is_everups(sender.uid) or proof.real_uid(pid) == sender.uid
        return trusted and self.belongs(pid) == owner

    # -- the looks

    def _by_pid(self) -> dict[int, Owner]:
        if self._mains is None:
            self._mains = {i.pid: Owner(i.slot, i.run) for i in self._instances() if i.pid}
        return self._mains

    def _instances(self) -> list[Instance]:
        return [*self._engine.outgoing.values(), *self._engine.instances.values()]

    def _may_be_ours(self, uid: int) -> bool:
        """Whether some instance runs as that user. Root's may have become anybody, so they are
        looked at, but not for every datagram."""
        if proof.is_everups(uid) or uid in self._users:
            return True
        now = time.monotonic()
        if now - self._users_at >= _LOOK_AGAIN_S:
            users = {uid for i in self._instances() if i.pid for uid in _users(i)}
            self._users, self._users_at = frozenset(users), now
        return uid in self._users

    def _users_of(self, owner: Owner) -> set[int]:
        instance = self._engine.process(owner.slot, owner.run)
        own = {0, os.geteuid()}
        return own if instance is None else own | _users(instance)

    def _of(self, sender: Sender) -> Owner | None:
        if _gone(sender):
            return self._of_the_dead(sender)
        owner = self.belongs(sender.pid)
        # If it has ended meanwhile, its number may be another's.
        return self._of_the_dead(sender) if _gone(sender) else owner

    def _of_the_dead(self, sender: Sender) -> Owner | None:
        with contextlib.suppress(OSError):
            mask, group, *_ = strangers.note(sender.pidfd, _INFO_CGROUP | _INFO_EXIT)
            found = self._cgroups.owner_of_id(group) if mask & _INFO_CGROUP else None
            return None if found is None else self._in_group(*found)
        return None

    def _in_group(self, slot: Slot, second: bool) -> Owner | None:
        run = self._crew.run_in(slot, second)
        return Owner(slot, run) if slot in self._engine.instances and run is not None else None

    def _afford(self, key: Hashable) -> bool:
        now = time.monotonic()
        left, at = self._budgets.get(key, (_PER_S, now))
        left = min(_PER_S, left + (now - at) * _PER_S)
        if len(self._budgets) >= _MAX_BUDGETS and key not in self._budgets:
            self._budgets.clear()
        self._budgets[key] = max(0.0, left - 1.0), now
        return left >= 1.0


def _users(instance: Instance) -> set[int]:
    """As whom it was started, and what it has made of that."""
    started, now = instance.facts.get("uid"), proof.real_uid(instance.pid)
    return {uid for uid in (started, now) if uid is not None}


def _gone(sender: Sender) -> bool:
    """Whether the process has been reaped; without its pidfd nobody knows."""
    if sender.pidfd < 0:
        return False
    try:
        signal.pidfd_send_signal(sender.pidfd, 0)
    except ProcessLookupError:
        return True
    except OSError:  # not ours to signal: it is there
        return False
    return False
