"""Where a probe of one replica has to go, so that it reaches exactly that one."""

from dataclasses import replace
from urllib.parse import urlsplit

from everup.adapters import steering
from everup.adapters.launch import port_of
from everup.config import Address, parse_address
from everup.config.template import expand
from everup.model.instance import Slot
from everup.model.signal import ProbeKind, ProbeTarget
from everup.model.spec import ACCEPTS, Probe, Service

_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def target(
    service: Service,
    slot: Slot,
    kind: ProbeKind,
    run: int,
    probe: Probe,
    lane: int,
    session: int = 0,
) -> ProbeTarget:
    """The target with address, source and traffic class filled in: those of its lane. ``session``:
    of its process, where that itself is to accept."""
    port = port_of(service, slot)

    def fill(text: str) -> str:
        return expand(text, service=slot.service, replica=slot.replica, port=port)

    if probe.exec is not None:
        return ProbeTarget(slot, kind, run, probe)
    if probe.http is not None and not probe.http.startswith("/"):
        parts = urlsplit(fill(probe.http))
        known = parts.port or (443 if parts.scheme == "https" else 80)
        return ProbeTarget(
            slot, kind, run, probe, url=parts.geturl(), host=parts.hostname or "", port=known
        )
    elsewhere = probe.tcp or probe.grpc
    if elsewhere is not None and elsewhere != "listen":
        host, _, number = fill(elsewhere).rpartition(":")
        return ProbeTarget(slot, kind, run, probe, host=host.strip("[]"), port=int(number))
    path = fill(probe.http or "/")
    if not service.listen:
        assert port is not None  # the config check saw to it
        url = f"http://127.0.0.1:{port}{path}" if probe.http else ""
        return ProbeTarget(slot, kind, run, probe, url=url, host="127.0.0.1", port=port)
    listener = next((x for x in service.listen if x.name == probe.listener), service.listen[0])
    found = _own(parse_address(listener.address), slot, kind, run, probe, path, lane)
    return replace(found, session=session) if found.unix and probe is ACCEPTS else found


def _own(
    address: Address, slot: Slot, kind: ProbeKind, run: int, probe: Probe, path: str, lane: int
) -> ProbeTarget:
    if address.family == "unix":
        url = f"http://localhost{path}" if probe.http else ""
        return ProbeTarget(slot, kind, run, probe, url=url, unix=address.path, accept=True)
    host = _ANY.get(address.host, address.host)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{address.port}{path}" if probe.http else ""
    if ":" in host:
        traffic_class = steering.probe_traffic_class(lane)
        return ProbeTarget(
            slot, kind, run, probe, url=url, host=host, port=address.port,
            source="::1", traffic_class=traffic_class, accept=True,
        )  # fmt: skip
    return ProbeTarget(
        slot, kind, run, probe, url=url, host=host, port=address.port,
        source=steering.probe_source(lane), accept=True,
    )  # fmt: skip
