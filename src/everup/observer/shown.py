"""Entries of the journal as the API shows them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from everup.model.journal import Entry

_OWN = ("seq", "time", "mono", "kind", "subject", "node")


def entry_of(shown: Mapping[str, Any]) -> Entry:
    """Read an entry as the API shows it."""
    payload = {key: value for key, value in shown.items() if key not in _OWN}
    time = datetime.fromisoformat(shown["time"]).timestamp()
    return Entry(shown["seq"], time, shown["mono"], "", shown["kind"], shown["subject"], payload)
