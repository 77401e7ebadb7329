"""Bulk requests: their bodies, what their answers mean, and which documents go next. Pure."""

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

MOST_BYTES: Final = 1 << 20
"""Bytes of a request before compression; smaller ones cost little, larger ones hold up others."""
_MOST_TRIES: Final = 5
"""So often a document is tried that makes the server itself fail."""
_LONGEST_REASON: Final = 1000
_FAULTS_OF_THE_INDEX: Final = ("index_closed_exception", "no write index is defined")
"""What a server says with status 400 although the document is well."""
_LARGE: Final = 256 << 10
"""Bytes of a document that may be too large by itself."""


@dataclass(slots=True)
class Document:
    """One document on its way."""

    action: bytes
    """The line that says what is done with it."""
    source: bytes
    label: str
    """What it is, for people: ``event 17``."""
    tries: int = 0

    @property
    def size(self) -> int:
        """Bytes in the body of a request."""
        return len(self.action) + len(self.source) + 2


class Fate(Enum):
    """What became of one document."""

    STORED = "stored"
    """It is there, by this request or an earlier one."""
    AGAIN = "again"
    """Not now: the server is busy, or lacks something that it will have."""
    FAILED = "failed"
    """The server itself failed with it: a few times it is tried again."""
    REFUSED = "refused"
    """Never: the document does not fit the mapping, or is none."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The fate of a document, and why, in the server's words."""

    fate: Fate
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """A document that is given up."""

    document: Document
    reason: str


class AnswerError(ValueError):
    """An answer that is none of a bulk request."""


def body(documents: Sequence[Document]) -> bytes:
    """Give the body of a bulk request."""
    lines: list[bytes] = []
    for document in documents:
        lines += (document.action, document.source)
    lines.append(b"")
    return b"\n".join(lines)


def verdicts(answer: bytes, count: int) -> list[Verdict]:
    """Read the answer to a request with ``count`` documents.

    Raises ``AnswerError`` where it does not tell of each of them: nothing is known then.
    """
    try:
        items = json.loads(answer)["items"]
        found = [next(iter(item.values())) for item in items]
        verdicts = [_verdict(int(item["status"]), item.get("error")) for item in found]
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        StopIteration,
        RecursionError,
    ) as error:
        raise AnswerError(f"no answer to a bulk request: {answer[:200]!r}") from error
    if len(verdicts) != count:
        raise AnswerError(f"the answer tells of {len(verdicts)} documents, not of {count}")
    return verdicts


def _verdict(status: int, error: Any) -> Verdict:
    if status < 300 or status == 409:  # 409: an earlier request has brought it
        return Verdict(Fate.STORED)
    reason = reason_of(error) or f"status {status}"
    # 401 and 403: rights or a blocked index; 404: no such index yet. None is the document's fault.
    if status in (401, 403, 404, 408, 429, 502, 503, 504):
        return Verdict(Fate.AGAIN, reason)
    if any(words in reason for words in _FAULTS_OF_THE_INDEX):
        return Verdict(Fate.AGAIN, reason)
    return Verdict(Fate.FAILED if status >= 500 else Fate.REFUSED, reason)


def reason_of(error: Any) -> str:
    """Say what an ``error`` of the server means: its type, its reason and what that came from."""
    parts: list[str] = []
    while isinstance(error, dict) and len(parts) < 4:
        told = ": ".join(str(error[key]) for key in ("type", "reason") if error.get(key))
        if told:
            parts.append(told)
        error = error.get("caused_by")
    if isinstance(error, str) and not parts:
        parts.append(error)
    return "; ".join(parts)[:_LONGEST_REASON]


@dataclass(slots=True)
class Batch:
    """Documents until each is stored or refused. Invariant: each is in exactly one place, waiting
    or done."""

    waiting: deque[Document]
    most_bytes: int = MOST_BYTES
    refused: list[Refused] = field(default_factory=list)
    stored: int = 0
    says: str = ""
    """Why some have to wait, in the server's words; "": none has to."""
    _most: int | None = None

    def next(self) -> list[Document]:
        """Give what goes into the next request: at least one document while any waits."""
        found: list[Document] = []
        size = 0
        for document in self.waiting:
            size += document.size
            if found and (size > self.most_bytes or len(found) == self._most):
                break
            found.append(document)
        return found

    def answered(self, sent: Sequence[Document], found: Sequence[Verdict]) -> None:
        """Take what became of ``sent``, which ``next`` gave."""
        assert len(sent) == len(found)
        again: list[Document] = []
        self.says = ""
        for document, verdict in zip(sent, found, strict=True):
            assert self.waiting.popleft() is document
            if verdict.fate is Fate.STORED:
                self.stored += 1
            elif verdict.fate is Fate.REFUSED:
                self.refused.append(Refused(document, verdict.reason))
            else:
                document.tries += verdict.fate is Fate.FAILED
                if document.tries >= _MOST_TRIES:
                    self.refused.append(Refused(document, verdict.reason))
                else:
                    self.says = verdict.reason
                    again.append(document)
        self.waiting.extendleft(reversed(again))
        self._most = None

    def halve(self, sent: Sequence[Document], reason: str) -> None:
        """Take that the whole request was refused as nonsense: a part of it may not be.

        A document that is refused alone is given up where others were taken. Where none was, it
        is who answers that has a fault, not every document: then ``says`` is set.
        """
        if len(sent) > 1:
            self._most = len(sent) // 2
        elif self.stored:
            self._give_up(sent[0], reason)
        else:
            self._put_off(sent[0], reason)

    def too_large(self, sent: Sequence[Document], reason: str) -> None:
        """Take that the whole request was too large: from now on they have half of its size. A
        document alone: as with ``halve``, but for one that is large indeed."""
        if len(sent) > 1:
            self.most_bytes = max(1, sum(document.size for document in sent) // 2)
        elif self.stored or sent[0].size > _LARGE:
            self._give_up(sent[0], reason)
        else:
            self._put_off(sent[0], reason)

    def _give_up(self, document: Document, reason: str) -> None:
        assert self.waiting.popleft() is document
        self.refused.append(Refused(document, reason))
        self._most = None

    def _put_off(self, document: Document, reason: str) -> None:
        assert self.waiting[0] is document
        self.waiting.rotate(-1)  # another one may be taken
        self.says = reason
