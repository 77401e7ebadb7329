"""The table ``[nagios]``."""

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from everup.config import parse_address
from everup.model.table import CONFIG
from everup.model.units import AbsolutePath, Duration


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
    nrpe: Nrpe | None = None
    """For a Nagios that asks, see its table."""
