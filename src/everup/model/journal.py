"""The kinds of journal events. Their docstrings are the reference."""

from enum import StrEnum
from typing import Any, NamedTuple


class Kind(StrEnum):
    ENGINE_STARTED = "engine.started"
    """everup's engine runs; ``takeover`` when it found instances of an earlier engine."""
    ENGINE_ALIVE = "engine.alive"
    """Nothing has happened for a while, and everup runs: should the machine crash, that is the
    time up to which it is known to have been well."""
    ENGINE_DEFECT = "engine.defect"
    """A step of the engine failed by a fault of everup's own (``error``, ``where``, while it took
    ``event``): the process ended, services went on, and the next engine went by the journal."""
    ENGINE_STOPPING = "engine.stopping"
    """everup stops all services and ends; ``by`` says who asked."""
    ENGINE_STOPPED = "engine.stopped"
    """All services are down."""
    WANTED = "service.wanted"
    """Somebody asked for instances to run or not to run; holds until somebody asks otherwise."""
    SCALED = "service.scaled"
    """The number of replicas was changed."""
    WAITING = "instance.waiting"
    """It should run, but waits for others; ``reason`` names them."""
    STARTING = "instance.starting"
    """Intent: a process is about to be spawned (or the pre_start hook to run)."""
    ADOPTED = "instance.adopted"
    """A process of an earlier engine was taken over as it runs."""
    LEFTOVER = "instance.leftover"
    """Processes of an earlier everup, whose keeper had died, were found and killed."""
    SPAWNED = "instance.spawned"
    """The command runs as ``pid``."""
    SAID_READY = "instance.said_ready"
    """It sent READY=1, and counts as started once its startup probe has succeeded, or without one
    once it has accepted a connection."""
    RUNNING = "instance.running"
    """Started, but its readiness probe has not succeeded, or no longer does: see
    ``instance.unhealthy`` for ``failed_s`` and ``ok_ago_s``."""
    READY = "instance.ready"
    """Ready: gets connections. The first probe that succeeded again began ``ok_s`` before, and the
    last failure was known ``failed_ago_s`` before that one."""
    SUSPECTED = "instance.suspected"
    """A probe failed once: out of the balance while others are ready; nothing else. ``failed_s``
    and ``ok_ago_s``: see ``instance.unhealthy``."""
    CLEARED = "instance.cleared"
    """The suspicion has passed."""
    UNHEALTHY = "instance.unhealthy"
    """Verdict of failure (liveness, startup, watchdog): it is about to be killed. The first probe
    that failed began ``failed_s`` before, and the last that succeeded ``ok_ago_s`` before that
    one."""
    POSTPONED = "verdict.postponed"
    """A verdict waits because the machine or everup itself is starved of CPU."""
    DRAINING = "instance.draining"
    """Out of the balance; its open connections may end."""
    STOPPING = "instance.stopping"
    """Intent: it is about to get its stop signal, or SIGKILL."""
    KILLING = "instance.killing"
    """Intent: it did not end in time, everything of it is about to get SIGKILL."""
    LINGERING = "instance.lingering"
    """Its main process ended as asked (``cause``), others did not: those ``left`` were sent the
    stop ``signal`` as well, and have what remains of stop_timeout."""
    ESCAPED = "instance.escaped"
    """Processes that it (``of``: main, hook or probe) had started in sessions of their own were
    killed after its end: those ``ended``, ``count`` in all."""
    EXITED = "instance.exited"
    """The process ended; ``cause`` says how. With ``failed_s`` (and ``ok_ago_s``) it had not
    answered for so long before."""
    STOPPED = "instance.stopped"
    """Down, as it should be."""
    BACKOFF = "instance.backoff"
    """It will be started again after ``delay_s``."""
    PARKED = "instance.parked"
    """It crashed too often: retried slowly, every ``delay_s``."""
    FAILED = "instance.failed"
    """It ended and its restart policy says not to start it again."""
    STABLE = "instance.stable"
    """Up for reset_after: the backoff starts anew at the next crash."""
    HOOK = "hook.starting"
    """Intent: a hook is about to run."""
    HOOK_ENDED = "hook.ended"
    """A hook ended; ``ok`` and ``detail``."""
    SIGNALLED = "instance.signalled"
    """Intent: a stop signal, or an operator's signal (``by``), is about to be sent."""
    BALANCE = "balance.changed"
    """New connections go to ``replicas`` from now on."""
    SOCKETS_OPENED = "sockets.opened"
    """The listening sockets of a service are about to be opened."""
    SOCKETS_CLOSED = "sockets.closed"
    """The listening sockets of a service are about to be closed."""
    SOCKETS_LOST = "sockets.lost"
    """Listening sockets of a service were shut down, or their Unix paths removed, by somebody else;
    ``lost`` says which. They are about to be put back."""
    SOCKETS_STRANGERS = "sockets.strangers"
    """Others listen on a port of the service beside everup: they get none of its clients, or some
    that nobody meant for them. ``strangers`` names them; none: they are gone."""
    SOCKETS_FAILED = "sockets.failed"
    """A listening socket could not be opened; ``detail`` says why."""
    GROUP = "group.restarting"
    """A member crashed; ``members`` restart with it."""
    OUTGOING = "instance.outgoing"
    """Its successor is about to be started; it serves until that one is ready."""
    MAIN = "instance.main"
    """The service named another of its processes as the main one."""
    LOST = "instance.lost"
    """It ended or was never born while the keeper was gone; nobody saw how."""
    SPARED = "instance.spared"
    """A verdict of failure is not carried out: it is the last ready replica, or what it depends
    on is down; ``reason`` says which."""
    STORM = "storm.braking"
    """Too many restarts on the whole: further ones wait for the storm brake."""
    STORM_OVER = "storm.over"
    """The storm brake lets restarts pass again."""
    ROLLOUT = "rollout.started"
    """Intent: ``slots`` are about to be replaced, one ``batch`` after the other; ``how``:
    restart, reload, rollback or verdict."""
    ROLLOUT_DONE = "rollout.done"
    """All of them have been replaced."""
    ROLLOUT_STOPPED = "rollout.stopped"
    """A rollout ended early because one did not come to ready; ``reason`` says why."""
    RELOADING = "config.reloading"
    """Intent: a changed config is about to be applied; says what changes."""
    RELOADED = "config.reloaded"
    """The changed config is in force."""
    ROLLING_BACK = "config.rolling_back"
    """A reload failed for ``reason``: the config before it is about to be restored."""
    ROLLED_BACK = "config.rolled_back"
    """The config before the reload is in force again."""
    SLO_BURNING = "slo.burning"
    """The error budget of a service is spent ``burn_rate`` times as fast as its ``objective``
    allows, over ``window_s`` and over a twelfth of it; ``urgency``: page or ticket."""
    SLO_CALM = "slo.calm"
    """That is over; ``reason`` where that is for another cause than the burn rate."""
    UPGRADING = "everup.upgrading"
    """everup is about to be replaced by another version of itself; services go on."""
    REFUSED = "notify.refused"
    """A datagram on the notify socket came from no process of ours, or made no sense."""
    DEPENDENCY_STATE = "dependency.state"
    """The instance says that its circuit breaker for ``dependency`` went from ``before`` to
    ``state``, with its calls so far: ``ok``, ``failed``, ``rejected`` (by itself, not made),
    ``neutral`` (cancelled). Of one that changes often not each time; ``changes`` says how many."""
    DEPENDENCY_CALLS = "dependency.calls"
    """What the instance says of its calls to what it depends on: for each ``dependencies`` those
    ``ok``, ``failed``, ``rejected`` and ``neutral`` since the last such event of this process.
    Every 15 minutes if there were any, and when it ends."""
    LOG_LOST = "log.lost"
    """Output could not be stored and was dropped; counted."""
    LOG_RECOVERED = "log.recovered"
    """Output is stored again; ``lost_lines`` and ``lost_bytes`` say what is missing."""
    JOURNAL_DEGRADED = "journal.degraded"
    """The journal could not be written, or its file was lost; events were held in memory for
    ``for_s``; ``lost_events`` are in no journal any more; ``reason`` says why."""
    FACILITY = "facility.missing"
    """The machine lacks something that the config asks for; ``detail`` says what follows."""
    CONFIG = "config.invalid"
    """The config file changed for the worse under a running everup; the old one stays in force."""


class Entry(NamedTuple):
    """One event of the journal."""

    seq: int
    time: float
    """Wall clock, seconds since the epoch, UTC."""
    mono: float
    """Monotonic clock, seconds; comparable within one ``boot``."""
    boot: str
    kind: str
    subject: str
    payload: dict[str, Any]
