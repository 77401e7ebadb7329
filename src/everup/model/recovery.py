"""The ladder of a service: what everup does about an incident."""

from typing import Annotated, Final, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from everup.model.table import CONFIG
from everup.model.units import Duration

RUNG: Final = r"^(restart|restart_dependency|clean_restart|scale|degrade|failover|page)$"


@dataclass(frozen=True, slots=True, config=CONFIG)
class Recover:
    """What everup does about an incident that restarts of crashed processes do not end: the rungs
    of a ladder, one after the other, until one has helped."""

    mode: Literal["auto", "ask", "watch", "off"] = "auto"
    """``auto``: climb; ``ask``: a person approves each rung (``everup approve``); ``watch``: only
    say what would be done; ``off``: nothing."""
    ladder: tuple[Annotated[str, Field(pattern=RUNG)], ...] = ("restart",)
    """Rungs, in order: ``restart`` what lives and does not serve; ``restart_dependency``: what the
    cause names; ``clean_restart``: run ``clean``, then restart; ``scale`` to ``scale_to``;
    ``degrade``: run ``degrade_on``; ``failover``: start ``failover_to``; ``page``: tell people
    again, and all routes. One that does not apply to the incident is left out."""
    wait: Annotated[Duration, Field(le=3600)] = 5.0
    """What a rung is against must have been so for this long: what everup does by itself, like
    starting again what has ended, is over sooner."""
    within: Annotated[Duration, Field(ge=1, le=86400)] = 60.0
    """A rung that has not helped by then is not tried again for the same incident."""
    stay: Annotated[Duration, Field(le=3600)] = 10.0
    """It has helped once nothing of the incident has been active for so long."""
    at_most: Annotated[int, Field(ge=1, le=1000)] = 3
    """How often each rung is climbed in an hour, over all incidents."""
    expires: Annotated[Duration, Field(ge=1, le=86400)] = 3600.0
    """With ``ask``: what nobody has approved by then is not done."""
    clean: tuple[str, ...] = ()
    """Program and arguments for ``clean_restart``; as the observer's user, 60 s at most."""
    scale_to: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Replicas for ``scale``. Back to those of before once the incident is over."""
    degrade_on: tuple[str, ...] = ()
    """Program and arguments that make the service do with less; as the observer's user."""
    degrade_off: tuple[str, ...] = ()
    """The opposite, run once the incident is over."""
    failover_to: str | None = None
    """Name of the service (with ``autostart = false``) that ``failover`` starts."""
