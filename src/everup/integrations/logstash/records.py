"""The documents that go to Logstash, and what each of them acknowledges. Pure."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from everup import __version__
from everup.integrations._shipping import documents
from everup.integrations._shipping.incidents import last_told
from everup.model.incident import Incident
from everup.model.journal import Entry

Record = tuple[bytes, int]
"""A document, and the number of the last entry that is shipped as a whole once it is taken."""


def records(
    entries: Sequence[Entry],
    incidents: Mapping[int, Incident],
    node: str,
    namespace: str,
    ship: Collection[str],
) -> list[Record]:
    """Give what is to be shipped of some entries, in order.

    An incident goes right behind the last entry that tells of it: that entry is shipped once the
    incident is.
    """
    changed: dict[int, list[Incident]] = {}
    if "incidents" in ship:
        for number, seq in last_told(entries).items():
            if number in incidents:
                changed.setdefault(seq, []).append(incidents[number])
    found: list[Record] = []
    for entry in entries:
        of_this: list[Mapping[str, Any]] = []
        if "events" in ship:
            of_this.append(documents.of_entry(entry, node, namespace))
        for incident in changed.get(entry.seq, ()):
            of_this.append(documents.of_incident(incident, node, namespace))
        for left, document in zip(range(len(of_this) - 1, -1, -1), of_this, strict=True):
            found.append((encode(document), entry.seq - bool(left)))
    return found


def encode(document: Mapping[str, Any]) -> bytes:
    """Give a document with what pipelines made for Beats expect in ``@metadata``."""
    metadata = {
        "beat": "everup",
        "type": "_doc",
        "version": __version__,
        "_id": document["event"]["id"],
    }
    return documents.encode({"@metadata": metadata} | dict(document))
