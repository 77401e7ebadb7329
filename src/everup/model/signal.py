"""Signals: single observations, and what is to be observed."""

from dataclasses import dataclass
from enum import StrEnum

from everup.model.instance import Slot
from everup.model.spec import Probe


class ProbeKind(StrEnum):
    STARTUP = "startup"
    READINESS = "readiness"
    LIVENESS = "liveness"


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """One probe of one running process, with everything filled in that the config left open."""

    slot: Slot
    kind: ProbeKind
    run: int
    """Incarnation of the process; results of an earlier one are dropped."""
    probe: Probe
    url: str = ""
    """Whole URL for an http probe (``http://127.0.0.1:8080/healthz``); for a Unix socket
    ``http://localhost/healthz`` with ``unix`` set."""
    host: str = ""
    """Address to connect to for tcp, and for http where the URL names no address of its own."""
    port: int = 0
    unix: str = ""
    """Path of a Unix socket to connect to instead of host and port."""
    source: str = ""
    """Source address to bind, which steers the connection to this replica: an IPv4 one that is
    the replica's own, or ``::1`` together with a traffic class."""
    traffic_class: int = 0
    """IPv6 traffic class to set (IPV6_TCLASS), for the same end. 0: none."""
    session: int = 0
    """Unix socket that several processes share: one of this session must be the one that accepts.
    0: whichever."""
    accept: bool = False
    """tcp: connecting is not enough, somebody must have accepted. Of a listener that everup itself
    keeps open the first says nothing."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One answer, or its absence."""

    slot: Slot
    kind: ProbeKind
    run: int
    ok: bool
    detail: str
    """``200 OK`` or what went wrong, in words for people, one line, at most 200 characters."""
    latency_s: float
    """From the start of the probe to its answer or failure."""
    lateness_s: float
    """How late everup itself was: the later of (start minus schedule) and (handling of the timeout
    minus its due time). A large value means that the verdict says more of everup than of the
    service."""
