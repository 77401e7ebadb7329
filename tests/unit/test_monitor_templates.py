"""Lines to templates: what varies, what stays apart, what is bounded, what a restart keeps."""

import json
import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.rooms.monitor.templates import MOST_CHARACTERS, Miner

ONE_TEMPLATE: list[tuple[str, list[str]]] = [
    (
        "GET <*> took <*> ms",
        ["GET /users/17 took 3 ms", "GET /users/2441/cart took 181 ms", "GET /a?b=c took 9 ms"],
    ),
    (
        "connection received: host=<*> port=<*>",
        ["connection received: host=10.0.0.1 port=4711", "connection received: host=db port=9"],
    ),
    (
        "checkpoint complete: wrote <*> buffers (<*>)",
        [f"checkpoint complete: wrote {n} buffers ({n / 7:.1f}%)" for n in (1, 22, 333)],
    ),
    (
        "session opened for user <*> by (uid=<*>)",
        ["session opened for user root by (uid=0)", "session opened for user www-data by (uid=0)"],
    ),
    (
        "peer <*> (<*>) at <*> said no",
        [
            "peer 10.1.2.3 (a.example.org) at Sun Jul 10 03:55:15 2005 said no",
            "peer 10.1.2.3 () at Wed Jan  3 23:05:15 2007 said no",
        ],
    ),
    ("purge blocks <*> now", ["purge blocks a1 a2 a3 now", "purge blocks b9 b8 b7 b6 b5 now"]),
    ("fetching <*> failed", ["fetching http://a/b failed", "fetching https://c:1/d?e=f failed"]),
    ("state=idle for <*> s", ["state=idle for 3 s", "state=idle for 4.5 s"]),
    ("accepted key <*> over ssh2", ["accepted key a7 over ssh2", "accepted key b8 over ssh2"]),
]


@pytest.mark.parametrize(("template", "lines"), ONE_TEMPLATE, ids=[t for t, _ in ONE_TEMPLATE])
def test_lines_that_differ_in_what_varies_are_one(template: str, lines: list[str]) -> None:
    miner = Miner()
    assert len({miner.add(line) for line in lines}) == 1
    assert miner.template(1) == template
    assert miner.count(1) == len(lines)


APART = [
    ("worker startup succeeded", "worker shutdown succeeded"),
    ("task 7 went from NEW to RUNNING", "task 7 went from NEW to FAILED"),
    ("java.io.IOException: 7 left", "java.net.BindException: 7 left"),
    ("could not read block 7", "could not write block 7"),
    ("connected", "disconnected"),
    ("failed to read the index", "failed to write the index"),
    ("elected as leader of it", "elected as follower of it"),
    ("retry in 3 s", "retry in 3 s, last time"),
]


@pytest.mark.parametrize(("one", "other"), APART)
def test_events_that_mean_something_else_stay_apart(one: str, other: str) -> None:
    miner = Miner()
    assert miner.add(one) != miner.add(other)


def test_a_value_is_shown_until_it_varies() -> None:
    miner = Miner()
    id = miner.add("opened pool=main with 3 connections")
    assert miner.template(id) == "opened pool=main with <*> connections"
    assert miner.add("opened pool=batch with 3 connections") == id
    assert miner.template(id) == "opened pool=<*> with <*> connections"


def test_a_word_with_a_digit_is_shown_until_it_varies() -> None:
    miner = Miner()
    id = miner.add("link eth0 is up")
    assert miner.template(id) == "link eth0 is up"
    assert miner.add("link eth1 is up") == id
    assert miner.template(id) == "link <*> is up"


def test_a_template_given_up_is_a_key_error_and_its_id_never_comes_again() -> None:
    miner = Miner(2)
    often = miner.add("this one is seen often")
    miner.add("this one is seen often")
    once = miner.add("that other line")
    third = miner.add("something new entirely here")
    assert often in miner
    assert once not in miner
    with pytest.raises(KeyError):
        miner.template(once)
    with pytest.raises(KeyError):
        miner.count(once)
    again = miner.add("that other line")
    assert len({often, once, third, again}) == 4
    assert (len(miner), miner.evicted) == (2, 2)


