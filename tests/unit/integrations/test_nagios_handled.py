"""What Nagios' event handler may tell, and what follows from it."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup import config
from everup.integrations.nagios.handled import (
    MOST_KEPT,
    MOST_NONCES,
    SAYS,
    WINDOW_S,
    Event,
    Failing,
    Reader,
    RefusedError,
    line,
)

SECRET = "s3cret"
NONCE = "0123456789abcdef" * 2
DOWN = Event("shop1", "HTTP", "CRITICAL", "HARD", 3, "connect refused")
UP = replace(DOWN, state="OK", text="fine")


@pytest.mark.parametrize(
    ("state", "kind", "attempt", "failing"),
    [
        ("CRITICAL", "SOFT", 1, None),
        ("CRITICAL", "SOFT", 2, True),
        ("CRITICAL", "HARD", 1, True),
        ("DOWN", "HARD", 1, True),
        ("UNREACHABLE", "SOFT", 1, None),
        ("WARNING", "SOFT", 1, False),
        ("WARNING", "HARD", 3, False),
        ("OK", "HARD", 1, False),
        ("OK", "SOFT", 2, False),
        ("UP", "HARD", 1, False),
        ("UNKNOWN", "HARD", 3, None),
        ("PENDING", "HARD", 1, None),
        ("critical", "HARD", 1, None),
    ],
)
def test_when_something_is_to_be_done(
    state: str, kind: str, attempt: int, failing: bool | None
) -> None:
    assert Event("h", "s", state, kind, attempt).failing is failing


@given(*[st.text(max_size=80)] * 3, st.integers(0, 1 << 40))
def test_what_is_signed_is_read(host: str, service: str, text: str, attempt: int) -> None:
    event = Event(f"h{host}", service, "CRITICAL", "SOFT", attempt, text, "web")
    data = line(event, SECRET, 1000.0, NONCE)
    assert data.count(b"\n") == 1
    got = Reader(SECRET).read(data, 1000.0)
    assert (got.attempt, got.state, got.about) == (attempt, "CRITICAL", "web")
    for said in (got.host, got.service, got.text):
        assert not set(said) & {chr(n) for n in range(32)}


def refused(reader: Reader, data: bytes, now: float = 1000.0) -> str:
    with pytest.raises(RefusedError) as caught:
        reader.read(data, now)
    return str(caught.value)


def test_what_is_refused() -> None:
    good = line(DOWN, SECRET, 1000.0, NONCE)
    assert "signature" in refused(Reader("other"), good)
    assert "too old" in refused(Reader(SECRET), good, 1000.0 + WINDOW_S + 1)
    assert "too old" in refused(Reader(SECRET), good, 1000.0 - WINDOW_S - 1)
    assert "signature" in refused(Reader(SECRET), good.replace(b"shop1", b"shop2"))
    later = good.replace(b" 1000000 ", b" 1029000 ")
    assert "signature" in refused(Reader(SECRET), later)
    reader = Reader(SECRET)
    assert reader.read(good, 1000.0) == DOWN
    assert "sent before" in refused(reader, good)
    assert "sent before" in refused(reader, good, 1000.0 + WINDOW_S)
    for data in (b"", b"\n", b"GET / HTTP/1.0\r\n", b"\xff" * 100, good[:50]):
        assert "no line" in refused(reader, data)


def test_a_flood_fills_no_memory() -> None:
    reader = Reader(SECRET)
    for number in range(MOST_NONCES):
        reader.read(line(UP, SECRET, 1000.0, f"{number:032x}"), 1000.0)
    assert "too many" in refused(reader, line(UP, SECRET, 1000.0, "f" * 32))
    assert reader.read(line(UP, SECRET, 1070.0, "f" * 32), 1070.0) == UP


def test_mutated_lines() -> None:
    draw = random.Random(20261130)
    good = line(DOWN, SECRET, 1000.0, NONCE)
    for _ in range(20_000):
        data = bytearray(good)
        for _ in range(draw.randint(1, 3)):
            data[draw.randrange(len(data) - 1)] = draw.randrange(256)
        if bytes(data) != good:
            assert refused(Reader(SECRET), bytes(data))


def told(failing: Failing, *events: Event, services: Sequence[str] = ("web",)) -> list[str]:
    found = [failing.take(event, "shop1", services) for event in events]
    return ["-" if item is None else ": ".join(item) for item in found]


def test_a_subject_fails_as_long_as_one_service_of_it_does() -> None:
    other = replace(DOWN, service="SMTP", text="no greeting")
    assert told(Failing(), DOWN, other, UP, replace(other, state="OK"), UP) == [
        f"machine: {SAYS}connect refused (shop1/HTTP)",
        f"machine: {SAYS}connect refused (shop1/HTTP), and 1 more",
        f"machine: {SAYS}no greeting (shop1/SMTP)",
        "machine: ",
        "machine: ",  # who knows it still may end it
    ]


@pytest.mark.parametrize(
    ("event", "subject"),
    [
        (DOWN, "machine"),
        (replace(DOWN, about="web"), "web"),
        (replace(DOWN, host="db7"), "db7"),
        (replace(DOWN, host="web"), "web (host)"),
        (replace(DOWN, host="10.0.0.1"), "10.0.0.1 (host)"),
    ],
)
def test_whom_it_is_about(event: Event, subject: str) -> None:
    found = Failing().take(event, "shop1", ("web",))
    assert found is not None
    assert found[0] == subject


def test_a_service_that_is_not_there() -> None:
    lost = replace(DOWN, about="wen")
    with pytest.raises(RefusedError, match="there are: web"):
        Failing().take(lost, "shop1", ("web",))
    assert told(Failing(), replace(lost, state="OK")) == ["wen: "]  # it may have been removed


def test_it_is_bounded() -> None:
    failing = Failing()
    for number in range(MOST_KEPT):
        failing.take(replace(DOWN, host=f"h{number}"), "shop1", ())
    with pytest.raises(RefusedError, match="fail already"):
        failing.take(replace(DOWN, host="more"), "shop1", ())
    assert failing.take(replace(DOWN, host="h7"), "shop1", ()) is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(JSON)
def test_what_outlives_the_observer_may_be_anything(kept: object) -> None:
    failing = Failing(json.loads(json.dumps(kept)))
    failing.take(DOWN, "shop1", ())
    again = Failing(json.loads(json.dumps(failing.as_kept())))
    assert again.as_kept() == failing.as_kept()
    assert told(again, DOWN)[0].startswith(f"machine: {SAYS}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "secret_file is missing"),
        ('secret_file = "s"\nlisten = "0.0.0.0:5668"', "not on loopback"),
        ('secret_file = "s"\nlisten = ":5668"', "not on loopback"),
        ('secret_file = "s"\nlisten = "192.0.2.1:5668"', "not on loopback"),
    ],
)
def test_tables_that_are_refused(text: str, says: str) -> None:
    body = f'[service.web]\ncommand = ["web"]\n[nagios.handler]\n{text}'
    [problem] = config.check(body, path="everup.toml", directory="/srv").problems
    assert says in problem.message
