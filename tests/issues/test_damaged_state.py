"""One bit flipped in one payload of the journal, in its copy, or in the accepted config, and no
engine could begin any more. Damage of one entry costs that entry, and is told."""

import contextlib
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from _everup import SLEEP, Everup

from everup.adapters import _journal_copy as copies
from everup.adapters import history
from everup.adapters.journal import Journal, latest, read
from everup.engine.fold import ChildFact, bearable, fold, gave_up, reload_is_open, replicas
from everup.model.action import Record
from everup.model.event import Up
from everup.model.instance import Slot
from everup.model.journal import Kind
from everup.model.spec import Service, Spec

SPEC = Spec(service={name: Service(name, ("serve",), replicas=2) for name in ("web", "db")})
CHILDREN = [ChildFact(Slot(n, r), 3, 100 + r, 2) for n in ("web", "db") for r in (1, 2)]
ROUNDS = int(os.environ.get("EVERUP_DAMAGES", "60"))


def write(journal: Journal) -> None:
    """What an engine writes, of every kind that the next one goes by."""
    for run in (1, 2, 3):
        for child in CHILDREN:
            slot = str(child.slot)
            facts = {"run": run, "pid": child.pid, "lane": 1, "gen": 1, "start": 5, "leader": 9}
            for kind, payload in {
                Kind.WANTED: {"want": True, "by": "uid 0", "how": "started"},
                Kind.STARTING: {"run": run, "lane": 1, "gen": 1},
                Kind.SPAWNED: facts,
                Kind.READY: {"run": run, "took_s": 0.1},
                Kind.OUTGOING: facts | {"state": "ready", "since": 1.5, "spawned_mono": 1.0},
                Kind.EXITED: {"run": run - 1, "cause": "SIGKILL"},
                Kind.BACKOFF: {"run": run - 1, "attempt": 2, "delay_s": 0.1},
                Kind.SIGNALLED: {"run": run - 1, "signal": "SIGTERM"},
                Kind.MAIN: facts,
                Kind.ADOPTED: {"run": run, "pid": 7, "state": "ready", "since": 2.0},
            }.items():
                journal.append([Record(kind, slot, payload)])
    for name in SPEC.service:
        journal.append([Record(Kind.SCALED, name, {"replicas": 2, "before": 1})])
        journal.append([Record(Kind.BALANCE, name, {"replicas": [1, 2], "lanes": [1, 2]})])
        slots = [f"{name}.1", f"{name}.2"]
        rollout = {"gen": 2, "slots": slots, "how": "restart", "by": "uid 0"}
        journal.append([Record(Kind.ROLLOUT, name, rollout)])
        journal.append([Record(Kind.SLO_BURNING, name, {"burning": [3600.0], "window_s": 3600.0})])
    for kind in (Kind.ENGINE_STARTED, Kind.RELOADING, Kind.RELOADED, Kind.ENGINE_STOPPING):
        journal.append([Record(kind, "everup", {"config": "abc", "by": "uid 0"}, durable=True)])


def begin(path: Path) -> Up:
    """As an engine does, up to its first event."""
    journal = Journal(path, lambda _text: None, hold=True)
    try:
        entries = journal.latest()
        assert isinstance(journal.damaged, list)
        replicas(entries)
        reload_is_open(entries)
        gave_up(entries, "abc")
        good, _bad = bearable(entries, lambda some: fold(SPEC, some, CHILDREN, "b", 9.0))
        journal.append([Record(Kind.ENGINE_STARTED, "everup", {"pid": 1})])
        journal.retry()
        assert not journal.degraded
        assert latest(path)
        read(path, limit=10_000)
        with contextlib.suppress(history.HistoryError):
            history.advance(path, path.parent, save=True)
        return fold(SPEC, good, CHILDREN, "b", 9.0)
    finally:
        journal.close()


