"""Problems of Zabbix as conditions of everup, and who has acknowledged what.

Pure. What everup itself has told Zabbix of is left out: it would come back as its own echo.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from everup.integrations.zabbix.status import SAYS, owner
from everup.model.display import shown_line
from everup.model.incident import Incident

KIND: Final = "reported"
OVER: Final = "Zabbix says that it is over"
MACHINE: Final = "machine"
SEVERITIES: Final = ("not classified", "information", "warning", "average", "high", "disaster")
_MOST_TEXT: Final = 300
_ACKNOWLEDGED: Final = 2
_LONGEST_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem that is open in Zabbix."""

    event: str
    """Its number there."""
    name: str
    severity: int
    """0 to 5, see ``SEVERITIES``."""
    host: str
    tags: Mapping[str, str]
    acknowledged_by: str = ""
    """The newest to do so; "somebody" where Zabbix does not say who."""
    acknowledged_at: int = 0
    """Seconds since 1970, by Zabbix' clock."""

    @property
    def echo(self) -> bool:
        """Tell whether everup told Zabbix of it."""
        return self.tags.get("target") == "everup" or "everup" in self.tags


def read(events: Any) -> Sequence[Problem]:
    """Read what ``event.get`` gives with hosts, tags and acknowledgements. Raises ``ValueError``
    where it is something else."""
    try:
        return [_problem(event) for event in events]
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        text = f"the API gives events of another shape: {type(error).__name__} {error}"
        raise ValueError(text) from None


def _problem(event: Mapping[str, Any]) -> Problem:
    taken = [a for a in event["acknowledges"] if int(a["action"]) & _ACKNOWLEDGED]
    newest: Mapping[str, Any] = max(taken, key=lambda a: int(a["clock"]), default={})
    by = ""
    if event["acknowledged"] == "1" and newest:
        by = str(newest.get("username") or newest.get("alias") or "somebody")
    return Problem(
        str(event["eventid"]),
        str(event["name"]),
        int(event["severity"]),
        str(event["hosts"][0]["host"]) if event["hosts"] else "",
        {str(tag["tag"]): str(tag["value"]) for tag in event["tags"]},
        _line(by, _LONGEST_NAME),
        int(newest.get("clock", 0)),
    )


def findings(
    problems: Iterable[Problem], services: Collection[str], host: str, least: int
) -> dict[str, str]:
    """Give what is the matter, by subject: the service that a tag ``service`` names, else the
    machine where it is of ``host``, else the other host."""
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        if problem.severity >= least and not problem.echo:
            found.setdefault(_subject(problem, services, host), []).append(problem)
    return {subject: _text(rows) for subject, rows in found.items()}


def _subject(problem: Problem, services: Collection[str], host: str) -> str:
    service = problem.tags.get("service", "")
    if service in services:
        return service
    return MACHINE if problem.host in ("", host) else _line(problem.host, _LONGEST_NAME)


def _text(rows: Sequence[Problem]) -> str:
    worst = max(rows, key=lambda p: (p.severity, p.event))
    more = f", and {len(rows) - 1} more" if len(rows) > 1 else ""
    return f"{SAYS}{_line(worst.name, _MOST_TEXT)} ({_severity(worst)}){more}"


def _severity(problem: Problem) -> str:
    known = 0 <= problem.severity < len(SEVERITIES)
    return SEVERITIES[problem.severity] if known else str(problem.severity)


def ours(incidents: Iterable[Incident]) -> set[str]:
    """Give the subjects of which this integration has reported, and that are not over: also by an
    observer before this one. Others may report of the same subjects: the text tells."""
    return {
        condition.subject
        for incident in incidents
        if incident.resolved_at is None
        for condition in incident.active.values()
        if condition.kind == KIND and condition.text.startswith(SAYS)
    }


@dataclass(frozen=True, slots=True)
class Taken:
    """What is to be acknowledged on one side, as it is on the other."""

    here: tuple[tuple[Incident, str], ...] = ()
    """Incidents, each with who has taken it on in Zabbix."""
    there: tuple[tuple[Problem, Incident], ...] = ()
    """Problems, each with the incident that was taken on in everup."""


def taken(
    problems: Iterable[Problem], incidents: Iterable[Incident], services: Collection[str], host: str
) -> Taken:
    """Find who has taken on what. A problem may stand for several incidents of a service: it is
    taken on once all of them are, and takes on those that there were by then."""
    by_owner: dict[str, list[Incident]] = {}
    for incident in incidents:
        if incident.resolved_at is None:
            by_owner.setdefault(owner(incident, services), []).append(incident)
    here: list[tuple[Incident, str]] = []
    there: list[tuple[Problem, Incident]] = []
    for problem in problems:
        if problem.host != host or problem.tags.get("everup") != "incident":
            continue
        rows = by_owner.get(problem.tags.get("service", ""), [])
        if problem.acknowledged_by:
            here += [
                (incident, problem.acknowledged_by)
                for incident in rows
                if not incident.acknowledged_by and int(incident.since) <= problem.acknowledged_at
            ]
        elif rows and all(incident.acknowledged_by for incident in rows):
            there.append((problem, rows[-1]))
    return Taken(tuple(here), tuple(there))


def _line(text: str, most: int) -> str:
    line = shown_line(text)
    return line if len(line) <= most else f"{line[: most - 3]}..."
