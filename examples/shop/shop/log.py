"""One JSON object a line on standard output; everup stores and rotates it."""

import json
import os
import sys
from datetime import UTC, datetime


def log(level: str, event: str, **fields: object) -> None:
    """Write one line: time (UTC), level, event, replica, then ``fields``."""
    record: dict[str, object] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": level,
        "event": event,
        "replica": os.environ.get("SHOP_REPLICA", ""),
        **fields,
    }
    # One write per line, so that lines of several threads never mix.
    sys.stdout.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()
