"""The spec: what the operator asked for, as validated from ``everup.toml``.

Every class here is one table of the config file and every field one key; the docstring under a
field is its text in the reference and in the JSON Schema. Durations are seconds, sizes bytes.
"""

from dataclasses import field
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from everup.model.recovery import Recover
from everup.model.slo import Slo
from everup.model.table import CONFIG, Name
from everup.model.units import Duration, Size

_Argv = Annotated[tuple[str, ...], Field(min_length=1)]


class Strategy(StrEnum):
    """Which members of a group restart when one of them crashes (Erlang/OTP supervisor)."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"


@dataclass(frozen=True, slots=True, config=CONFIG)
class Probe:
    """One probe. Exactly one of ``http``, ``tcp``, ``grpc`` and ``exec`` says what is asked."""

    http: str | None = None
    """Path (``/healthz``, asked at the replica's own listener or port) or a whole URL with
    ``http`` or ``https``; ``{replica}`` and ``{port}`` are filled in."""
    tcp: str | None = None
    """``"listen"`` (the replica's own listener or port) or ``host:port``: it must accept."""
    grpc: str | None = None
    """``"listen"`` or ``host:port``: grpc.health.v1 must say SERVING there, over plaintext."""
    grpc_service: Annotated[str, Field(max_length=200)] = ""
    """Whose health a ``grpc`` probe asks for; empty: the server's as a whole."""
    exec: _Argv | None = None
    """Command that must end with status 0; it runs as the service does, without a shell."""
    plugin: Literal["no", "yes", "strict"] = "no"
    """``yes``: ``exec`` is a Nagios plugin: OK and WARNING succeed, CRITICAL fails, UNKNOWN and any
    other end are no verdict; ``strict``: these fail as well."""
    listener: str | None = None
    """Name of the listener to ask, where the service has several. Default: the first."""
    method: str = "GET"
    """HTTP method."""
    status: str = "200-399"
    """Range of HTTP status codes that count as success, ``200`` or ``200-399``."""
    redirects: Literal["same-host", "never", "any"] = "same-host"
    """Which redirects in the range of ``status`` count as success; none is followed. ``same-host``:
    those to the host that was asked; ``any``: also to another, which says little of this one."""
    body: str | None = None
    """Regular expression that must be found in the first 64 KiB of the HTTP body."""
    headers: dict[str, str] = field(default_factory=dict)
    """HTTP headers to send."""
    tls_verify: bool = True
    """Verify the server's certificate when the URL is ``https``."""
    tls_ca: str | None = None
    """File of certificates (PEM) to trust instead of the system's."""
    tls_cert: str | None = None
    """File with the certificate (PEM) to show to the server."""
    tls_key: str | None = None
    """File with its key, without a passphrase. Default: in ``tls_cert``."""
    interval: Annotated[Duration, Field(ge=0.01, le=86400)] = 1.0
    """Time from the start of one probe to the start of the next, 10ms to 1d."""
    timeout: Annotated[Duration, Field(gt=0, le=3600)] = 1.0
    """A probe that has not ended by then has failed, up to 1h."""
    failure_threshold: Annotated[int, Field(ge=1, le=1000)] = 3
    """This many failures in a row are a verdict, 1 to 1000. (The first failure of a readiness or
    liveness probe already takes the replica out of the balance while others are ready.)"""
    success_threshold: Annotated[int, Field(ge=1, le=1000)] = 1
    """This many successes in a row end it, 1 to 1000."""
    grace: Annotated[Duration, Field(ge=0, le=86400)] = 0.0
    """Failures during this time after the process started do not count."""


@dataclass(frozen=True, slots=True, config=CONFIG)
class Probes:
    """The probes of a service, as Kubernetes means them."""

    startup: Probe | None = None
    """Holds the other probes back until it has succeeded; its verdict of failure restarts."""
    readiness: Probe | None = None
    """Says whether the replica gets new connections; never restarts it."""
    liveness: Probe | None = None
    """Its verdict of failure kills the replica and starts it again."""


@dataclass(frozen=True, slots=True, config=CONFIG)
class Intensity:
    """How many crashes in which time are too many."""

    limit: Annotated[int, Field(ge=1, le=10000)] = 5
    """Crashes allowed within ``period``, 1 to 10000; one more parks the replica."""
    period: Annotated[Duration, Field(gt=0, le=86400)] = 10.0
    """The window, up to 1d."""


@dataclass(frozen=True, slots=True, config=CONFIG)
class Restart:
    """What happens when a process ends by itself."""

    policy: Literal["always", "on-failure", "never"] | None = None
    """Default: ``always`` for a service, ``never`` for a oneshot."""
    delay: Annotated[Duration, Field(ge=0, le=3600)] = 0.1
    """Backoff before the second restart in a row; the first is immediate. It doubles from there."""
    max_delay: Annotated[Duration, Field(ge=0, le=86400)] = 30.0
    """Cap of the backoff."""
    jitter: Literal["full", "equal", "none"] = "full"
    """``full``: between 0 and the backoff; ``equal``: between half and whole; ``none``: whole."""
    reset_after: Annotated[Duration, Field(ge=0, le=86400)] = 10.0
    """Once up for this long, the next crash starts again at an immediate restart. (It stays in
    the intensity window.)"""
    intensity: Intensity = field(default_factory=Intensity)
    """More crashes than this park the replica: it is retried slowly, and everup says so."""
    park_interval: Annotated[Duration, Field(ge=0.1, le=86400)] = 60.0
    """Time between the retries of a parked replica."""
    success_exit: tuple[Annotated[int, Field(ge=0, le=255)], ...] = (0,)
    """Exit codes that are no failure."""


@dataclass(frozen=True, slots=True, config=CONFIG)
class Limits:
    """Resource limits of each replica; what the machine cannot enforce is told at start."""

    memory: Annotated[Size, Field(ge=1 << 20)] | None = None
    """Memory of the replica's control group, at least 1M."""
    tasks: Annotated[int, Field(ge=1)] | None = None
    """Processes and threads of the control group."""
    cpu: Annotated[float, Field(gt=0, le=4096)] | None = None
    """CPU time as a number of cores (0.5 is half a core)."""
    nofile: Annotated[int, Field(ge=8)] | None = None
    """Open descriptors of each process (RLIMIT_NOFILE)."""
    core: Size | None = None
    """Size of core dumps (RLIMIT_CORE)."""


@dataclass(frozen=True, slots=True, config=CONFIG)
class Hooks:
    """Commands around the life of each replica, without a shell, bounded by ``timeout``."""

    pre_start: _Argv | None = None
    """Runs before the process; a failure counts as a failed start."""
    post_start: _Argv | None = None
    """Runs once the replica has started; a failure is told and changes nothing."""
    pre_stop: _Argv | None = None
    """Runs before the stop signal; a failure is told and changes nothing."""
    post_stop: _Argv | None = None
    """Runs after the process has ended; a failure is told and changes nothing."""
    timeout: Annotated[Duration, Field(gt=0, le=86400)] = 30.0
    """A hook that runs longer is killed and has failed."""


@dataclass(frozen=True, slots=True, config=CONFIG)
class Log:
    """Where the output of each replica goes: ``STATE/logs/SERVICE.REPLICA.log`` in CRI format."""

    max_size: Annotated[Size, Field(ge=4096)] = 10 << 20
    """Size at which the file is rotated, at least 4K."""
    files: Annotated[int, Field(ge=1, le=1000)] = 5
    """Rotated files kept beside the current one, 1 to 1000."""
    max_line: Annotated[Size, Field(ge=256, le=1 << 20)] = 64 << 10
    """A longer line is stored in parts of this size, each marked; none of it is lost."""
    forward: Literal["none", "stdout"] = "none"
    """``stdout``: each line also goes to the stdout of everup itself, behind ``web.1 | ``, as the
    log of a container wants it. What its reader is too slow for is in the files alone."""


@dataclass(frozen=True, slots=True, config=CONFIG)
class Watchdog:
    """systemd's watchdog: the service must send ``WATCHDOG=1`` this often."""

    interval: Annotated[Duration, Field(ge=0.05, le=86400)] = 30.0
    """Handed to the service as WATCHDOG_USEC; a longer silence kills and restarts it."""


@dataclass(frozen=True, slots=True, config=CONFIG)
class Rollout:
    """How replicas are replaced by ``everup restart`` and ``everup reload``."""

    batch: Annotated[int, Field(ge=1, le=1000)] = 1
    """Replicas replaced at a time, 1 to 1000."""
    pause: Annotated[Duration, Field(ge=0, le=86400)] = 0.0
    """Wait between two batches; a replica that fails meanwhile stops the rollout."""
    min_ready: Annotated[Duration, Field(ge=0, le=86400)] | None = None
    """A new replica must have been ready for this long before the old one drains. Default: 1s
    where neither a startup nor a readiness probe says when it is ready, else 0s."""


@dataclass(frozen=True, slots=True, config=CONFIG)
class Listener:
    """One listening socket, passed to the service systemd-style (LISTEN_FDS, from descriptor 3)."""

    name: str
    """Name in LISTEN_FDNAMES and for probes."""
    address: str
    """``host:port``, ``[v6]:port``, ``:port`` (all IPv4 addresses; ``[::]:port`` is all of both)
    or ``unix:/path``."""
    backlog: Annotated[int, Field(ge=1, le=65535)] = 4096
    """Connections that wait for accept (the kernel caps it at net.core.somaxconn)."""
    mode: str = "0660"
    """Permissions of a Unix socket, octal."""
    user: str | None = None
    """Owner of a Unix socket (needs root). Default: everup's own user."""
    group: str | None = None
    """Group of a Unix socket, like that of the web server in front. Default: everup's own."""


ACCEPTS = Probe(tcp="listen", interval=1.0, timeout=10.0, failure_threshold=1000)
"""It condemns nobody: see ``engine.starting``."""


@dataclass(frozen=True, slots=True, config=CONFIG)
class Service:
    """One service: a command, how many of it, and what keeping it up means."""

    name: Name
    """Taken from the table's name."""
    command: _Argv
    """Program and arguments, no shell. ``{replica}`` (1, 2, ...), ``{port}`` and ``{service}`` are
    filled in; ``{{`` and ``}}`` stand for braces."""
    type: Literal["service", "oneshot"] = "service"
    """``oneshot``: runs once and is done; what depends on it waits for its success."""
    listen: tuple[Listener, ...] = ()
    """Sockets that everup opens, keeps and passes on: one address, a list, or a table of names."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """For services that bind a port of their own: replica i gets ``port + i - 1`` as ``{port}``
    and in the environment as PORT."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """How many serve, 0 to 1000."""
    standby: Annotated[int, Field(ge=0, le=100)] = 0
    """Warm standbys beside them: started and ready, but out of the balance until a ready replica
    is lost."""
    singleton: bool = False
    """At most one in the whole ``[cluster]``: it runs where the cluster has given it to, with
    EVERUP_FENCE in its environment, a number that grows from owner to owner. Processes that
    everup starts for its hooks are not fenced."""
    depends_on: tuple[str, ...] = ()
    """Services that must be ready (a oneshot: done) before this one starts."""
    probe: Probes = field(default_factory=Probes)
    """Startup, readiness and liveness."""
    notify: bool = False
    """The service says READY=1 on NOTIFY_SOCKET (sd_notify); it counts as started only then (with
    ``listen``: and once it has accepted a connection)."""
    watchdog: Watchdog | None = None
    """Needs a service that sends WATCHDOG=1."""
    restart: Restart = field(default_factory=Restart)
    """What happens when a process ends by itself."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables, templates filled in. The service gets these and PATH, HOME, LANG, TZ, USER,
    LOGNAME and SHELL of everup's environment, nothing else."""
    pass_environment: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\*?$")], ...] = ()
    """Names of variables of everup's own environment that the service gets as well; ``AWS_*`` is
    all that begin so. What ``environment`` and ``environment_file`` say goes before."""
    environment_file: tuple[str, ...] = ()
    """Files of NAME=value lines, read at every start; a leading ``-`` allows it to be missing."""
    directory: str | None = None
    """Working directory. Default: the directory of the config file."""
    user: str | None = None
    """User to run as, by name or number (needs root)."""
    group: str | None = None
    """Group to run as, by name or number. Default: the user's own."""
    umask: Annotated[str, Field(pattern=r"^0?[0-7]{3}$")] | None = None
    """File mode mask, octal, like "027"."""
    nice: Annotated[int, Field(ge=-20, le=19)] | None = None
    """Scheduling priority, -20 to 19."""
    start_timeout: Annotated[Duration, Field(gt=0, le=86400)] = 90.0
    """A replica that has not started by then (startup probe, notify) is killed; a failed start."""
    stop_signal: str = "SIGTERM"
    """Signal that asks the replica to end."""
    stop_scope: Literal["main", "all"] = "main"
    """First to get the stop signal: the ``main`` process, or ``all``; who is left gets it next."""
    stop_timeout: Annotated[Duration, Field(ge=0, le=86400)] = 10.0
    """After this time everything of the replica gets SIGKILL."""
    drain_timeout: Annotated[Duration, Field(ge=0, le=86400)] = 0.0
    """On stop: at most this long to end open connections before the stop signal."""
    overlap: bool | None = None
    """Whether a restart on purpose brings the new process to ready before the old one drains, so
    that both run for a while. ``false`` for what can't run twice: then the old one stops first,
    and connections wait in the socket. Default: ``true`` with ``listen``, else ``false``."""
    rollout: Rollout = field(default_factory=Rollout)
    """Batches and pauses of restarts on purpose."""
    limits: Limits = field(default_factory=Limits)
    """Memory, tasks, CPU, descriptors."""
    slo: Slo | None = None
    """The objective that ``everup report`` and the alerts go by; none by default."""
    recover: Recover = field(default_factory=Recover)
    """What is done about incidents."""
    hooks: Hooks = field(default_factory=Hooks)
    """Commands around start and stop."""
    log: Log = field(default_factory=Log)
    """Rotation of the output files."""
    autostart: bool = True
    """Start with ``everup up``."""

    @property
    def slots(self) -> int:
        """Replicas and standbys together."""
        return self.replicas + self.standby

    @property
    def overlaps(self) -> bool:
        """Whether two processes of one slot may run for a while."""
        if self.type == "oneshot" or self.singleton:
            return False
        return bool(self.listen) if self.overlap is None else self.overlap

    @property
    def min_ready(self) -> float:
        """How long a new process must have been ready in a rollout, seconds."""
        if self.rollout.min_ready is not None:
            return self.rollout.min_ready
        return 0.0 if self.probe.startup or self.probe.readiness else 1.0

    @property
    def startup(self) -> Probe | None:
        """What shows that a process has started: the startup probe; where there is none, that it
        accepts a connection on the socket that it was given. Kept open by everup, that socket
        takes connections in whether or not the service works, and READY=1 is said by some servers
        before they have loaded the application."""
        if self.probe.startup is not None or not self.listen or self.type == "oneshot":
            return self.probe.startup
        return ACCEPTS


@dataclass(frozen=True, slots=True, config=CONFIG)
class Group:
    """Services that share a restart strategy."""

    name: Name
    """Taken from the table's name."""
    services: Annotated[tuple[str, ...], Field(min_length=1)]
    """Members, in the order that ``rest_for_one`` goes by."""
    strategy: Strategy = Strategy.ONE_FOR_ONE
    """``one_for_one``: only the crashed replica restarts; ``one_for_all``: all members;
    ``rest_for_one``: the crashed service and the members named after it."""


@dataclass(frozen=True, slots=True, config=CONFIG)
class StormBrake:
    """The budget of restarts over all services together: a token bucket."""

    limit: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """Restarts that may come at once, 0 to 1000000; 0: no brake."""
    period: Annotated[Duration, Field(gt=0, le=86400)] = 60.0
    """In this time the whole budget comes back, evenly."""


@dataclass(frozen=True, slots=True, config=CONFIG)
class Rollouts:
    """How a reload replaces what runs, over all services."""

    parallel: Annotated[int, Field(ge=1, le=1000)] = 4
    """Services that are replaced at the same time where neither needs the other, 1 to 1000."""


@dataclass(frozen=True, slots=True, config=CONFIG)
class Everup:
    """Settings of everup itself, table ``[everup]``."""

    state_dir: str = ".everup"
    """Journal, logs and sockets; relative to the config file. Where others may write beside that,
    the default is in /var/lib/everup for root, for others in their home."""
    journal_retention: Annotated[Duration, Field(ge=3600)] = 90 * 86400.0
    """Events older than this are deleted, at least 1h. Counted in time that the machine ran."""
    metrics_interval: Annotated[Duration, Field(ge=1, le=3600)] = 15.0
    """How often CPU, memory and descriptors are sampled, 1s to 1h."""
    starvation_lag: Annotated[Duration, Field(gt=0, le=60)] = 0.25
    """everup counts itself as starved when its own loop was this late; verdicts then wait."""
    starvation_psi: Annotated[float, Field(gt=0, le=100)] = 60.0
    """... or when tasks of the machine waited for CPU this much of the last 10 s, in percent
    (PSI ``cpu some avg10``) and no other instance answered its probes meanwhile."""
    starvation_max: Annotated[Duration, Field(ge=0, le=3600)] = 10.0
    """A verdict is postponed no longer than this."""
    observer: bool = True
    """Run the observer, which says why something failed. Restarts do not need it."""
    storm_brake: StormBrake = field(default_factory=StormBrake)
    """Restarts after failures beyond this budget wait. What operators ask for is not counted."""
    rollout: Rollouts = field(default_factory=Rollouts)
    """How a reload replaces what runs, over all services."""


@dataclass(frozen=True, slots=True, config=CONFIG)
class Spec:
    """The whole config."""

    service: dict[str, Service] = field(default_factory=dict)
    """The services."""
    group: dict[str, Group] = field(default_factory=dict)
    """The groups."""
    everup: Everup = field(default_factory=Everup)
    """Settings of everup itself."""
