"""Which processes an ``everup up`` takes for instances of an everup that died."""

from collections.abc import Iterable
from typing import Any

import pytest

from everup.adapters.census import Found
from everup.adapters.claims import Claim, claims, newcomers
from everup.adapters.fdstore import inner_name, outer_name
from everup.model.instance import Slot
from everup.model.journal import Entry

BOOT, EARLIER = "this", "earlier"
WEB = Slot("web", 1)


def journal(
    *rows: tuple[str, dict[str, Any]], subject: str = "web.1", boot: str = BOOT
) -> list[Entry]:
    return [
        Entry(number, 0.0, 0.0, boot, kind, subject, payload)
        for number, (kind, payload) in enumerate(rows, 1)
    ]


def spawned(run: int, pid: int, **more: Any) -> tuple[str, dict[str, Any]]:
    facts = {"run": run, "pid": pid, "start": pid * 10, "leader": pid, "lane": 1, "gen": 0}
    return "instance.spawned", facts | more


def starting(run: int, **more: Any) -> tuple[str, dict[str, Any]]:
    return "instance.starting", {"run": run} | more


def exited(run: int) -> tuple[str, dict[str, Any]]:
    return "instance.exited", {"run": run}


def main(run: int, pid: int, start: int) -> tuple[str, dict[str, Any]]:
    return "instance.main", {"run": run, "pid": pid, "start": start}


def who(entries: Iterable[Entry], boot: str = BOOT) -> list[tuple[int, int, int, int]]:
    return [(c.run, c.pid, c.start, c.leader) for c in claims(entries, boot)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([spawned(1, 100)], [(1, 100, 1000, 100)]),
        ([starting(1)], []),
        ([spawned(1, 100), exited(1)], []),
        ([spawned(1, 100), ("instance.lost", {"run": 1})], []),
        # The end of an earlier run says nothing of this one, wherever it stands.
        ([exited(1), spawned(2, 101)], [(2, 101, 1010, 101)]),
        ([spawned(2, 101), exited(1)], [(2, 101, 1010, 101)]),
        # Two runs of one slot: a rolling restart.
        ([spawned(1, 100), spawned(2, 101)], [(1, 100, 1000, 100), (2, 101, 1010, 101)]),
        ([spawned(1, 100), spawned(2, 101), exited(1)], [(2, 101, 1010, 101)]),
        # Another main process: the session is still the first one's.
        ([spawned(1, 100), main(1, 105, 1077)], [(1, 105, 1077, 100)]),
        ([spawned(2, 100), main(1, 105, 1077)], [(2, 100, 1000, 100)]),
        ([spawned(1, 100), main(1, 105, 1077), exited(1)], []),
        # Without a start time a pid is just a number; and what is no fact is none.
        ([("instance.spawned", {"run": 1, "pid": 100})], []),
        ([spawned(1, 100, start=0)], []),
        ([spawned(1, 0)], []),
        ([spawned(1, 100, start=None)], []),
        ([("instance.spawned", {"pid": 100, "start": 5})], []),
        ([("instance.spawned", {"run": "x", "pid": 100, "start": 5})], []),
    ],
)  # fmt: skip
def test_who_should_live_by_the_journal(
    rows: list[tuple[str, dict[str, Any]]], expected: list[tuple[int, int, int, int]]
) -> None:
    assert who(journal(*rows)) == expected


def test_of_another_boot_nothing_follows() -> None:
    entries = journal(spawned(1, 100), main(1, 105, 1077), boot=EARLIER)
    assert who(entries, BOOT) == []
    assert who(entries, "") == []
    assert who(journal(spawned(1, 100), boot=""), "") == []
    assert who([*entries, *journal(main(1, 106, 1078))]) == []


def test_no_slot_no_claim() -> None:
    assert who(journal(spawned(1, 100), subject="everup")) == []


