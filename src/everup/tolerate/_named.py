"""Exceptions by their names, for tables."""

from importlib import import_module
from typing import Any


class Unknown(Exception):  # noqa: N818 - control flow
    """There is no such exception."""


def find_error(name: str) -> Any:
    """What a name stands for. Raises ``Unknown`` with why not, and what there is instead."""
    import builtins

    from everup.tolerate import errors

    head, _, last = name.rpartition(".")
    try:
        modules = [import_module(head)] if head else [builtins, errors]
    except ModuleNotFoundError as error:
        if not f"{head}.".startswith(f"{error.name}."):
            raise
        raise Unknown(f"there is no module {error.name!r}", ()) from None
    for module in modules:
        if hasattr(module, last):
            return getattr(module, last)
    there = [key for module in modules for key in vars(module)]
    raise Unknown(f"there is no {last!r} in {head or 'Python or everup.tolerate'}", there)
