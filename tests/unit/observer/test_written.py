"""Output: how grave a line is, what is new, what is a burst."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.observer.events import Output, Wrote
from everup.rooms.detect.board import Board
from everup.rooms.detect.written import CALM_S, NEW_S, Written
from everup.rooms.locate.output import Line
from everup.rooms.monitor.levels import Level, level_of, words_of
from everup.rooms.monitor.reader import Reader
from everup.rooms.monitor.tail import Tail

TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "app.py", line 7, in handle',
    "    pool.get()",
    "app.PoolTimeout: QueuePool limit of size 5 reached",
]


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("ERROR:    Exception in ASGI application", Level.ERROR),
        ('INFO:     127.0.0.1:1234 - "GET /error HTTP/1.1" 200 OK', Level.INFO),
        ("[2026-11-30 08:00:00 +0000] [12] [ERROR] Worker (pid:13) was sent SIGKILL!", Level.ERROR),
        ("2026/11/30 08:00:00 [error] 7#7: *1 connect() failed (111: Refused)", Level.ERROR),
        ("2026-11-30 08:00:00,123 WARNING app.db slow query", Level.WARNING),
        ("2026-11-30 08:00:00 UTC [77] FATAL:  the database system is starting up", Level.FATAL),
        ("2026-11-30 08:00:00 UTC [77] LOG:  checkpoint starting: time", Level.INFO),
        ("E1130 08:00:00.123456       1 server.go:42] it failed", Level.ERROR),
        ("I1130 08:00:00.123456       1 server.go:42] no error", Level.INFO),
        ("<3>it failed", Level.ERROR),
        ("<30>daemon: fine", Level.INFO),
        ("7:M 30 Nov 2026 08:00:00.123 # Out of memory", Level.WARNING),
        ('level=error ts=2026 msg="it failed"', Level.ERROR),
        ('time=2026 level=INFO msg="error rate 0"', Level.INFO),
        (json.dumps({"log.level": "error", "message": "x"}), Level.ERROR),
        (json.dumps({"log": {"level": "WARN"}, "message": "x"}), Level.WARNING),
        (json.dumps({"level": 50, "msg": "x"}), Level.ERROR),
        (json.dumps({"severity": "CRITICAL"}), Level.FATAL),
        (json.dumps({"message": "ERROR"}), Level.UNKNOWN),
        ("psycopg.OperationalError: connection refused", Level.ERROR),
        ("ValueError", Level.ERROR),
        ("no errors were found", Level.UNKNOWN),
        ("GET /fatal/error 200", Level.UNKNOWN),
        ("", Level.UNKNOWN),
        ("{", Level.UNKNOWN),
    ],
)
def test_how_grave_a_line_is(line: str, level: Level) -> None:
    assert level_of(line) is level


@given(st.text())
def test_any_line_has_a_level_and_words(line: str) -> None:
    assert level_of(line) in Level
    assert isinstance(words_of("{" + line), str)


def lines(*texts: str) -> list[Line]:
    return [Line(1000.0, text) for text in texts]


def test_a_traceback_is_one_error_by_its_name() -> None:
    wrote = Reader().take("web", lines("fine", *TRACEBACK, "INFO fine"))
    assert (wrote.lines, wrote.errors) == (6, 1)
    assert wrote.new == ("app.PoolTimeout: QueuePool limit of size 5 reached",)


def test_tracebacks_one_after_the_other_are_so_many_and_chained_ones_are_one() -> None:
    assert Reader().take("web", lines(*TRACEBACK, *TRACEBACK, *TRACEBACK)).errors == 3
    chain = ["", "During handling of the above exception, another exception occurred:", ""]
    assert Reader().take("web", lines(*TRACEBACK, *chain, *TRACEBACK)).errors == 1


def test_a_kind_is_new_once_for_each_service_also_for_the_next_reader() -> None:
    reader = Reader()
    assert reader.take("web", lines("ERROR user 7 not found")).new
    assert not reader.take("web", lines("ERROR user 8 not found")).new
    reader = Reader(json.loads(json.dumps(reader.state())))
    assert not reader.take("web", lines("ERROR user 9 not found")).new
    assert reader.take("api", lines("ERROR user 9 not found")).new
    with pytest.raises((ValueError, KeyError, TypeError)):
        Reader({"miner": {"version": 2}, "known": {}})


class Found:
    """The conditions of output over time."""

    def __init__(self) -> None:
        self.board = Board()
        self.ended: list[tuple[str, str]] = []
        self.written = Written(self.board.begin, self._end)
        self.now = 1000.0

    def _end(self, kind: str, subject: str, why: str) -> None:
        if self.board.end(kind, subject):
            self.ended.append((kind, why))

    def second(self, errors: int = 0, new: tuple[str, ...] = ()) -> None:
        self.now += 1.0
        wrote = {"web.1": Wrote(100, errors, 0, "ERROR it failed", new)} if errors or new else {}
        self.written.take(Output(self.now, wrote))

    def kinds(self) -> list[str]:
        return [condition.kind for condition in self.board]


def test_a_burst_begins_and_ends() -> None:
    found = Found()
    for _ in range(3):
        found.second(3)
    assert found.kinds() == []
    found.second(3)
    assert found.kinds() == ["error_burst"]
    (burst,) = found.board
    assert burst.text == "has written 12 errors within 10 s, mostly: ERROR it failed"
    for _ in range(30):
        found.second(3)
    assert found.ended == []
    for _ in range(int(CALM_S) + 12):
        found.second()
    assert [kind for kind, _ in found.ended] == ["error_burst"]


def test_who_always_writes_errors_has_no_burst() -> None:
    found = Found()
    random.seed(7)
    for _ in range(3600):  # slowly, from nothing: a new version that logs more is a burst once
        found.second(random.randint(0, 2))
    assert found.kinds() in ([], ["error_burst"])
    begun = len(found.ended) + len(found.kinds())
    for _ in range(3600):
        found.second(random.randint(0, 2))
    assert len(found.ended) + len(found.kinds()) <= max(1, begun)


def test_a_new_error_is_told_once_and_ends_after_an_hour_without_another() -> None:
    found = Found()
    found.second(1, ("ERROR it failed",))
    found.second(1, ("ERROR another",))
    assert found.kinds() == ["new_error"]
    found.now += NEW_S
    found.second()
    assert [kind for kind, _ in found.ended] == ["new_error"]


def stored(at_ns: int, text: str) -> str:
    second, nanos = divmod(at_ns, 10**9)
    from datetime import UTC, datetime

    stamp = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{stamp}.{nanos:09d}Z stderr F {text}\n"


def test_the_tail_goes_on_where_the_one_before_stood(tmp_path: Path) -> None:
    from everup.adapters.logs._lines import log_path

    path = Path(log_path(tmp_path, "web.1", 0))
    path.parent.mkdir(exist_ok=True)
    begin_ns = 10**18
    path.write_text(stored(begin_ns, "ERROR old"))
    tail = Tail(tmp_path, {"since_ns": begin_ns, "seen_ns": {}, "reader": Reader().state()})
    assert tail.poll(["web.1"]) == {}

    def write(number: int) -> None:
        with path.open("a") as file:
            file.write(stored(begin_ns + number * 10**9, f"ERROR number {number}"))

    write(1)
    assert tail.poll(["web.1"])["web.1"].errors == 1
    assert tail.poll(["web.1"]) == {}
    state = json.loads(json.dumps(tail.state()))
    tail.close()
    write(2)
    write(3)
    after = Tail(tmp_path, state)
    found = after.poll(["web.1"])["web.1"]
    assert (found.errors, found.new) == (2, ())
    assert after.poll(["web.1"]) == {}
    after.poll([])
    after.close()
