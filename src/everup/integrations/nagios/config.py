"""The table ``[nagios]``."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from everup.model.spec import CONFIG
from everup.model.units import AbsolutePath, Duration


@dataclass(frozen=True, slots=True, config=CONFIG)
class Nagios:
    """How Nagios is told of the services. Run as root, everup does it as the user ``everup``, who
    has to be in Nagios' group."""

    host: str | None = None
    """Name of this machine there. Default: its own host name."""
    command_file: AbsolutePath | None = None
    """Nagios' command file (a FIFO), like ``/var/lib/nagios4/rw/nagios.cmd``."""
    spool: AbsolutePath | None = None
    """Nagios' check_result_path, for where the command file is out of reach."""
    heartbeat: Annotated[Duration, Field(ge=1, le=3600)] = 30.0
    """All results are sent again this often, 1s to 1h; changes are sent at once."""
