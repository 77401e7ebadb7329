"""What etcd's JSON gateway takes and gives: pure, so that it can be tested without a server.

Keys and values are base64 there, 64-bit numbers are texts, and what is zero is left out.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from everup.rooms.cluster.lease import Item, Look, Renewed

Body = dict[str, Any]
UNAUTHENTICATED: Final = "invalid auth token"
_MOST_WORDS: Final = 300


class MalformedError(ValueError):
    """An answer is not what etcd gives."""


def text(value: str) -> str:
    """Give a key or value as it is sent."""
    return b64encode(value.encode()).decode("ascii")


def range_end(prefix: str) -> str:
    """Give the key behind all that begin with a prefix, as it is sent."""
    raw = prefix.encode()
    return b64encode(raw[:-1] + bytes([raw[-1] + 1])).decode("ascii")


def look_body(prefix: str) -> Body:
    """Ask for everything under a prefix, confirmed by a majority."""
    return {"key": text(prefix), "range_end": range_end(prefix)}


def watch_body(prefix: str, after: int) -> Body:
    """Ask for the changes under a prefix above a revision."""
    wanted = {"key": text(prefix), "range_end": range_end(prefix), "start_revision": str(after + 1)}
    return {"create_request": wanted | {"progress_notify": True}}


def acquire_body(key: str, value: str, session: int, drop: Sequence[str]) -> Body:
    """Make a key where nobody has it, and drop others with it."""
    free = {"key": text(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}
    put = {"request_put": {"key": text(key), "value": text(value), "lease": str(session)}}
    others = [{"request_delete_range": {"key": text(other)}} for other in drop]
    return {"compare": [free], "success": [put, *others]}


def release_body(key: str, token: int) -> Body:
    """Drop a key that was made at a revision."""
    same = {"key": text(key), "target": "CREATE", "result": "EQUAL", "create_revision": str(token)}
    return {"compare": [same], "success": [{"request_delete_range": {"key": text(key)}}]}


def put_body(key: str, value: str, session: int) -> Body:
    """Write a key."""
    return {"key": text(key), "value": text(value), "lease": str(session)}


def look_of(answer: Any, prefix: str) -> Look:
    """Read the answer to ``look_body``. Raises ``MalformedError``."""
    items = {}
    for kv in _list(answer, "kvs"):
        key = _plain(kv, "key")
        if not key.startswith(prefix):
            raise MalformedError(f"etcd gave the key {key[:80]!r}, which was not asked for")
        token, session = number(kv, "create_revision"), number(kv, "lease")
        items[key[len(prefix) :]] = Item(_plain(kv, "value"), token, session)
    header = _object(answer, "header")
    return Look(number(header, "revision"), number(header, "raft_term"), items)


def renewed_of(answer: Any) -> Renewed:
    """Read the answer to a renewal. Raises ``MalformedError``."""
    found = _object(answer, "result")
    return Renewed(float(number(found, "TTL")), number(_object(found, "header"), "raft_term"))


def begun_of(answer: Any) -> tuple[int, float]:
    """Read number and seconds of a session that has begun. Raises ``MalformedError``."""
    session = number(answer, "ID")
    if session <= 0:
        raise MalformedError("etcd began a session without a number")
    return session, float(number(answer, "TTL"))


def done_of(answer: Any) -> bool:
    """Tell whether what a step compares was so. Raises ``MalformedError``."""
    _object(answer, "header")
    found = answer.get("succeeded", False)
    if not isinstance(found, bool):
        raise MalformedError("etcd says neither that it was done nor that it was not")
    return found


def told_of(line: bytes) -> tuple[int, bool]:
    """Read one line of a watch: its revision, and whether anything has changed. Raises
    ``MalformedError``, also where the watch has ended."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        raise MalformedError("etcd told something that is no JSON") from None
    if isinstance(answer, dict) and "error" in answer:
        raise MalformedError(words_of(answer))
    found = _object(answer, "result")
    if found.get("canceled"):
        said = found.get("cancel_reason") or f"compacted at {number(found, 'compact_revision')}"
        raise MalformedError(f"etcd ended the watch: {str(said)[:_MOST_WORDS]}")
    return number(_object(found, "header"), "revision"), bool(_list(found, "events"))


def words_of(answer: Any) -> str:
    """Give why etcd refuses, from the body of an answer."""
    if not isinstance(answer, Mapping):
        return ""
    error = answer.get("error", answer)
    if isinstance(error, Mapping):
        error = error.get("message", "")
    return str(error or answer.get("message", ""))[:_MOST_WORDS]


def number(answer: Any, key: str) -> int:
    """Give a 64-bit number; one that is left out is 0. Raises ``MalformedError``."""
    found = answer.get(key, 0) if isinstance(answer, Mapping) else None
    plain = isinstance(found, str) and found.isascii() and len(found) < 21
    if isinstance(found, str) and plain and found.removeprefix("-").isdecimal():
        return int(found)
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    raise MalformedError(f"etcd gave {key} = {found!r:.60}, and a number was expected")


def _object(answer: Any, key: str) -> Mapping[str, Any]:
    found = answer.get(key) if isinstance(answer, Mapping) else None
    if not isinstance(found, Mapping):
        raise MalformedError(f"etcd's answer has no {key}")
    return found


def _list(answer: Any, key: str) -> Sequence[Any]:
    found = answer.get(key, []) if isinstance(answer, Mapping) else None
    if not isinstance(found, list):
        raise MalformedError(f"etcd's answer has no {key}")
    return found


def _plain(kv: Any, key: str) -> str:
    found = kv.get(key, "") if isinstance(kv, Mapping) else None
    try:
        return b64decode(found, validate=True).decode() if isinstance(found, str) else _bad(key)
    except ValueError:
        return _bad(key)


def _bad(key: str) -> str:
    raise MalformedError(f"etcd gave a {key} that is not text in base64")
