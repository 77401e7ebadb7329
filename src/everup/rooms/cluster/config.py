"""The table ``[cluster]``."""

from typing import Annotated, Any, Final

from pydantic import Field
from pydantic.dataclasses import dataclass

from everup.model.table import CONFIG, Name
from everup.model.units import Duration

_URL: Final = r"^https?://[^/?#@\s]+/?$"


@dataclass(frozen=True, slots=True, config=CONFIG)
class Cluster:
    """Several machines, each with an everup of its own, that agree by etcd which of them runs what
    may run once only (``singleton = true``). An agreement needs a majority: three members of etcd
    stand the loss of one, two stand none."""

    name: Name | None = None
    """The cluster's name, the same on every machine; without it there is no cluster. Two clusters
    may share an etcd."""
    node: Name | None = None
    """This machine's name in the cluster. No two may have the same."""
    etcd: tuple[Annotated[str, Field(pattern=_URL)], ...] = ()
    """Addresses of all members of etcd for clients, like ``"https://etcd1:2379"``, without a
    password. The next one is asked after one slow answer."""
    ttl: Annotated[Duration, Field(ge=3, le=600)] = 15.0
    """A machine that was not heard of for so long has lost what it owned, and another takes it
    over; whole seconds, 3s to 10m. What it owns is killed a tenth of this (at least 0.5 s) before,
    and asked to stop another tenth earlier."""
    loop_wait: Annotated[Duration, Field(gt=0, le=300)] = 3.0
    """Time between two renewals."""
    retry_timeout: Annotated[Duration, Field(gt=0, le=300)] = 4.0
    """How long a request may take, over all members of etcd.
    ``loop_wait + 2 * retry_timeout`` must not be longer than ``ttl``."""
    ca_file: str | None = None
    """File of certificates (PEM) to trust for etcd instead of the system's."""
    cert_file: str | None = None
    """File with the certificate (PEM) to show to etcd."""
    key_file: str | None = None
    """File with the key of that certificate, if it is not in ``cert_file``."""
    user: str | None = None
    """User of etcd; with ``password_file``."""
    password_file: str | None = None
    """File whose first line is the password of ``user``."""

    @property
    def margin_s(self) -> float:
        """So long before the machine has lost what it owns, it is killed."""
        return max(0.5, self.ttl / 10)


def check(spec: Any, found: Any) -> None:
    """Find what no single key shows: times that cannot hold, a cluster that is half said, and
    singletons without one."""
    table: Cluster = spec.cluster
    path = ("cluster",)
    said = {"node": table.node, "etcd": table.etcd}
    if table.name is not None:
        for key, value in said.items():
            if not value:
                found.add(path, f"a cluster needs name, node and etcd; {key} is missing")
        _times(table, found)
        _ways_in(table, found)
        if not spec.everup.observer:
            text = "a cluster needs the observer, which speaks with etcd"
            found.add(("everup", "observer"), text, value=False)
        if len(table.etcd) == 2:
            found.warn((*path, "etcd"), "two members agree on nothing once one is lost: take three")
    elif any(said.values()):
        found.add(path, "a cluster needs name, node and etcd; name is missing")
    for name, service in spec.service.items():
        if getattr(service, "singleton", False):
            _singleton(service, ("service", name), table, found)


def _times(table: Cluster, found: Any) -> None:
    needed = table.loop_wait + 2 * table.retry_timeout
    if needed > table.ttl:
        text = (
            f"loop_wait + 2 * retry_timeout must not be longer than ttl, or one slow answer of "
            f"etcd costs what is owned: {table.loop_wait:g} + 2 * {table.retry_timeout:g} = "
            f"{needed:g} s, and ttl is {table.ttl:g} s"
        )
        found.add(("cluster", "ttl"), text)
    if table.ttl != int(table.ttl):
        found.add(("cluster", "ttl"), "expected whole seconds, as etcd counts", value=table.ttl)


def _ways_in(table: Cluster, found: Any) -> None:
    if (table.user is None) is not (table.password_file is None):
        found.add(("cluster", "user"), "user and password_file need each other")
    if table.key_file is not None and table.cert_file is None:
        found.add(("cluster", "key_file"), "needs cert_file")
    plain = [url for url in table.etcd if url.startswith("http:")]
    if plain and (table.user or table.ca_file or table.cert_file):
        text = "expected https:// with a user or certificates: else they mean nothing to a stranger"
        found.add(("cluster", "etcd"), text, value=plain[0])


def _singleton(service: Any, path: tuple[str, str], table: Cluster, found: Any) -> None:
    if table.name is None:
        found.add((*path, "singleton"), "needs [cluster]: who runs it is agreed on there")
    if service.type == "oneshot":
        found.add((*path, "singleton"), "a oneshot runs once for each everup up, on each machine")
    if service.replicas != 1 or service.standby:
        text = "a singleton has one replica in the whole cluster, and no standby"
        found.add((*path, "replicas"), text, value=service.slots)
    if service.overlap:
        found.add((*path, "overlap"), "two processes of a singleton never run side by side")
