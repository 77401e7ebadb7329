"""Checks of addresses and ports across services: nobody may take another's."""

from dataclasses import dataclass

from everup.config._address import Address, parse_address
from everup.config._problem import Findings, Path
from everup.model.spec import Service, Spec


@dataclass(frozen=True, slots=True)
class _Bound:
    service: str
    path: Path
    address: Address
    text: str
    name: str


def check_sockets(spec: Spec, found: Findings) -> None:
    bound: list[_Bound] = []
    for name, service in spec.service.items():
        bound += _listeners(name, service, found)
    _same_address(bound, found)
    _port_ranges(spec, bound, found)


def _listeners(name: str, service: Service, found: Findings) -> list[_Bound]:
    bound: list[_Bound] = []
    seen: set[str] = set()
    for i, listener in enumerate(service.listen):
        path: Path = ("service", name, "listen", i)
        if listener.name in seen and found.sound((*path, "name")):
            message = "two listeners of this service have this name"
            found.add((*path, "name"), message, value=listener.name)
        seen.add(listener.name)
        if not found.sound((*path, "address")):
            continue
        try:
            address = parse_address(listener.address)
        except ValueError as error:
            found.add((*path, "address"), str(error), value=listener.address)
        else:
            bound.append(_Bound(name, (*path, "address"), address, listener.address, listener.name))
    return bound


def _same_address(bound: list[_Bound], found: Findings) -> None:
    by_port: dict[tuple[int, str], list[_Bound]] = {}
    for one in bound:
        earlier = by_port.setdefault((one.address.port, one.address.path), [])
        for other in earlier:
            owner = f"listener {other.name!r} of service {other.service!r}"
            if not one.address.overlaps(other.address):
                continue
            if one.address == other.address or (one.address.wildcard and other.address.wildcard):
                found.add(one.path, f"{owner} has this address already", value=one.text)
                break
            message = f"overlaps {other.text}, {owner}; the narrower address gets its clients"
            found.warn(one.path, message, value=one.text)
        earlier.append(one)


def _port_ranges(spec: Spec, bound: list[_Bound], found: Findings) -> None:
    ranges: list[tuple[int, int, str]] = []
    for name, service in spec.service.items():
        path: Path = ("service", name, "port")
        if service.port is None:
            continue
        first, last = service.port, service.port + max(service.slots, 1) - 1
        span = f"ports {first} to {last}" if last > first else f"port {first}"
        if last > 65535:
            message = f"{service.slots} replicas need {span}, and ports end at 65535"
            found.add(path, message, value=first)
            continue
        for low, high, other in ranges:
            if first <= high and low <= last:
                taken = f"{low} to {high}" if high > low else f"{low}"
                message = f"{span} overlap with {taken} of service {other!r}"
                found.add(path, message, value=first)
        for one in bound:
            if one.address.family != "unix" and first <= one.address.port <= last:
                owner = f"listener {one.name!r} of service {one.service!r}"
                found.add(path, f"{span}: {one.text} is {owner}", value=first)
        ranges.append((first, last, name))
