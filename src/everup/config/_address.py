"""Addresses to listen on and to connect to."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

_ADDRESS = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]+)")
_HOSTNAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})?(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?"
)
_UNIX_PATH_MAX = 107
"""sockaddr_un holds 108 bytes, the last of them NUL."""

ADDRESS_HELP = (
    '"127.0.0.1:8080", "[::1]:8080", ":8080" (all IPv4 addresses), "[::]:8080" (all) '
    'or "unix:/run/app.sock"'
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a socket listens."""

    family: Literal["inet", "inet6", "unix"]
    host: str = ""
    """IP address; empty for all IPv4 addresses, ``::`` for all of both families."""
    port: int = 0
    """1 to 65535; 0 for a Unix socket."""
    path: str = ""
    """Absolute path of a Unix socket, at most 107 bytes."""

    def __str__(self) -> str:
        if self.family == "unix":
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def wildcard(self) -> bool:
        """Whether it takes in every address of its family."""
        return self.family != "unix" and self.host in ("", "0.0.0.0", "::")  # noqa: S104

    def overlaps(self, other: "Address") -> bool:
        """Whether a connection could reach either of them. ``::`` takes in IPv4 as well."""
        if (self.port, self.path) != (other.port, other.path) or "unix" in (
            self.family,
            other.family,
        ):
            return self == other
        if "::" in (self.host, other.host):
            return True
        return self.family == other.family and (
            self.host == other.host or self.wildcard or other.wildcard
        )


def parse_address(text: str) -> Address:
    """An address to listen on; ``ValueError`` says what would be valid.

    ``host:port`` and ``[v6]:port`` with an IP address or ``localhost``, ``:port`` for all IPv4
    addresses (``[::]:port`` takes in IPv6 too, where the machine has it), ``unix:/path``. Port 0
    is refused: clients and probes have to know the port. Host names are refused, since looking
    them up can fail or change between two starts.
    """
    if text.startswith("unix:"):
        return _parse_unix(text[5:])
    host, port = split_host_port(text)
    if host in ("", "*"):
        return Address("inet", "", port)
    if host == "localhost":
        host = "127.0.0.1"
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(
            f"{host!r} is no IP address, and names are not looked up; expected {ADDRESS_HELP}"
        ) from None
    return Address("inet" if ip.version == 4 else "inet6", str(ip), port)


def split_host_port(text: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[v6]:port``; ``ValueError`` if it is neither."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        if re.fullmatch(r"[0-9]{1,5}", text):
            raise ValueError(f'a port alone; write ":{text}" or "127.0.0.1:{text}"')
        if text.startswith("/"):
            raise ValueError(f'a path alone; write "unix:{text}"')
        if text.count(":") > 1 and "[" not in text:
            raise ValueError(f"IPv6 addresses take brackets; expected {ADDRESS_HELP}")
        raise ValueError(f"expected {ADDRESS_HELP}")
    digits = match["port"]
    port = int(digits) if len(digits) <= 5 else 65536
    if port == 0:
        raise ValueError("port 0 is no fixed port: clients and probes have to know it; 1 to 65535")
    if port > 65535:
        raise ValueError("ports go from 1 to 65535")
    v6 = match["v6"]
    if v6 is None:
        return match["host"], port
    try:
        ipaddress.IPv6Address(v6)
    except ValueError:
        raise ValueError(f"{v6!r} is no IPv6 address; expected {ADDRESS_HELP}") from None
    return v6, port


def check_target(text: str) -> None:
    """``host:port`` to connect to, where names are allowed; ``ValueError`` if it is not one."""
    host, _ = split_host_port(text)
    if not (":" in host or _HOSTNAME.fullmatch(host)):
        raise ValueError('expected "listen" or host:port, like "127.0.0.1:5432"')


def _parse_unix(path: str) -> Address:
    if not path.startswith("/"):
        raise ValueError('the path of a Unix socket starts with /, like "unix:/run/app.sock"')
    if path.endswith("/"):
        raise ValueError('expected the path of a socket, like "unix:/run/app.sock"')
    size = len(path.encode("utf-8", "surrogatepass"))
    if size > _UNIX_PATH_MAX:
        raise ValueError(
            f"a Unix socket's path has at most {_UNIX_PATH_MAX} bytes; this has {size}"
        )
    return Address("unix", path=path)
