"""The table ``[nagios]``."""

import ipaddress
import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from everup.config import parse_address
from everup.integrations.nagios.nsca import Method
from everup.model.table import CONFIG
from everup.model.units import AbsolutePath, Duration

_HOST_PORT: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*))(?::(?P<port>\d{1,5}))?"
)
NSCA_PORT: Final = 5667


def target(text: str, default_port: int) -> tuple[str, int]:
    """Give host and port of what to connect to. Raises ``ValueError`` with what would be valid."""
    match = _HOST_PORT.fullmatch(text)
    port = int(match["port"] or default_port) if match is not None else 0
    if match is None or not 0 < port < 1 << 16:
        raise ValueError('expected host, host:port or [v6]:port, like "nagios.example:5667"')
    return match["v6"] or match["host"], port


def _nsca_server(text: str) -> str:
    target(text, NSCA_PORT)
    return text


def _to_listen_on(text: str) -> str:
    if parse_address(text).family == "unix":
        raise ValueError('expected an IP address and a port, like "127.0.0.1:5666"')
    return text


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        hint = 'valid: "192.0.2.7", "192.0.2.0/24", "2001:db8::/64"; names are not looked up'
        raise ValueError(f"{error}; {hint}") from None
    return text


@dataclass(frozen=True, slots=True, config=CONFIG)
class Nrpe:
    """An NRPE server: ``check_nrpe`` asks everup, without an agent. It answers, and does nothing
    else: it runs no plugin and refuses arguments."""

    listen: Annotated[str, AfterValidator(_to_listen_on)] = "127.0.0.1:5666"
    """Where, as ``host:port``. Off this machine only with TLS, or with ``plaintext``."""
    allowed: tuple[Annotated[str, AfterValidator(_network)], ...] = ("127.0.0.1", "::1")
    """Who may ask: addresses and networks. Anybody else's connection is closed at once."""
    tls_cert_file: str | None = None
    """Certificate (PEM, with what leads to its authority). One that it has signed itself will do:
    ``check_nrpe`` does not look who signed it unless told."""
    tls_key_file: str | None = None
    """Its key (PEM, without a password)."""
    tls_client_ca_file: str | None = None
    """Only who shows a certificate of this authority is answered (``check_nrpe -C -K``)."""
    plaintext: bool = False
    """Answer off this machine without TLS, too: whoever is in between reads and forges answers."""

    def __post_init__(self) -> None:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together")
        if self.tls_client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError("tls_client_ca_file needs tls_cert_file and tls_key_file")
        host = parse_address(self.listen).host
        if host and ipaddress.ip_address(host).is_loopback:
            return
        if self.tls_cert_file is None and not self.plaintext:
            why = f'listen = "{self.listen}" is reached from other machines'
            raise ValueError(
                f"{why}: it needs tls_cert_file and tls_key_file, or plaintext = true "
                "where the network is trusted"
            )
        if all(ipaddress.ip_network(text).is_loopback for text in self.allowed):
            why = f'listen = "{self.listen}" is for other machines, and allowed names none'
            raise ValueError(f'{why}: say who may ask, like allowed = ["192.0.2.7"]')


@dataclass(frozen=True, slots=True, config=CONFIG)
class Nsca:
    """NSCA daemons (2.9 and later), for a Nagios on another machine. They acknowledge nothing, so
    that the freshness of the object definitions is what notices a loss."""

    servers: Annotated[
        tuple[Annotated[str, AfterValidator(_nsca_server)], ...], Field(min_length=1)
    ]
    """Where they listen, each is told: ``"nagios.example"``, ``"192.0.2.7:5667"``."""
    method: Method = "rijndael-128"
    """``decryption_method`` there: 0, 1, 3 and 14. Those two that encrypt need ``everup[nsca]``; 0
    and 1 let everybody on the way read, and forge, results."""
    password_file: str | None = None
    """Its first line is the ``password`` there."""

    def __post_init__(self) -> None:
        if self.password_file is None and self.method not in ("none", "xor"):
            raise ValueError(f'method = "{self.method}" needs password_file')


@dataclass(frozen=True, slots=True, config=CONFIG)
class Icinga:
    """An Icinga 2 that is told by its API (``process-check-result``)."""

    url: Annotated[str, Field(pattern=r"^https://[^/?#@\s]+/?$")]
    """Where its API is, like ``"https://icinga.example:5665"``."""
    user: str
    """Name of an ``ApiUser`` with the permission ``actions/process-check-result``."""
    password_file: str
    """File whose first line is its password."""
    ca_file: str | None = None
    """Certificate of Icinga's own authority (``/var/lib/icinga2/certs/ca.crt`` there). Default: the
    authorities that this machine trusts."""
    server_name: str | None = None
    """Name in its certificate, where ``url`` has another. Icinga's own is its ``NodeName``."""
    fingerprint: Annotated[str | None, Field(pattern=r"^([0-9A-Fa-f]{2}:?){32}$")] = None
    """SHA-256 of its certificate in hexadecimal: that one is trusted, whoever signed it."""

    def __post_init__(self) -> None:
        if self.fingerprint is not None and (self.ca_file or self.server_name):
            raise ValueError("has a fingerprint: ca_file and server_name would change nothing")


@dataclass(frozen=True, slots=True, config=CONFIG)
class Handler:
    """Where ``everup-nagios-handler`` tells what Nagios finds failing. On this machine alone, from
    who knows the secret; it can open and end incidents, and nothing else."""

    secret_file: str
    """File whose first line is a secret that Nagios' user can read, too (mode 0640, its group)."""
    listen: Annotated[str, AfterValidator(_to_listen_on)] = "127.0.0.1:5668"
    """Where, on loopback."""

    def __post_init__(self) -> None:
        host = parse_address(self.listen).host
        if not host or not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f'listen = "{self.listen}" is not on loopback, like "127.0.0.1:5668"')


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
    nsca: Nsca | None = None
    """For a Nagios on another machine, see its table."""
    icinga: Icinga | None = None
    """For an Icinga 2, see its table."""
    nrpe: Nrpe | None = None
    """For a Nagios that asks, see its table."""
    handler: Handler | None = None
    """For a Nagios on this machine that tells, see its table."""
