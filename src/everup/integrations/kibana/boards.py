"""The dashboards themselves: what happened, one service, incidents, availability, everup. Pure."""

from typing import Final

from everup.integrations.kibana.shapes import (
    Dashboard,
    Search,
    Visualization,
    by,
    count,
    number,
    over_time,
    percentiles,
    rows,
)

_FAILED: Final = "event.action:(instance.exited OR instance.lost) AND log.level:error"
_UNRESOLVED: Final = "everup.incident.state:(open OR acknowledged OR mitigated)"
_OWN: Final = (
    "event.action:(engine.* OR observer.* OR journal.* OR log.* OR everup.* OR config.* OR "
    "facility.* OR storm.* OR notify.*)"
)

EVENTS: Final = Search(
    "events",
    "everup: what happened",
    ("log.level", "service.node.name", "event.action", "message"),
)
BAD: Final = Search(
    "bad",
    "everup: warnings and errors",
    ("log.level", "service.node.name", "event.action", "message"),
    query="log.level:(warning OR error)",
)
INCIDENTS: Final = Search(
    "incidents",
    "everup: incidents",
    ("everup.incident.number", "everup.incident.state", "everup.incident.severity", "message"),
    view="incidents",
)
BURNS: Final = Search(
    "burns",
    "everup: error budgets that burn",
    ("service.name", "event.action", "everup.burn_rate", "message"),
    query="event.action:(slo.burning OR slo.calm)",
)
OWN: Final = Search("own", "everup: of itself", ("event.action", "message"), query=_OWN)


def _vis(name: str, title: str, kind: str, *aggs: object, **more: str) -> Visualization:
    return Visualization(name, f"everup: {title}", kind, aggs, **more)  # type: ignore[arg-type]


_EVENTS = _vis("count-events", "events", "metric", count("events"))
_FAILURES = _vis("count-failures", "failures", "metric", count("failures"), query=_FAILED)
_OPEN = _vis(
    "count-open", "incidents that are not over", "metric", count("not over"),
    view="incidents", query=_UNRESOLVED,
)  # fmt: skip
_LEVELS = _vis("levels", "events by level", "histogram", count(), over_time(), by("log.level", 5))
_WORST = _vis(
    "worst", "failures by service", "table", count("failures"), by("service.name", 20, "service"),
    query=_FAILED,
)  # fmt: skip
_CAUSES = _vis(
    "causes", "failures by cause", "table", count("failures"), by("everup.cause", 20, "cause"),
    query=_FAILED,
)  # fmt: skip
OVERVIEW: Final = Dashboard(
    "overview", "everup: overview", "What happened to the services, and why.",
    rows(
        (2, (_EVENTS, _FAILURES, _OPEN)),
        (4, (_LEVELS,)),
        (4, (_WORST, _CAUSES)),
        (5, (BAD,)),
    ),
)  # fmt: skip

_HELP = Visualization(
    "help-service", "everup: one service", "markdown",
    text="**One service:** click on its name in the table, and everything here is about that one.",
)  # fmt: skip
_SERVICES = _vis(
    "services", "services", "table", count("events"), by("service.name", 50, "service")
)
_STARTS = _vis(
    "starts", "starts by instance", "table", count("starts"),
    by("service.node.name", 50, "instance"), query="event.action:instance.spawned",
)  # fmt: skip
_ACTIONS = _vis(
    "actions", "what happened", "histogram", count(), over_time(), by("event.action", 12)
)
_EXITS = _vis("exits", "how it ended", "pie", count(), by("everup.cause", 12),
              query="event.action:instance.exited")  # fmt: skip
_READY = _vis(
    "ready", "seconds to ready", "table",
    percentiles("everup.took_s", "seconds to ready", 50, 95), by("service.name", 20, "service"),
    query="event.action:instance.ready",
)  # fmt: skip
SERVICE: Final = Dashboard(
    "service", "everup: one service", "Starts, ends and times of one service.",
    rows((1, (_HELP,)), (4, (_SERVICES, _STARTS, _EXITS)), (4, (_ACTIONS,)), (3, (_READY,)),
         (5, (EVENTS,))),
)  # fmt: skip

