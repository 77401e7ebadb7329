"""The table ``[zabbix]``."""

from ipaddress import ip_network
from typing import Annotated, Final, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from everup.integrations.zabbix import wire
from everup.model.table import CONFIG
from everup.model.units import Duration

_ONE: Final = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9_.-]*)(:[0-9]{1,5})?"
Network = Annotated[str, Field(pattern=r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$")]
Listen = Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[0-9]+(\.[0-9]+){3}):[0-9]{1,5}$")]
Frontend = Annotated[str, Field(pattern=r"^https?://[^/@\s]+(/\S*)?$")]
Server = Annotated[str, Field(pattern=rf"^{_ONE}(;{_ONE})*$")]


@dataclass(frozen=True, slots=True, config=CONFIG)
class Zabbix:
    """How Zabbix is told of the services: one value, from which a template makes the rest."""

    servers: tuple[Server, ...] = ()
    """Zabbix servers and proxies, each is told: `"zabbix.example"`, `"192.0.2.1:10051"`. The nodes
    of a cluster are one, like `"a;b"`: the first that answers is told. Port: 10051 if not said."""
    host: str | None = None
    """Name of this machine in Zabbix. Default: its own host name."""
    heartbeat: Annotated[Duration, Field(ge=1, le=3600)] = 30.0
    """Everything is sent this often, 1s to 1h; changes are sent at once."""
    psk_identity: str | None = None
    """Name of the pre-shared key; needs `psk_file`, and Python 3.13 or later."""
    psk_file: str | None = None
    """File with the pre-shared key, 32 to 512 hexadecimal digits. With it, `servers` are told, and
    `agent` answers, by TLS alone."""

    agent: Listen | None = None
    """Answer passive checks there as a Zabbix agent does, like `"127.0.0.1:10050"`. Default:
    nothing listens."""
    agent_allow: tuple[Network, ...] = ("127.0.0.1", "::1")
    """Who may ask there: addresses and networks, like `"192.0.2.0/24"`; others get no answer."""

    api: Frontend | None = None
    """Address of Zabbix' web page, like `"https://zabbix.example/zabbix"`: problems there become
    conditions here, and who acknowledges one has acknowledged the other."""
    api_token_file: str | None = None
    """File with a token for the API, of a user who may read `watch` and acknowledge problems."""
    api_ca_file: str | None = None
    """File with the certificates of who signs the web page's, in PEM. Default: the system's."""
    watch: tuple[str, ...] = ()
    """Hosts in Zabbix whose problems are read. Default: `host` alone."""
    watch_severity: Literal["warning", "average", "high", "disaster"] = "high"
    """Problems that are at least so severe are read."""
    watch_interval: Annotated[Duration, Field(ge=1, le=3600)] = 10.0
    """The API is asked this often, 1s to 1h."""

    def __post_init__(self) -> None:
        if (self.api is None) is not (self.api_token_file is None):
            raise ValueError("api and api_token_file need each other")
        if (self.psk_identity is None) is not (self.psk_file is None):
            raise ValueError("psk_identity and psk_file need each other")
        for address in (*self.servers, *([self.agent] if self.agent else [])):
            wire.nodes(address)  # raises ValueError for a port that is none
        for text in self.agent_allow:
            ip_network(text, strict=False)  # raises ValueError with its own words
