"""The table ``[check.NAME]``."""

import re
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import Field
from pydantic.dataclasses import dataclass

from everup.model.table import CONFIG, Name
from everup.model.units import AbsolutePath, Duration, Size

STATUS: Final = r"^[1-5][0-9]{2}(-[1-5][0-9]{2})?$"
_WAYS: Final = ("http", "tcp", "tls", "command", "file", "process", "heartbeat")


@dataclass(frozen=True, slots=True, config=CONFIG)
class Check:
    """A check of something that everup does not run. Exactly one of ``http``, ``tcp``, ``tls``,
    ``command``, ``file``, ``process`` and ``heartbeat`` says what is checked."""

    name: Name
    """Taken from the table's name."""
    http: str | None = None
    """URL that must answer with a ``status``; of https the certificate is checked, too."""
    status: Annotated[str, Field(pattern=STATUS)] = "200-399"
    """Range of status codes that are well. Redirects are not followed."""
    body: str | None = None
    """Regular expression that the first 64 KiB of the body must match somewhere."""
    tcp: str | None = None
    """``host:port`` that must accept a connection."""
    tls: str | None = None
    """``host:port`` that must show a certificate that is valid and does not end soon."""
    certificate: Annotated[Duration, Field(ge=0)] = 14 * 86400.0
    """A certificate must be valid for so long still."""
    ca: AbsolutePath | None = None
    """File of certificates (PEM) to trust instead of the system's."""
    command: tuple[str, ...] = ()
    """Program and arguments that must end with status 0. It runs as the observer's user, without a
    shell."""
    plugin: bool = False
    """``command`` is a Nagios plugin: OK and WARNING are well, CRITICAL is not, anything else says
    nothing."""
    file: AbsolutePath | None = None
    """File that must be there."""
    max_age: Annotated[Duration, Field(gt=0)] | None = None
    """It must have been changed within so long."""
    min_size: Size | None = None
    """It must have so many bytes at least."""
    process: str | None = None
    """Regular expression that the command line of a running process must match somewhere."""
    heartbeat: Annotated[Duration, Field(ge=1)] | None = None
    """A job must say ``everup beat NAME`` at least this often."""
    interval: Annotated[Duration, Field(ge=1, le=86400)] = 30.0
    """Time from the start of one check to the start of the next, 1s to 1d."""
    timeout: Annotated[Duration, Field(gt=0, le=3600)] = 10.0
    """A check that has not ended by then has failed."""
    failures: Annotated[int, Field(ge=1, le=1000)] = 2
    """So many failures in a row are told. After the first one it is checked again sooner."""
    needed_by: tuple[str, ...] = ()
    """Services that need it: what fails of them while it fails is the same incident."""


def check(spec: Any, found: Any) -> None:
    """Find checks that check nothing, or more than one thing."""
    for name, one in spec.check.items():
        path = ("check", name)
        ways = [way for way in _WAYS if getattr(one, way)]
        if len(ways) != 1:
            had = f"has {' and '.join(ways)}" if ways else "checks nothing"
            found.add(path, f"a check needs exactly one of {', '.join(_WAYS)}; this one {had}")
        for way in ("tcp", "tls"):
            address = getattr(one, way)
            if address is not None and not _is_address(address):
                found.add((*path, way), 'expected host:port, like "db:5432"', value=address)
        if one.http is not None and urlsplit(one.http).scheme not in ("http", "https"):
            found.add((*path, "http"), 'expected a URL, like "https://host/path"', value=one.http)
        for key in ("body", "process"):
            pattern = getattr(one, key)
            if pattern is not None and (why := _wrong(pattern)):
                text = f"is no regular expression: {why}"
                found.add((*path, key), text, value=pattern)
        for i, service in enumerate(one.needed_by):
            if service not in spec.service:
                known = ", ".join(spec.service)
                text = f"there is no such service; there are: {known}"
                found.add((*path, "needed_by", i), text, value=service)


def _is_address(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    return bool(host and colon and port.isdigit() and 0 < int(port) < 65536)


def _wrong(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        return str(error)
    return ""