_OF_INCIDENTS = "incidents"
_STATES = Visualization("states", "everup: incidents by state", "pie",
                        (count(), by("everup.incident.state", 6)), "incidents")  # fmt: skip
_WHEN = Visualization(
    "when", "everup: incidents over time", "histogram",
    (count(), over_time(), by("everup.incident.severity", 4)), "incidents",
)  # fmt: skip
_KINDS = Visualization(
    "kinds", "everup: incidents by cause", "table",
    (count("incidents"), number("avg", "event.duration", "mean length in ns"),
     by("everup.incident.cause", 20, "cause")), "incidents",
)  # fmt: skip
_ROOTS = Visualization(
    "roots", "everup: incidents by where they began", "table",
    (count("incidents"), by("everup.incident.root", 20, "service")), "incidents",
)  # fmt: skip
_HURT = Visualization(
    "hurt", "everup: who is hurt", "table",
    (count("incidents"), by("everup.incident.services", 20, "service")), "incidents",
)  # fmt: skip
INCIDENT: Final = Dashboard(
    "incidents", "everup: incidents", "What failed, since when, because of what, and who was hurt.",
    rows((3, (_OPEN, _STATES)), (3, (_WHEN,)), (4, (_KINDS, _ROOTS, _HURT)), (6, (INCIDENTS,))),
    since="now-30d",
)  # fmt: skip

_LOST = _vis("lost", "failures over time", "histogram", count(), over_time(),
             by("service.name", 12), query=_FAILED)  # fmt: skip
_LIVES = _vis(
    "lives", "how long instances lived until they failed", "table",
    count("failures"), number("avg", "everup.up_s", "mean seconds"),
    percentiles("everup.up_s", "seconds", 10, 50), by("service.name", 20, "service"),
    query=_FAILED,
)  # fmt: skip
_VERDICTS = _vis(
    "verdicts", "verdicts and brakes", "table", count("times"), by("event.action", 12, "what"),
    by("service.name", 10, "service"),
    query="event.action:(instance.unhealthy OR instance.parked OR instance.spared OR "
    "storm.braking OR verdict.postponed)",
)  # fmt: skip
_BURN = _vis(
    "burn", "error budgets that burn", "table", count("times"),
    number("max", "everup.burn_rate", "highest burn rate"), by("service.name", 20, "service"),
    query="event.action:slo.burning",
)  # fmt: skip
AVAILABILITY: Final = Dashboard(
    "availability", "everup: availability and error budgets",
    "Failures, lives, times to ready, error budgets. everup report has the availability itself.",
    rows((4, (_LOST,)), (4, (_LIVES, _READY)), (4, (_VERDICTS, _BURN)), (4, (BURNS,))),
    since="now-7d",
)  # fmt: skip

_HOSTS = _vis("hosts", "machines", "table", count("events"), by("host.name", 50, "machine"),
              by("agent.version", 5, "everup"))  # fmt: skip
_SELF = _vis("self", "what everup says of itself", "histogram", count(), over_time(),
             by("event.action", 12), query=_OWN)  # fmt: skip
_SEEN = _vis("seen", "everup's own events", "table", count("times"),
             by("event.action", 30, "event"), query=_OWN)  # fmt: skip
ITSELF: Final = Dashboard(
    "itself", "everup: everup itself", "Its machines, versions, and what it says of itself.",
    rows((4, (_HOSTS, _SEEN)), (4, (_SELF,)), (6, (OWN,))),
    since="now-7d",
)  # fmt: skip

DASHBOARDS: Final = (OVERVIEW, SERVICE, INCIDENT, AVAILABILITY, ITSELF)
SEARCHES: Final = (EVENTS, BAD, INCIDENTS, BURNS, OWN)


def visualizations() -> tuple[Visualization, ...]:
    """Give every visualization that some dashboard shows, once."""
    found = [p.of for board in DASHBOARDS for p in board.panels]
    return tuple(dict.fromkeys(v for v in found if isinstance(v, Visualization)))
