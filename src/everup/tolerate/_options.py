"""Values that options take: a refusal names the option, what is valid, and what was given."""

from functools import partial
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

from everup.tolerate._functions import is_function, name_of

if TYPE_CHECKING:
    from typing import Protocol

    class Span(Protocol):
        """A ``timedelta``, which is never imported here: it takes as long as all of this."""

        def total_seconds(self) -> float: ...

    Seconds = float | Span
else:
    Seconds = float
"""A duration: a number of seconds, or a ``timedelta``."""


def whole(name: str, value: int, least: int = 1, most: float = inf) -> int:
    """A whole number from ``least`` to ``most``; else ``ValueError``. True is none."""
    given: Any = value
    if isinstance(given, int) and not isinstance(given, bool) and least <= given <= most:
        return given
    _no_function(name, given)
    upto = "or more" if most == inf else f"to {most:g}"
    raise ValueError(f"{name} must be a whole number, {least} {upto}, not {given!r}")


def real(
    name: str,
    value: float,
    least: float = 0.0,
    most: float = inf,
    *,
    above: bool = False,
    below: bool = False,
) -> float:
    """A finite number from ``least`` (or ``above`` it) to ``most`` (or ``below`` it); else
    ``ValueError``."""
    given: Any = value
    try:
        right = not isinstance(given, bool) and isfinite(given) and least <= given <= most
    except (TypeError, OverflowError):
        right = False
    if right and not (above and given == least) and not (below and given == most):
        return value
    _no_function(name, given)
    low = f"above {least:g}" if above else f"{least:g}" if most < inf else f"{least:g} or more"
    if most == inf:
        high = ", and finite"
    else:
        low = low if above else f"from {low}"
        high = f" to below {most:g}" if below else f" to {most:g}"
    raise ValueError(f"{name} must be {low}{high}, not {given!r}")


def seconds(
    name: str, value: Seconds, least: float = 0.0, most: float = inf, *, above: bool = False
) -> float:
    """A duration in seconds, as ``real`` takes it, or as a ``timedelta``."""
    return real(name, as_seconds(value), least, most, above=above)


def as_seconds(value: Any) -> Any:
    """The seconds of a ``timedelta``; everything else as it is."""
    total = getattr(value, "total_seconds", None)
    return value if total is None or isinstance(value, type) else total()


def _no_function(name: str, given: object) -> None:
    """A policy that is used as ``@Timeout`` gets the function in the place of its first option."""
    if isinstance(given, type) or is_function(given):
        raise TypeError(
            f"{name} must be a number, not {name_of(given)}: as a decorator, a policy is made "
            "first, with its options in parentheses"
        )


_LONGEST = 80


def shown(value: Any) -> str:
    """An option as people read it: bounded, whatever it is."""
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))})"
    if isinstance(value, (type, partial)) or is_function(value):
        return name_of(value)
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


class Spec:
    """What is nothing but its options, which are its slots."""

    __slots__: tuple[str, ...] = ()

    def __repr__(self) -> str:
        words = [f"{name}={shown(getattr(self, name))}" for name in self.__slots__]
        return f"{type(self).__name__}({', '.join(words)})"
