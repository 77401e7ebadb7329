"""Objectives."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from everup.model.table import CONFIG
from everup.model.units import Duration


@dataclass(frozen=True, slots=True, config=CONFIG)
class Slo:
    """What the service promises its users; ``everup report`` shows the error budget that is left,
    and a budget that burns too fast is told as it happens."""

    objective: Annotated[float, Field(gt=0, lt=100)] = 99.9
    """Per cent of the time (of the requests, where their number is known) that the service
    must be available, above 0 and below 100."""
    window: Annotated[Duration, Field(ge=86400, le=366 * 86400)] = 30 * 86400.0
    """The objective holds over each window of this length, 1d to 366d."""
