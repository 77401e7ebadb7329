"""A feed without an everup: a journal that is made up, the same each time. Run as a program, it
ships that journal: ``python _feed.py FOLDER TABLE_JSON ENTRIES PAUSE_S``."""

import asyncio
import importlib
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from everup.model.incident import Incident
from everup.model.journal import Entry

KINDS = ("instance.starting", "instance.spawned", "instance.ready", "instance.exited")


def entry(seq: int) -> Entry:
    payload: dict[str, Any] = {"run": seq // 4, "pid": 1000 + seq, "start": 17 * seq}
    kind = KINDS[seq % 4]
    if kind == "instance.exited":
        payload |= {"cause": "exit 1", "exit_kind": "code", "value": 1, "up_s": 0.25}
    return Entry(seq, 1.7e9 + seq / 100, seq / 100, "", kind, f"web.{seq % 7}", payload)


class MadeUp:
    """The feed of ``count`` entries, at most ``batch`` at a time, each followed by a pause."""

    node = "box"

    def __init__(
        self, folder: Path, tables: Mapping[str, Any], count: int, pause_s: float = 0.0,
        batch: int = 1000,
    ) -> None:  # fmt: skip
        self._folder = folder
        self._tables = tables
        self._count = count
        self._pause_s = pause_s
        self._batch = batch
        self.reports: list[tuple[str, str, bool, str]] = []
        self.incident_list: list[Incident] = []
        self.made = entry

    def folder(self, name: str) -> Path:
        path = self._folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def secret(self, path: str) -> str:
        return Path(path).read_text().split("\n", 1)[0]

    def secret_bytes(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def table(self, key: str) -> Any:
        return self._tables.get(key)

    async def entries(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        while after < self._count:
            last = min(self._count, after + self._batch)
            yield [self.made(seq) for seq in range(after + 1, last + 1)]
            after = last
            await asyncio.sleep(self._pause_s)
        await asyncio.Event().wait()

    async def status(self) -> Mapping[str, Any]:
        return {"last_seq": self._count}

    def incidents(self) -> Sequence[Incident]:
        return self.incident_list

    def report(self, kind: str, subject: str, ok: bool, text: str) -> None:
        self.reports.append((kind, subject, ok, text))

    async def ask(self, command: str, subject: str, why: str) -> None:
        raise PermissionError


def main() -> None:
    from pydantic import TypeAdapter

    name, folder, words, count, pause_s = sys.argv[1:]
    edge = importlib.import_module(f"everup.integrations.{name}.edge")
    config = importlib.import_module(f"everup.integrations.{name}.config")
    table = TypeAdapter(getattr(config, name.capitalize())).validate_python(json.loads(words))
    feed = MadeUp(Path(folder), {name: table}, int(count), float(pause_s), batch=50)
    asyncio.run(edge.run(feed))


if __name__ == "__main__":
    main()
