"""The table ``[echo]``."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from everup.model.spec import CONFIG


@dataclass(frozen=True, slots=True, config=CONFIG)
class Echo:
    """How often the room echo speaks."""

    every: Annotated[int, Field(ge=1, le=1000)] = 10
    """It speaks at each beat whose number is a multiple of this."""
