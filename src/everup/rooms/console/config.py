"""The table ``[console]``."""

import ipaddress
from typing import Annotated

from pydantic import AfterValidator
from pydantic.dataclasses import dataclass

from everup.config import parse_address
from everup.model.table import CONFIG


def _of_this_machine(text: str) -> str:
    address = parse_address(text)
    if address.family == "unix" or not ipaddress.ip_address(address.host or "::").is_loopback:
        why = "for others the console would need TLS and users, which it does not have yet"
        raise ValueError(
            f'expected an address of this machine alone, like "127.0.0.1:7077"; {why}; '
            "from elsewhere: ssh -L 7077:127.0.0.1:7077 MACHINE"
        )
    return text


@dataclass(frozen=True, slots=True, config=CONFIG)
class Console:
    """The web console. ``everup console`` opens it."""

    listen: Annotated[str, AfterValidator(_of_this_machine)] | None = None
    """Where the console listens, like ``127.0.0.1:7077``; without it there is no console. Only an
    address of this machine alone: there are neither TLS nor users of its own yet. The observer
    serves it, which is never root: ports below 1024 are out of reach."""