def test_a_flood_of_new_lines_takes_no_template_that_was_seen_twice() -> None:
    miner = Miner(500)
    service = [f"the {word} was handled in 3 ms" for word in ("request", "job", "upload")]
    ids = [miner.add(line) for line in service * 2][:3]
    rng = random.Random(5)
    for _ in range(20_000):
        miner.add("".join(rng.choices(string.ascii_lowercase + " ", k=40)))
    assert len(miner) == 500
    assert [miner.add(line) for line in service] == ids


def test_all_its_tables_are_bounded() -> None:
    miner = Miner(100, most_known=200)
    rng = random.Random(6)
    words = ["".join(rng.choices(string.ascii_lowercase, k=6)) for _ in range(300)]
    for i in range(30_000):
        start = "same start of all" if i % 2 else rng.choice(words)
        miner.add(f"{start} {' '.join(rng.choices(words, k=4))} for {rng.choice(words)}")
    assert len(miner) == 100
    assert len(miner._counts) == 100
    assert len(miner._known) <= 200
    assert len(miner._known_before) <= 200
    assert len(miner._exact) <= 8 * 100
    assert sum(map(len, miner._alike.values())) <= 100
    assert len(miner._once) <= 101


@pytest.mark.parametrize("unit", ["a.", "1", "a=b", " ", "[", "a", "Jan ", '="', "http://", "é7 "])
def test_a_line_of_ten_megabytes_is_cut(unit: str) -> None:
    miner = Miner()
    id = miner.add(unit * (10_000_000 // len(unit)))
    assert len(miner.template(id)) <= 2 * MOST_CHARACTERS
    assert miner.add(unit * (10_000_000 // len(unit))) == id


WORDS = ["for", "user", "root", "from", "a1", "b7", "/x/y", "k=v", "k=7", "s.t.u", "(z)", "()"]
WORDS += ["[a]", "is", "up", "ssh2", "\t", "\xa0", 'v="a b"', 'v="a\tb"', "to", "x.IOError", ""]
LINES = st.lists(
    st.one_of(
        st.text(max_size=60),
        st.lists(
            st.sampled_from(WORDS),
            max_size=9,
        ).map(" ".join),
    ),
    max_size=40,
)


@given(LINES)
def test_any_text_has_a_template_and_the_same_line_the_same_id(lines: list[str]) -> None:
    miner = Miner()
    ids = [miner.add(line) for line in lines]
    assert [miner.add(line) for line in lines] == ids
    assert sum(miner.count(id) for id in set(ids)) == 2 * len(lines)
    for id in ids:
        assert miner.template(id) == " ".join(miner.template(id).split())


@given(LINES, LINES)
def test_ids_go_on_after_a_restart(before: list[str], after: list[str]) -> None:
    whole, first = Miner(), Miner()
    for line in before:
        assert whole.add(line) == first.add(line)
    second = Miner.restore(json.loads(json.dumps(first.state())))
    assert [second.add(line) for line in after] == [whole.add(line) for line in after]
    assert second.ids() == whole.ids()
    assert [second.count(id) for id in second.ids()] == [whole.count(id) for id in whole.ids()]
    assert [second.template(i) for i in second.ids()] == [whole.template(i) for i in whole.ids()]


@pytest.mark.parametrize(
    "damage",
    [
        {},
        {"version": 2, "next": 1, "templates": []},
        {"version": 1, "next": "x", "templates": []},
        {"version": 1, "next": 1, "templates": [{}]},
        {"version": 1, "next": 1, "templates": [7]},
    ],
)
def test_a_damaged_state_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"templates|invalid literal"):
        Miner.restore(damage)


def test_a_miner_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="room for one"):
        Miner(0)
