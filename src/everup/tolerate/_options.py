"""Numbers that options take: a refusal names the option, what is valid, and what was given."""

from math import inf, isfinite
from typing import Any


def whole(name: str, value: int, least: int = 1, most: float = inf) -> int:
    """A whole number from ``least`` to ``most``; else ``ValueError``. True is none."""
    given: Any = value
    if isinstance(given, int) and not isinstance(given, bool) and least <= given <= most:
        return given
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
    low = f"above {least:g}" if above else f"{least:g}" if most < inf else f"{least:g} or more"
    if most == inf:
        high = ", and finite"
    else:
        low = low if above else f"from {low}"
        high = f" to below {most:g}" if below else f" to {most:g}"
    raise ValueError(f"{name} must be {low}{high}, not {given!r}")
