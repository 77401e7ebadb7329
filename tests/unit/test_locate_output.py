"""Tracebacks are joined, and the last error of a process is found among what it said."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.rooms.locate.output import Line, events, last_error

PYTHON = """Traceback (most recent call last):
  File "/srv/shop/app.py", line 12, in main
    connect()
    ^^^^^^^^^
  File "/venv/lib/python3.11/site-packages/pg/core.py", line 5, in connect
    raise OSError(111, "Connection refused")
ConnectionRefusedError: [Errno 111] Connection refused

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/srv/shop/app.py", line 30, in <module>
    main()
shop.errors.StartError: no database"""
GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "/srv/a.py", line 3, in <module>
  |     raise ExceptionGroup("two", [OSError(1), ValueError(2)])
  | ExceptionGroup: two (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | OSError: 1
    +---------------- 2 ----------------
    | ValueError: 2
    +------------------------------------"""
JAVA = """Exception in thread "main" java.lang.IllegalStateException: no database
\tat org.shop.Main.start(Main.java:14)
\tat org.shop.Main.main(Main.java:8)
Caused by: java.net.ConnectException: Connection refused
\tat java.base/sun.nio.ch.Net.pollConnect(Native Method)
\t... 2 more"""
GO = """panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x4b]

goroutine 1 [running]:
main.main()
\t/srv/shop/main.go:9 +0x1d"""
NODE = """Error: connect ECONNREFUSED 127.0.0.1:6379
    at TCPConnectWrap.afterConnect [as oncomplete] (node:net:1555:16) {
  errno: -111,
  code: 'ECONNREFUSED'
}"""


def lines(text: str) -> list[Line]:
    return [Line(float(n), line) for n, line in enumerate(text.splitlines())]


@pytest.mark.parametrize(
    ("text", "headline", "where"),
    [
        (PYTHON, "shop.errors.StartError: no database", "/srv/shop/app.py:30"),
        (JAVA, "Caused by: java.net.ConnectException: Connection refused", ""),
        (GO, "panic: runtime error: invalid memory address or nil pointer dereference", ""),
        (NODE, "Error: connect ECONNREFUSED 127.0.0.1:6379", ""),
    ],
    ids=["python", "java", "go", "node"],
)
def test_a_traceback_is_one_event(text: str, headline: str, where: str) -> None:
    said = events(lines(f"INFO starting\n{text}\nINFO bye"))
    found = [event for event in said if event.traceback]
    assert len(found) == 1
    assert found[0].headline == headline
    assert found[0].where == where
    assert said[0].lines == ("INFO starting",)
    assert said[-1].lines == ("INFO bye",)


def test_an_exception_group_is_one_event() -> None:
    (found,) = [event for event in events(lines(GROUP)) if event.traceback]
    assert len(found.lines) == len(GROUP.splitlines())


def test_two_tracebacks_are_two_events() -> None:
    one = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nOSError: 1'
    assert [e.traceback for e in events(lines(f"{one}\nbetween\n{one}"))] == [True, False, True]


def test_the_last_error_is_found_among_what_is_well() -> None:
    said = events(lines("starting\nERROR: cannot open x\nINFO: 0 errors so far\nbye"))
    error = last_error(said)
    assert error is not None
    assert error.headline == "ERROR: cannot open x"
    assert last_error(events(lines("all\nis\nwell"))) is None


@given(st.lists(st.text(alphabet=string.printable + "\u2028\x00\x1b", max_size=80), max_size=60))
def test_any_output_is_taken_and_nothing_is_lost(texts: list[str]) -> None:
    given_lines = [Line(float(n), text) for n, text in enumerate(texts)]
    said = events(given_lines)
    kept = [line for event in said for line in event.lines]
    assert [line for line in kept if line.strip()] == [t for t in texts if t.strip()]
    last_error(said)