def test_a_claim_has_the_facts() -> None:
    row = spawned(3, 100, pipes=[7, 8], lane=2, gen=4, restarts=5, cgroup="/g/web.1")
    (claim,) = claims(journal(row), BOOT)
    assert claim == Claim(WEB, 3, 100, 1000, 100, 1000, "/g/web.1", (7, 8), 2, 4, 5)
    assert claim.child(1, None) == {
        "id": "main:web.1:3", "pid": 100, "start": 1000, "leader": 100, "leader_start": 1000,
        "cgroup": None, "respawn": True,
        "meta": {
            "role": "main", "slot": "web.1", "run": 3, "restarts": 5, "pipes": 3, "lane": 1,
            "gen": 4,
        },
    }  # fmt: skip


def found(run: int, pid: int = 100, *, leads: bool = True, slot: str = "web.1") -> Found:
    return Found(pid, pid * 10, slot, run, leads)


def hook(run: int, name: str = "pre_start") -> tuple[str, dict[str, Any]]:
    return "hook.starting", {"run": run, "hook": name}


HOOK_ENDED = ("hook.ended", {"hook": "pre_start", "ok": True, "detail": ""})


@pytest.mark.parametrize(
    ("rows", "one", "is_main"),
    [
        # Spawned, and everup died before it could say so.
        ([starting(6, lane=2, gen=3)], found(6), True),
        ([starting(5), spawned(5, 90), starting(6)], found(6), True),
        # Not what leads no session, nor another run.
        ([starting(6)], found(6, leads=False), False),
        ([starting(6)], found(5), False),
        # What the journal knows by its pid is judged by its pid: this is a process of its.
        ([starting(6), spawned(6, 90)], found(6), False),
        ([starting(6), exited(6)], found(6), False),
        ([starting(6), ("instance.lost", {"run": 6})], found(6), False),
        # The hook before it, and what comes after the hook.
        ([starting(6), hook(6)], found(6), False),
        ([starting(6), hook(6), HOOK_ENDED], found(6), True),
        ([starting(6), hook(6, "post_stop")], found(6), True),
        ([starting(5), hook(5), starting(6)], found(6), True),
        # A journal that is gone, or that could not be written in the end.
        ([], found(6), True),
        ([starting(4), spawned(4, 90), exited(4)], found(6), True),
        ([starting(7)], found(6), False),
    ],
)  # fmt: skip
def test_who_lives_unknown_to_the_journal(
    rows: list[tuple[str, dict[str, Any]]], one: Found, is_main: bool
) -> None:
    out = newcomers([one], journal(*rows), BOOT, lambda _pid: "")
    assert [(c.run, c.pid, c.start, c.leader) for c in out] == (
        [(6, 100, 1000, 100)] if is_main else []
    )


def test_a_newcomer_has_what_its_start_says() -> None:
    (claim,) = newcomers([found(6)], journal(starting(6, lane=2, gen=3)), BOOT, lambda _pid: "")
    assert (claim.lane, claim.gen, claim.restarts, claim.pipes) == (2, 3, 0, ())


def test_of_several_newcomers_the_first_is_the_main_one() -> None:
    both = [found(6, 100), found(6, 101), found(6, 102, slot="web.2")]
    out = newcomers(both, [], BOOT, lambda _pid: "")
    assert [(str(c.slot), c.pid) for c in out] == [("web.1", 100), ("web.2", 102)]


def test_hooks_and_probes_are_no_newcomers() -> None:
    roles = {100: "probe", 101: ""}
    out = newcomers([found(6, 100), found(6, 101)], [], BOOT, roles.__getitem__)
    assert [c.pid for c in out] == [101]


@pytest.mark.parametrize("name", ["sock:web:main:0", "pipe:web.1:12:out", "sock:a_b:c-d:x11"])
def test_names_in_systemds_store(name: str) -> None:
    assert ":" not in outer_name(name)
    assert inner_name(outer_name(name)) == name


@pytest.mark.parametrize("name", ["", "sock:a,b", "sock:ü", "a\nb", "x" * 256])
def test_no_names_for_systemds_store(name: str) -> None:
    with pytest.raises(ValueError, match=r"systemd|comma"):
        outer_name(name)
