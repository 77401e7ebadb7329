"""Who gets new connections."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.engine.balance import choose
from everup.model.instance import Slot, State
from everup.model.record import Instance


def slots(*states: str) -> dict[int, Instance]:
    """``r`` ready, ``s`` ready but suspected, ``n`` running, ``-`` stopped but wanted, ``x`` not
    wanted."""
    kinds = {
        "r": (State.READY, True, False),
        "s": (State.READY, True, True),
        "n": (State.RUNNING, True, False),
        "-": (State.STOPPED, True, False),
        "x": (State.STOPPED, False, False),
    }
    out = {}
    for number, letter in enumerate(states, 1):
        state, want, suspected = kinds[letter]
        out[number] = Instance(Slot("web", number), state, want=want, suspected=suspected)
    return out


@pytest.mark.parametrize(
    ("active", "replicas", "states", "expected"),
    [
        ((), 2, "rr", (1, 2)),
        ((1, 2), 2, "rn", (1,)),
        ((1,), 1, "rr", (1,)),  # the standby stays out
        ((1,), 1, "-r", (2,)),  # until the ready one is lost
        ((2,), 1, "rr", (2,)),  # who comes back is the standby now: nothing moves without need
        ((1, 2), 2, "sr", (2,)),
        ((1, 2), 2, "ss", (1, 2)),  # suspicion alone never empties the balance
        ((1, 2), 2, "nn", (1, 2)),  # none ready: wait where it may come up
        ((1, 2), 2, "-n", (2,)),
        ((1, 2), 2, "--", (1, 2)),
        ((1, 2), 2, "x-", (2,)),
        ((2, 3), 0, "xrr", (2,)),  # scaled to none: serves until it is down
        ((1, 2), 2, "srr", (2, 3)),  # a standby replaces a suspect at once
    ],
)
def test_table(active: tuple[int, ...], replicas: int, states: str, expected: object) -> None:
    assert choose(active, replicas, slots(*states)) == expected


@given(
    st.lists(st.sampled_from("rsn-x"), min_size=1, max_size=8),
    st.integers(0, 8),
    st.sets(st.integers(1, 8)),
)
def test_never_empty_never_unready_while_there_is_better(
    states: list[str], replicas: int, active: set[int]
) -> None:
    instances = slots(*states)
    chosen = choose(tuple(sorted(active)), replicas, instances)
    assert chosen
    assert set(chosen) <= set(instances)
    trusted = {n for n, letter in enumerate(states, 1) if letter == "r"}
    if trusted:
        assert set(chosen) <= trusted
        assert len(chosen) == min(max(1, replicas), len(trusted))
    again = choose(chosen, replicas, instances)
    assert again == chosen  # settled: the same world gives the same answer


def test_a_lost_one_moves_nobody_else() -> None:
    before = slots(*"rrrr")
    active = choose((), 3, before)
    after = before | {2: replace(before[2], state=State.BACKOFF)}
    assert choose(active, 3, after) == (1, 3, 4)
