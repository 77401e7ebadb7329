"""Links that are good once, and the sessions that they begin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.rooms.console.sessions import (
    MOST_SESSIONS,
    MOST_TICKETS,
    SESSION_S,
    TICKET_S,
    Sessions,
    digest,
)


def begun(user: str = "ada") -> Sessions:
    sessions = Sessions()
    sessions.ticket("t", user, 0.0)
    assert sessions.redeem("t", "key", "token", 1.0) is not None
    return sessions


def test_a_link_is_good_once() -> None:
    sessions = begun()
    assert sessions.redeem("t", "other", "token", 1.0) is None
    assert sessions.redeem("never made", "other", "token", 1.0) is None
    assert sessions.find("other", "token", 1.0) is None


@pytest.mark.parametrize(("at", "good"), [(TICKET_S - 1, True), (TICKET_S, False), (1e9, False)])
def test_a_link_is_good_for_a_while(at: float, good: bool) -> None:
    sessions = Sessions()
    sessions.ticket("t", "ada", 0.0)
    assert (sessions.redeem("t", "key", "token", at) is not None) is good


def test_a_session_needs_both_secrets_and_ends() -> None:
    sessions = begun()
    found = sessions.find("key", "token", 2.0)
    assert found is not None
    assert found.user == "ada"
    for key, token in (("key", ""), ("", "token"), ("token", "key"), ("key", "token ")):
        assert sessions.find(key, token, 2.0) is None
        assert not sessions.close(key, token, 2.0)
    assert sessions.find("key", "token", 1.0 + SESSION_S) is None
    assert sessions.close("key", "token", 2.0)
    assert sessions.find("key", "token", 2.0) is None


def test_the_oldest_makes_way() -> None:
    sessions = Sessions()
    for number in range(MOST_TICKETS + 1):
        sessions.ticket(f"t{number}", "ada", 0.0)
    assert sessions.redeem("t0", "k", "x", 0.0) is None
    assert sessions.redeem("t1", "k", "x", 0.0) is not None
    for number in range(MOST_SESSIONS):
        sessions.ticket("t", "ada", 1.0)
        assert sessions.redeem("t", f"k{number}", "x", 1.0) is not None
    assert sessions.find("k", "x", 1.0) is None
    assert sessions.find("k0", "x", 1.0) is not None


def test_it_outlives_an_engine_and_shows_no_secret() -> None:
    sessions = begun("ada\n\ud800")
    sessions.ticket("next", "bob", 2.0)
    kept = sessions.dump()
    for secret in ("next", "key", "token"):
        assert secret.encode() not in kept.replace(b'"tickets"', b"").replace(b"sessions", b"")
    again = Sessions.load(kept)
    assert again.dump() == kept
    assert again.find("key", "token", 2.0) == sessions.find("key", "token", 2.0)
    assert again.redeem("next", "k", "x", 3.0) is not None


@given(st.binary(max_size=300))
def test_what_is_damaged_lets_nobody_in(data: bytes) -> None:
    assert Sessions.load(data).dump() == Sessions().dump()


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_changed_byte_lets_nobody_in_who_was_not(at: int, byte: int) -> None:
    kept = bytearray(begun().dump())
    kept[at % len(kept)] = byte
    again = Sessions.load(bytes(kept))
    assert again.find("other", "token", 2.0) is None
    assert again.find("key", "other", 2.0) is None


def test_a_secret_of_odd_characters_has_a_digest() -> None:
    assert digest("\ud800") != digest("\\ud800 ")
