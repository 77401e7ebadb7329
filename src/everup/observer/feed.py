"""What the observer offers to its rooms' edges and to the integrations that it hosts."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from everup.model.incident import Incident
from everup.model.journal import Entry


class Feed(Protocol):
    """Everything that an integration may read, and all that it may ask for."""

    @property
    def node(self) -> str:
        """The name of this machine, as others are told."""
        ...

    def folder(self, name: str) -> Path:
        """Give a directory that only the observer may read, for cursors and backlogs of ``name``.

        It exists. It outlives the observer and everup.
        """
        ...

    def secret(self, path: str) -> str:
        """Give the first line of a file that a key ``..._file`` of the observer's tables names.
        Raises ``OSError`` or ``ValueError`` with what is wrong with it."""
        ...

    def secret_bytes(self, path: str) -> bytes:
        """Give all of such a file: a key or a certificate. Raises ``OSError``."""
        ...

    def table(self, key: str) -> Any:
        """Give the top-level table ``key`` of the config in force; None where there is none."""
        ...

    def entries(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        """Follow the journal: every entry with a ``seq`` above ``after``, in order, in batches of
        at most 1 000, for ever. Nothing is skipped, also over the death of everup's engine."""
        ...

    async def status(self) -> Mapping[str, Any]:
        """Give what ``GET /v1/status`` gives. Raises ``OSError`` while there is no engine."""
        ...

    async def select(self, query: Sequence[tuple[str, str]]) -> Sequence[Entry]:
        """Give what the journal has by now: ``service`` and ``kind`` (each may be repeated),
        ``since``, ``until``, ``after`` and ``n`` as ``GET /v1/events`` takes them. Raises
        ``ValueError`` with the reason where that makes no sense, and ``OSError`` while there is no
        engine."""
        ...

    async def output(self, subject: str, most: int) -> Sequence[Mapping[str, Any]]:
        """Give the newest lines that a service or an instance has said, as ``GET /v1/logs`` does.
        Raises as ``select``."""
        ...

    def config(self) -> str:
        """Give the config in force with every default spelt out; what may be a secret is masked."""
        ...

    async def console(self, what: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Bring what a person asks in the console: ``POST /v1/console/WHAT``. Raises
        ``PermissionError`` where their session does not allow it, ``ValueError`` with the reason
        where it is refused, ``OSError`` while there is no engine."""
        ...

    def incidents(self) -> Sequence[Incident]:
        """Give the incidents that are known, open or over, oldest first. To be read only."""
        ...

    def report(self, kind: str, subject: str, ok: bool, text: str) -> None:
        """Tell how something is that everup's own senses do not see: a condition of that ``kind``
        begins, or ends where all is ``ok``. Saying the same again changes nothing."""
        ...

    def acknowledge(self, number: int, by: str, note: str = "") -> None:
        """Tell that a person has taken an incident on, in another system: ``by`` says who, and
        where. One that is over, or taken on already, stays as it is."""
        ...

    async def ask(self, command: str, subject: str, why: str, replicas: int | None = None) -> None:
        """Ask for ``start``, ``stop``, ``restart`` or ``scale`` (to ``replicas``) of a subject, as
        an operator would, with a reason: it passes the guard. Raises ``PermissionError`` where that
        refuses, with its reason, and ``OSError`` while there is no engine."""
        ...
