"""What outlives the observer, as JSON in its folder: written whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any


def read(path: Path) -> Any:
    """Give what was written; None where there is nothing that can be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def write(path: Path, what: Any) -> None:
    """Keep it in the place of what was kept before. A disk that is full costs what would outlive
    the observer, and nothing else."""
    fresh = path.with_suffix(".new")
    try:
        fresh.write_text(json.dumps(what))
        os.replace(fresh, path)
    except OSError:
        pass
