"""What every table of the config file shares."""

from typing import Annotated, Final

from pydantic import ConfigDict, Field

CONFIG: Final = ConfigDict(extra="forbid", defer_build=True)
"""Unknown keys are refused; checks are compiled once, for the whole config."""
Name = Annotated[str, Field(pattern=r"^[a-zA-Z][a-zA-Z0-9_-]{0,62}$")]
