"""The tables ``[route.NAME]`` and ``[heartbeat]``."""

import zoneinfo
from typing import Annotated, Any, Final, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from everup.model.table import CONFIG, Name
from everup.model.units import Duration

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
HOURS = r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"


@dataclass(frozen=True, slots=True, config=CONFIG)
class Route:
    """A way to tell people of incidents. It names one or more of ``webhook``, ``command``,
    ``email_to`` and ``apprise_file``: each is told."""

    name: Name
    """Taken from the table's name."""
    webhook: str | None = None
    """URL that gets each message as JSON by POST. Write it into a file instead where it is a
    secret: ``webhook_file``."""
    webhook_file: str | None = None
    """File with that URL in its first line."""
    sign_file: str | None = None
    """File with a secret: the webhook's body is signed with it (HMAC-SHA256 over the header
    ``X-Everup-Timestamp``, a full stop and the body, in ``X-Everup-Signature``)."""
    command: tuple[str, ...] = ()
    """A program and its arguments; it gets the message as JSON on its standard input. It runs as
    the observer's user, without a shell, for 30 s at most."""
    email_to: tuple[str, ...] = ()
    """Addresses that get each message as mail."""
    email_from: str = "everup@localhost"
    """The sender's address."""
    smtp: str = "localhost:25"
    """``host:port`` of the mail server."""
    smtp_tls: Literal["none", "starttls", "tls"] = "none"
    """``starttls`` begins in plaintext, as on port 587; ``tls`` does not, as on port 465."""
    smtp_user: str | None = None
    """User to log in as; needs smtp_tls."""
    smtp_password_file: str | None = None
    """File with that user's password in its first line."""
    apprise_file: str | None = None
    """File with URLs of Apprise (Slack, Matrix, Telegram, Teams, PagerDuty and some hundred more),
    one a line. Needs ``everup[notify]``."""
    severity: Literal["warning", "critical"] = "warning"
    """The least severity that is told."""
    services: tuple[str, ...] = ("*",)
    """Patterns; an incident is told if one of the services that it hurts, or its subject,
    matches."""
    hours: Annotated[str, Field(pattern=HOURS)] | None = None
    """Told in these hours only, like ``"08:00-18:00"`` or ``"22:00-06:00"``. What opens outside of
    them is told when they begin, if it is still open."""
    days: tuple[Day, ...] = ()
    """Told on these days only, like ``["mon", "tue"]``; a span of hours over midnight belongs to
    the day on which it begins."""
    timezone: str | None = None
    """Of ``hours`` and of times in messages, like ``"Europe/Berlin"``. Default: the machine's."""
    hold: Annotated[Duration, Field(le=3600)] = 10.0
    """An incident that is over sooner is not told."""
    settle: Annotated[Duration, Field(le=86400)] = 60.0
    """That it is over is told once it has stayed so for this long. What fails again meanwhile is
    the same to people: it is counted, and told once."""
    repeat: Annotated[Duration, Field(ge=60)] | None = None
    """Told again this often until somebody acknowledges it or it is mitigated."""
    escalate_after: Annotated[Duration, Field(ge=1)] | None = None
    """If nobody has acknowledged it by then, ``escalate_to`` is told as well."""
    escalate_to: str | None = None
    """Name of another route. It is told whatever its own severity, services and hours are."""
    only_escalated: bool = False
    """Told only of what another route hands on."""


@dataclass(frozen=True, slots=True, config=CONFIG)
class Heartbeat:
    """A dead man's switch: a URL is called while keeper, engine and observer are alive. A service
    elsewhere tells people when the calls stop."""

    url_file: str | None = None
    """File with the URL in its first line; without one nothing is called."""
    interval: Annotated[Duration, Field(ge=1, le=86400)] = 60.0
    """How often."""


_WAYS: Final = ("webhook", "webhook_file", "command", "email_to", "apprise_file")


def check(spec: Any, found: Any) -> None:
    """Find routes that tell nobody, or that lead nowhere."""
    for name, route in spec.route.items():
        path = ("route", name)
        if not any(getattr(route, way) for way in _WAYS):
            found.add(path, f"a route needs one of {', '.join(_WAYS)}; this one tells nobody")
        if route.webhook is not None and not route.webhook.startswith(("http://", "https://")):
            found.add((*path, "webhook"), 'expected a URL, like "https://host/path"')
        if route.webhook is not None and route.webhook_file is not None:
            found.add((*path, "webhook_file"), "webhook names the URL already")
        if route.escalate_to is not None and route.escalate_to not in spec.route:
            known = ", ".join(other for other in spec.route if other != name) or "there is no other"
            text = f"there is no such route; there are: {known}"
            found.add((*path, "escalate_to"), text, value=route.escalate_to)
        if (route.escalate_to is None) != (route.escalate_after is None):
            found.add(path, "escalate_to and escalate_after need each other")
        if route.smtp_user is not None and route.smtp_tls == "none":
            found.add((*path, "smtp_user"), "needs smtp_tls: the password would go in plaintext")
        if route.smtp_user is not None and route.smtp_password_file is None:
            found.add((*path, "smtp_user"), "needs smtp_password_file")
        if not route.smtp.rpartition(":")[2].isdigit():
            found.add((*path, "smtp"), 'expected host:port, like "mail:587"', value=route.smtp)
        _zone(route, path, found)


def _zone(route: Route, path: tuple[str, ...], found: Any) -> None:
    if route.timezone is None:
        return
    try:
        zoneinfo.ZoneInfo(route.timezone)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        text = 'expected a time zone, like "Europe/Berlin"; the machine knows none of this name'
        found.add((*path, "timezone"), text, value=route.timezone)
