"""What a changed config means for what runs."""

from dataclasses import fields

from everup.engine.definitions import is_cold
from everup.engine.records import CannotChangeError, Change, Plan
from everup.model.spec import Service, Spec

_LIVE = frozenset(
    (
        "replicas", "standby", "depends_on", "probe", "restart", "start_timeout", "stop_signal",
        "stop_scope", "stop_timeout", "drain_timeout", "hooks", "log", "autostart", "overlap",
        "recover", "rollout", "slo",
    )
)  # fmt: skip
"""Settings that everup itself goes by: a change needs no new process. Not so those that a process
is started with, and those that are not known here."""
_FIXED = ("state_dir",)


def compare(old: Spec, new: Spec) -> Plan:
    """From ``old`` to ``new``. Raises ``CannotChangeError``."""
    for key in _FIXED:
        if getattr(old.everup, key) != getattr(new.everup, key):
            raise CannotChangeError(
                f"{key} changes from {getattr(old.everup, key)!r} to "
                f"{getattr(new.everup, key)!r}: that takes everup down and everup up"
            )
    both = [name for name in new.service if name in old.service]
    changes = (_change(old.service[name], new.service[name]) for name in both)
    settings = [f"everup.{key}" for key in _differ(old.everup, new.everup)]
    # Whatever tables rooms have brought: one that changed, came or went is never "no change".
    tables = dict.fromkeys(item.name for spec in (new, old) for item in fields(spec))
    for table in (name for name in tables if name not in ("service", "everup")):
        before, after = getattr(old, table, None), getattr(new, table)
        if isinstance(after, dict):
            before = before or {}
            for name in sorted({*before, *after}):
                if before.get(name) != after.get(name):
                    settings.append(f"{table}.{name}")
        elif before != after:
            settings += [f"{table}.{key}" for key in _differ(before or type(after)(), after)]
    return Plan(
        tuple(name for name in new.service if name not in old.service),
        tuple(name for name in old.service if name not in new.service),
        tuple(change for change in changes if change.keys),
        tuple(settings),
    )


def _change(old: Service, new: Service) -> Change:
    keys = _differ(old, new)
    cold = is_cold(old, new)
    return Change(old.name, keys, cold or any(key not in _LIVE for key in keys), cold)


def _differ(old: object, new: object) -> tuple[str, ...]:
    names = [f.name for f in fields(old)]  # type: ignore[arg-type]
    return tuple(name for name in names if getattr(old, name) != getattr(new, name))
