"""Numbers in prose are those of the code.

Whoever writes a default beside its key, "`stop_timeout` (10 s)", need do nothing more: the key is
looked up in the config's model. Another number that a page promises is named below, with where it
comes from; a promise that nobody finds any more fails, too.
"""

import dataclasses
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from everup import app
from everup.adapters import notify
from everup.adapters.probes._response import BODY_BYTES
from everup.api import server
from everup.keeper import birth, vigil
from everup.kernel.manifest import load
from everup.model import spec
from everup.model.spec import Everup, Restart
from everup.model.units import parse_duration
from everup.supervise.lifecycle import REKILL_S

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("README*.md"), *ROOT.glob("docs/**/*.md")])
_SHOWN = re.compile(
    r"`([a-z][a-z_.]+)` \((?:default:? )?(\d[\d.]*)(?: ?(ms|s|min|h|d|%|KiB|MiB))?[);,]"
)
_BYTES = {"KiB": 1 << 10, "MiB": 1 << 20}


def _classes(kind: Any) -> Iterator[type]:
    for part in (kind, *get_args(kind)):
        if dataclasses.is_dataclass(part) and isinstance(part, type):
            yield part
        elif part is not kind:
            yield from _classes(part)


def defaults() -> dict[str, set[Any]]:
    """Config key -> its defaults, in whichever tables it is; also by the table's name before it."""
    found: dict[str, set[Any]] = {}
    seen: set[type] = set()
    todo: list[type] = [spec.Spec, *(load(table.spec) for table in app.tables())]
    while todo:
        table = todo.pop()
        if table in seen:
            continue
        seen.add(table)
        hints = get_type_hints(table)
        for field in dataclasses.fields(table):
            todo += _classes(hints[field.name])
            if field.default is not dataclasses.MISSING:
                value = field.default.value if isinstance(field.default, Enum) else field.default
                for name in (field.name, f"{table.__name__.lower()}.{field.name}"):
                    values = value if isinstance(value, tuple) else (value,)
                    found.setdefault(name, set()).update(values)
    return found


DEFAULTS = defaults()


def shown() -> Iterator[Any]:
    for page in PAGES:
        for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
            for match in _SHOWN.finditer(line):
                if match[1] in DEFAULTS:
                    where = f"{page.relative_to(ROOT)}:{number}"
                    yield pytest.param(match[1], match[2], match[3] or "", id=f"{where}-{match[1]}")


@pytest.mark.parametrize(("key", "number", "unit"), list(shown()))
def test_a_default_beside_its_key(key: str, number: str, unit: str) -> None:
    value = float(number)
    if unit in ("ms", "s", "min", "h", "d"):
        value = parse_duration(f"{number}{unit.replace('min', 'm')}")
    elif unit in _BYTES:
        value *= _BYTES[unit]
    assert value in DEFAULTS[key], f"{key} is {sorted(DEFAULTS[key], key=str)} by default"


def test_defaults_are_found_at_all() -> None:
    assert len(list(shown())) >= 10
    assert DEFAULTS["intensity.limit"] == {5}


# -- what pages promise beside defaults


def _promises() -> Iterator[tuple[str, str, float]]:
    """(page, text with a group for the number, what it is in the code)."""
    patience_s, restart = vigil.HUNG_S * vigil._PATIENCE, Restart()
    yield "README.md", r"such verdicts wait, (\d+) s at most", Everup().starvation_max
    yield "README.zh-CN.md", r"这类判决会等待，最多 (\d+) 秒", Everup().starvation_max
    yield "docs/design/faults.md", r"after (\d+) s without a sign of life", vigil.HUNG_S
    yield "docs/design/faults.md", r"a CPU or a disk, gets (\d+) s", patience_s
    yield "docs/design/taking-over.md", r"After (\d+) s of silence", vigil.HUNG_S
    yield "docs/design/taking-over.md", r"for a disk gets\s+(\d+) s", patience_s
    yield "docs/design/taking-over.md", r"silent after ([\d.]+) s", birth._REPLY_S
    yield "docs/design/safety.md", r"Datagrams are limited to (\d+) bytes", notify.MAX_DATAGRAM
    yield "docs/design/safety.md", r"bytes and (\d+) fields", notify.MAX_FIELDS
    yield "docs/design/safety.md", r"Bodies are limited to (\d+) KiB", server._MAX_BODY / 1024
    yield "docs/design/safety.md", r"httptools, (\d+) KiB of a body", BODY_BYTES / 1024
    yield "docs/design/overview.md", r"goes away after ([\d.]+) s if nobody", birth.BODY_S
    yield "docs/design/lifecycle.md", r"SIGKILL to everything, again every (\d+) s", REKILL_S
    yield "docs/design/lifecycle.md", r"the defaults \((\d+) ms,", restart.delay * 1000
    yield "docs/design/lifecycle.md", r"the defaults \(\d+ ms, (\d+) s,", restart.max_delay


@pytest.mark.parametrize(("page", "pattern", "value"), list(_promises()), ids=lambda v: str(v)[:40])
def test_a_promise_is_kept(page: str, pattern: str, value: float) -> None:
    found = re.findall(pattern, (ROOT / page).read_text("utf-8"))
    assert found, f"{page} does not say so any more: take the promise out here, too"
    assert {float(number) for number in found} == {value}