def flip(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    data[at] ^= 1 << dice.randrange(8)


def cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


def zero(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    length = dice.choice((1, 8, 512, 4096))
    data[at : at + length] = bytes(len(data[at : at + length]))


def swap(data: bytearray, dice: random.Random) -> None:
    size = dice.choice((1, 16, 512, 4096))
    one, other = (dice.randrange(max(1, len(data) - size)) for _ in range(2))
    data[one : one + size], data[other : other + size] = (
        bytes(data[other : other + size]),
        bytes(data[one : one + size]),
    )


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory as a killed engine leaves it: part of it in the WAL, all of it in the copy."""
    shm, kept = tmp_path / "shm", tmp_path / "kept"
    shm.mkdir()
    kept.mkdir()
    monkeypatch.setattr(copies, "PLACES", (str(shm),))
    path = tmp_path / "state" / "journal.db"
    path.parent.mkdir()
    journal = Journal(path, print, hold=True)
    write(journal)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    write(journal)
    history.advance(path, path.parent, save=True)
    shutil.copytree(path.parent, kept / "state")
    shutil.copytree(shm, kept / "shm")
    journal.close()
    return kept


def restore(kept: Path) -> Path:
    for name in ("state", "shm"):
        shutil.rmtree(kept.parent / name)
        shutil.copytree(kept / name, kept.parent / name)
    return kept.parent / "state" / "journal.db"


@pytest.mark.parametrize("damage", [flip, cut, zero, swap])
@pytest.mark.parametrize(
    "what", ["journal.db", "journal.db-wal", "journal.db-shm", "copy", "history.json"]
)
def test_an_engine_begins_each_time(
    state: Path, what: str, damage: Callable[[bytearray, random.Random], None]
) -> None:
    dice = random.Random(f"{what} {damage.__name__}")
    for number in range(ROUNDS):
        path = restore(state)
        copy = next((path.parent.parent / "shm").iterdir())
        if what == "copy":
            victim = copy
        else:
            victim = path.parent / what
            if number % 2:  # without what would mend it
                copy.unlink()
        data = bytearray(victim.read_bytes())
        damage(data, dice)
        victim.write_bytes(data)
        up = begin(path)
        assert {(a.slot, a.run) for a in up.adopted} == {(c.slot, c.run) for c in CHILDREN}


@pytest.mark.parametrize(
    "payload",
    [
        "{", "[]", "null", "7", "", '{"run":"x"}', '{"want":1', '{"replicas":-1}',
        '{"lanes":["x"]}',
        '{"state":"raady","run":3}', '{"gen":[],"slots":7,"how":1}', '{"run":1e999}',
        '{"burning":["x"]}', "[" * 3000, '{"run":null}', "{}", '{"replicas":99999999}',
    ],
)  # fmt: skip
def test_any_payload_costs_its_entry_alone(state: Path, payload: str) -> None:
    path = restore(state)
    next((path.parent.parent / "shm").iterdir()).unlink()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        numbers = [
            row[0] for row in db.execute("SELECT max(seq) FROM event GROUP BY kind, subject")
        ]
        db.execute(
            f"UPDATE event SET payload = ? WHERE seq IN ({','.join(map(str, numbers))})", [payload]
        )
        db.execute("UPDATE event SET subject = CAST(x'ff77' AS TEXT) WHERE seq = 1")
    up = begin(path)
    assert {(a.slot, a.run) for a in up.adopted} == {(c.slot, c.run) for c in CHILDREN}


def test_a_running_everup(everup: Everup) -> None:
    """The accepted config and the journal are damaged, and the engine is killed."""
    everup.up({"web": {"command": SLEEP}, "off": {"command": SLEEP}})
    everup.cli("stop", "off")
    pid, engine = everup.pid("web.1"), everup.engine_pid
    with contextlib.closing(sqlite3.connect(everup.place.journal, isolation_level=None)) as db:
        db.execute("UPDATE event SET payload = '{\"run\":' WHERE kind = 'instance.ready'")
    accepted = Path(everup.place.accepted)
    accepted.write_bytes(accepted.read_bytes().replace(b"command", b"commaod"))
    everup.kill(engine)
    everup.wait_for(lambda: everup.status()["engine"]["pid"] != engine, "the next engine")
    assert everup.pid("web.1") == pid
    assert everup.state("off.1") == "stopped"
    told = [e["detail"] for e in everup.events("facility.missing", "everup")]
    assert any("instance.ready of web.1" in text and "damaged" in text for text in told), told
    assert "damaged" in everup.cli("events", "-k", "instance.ready").out
