"""What the observer knows of services and instances, from the journal alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from everup.model.instance import Slot
from everup.model.journal import Entry
from everup.model.spec import Spec

_STATES = {
    "instance.waiting": "waiting",
    "instance.starting": "starting",
    "instance.spawned": "starting",
    "instance.adopted": "running",
    "instance.running": "running",
    "instance.ready": "ready",
    "instance.draining": "draining",
    "instance.stopping": "stopping",
    "instance.stopped": "stopped",
    "instance.backoff": "backoff",
    "instance.parked": "parked",
    "instance.failed": "failed",
}
_GONE = frozenset({"instance.exited", "instance.lost", "instance.stopped"})


@dataclass(frozen=True, slots=True)
class Seen:
    """One instance, as the journal tells of it."""

    name: str
    state: str
    run: int = 0
    pid: int = 0
    """0: no process is known."""
    since: float = 0.0
    """When it came to its state, in seconds since the epoch."""
    started: float = 0.0
    """When its process was started, in seconds since the epoch."""
    cgroup: str | None = None
    """The directory of its control group, where it has one."""


@dataclass(slots=True)
class View:
    """What rooms in the observer may read. The host alone writes it."""

    spec: Spec
    node: str = ""
    quitting: bool = False
    instances: dict[str, Seen] = field(default_factory=dict)
    """By name, such as ``web.1``."""
    pids: dict[int, str] = field(default_factory=dict)
    sockets: dict[int, str] = field(default_factory=dict)
    """Whose each listening socket that everup opened is, by inode: the instance."""
    seen_needs: dict[str, dict[str, float]] = field(default_factory=dict)
    """By service: the services that it was connected to, and when that was seen last."""
    scaled: dict[str, int] = field(default_factory=dict)
    """By service: the replicas that an operator or everup has asked for."""
    offset_s: float = 0.0
    """From the monotonic clock to the wall clock."""

    def wall(self, mono: float) -> float:
        """Give a monotonic time as seconds since the epoch."""
        return mono + self.offset_s

    @property
    def services(self) -> Mapping[str, Any]:
        """The services of the config in force."""
        return self.spec.service

    def replicas(self, service: str) -> int:
        """Give how many replicas of a service are wanted."""
        known = self.services.get(service)
        return self.scaled.get(service, 0 if known is None else known.replicas)

    def of(self, service: str) -> list[Seen]:
        """Give the instances of a service."""
        prefix = f"{service}."
        return [seen for name, seen in self.instances.items() if name.startswith(prefix)]

    def take(self, entry: Entry) -> None:
        """Learn from one entry."""
        if entry.kind == "engine.started":
            self.quitting = False
        elif entry.kind == "engine.stopping":
            self.quitting = True
        elif entry.kind == "service.scaled":
            self.scaled[entry.subject] = int(entry.payload.get("replicas", 0))
        if not entry.kind.startswith("instance.") or not _is_slot(entry.subject):
            return
        seen = self.instances.get(entry.subject) or Seen(entry.subject, "")
        run = entry.payload.get("run", seen.run)
        if isinstance(run, int) and run < seen.run:
            return  # of a process that is being replaced
        pid = entry.payload.get("pid")
        if isinstance(pid, int) and pid > 0 and entry.kind != "instance.exited":
            started = entry.time if pid != seen.pid else seen.started
            self.pids.pop(seen.pid, None)
            seen = replace(seen, pid=pid, started=started)
            self.pids[pid] = entry.subject
            cgroup = entry.payload.get("cgroup", seen.cgroup)
            seen = replace(seen, cgroup=cgroup if isinstance(cgroup, str) else None)
            for inode in entry.payload.get("sockets") or ():
                self.sockets[int(inode)] = entry.subject
        if entry.kind in _GONE:
            self.pids.pop(seen.pid, None)
            seen = replace(seen, pid=0)
        state = _STATES.get(entry.kind, seen.state)
        since = entry.time if state != seen.state else seen.since
        self.instances[entry.subject] = replace(seen, state=state, since=since, run=run)

    def needs(self, service: str) -> set[str]:
        """Give the services that one needs: those that its config names, those that its processes
        were connected to, and as ``check NAME`` what everup does not run."""
        known = self.services.get(service)
        declared = set(known.depends_on) if known is not None else set()
        checks = getattr(self.spec, "check", {})
        outside = {f"check {name}" for name, one in checks.items() if service in one.needed_by}
        return declared | outside | set(self.seen_needs.get(service, ()))

    def connected(self, instance: str, far_ends: Iterable[str], now: float) -> None:
        """Learn whom an instance is connected to."""
        service = instance.rpartition(".")[0]
        for end in far_ends:
            port = end.rpartition(":")[2]
            for name, other in self.services.items():
                if name != service and port in _ports(other):
                    self.seen_needs.setdefault(service, {})[name] = now

    def keep(self, names: set[str]) -> None:
        """Forget the instances that are there no more."""
        for name in [n for n in self.instances if n not in names]:
            self.pids.pop(self.instances.pop(name).pid, None)


def _ports(service: Any) -> set[str]:
    found = {listener.address.rpartition(":")[2] for listener in service.listen}
    if service.port is not None:
        found |= {str(service.port + number) for number in range(service.slots)}
    return found


def _is_slot(subject: str) -> bool:
    try:
        Slot.parse(subject)
    except ValueError:
        return False
    return True
