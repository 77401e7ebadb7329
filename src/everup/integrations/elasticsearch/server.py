"""Which server it is, and what is said to it in its own words. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from everup.integrations.elasticsearch.bulk import reason_of

_OLDEST: Final = (5, 6)
_TYPE: Final = "doc"
"""Servers before 7 want a type."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server is, and so how it is spoken to."""

    opensearch: bool
    version: tuple[int, int]
    number: str
    """As it says itself: ``7.17.29``."""

    @property
    def name(self) -> str:
        """The server's name for people."""
        return f"{'OpenSearch' if self.opensearch else 'Elasticsearch'} {self.number}"

    @property
    def typed(self) -> bool:
        """Whether documents have a type."""
        return not self.opensearch and self.version < (7, 0)

    @property
    def composable(self) -> bool:
        """Whether it has composable index templates (``_index_template``)."""
        return self.opensearch or self.version >= (7, 8)

    def create(self, target: str, name: str) -> bytes:
        """Give the line of a bulk request that adds a document, if it is not there."""
        return _line("create", {"_index": target, "_id": name} | self._type())

    def replace(self, target: str, name: str, version: int) -> bytes:
        """Give the line of a bulk request that puts a document in place of an older version."""
        words = {"_index": target, "_id": name, "version": version, "version_type": "external_gte"}
        return _line("index", words | self._type())

    def mappings(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Give mappings for a template: fields beside these are stored and not searched."""
        found: dict[str, Any] = {"dynamic": False, "properties": dict(properties)}
        return {_TYPE: found} if self.typed else found

    def _type(self) -> dict[str, str]:
        return {"_type": _TYPE} if self.typed else {}


def dialect(root: Any) -> Dialect:
    """Read what a server says of itself (``GET /``).

    Raises ``ValueError`` where it is neither Elasticsearch nor OpenSearch, or too old.
    """
    try:
        version = root["version"]
        number = str(version["number"])
        parts = number.split("-")[0].split(".")
        found = (int(parts[0]), int(parts[1]))
    except (TypeError, KeyError, ValueError, IndexError):
        raise ValueError("what answers there is neither Elasticsearch nor OpenSearch") from None
    opensearch = version.get("distribution") == "opensearch"
    if not opensearch and found < _OLDEST:
        raise ValueError(f"Elasticsearch {number} is too old: 5.6 or later is needed")
    return Dialect(opensearch, found, number)


def refusal(status: int, body: bytes) -> str:
    """Say for people what an answer with an error means, and what to do about it."""
    try:
        found = json.loads(body)
        reason = reason_of(found.get("error")) if isinstance(found, dict) else ""
    except (ValueError, RecursionError):
        reason = ""
    told = f"status {status}{': ' if reason else ''}{reason}"
    if status == 401:
        return f"{told}; the API key or the password is wrong, or is missing"
    if status == 403:
        return f"{told}; the rights of the API key or the user do not suffice"
    if 300 <= status < 400:
        return f"{told}; it sends us elsewhere: put the address itself into elasticsearch.urls"
    return told


def _line(action: str, words: Mapping[str, Any]) -> bytes:
    return json.dumps({action: words}, separators=(",", ":")).encode()
