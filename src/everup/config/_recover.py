"""Checks of ladders."""

from collections.abc import Sequence
from typing import Final

from everup.config._problem import Findings, Path, did_you_mean
from everup.model.spec import Service, Spec

_NEEDS: Final = {
    "clean_restart": "clean",
    "scale": "scale_to",
    "degrade": "degrade_on",
    "failover": "failover_to",
}


def check_recovery(spec: Spec, names: Sequence[str], found: Findings) -> None:
    """Find rungs that cannot be climbed. ``names``: every service of the file."""
    for name, service in spec.service.items():
        path: Path = ("service", name, "recover")
        if found.sound(path):
            _ladder(service, path, found)
            _failover(service, names, path, found)


def _ladder(service: Service, path: Path, found: Findings) -> None:
    recover = service.recover
    for i, rung in enumerate(recover.ladder):
        if rung in recover.ladder[:i]:
            found.warn((*path, "ladder", i), "named twice", value=rung)
        key = _NEEDS.get(rung)
        if key is not None and not getattr(recover, key):
            found.add((*path, "ladder", i), f"needs {key}", value=rung)
    for rung, key in _NEEDS.items():
        if getattr(recover, key) and rung not in recover.ladder:
            found.warn((*path, key), f"has no effect: the ladder has no {rung}")
    if recover.scale_to is not None and recover.scale_to <= service.replicas:
        text = f"expected more than the {service.replicas} replicas that there are"
        found.add((*path, "scale_to"), text, value=recover.scale_to)


def _failover(service: Service, names: Sequence[str], path: Path, found: Findings) -> None:
    other = service.recover.failover_to
    if other is None:
        return
    if other == service.name or other not in names:
        valid = [name for name in names if name != service.name]
        hint = did_you_mean(other, valid)
        found.add((*path, "failover_to"), f"there is no such other service{hint}", value=other)
