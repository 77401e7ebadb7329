"""The table ``[logstash]``."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from everup.integrations._shipping.values import Host, Namespace
from everup.model.table import CONFIG
from everup.model.units import Duration

PORT = 5044
_LOOPBACK = ("127.", "localhost", "[::1]")


@dataclass(frozen=True, slots=True, config=CONFIG)
class Logstash:
    """Where the journal's events and the incidents are shipped to by the Lumberjack protocol, as
    Beats do: the ``beats`` input of Logstash, or anything that speaks as it does."""

    hosts: tuple[Host, ...] = ()
    """Addresses like ``"logs:5044"``; without a port, 5044. The first that answers is kept, the
    next one is taken where it fails. Without any, nothing is shipped."""
    tls: bool | None = None
    """Whether the connection is encrypted. Default: yes, unless all hosts are this machine."""
    ca_file: str | None = None
    """File of certificates (PEM) to trust instead of the system's."""
    cert_file: str | None = None
    """File with the certificate (PEM) to show to Logstash."""
    key_file: str | None = None
    """File with its key, without a passphrase. Default: in ``cert_file``."""
    ship: tuple[Literal["events", "incidents"], ...] = ("events", "incidents")
    """What is shipped: every event of the journal, and each incident whenever it changes."""
    namespace: Namespace = "default"
    """Last part of the data stream's name that the documents ask for."""
    compression: Annotated[int, Field(ge=0, le=9)] = 3
    """How hard it is compressed, 0 (not at all) to 9."""
    window: Annotated[int, Field(ge=1, le=4096)] = 2048
    """Documents that are sent before an acknowledgement is waited for, 1 to 4096."""
    timeout: Annotated[Duration, Field(ge=1, le=600)] = 30.0
    """A host that neither acknowledges nor says that it is at work for so long is given up, 1s to
    10m."""

    def __post_init__(self) -> None:
        """Refuse keys that do not go together."""
        if not self.hosts and (self.ca_file or self.cert_file or self.tls):
            raise ValueError("needs hosts: where Logstash is")
        if self.tls is False and (self.ca_file or self.cert_file):
            raise ValueError("has tls = false, and certificates for TLS")
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("needs cert_file: the certificate of key_file")

    @property
    def encrypted(self) -> bool:
        """Whether the connection is."""
        if self.tls is not None:
            return self.tls
        return not all(host.startswith(_LOOPBACK) for host in self.hosts)


def address(host: str) -> tuple[str, int]:
    """Split an entry of ``hosts`` into name and port."""
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, str(PORT)
    return name.strip("[]"), int(port)
