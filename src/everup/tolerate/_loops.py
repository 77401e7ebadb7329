"""Where there is no asyncio: trio, and all else."""

import sys
from typing import Any, NoReturn


def trio_now(name: str) -> Any:
    """The module ``trio``, by whose loop the caller runs. Raises ``RuntimeError`` for another."""
    trio = running_trio()
    if trio is None:
        raise RuntimeError(f"{name}: what it guards runs neither under asyncio nor under trio")
    return trio


def running_trio() -> Any:
    """The module ``trio``, if the caller runs by its loop. It is imported by who uses it."""
    trio = sys.modules.get("trio")
    try:
        if trio is not None and trio.lowlevel.current_task() is not None:
            return trio
    except RuntimeError:
        pass
    return None


def elsewhere(name: str, what: str) -> NoReturn:
    """Say clearly what asyncio alone can do."""
    raise RuntimeError(f"{name}: {what} works under asyncio alone, which does not run here")
