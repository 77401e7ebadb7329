"""What a new engine makes of the journal and the keeper's list."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everup.engine.core import Engine
from everup.engine.fold import ChildFact, fold, reload_is_open, replicas
from everup.model.action import Record, Signal, Spawn
from everup.model.event import Adopted, Event, Exited, Scale, Spawned, Start, Stop, Up
from everup.model.instance import ExitCause, ExitKind, Slot, State
from everup.model.journal import Entry, Kind
from everup.model.spec import Listener, Service, Spec

LISTEN = (Listener("main", "127.0.0.1:8080"),)
SPEC = Spec(
    {
        "web": Service("web", ("serve",), replicas=2, listen=LISTEN),
        "setup": Service("setup", ("setup",), type="oneshot"),
    }
)
NEW_SPEC = Spec(
    {
        "web": replace(SPEC.service["web"], command=("serve", "v2")),
        "extra": Service("extra", ("extra",)),
    }
)
WEB, WEB2, SETUP = Slot("web", 1), Slot("web", 2), Slot("setup", 1)
BOOT, NOW = "this-boot", 500.0


def journal(*told: tuple[Kind, object, dict[str, Any]], boot: str = BOOT) -> list[Entry]:
    """The last entry of each kind and subject, as ``latest`` gives them."""
    entries = [
        Entry(seq, 1e9 + seq, 100.0 + seq, boot, kind.value, str(subject), payload)
        for seq, (kind, subject, payload) in enumerate(told, 1)
    ]
    return sorted({(e.kind, e.subject): e for e in entries}.values())


def adopted(*told: tuple[Kind, object, dict[str, Any]], run: int = 3, boot: str = BOOT) -> Adopted:
    up = fold(SPEC, journal(*told, boot=boot), [ChildFact(WEB, run, 77, 2)], BOOT, NOW)
    (only,) = up.adopted
    assert (only.slot, only.run, only.pid, only.restarts) == (WEB, run, 77, 2)
    return only


STARTING = (Kind.STARTING, WEB, {"run": 3})
SPAWNED = (Kind.SPAWNED, WEB, {"run": 3, "pid": 77})
RUNNING = (Kind.RUNNING, WEB, {"run": 3})
READY = (Kind.READY, WEB, {"run": 3})
STOPPING = (Kind.STOPPING, WEB, {"run": 3})


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ([], State.STARTING),
        ([STARTING], State.STARTING),
        ([STARTING, SPAWNED], State.STARTING),
        ([STARTING, SPAWNED, RUNNING], State.RUNNING),
        ([STARTING, SPAWNED, RUNNING, READY], State.READY),
        ([STARTING, SPAWNED, READY, RUNNING], State.RUNNING),  # lost its readiness again
        ([STARTING, SPAWNED, READY, STOPPING], State.STOPPING),
        # of an earlier incarnation: says nothing of this one
        ([(Kind.READY, WEB, {"run": 2}), STARTING, SPAWNED], State.STARTING),
        ([(Kind.STOPPING, WEB, {"run": 2}), STARTING, SPAWNED, READY], State.READY),
        # of another instance
        ([STARTING, SPAWNED, (Kind.READY, WEB2, {"run": 3})], State.STARTING),
        # an engine before this one had taken it over
        ([SPAWNED, RUNNING, (Kind.ADOPTED, WEB, {"run": 3, "state": "ready"})], State.READY),
        ([SPAWNED, (Kind.ADOPTED, WEB, {"run": 3, "state": "running"}), READY], State.READY),
        ([SPAWNED, READY, (Kind.ADOPTED, WEB, {"run": 3, "state": "stopping"})], State.STOPPING),
    ],
)
def test_adopted_in_the_state_it_was_last_in(
    told: list[tuple[Kind, object, dict[str, Any]]], state: State
) -> None:
    assert adopted(*told).state is state


def test_its_age_is_known_within_one_boot_only() -> None:
    assert adopted(STARTING, SPAWNED).spawned_at == 102.0
    assert adopted(STARTING, SPAWNED, boot="before").spawned_at == NOW
    assert adopted(STARTING).spawned_at == NOW


def test_run_numbers_also_of_slots_that_are_not_there_now() -> None:
    told = journal(
        (Kind.STARTING, WEB, {"run": 7}),
        (Kind.STARTING, Slot("web", 9), {"run": 4}),
        (Kind.STARTING, Slot("gone", 1), {"run": 5}),
        (Kind.STARTING, "everup", {}),
    )
    up = fold(SPEC, told, [], BOOT, NOW)
    assert dict(up.runs) == {WEB: 7, Slot("web", 9): 4, Slot("gone", 1): 5}
    engine = Engine(SPEC, random=lambda: 0.0)
    engine.handle(up, NOW)
    assert engine.instances[WEB].run == 8
    assert engine.last_runs[Slot("web", 9)] == 4
    assert engine.last_runs[Slot("gone", 1)] == 5  # the service may come back by a reload


def test_the_last_word_of_the_operator_holds() -> None:
    told = journal(
        (Kind.WANTED, WEB, {"want": True}),
        (Kind.WANTED, WEB2, {"want": False}),
        (Kind.WANTED, WEB, {"want": False}),
        (Kind.WANTED, Slot("gone", 1), {"want": True}),
    )
    wanted = dict(fold(SPEC, told, [], BOOT, NOW).wanted)
    assert wanted == {WEB: False, WEB2: False, Slot("gone", 1): True}


def test_scaled() -> None:
    told = journal(
        (Kind.SCALED, "web", {"replicas": 5, "before": 2}),
        (Kind.SCALED, "web", {"replicas": 3, "before": 5}),
        (Kind.SCALED, "gone", {"replicas": 1, "before": 2}),
        (Kind.WANTED, WEB, {"want": True}),
    )
    assert replicas(told) == {"web": 3, "gone": 1}
    assert replicas([]) == {}


def test_balance_counts_only_while_its_processes_live() -> None:
    told = journal(
        (Kind.BALANCE, "web", {"replicas": [1], "before": []}),
        (Kind.BALANCE, "web", {"replicas": [2], "before": [1]}),
    )
    child = ChildFact(WEB2, 1, 77, 0)
    assert fold(SPEC, told, [child], BOOT, NOW).active == (("web", (2,)),)
    assert fold(SPEC, told, [], BOOT, NOW).active == ()


def test_done_until_started_again() -> None:
    done = (Kind.STOPPED, SETUP, {"run": 1, "done": True})
    start = (Kind.STARTING, SETUP, {"run": 1})
    assert fold(SPEC, journal(start, done), [], BOOT, NOW).done == (SETUP,)
    assert fold(SPEC, journal(done, start), [], BOOT, NOW).done == ()
    stopped = (Kind.STOPPED, SETUP, {"run": 1})
    assert fold(SPEC, journal(start, done, stopped), [], BOOT, NOW).done == ()


def test_quitting_goes_on_only_where_something_is_left() -> None:
    started, stopping = (Kind.ENGINE_STARTED, "everup", {}), (Kind.ENGINE_STOPPING, "everup", {})
    child = [ChildFact(WEB, 1, 77, 0)]
    assert fold(SPEC, journal(started, stopping), child, BOOT, NOW).quitting
    assert not fold(SPEC, journal(started, stopping), [], BOOT, NOW).quitting
    assert not fold(SPEC, journal(stopping, started), child, BOOT, NOW).quitting
    assert not fold(SPEC, journal(started), child, BOOT, NOW).quitting


def relive(spec: Spec, *events: Event) -> tuple[Engine, Engine]:
    """An engine after these events, and the one that takes over from it."""
    first = Engine(spec, random=lambda: 0.0)
    told: list[tuple[Kind, object, dict[str, Any]]] = []
    for event in (Up(), *events):
        todo = [event]
        while todo:
            for action in first.handle(todo.pop(0), NOW):
                if isinstance(action, Record):
                    told.append((action.kind, action.subject, action.payload))
                elif isinstance(action, Spawn):
                    todo.append(Spawned(action.slot, action.run, 70))
                elif isinstance(action, Signal):
                    cause = ExitCause(ExitKind.CODE, 0)
                    todo.append(Exited(action.slot, action.run, cause))
    latest = journal(*told)
    counts = replicas(latest)
    services = {n: replace(s, replicas=counts.get(n, s.replicas)) for n, s in spec.service.items()}
    second = Engine(replace(spec, service=services), random=lambda: 0.0)
    alive = [ChildFact(i.slot, i.run, i.pid, 0) for i in first.instances.values() if i.pid]
    second.handle(fold(spec, latest, alive, BOOT, NOW), NOW)
    return first, second


def wanted(engine: Engine) -> dict[Slot, bool]:
    return {slot: instance.want for slot, instance in engine.instances.items()}


def test_a_takeover_wants_what_was_wanted() -> None:
    spec = Spec({"web": Service("web", ("serve",), replicas=2)})
    first, second = relive(spec, Stop((WEB,), "ann"), Scale("web", 3, "ann"))
    assert wanted(first) == wanted(second) == {WEB: False, WEB2: True, Slot("web", 3): True}


def test_a_takeover_does_not_start_what_was_scaled_while_stopped() -> None:
    spec = Spec({"web": Service("web", ("serve",))})
    first, second = relive(spec, Stop((WEB,), "ann"), Scale("web", 2, "ann"))
    assert wanted(first) == {WEB: False, WEB2: False}
    assert wanted(second) == wanted(first)


def test_a_takeover_does_not_stop_what_was_scaled_up_without_autostart() -> None:
    spec = Spec({"web": Service("web", ("serve",), autostart=False)})
    first, second = relive(spec, Start((WEB,), "ann"), Scale("web", 2, "ann"))
    assert wanted(first) == {WEB: True, WEB2: True}
    assert wanted(second) == wanted(first)


# -- what rollouts and reloads leave


def test_what_identifies_a_process_comes_from_the_journal() -> None:
    facts = {"start": 12345, "leader": 77, "cgroup": "/cg/web.1", "pipes": [8, 9]}
    spawned = (Kind.SPAWNED, WEB, {"run": 3, "pid": 77, "lane": 2, "gen": 4} | facts)
    assert dict(adopted(STARTING, spawned).facts).items() >= facts.items()
    main = (Kind.MAIN, WEB, {"run": 3, "pid": 80, "start": 999})
    assert adopted(STARTING, spawned, main).facts["start"] == 999
    earlier = (Kind.MAIN, WEB, {"run": 2, "pid": 80, "start": 999})
    assert adopted(STARTING, spawned, earlier).facts["start"] == 12345


def two(*told: tuple[Kind, object, dict[str, Any]]) -> list[tuple[int, State, bool]]:
    """Both processes of a slot: run, state, outgoing."""
    children = [ChildFact(WEB, 3, 77, 0, 1, 0), ChildFact(WEB, 4, 78, 1, 3, 1)]
    up = fold(SPEC, journal(*told), children, BOOT, NOW)
    return sorted((a.run, a.state, a.outgoing) for a in up.adopted)


OUTGOING = (Kind.OUTGOING, WEB, {"run": 3, "pid": 77, "state": "ready", "spawned_mono": 50.0})
NEXT = (Kind.STARTING, WEB, {"run": 4})
NEXT_READY = (Kind.READY, WEB, {"run": 4})


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([READY, OUTGOING, NEXT], [(3, State.READY, True), (4, State.STARTING, False)]),
        ([OUTGOING, NEXT, NEXT_READY], [(3, State.READY, True), (4, State.READY, False)]),
        (
            [OUTGOING, NEXT, NEXT_READY, (Kind.DRAINING, WEB, {"run": 3})],
            [(3, State.DRAINING, True), (4, State.READY, False)],
        ),
        (
            [OUTGOING, NEXT, NEXT_READY, STOPPING],
            [(3, State.STOPPING, True), (4, State.READY, False)],
        ),
        (  # the new one failed: the old one goes on
            [OUTGOING, NEXT, NEXT_READY, (Kind.STOPPING, WEB, {"run": 4})],
            [(3, State.READY, False), (4, State.STOPPING, True)],
        ),
    ],
)
def test_two_processes_in_one_slot(
    told: list[tuple[Kind, object, dict[str, Any]]], expected: list[tuple[int, State, bool]]
) -> None:
    assert two(STARTING, SPAWNED, *told) == expected


def test_the_age_of_the_old_one_is_known_though_the_new_one_wrote_over_it() -> None:
    spawned = (Kind.SPAWNED, WEB, {"run": 4, "pid": 78})
    children = [ChildFact(WEB, 3, 77, 0), ChildFact(WEB, 4, 78, 0)]
    up = fold(SPEC, journal(OUTGOING, NEXT, spawned), children, BOOT, NOW)
    assert [a.spawned_at for a in up.adopted] == [50.0, 103.0]
    up = fold(SPEC, journal(OUTGOING, NEXT, spawned, boot="before"), children, BOOT, NOW)
    assert [a.spawned_at for a in up.adopted] == [NOW, NOW]


@pytest.mark.parametrize(
    ("told", "lost"),
    [
        ([STARTING, SPAWNED, READY], True),
        ([STARTING], True),
        ([STARTING, SPAWNED, (Kind.EXITED, WEB, {"run": 3})], False),
        ([STARTING, (Kind.STOPPED, WEB, {"run": 3})], False),
        ([STARTING, SPAWNED, (Kind.BACKOFF, WEB, {"run": 3})], False),
        ([STARTING, SPAWNED, (Kind.LOST, WEB, {"run": 3})], False),  # told already
        ([STARTING, SPAWNED, (Kind.EXITED, WEB, {"run": 2})], True),
    ],
)
def test_who_is_gone_and_nobody_saw_it(
    told: list[tuple[Kind, object, dict[str, Any]]], lost: bool
) -> None:
    assert fold(SPEC, journal(*told), [], BOOT, NOW).lost == (((WEB, 3),) if lost else ())
    child = ChildFact(WEB, 3, 77, 0)
    assert fold(SPEC, journal(*told), [child], BOOT, NOW).lost == ()


def rollout(gen: int, how: str = "restart") -> tuple[Kind, object, dict[str, Any]]:
    return (Kind.ROLLOUT, "web", {"gen": gen, "how": how, "slots": ["web.1", "web.2"], "by": "ann"})


def test_a_rollout_without_an_end_goes_on() -> None:
    child = [ChildFact(WEB, 3, 77, 0)]
    for end in (Kind.ROLLOUT_DONE, Kind.ROLLOUT_STOPPED):
        ended = (end, "web", {"gen": 2})
        open_ = fold(SPEC, journal(ended, rollout(3)), child, BOOT, NOW)
        (only,) = open_.rollouts
        assert (only.service, only.gen, only.slots) == ("web", 3, (WEB, WEB2))
        assert (only.how, only.by) == ("restart", "ann")
        over = fold(SPEC, journal(rollout(3), ended), child, BOOT, NOW)
        assert over.rollouts == ()
        assert over.gens == (("web", 3),)  # numbers go on
    assert fold(SPEC, journal(rollout(3)), [], BOOT, NOW).rollouts == ()  # nobody is left


RELOADING = (Kind.RELOADING, "everup", {"by": "ann"})


def test_a_reload_without_an_end_is_open() -> None:
    assert not reload_is_open([])
    assert reload_is_open(journal(RELOADING))
    for end in (Kind.RELOADED, Kind.ROLLED_BACK):
        assert not reload_is_open(journal(RELOADING, (end, "everup", {})))
        assert reload_is_open(journal((end, "everup", {}), RELOADING))


def test_how_far_a_reload_had_come() -> None:
    child = [ChildFact(WEB, 3, 77, 0)]
    back = (Kind.ROLLING_BACK, "everup", {"reason": "it broke"})

    def pending(*told: tuple[Kind, object, dict[str, Any]]) -> tuple[str, str, object]:
        up = fold(SPEC, journal(*told), child, BOOT, NOW, candidate=NEW_SPEC)
        assert up.reload is not None
        assert up.reload.spec is NEW_SPEC
        return up.reload.by, up.reload.failed, up.reload.gens

    assert pending(RELOADING) == ("ann", "", ())
    assert pending(back, RELOADING) == ("ann", "", ())  # that was another one
    assert pending(RELOADING, back) == ("ann", "it broke", ())
    assert pending(RELOADING, rollout(2, "reload")) == ("ann", "", (("web", 2),))
    assert pending(rollout(2, "reload"), RELOADING) == ("ann", "", ())
    assert pending(RELOADING, rollout(2, "restart")) == ("ann", "", ())
    assert fold(SPEC, journal(RELOADING), child, BOOT, NOW).reload is None


def test_a_reload_goes_on_where_no_process_is_left() -> None:
    told = journal(RELOADING, rollout(2, "reload"))
    up = fold(SPEC, told, [], BOOT, NOW, candidate=NEW_SPEC)
    assert up.reload is not None
    assert up.reload.spec is NEW_SPEC
    assert [(u.service, u.gen) for u in up.rollouts] == [("web", 2)]
    assert fold(SPEC, told, [], BOOT, NOW).rollouts == ()  # nothing but a start is to be done


def test_nothing_told_nothing_known() -> None:
    up = fold(SPEC, [], [], BOOT, NOW)
    assert (up.wanted, up.adopted, up.runs, up.done, up.active) == ((), (), (), (), ())
    assert not up.quitting


_SLOTS = st.lists(st.sampled_from(["web.1", "web.2", "web.7", "setup.1", "gone.1"]), unique=True)
_PAYLOAD = st.fixed_dictionaries(
    {
        "run": st.integers(0, 5),
        "want": st.booleans(),
        "replicas": st.just([1]),
        "gen": st.integers(0, 5),
        "slots": _SLOTS,
        "how": st.sampled_from(["restart", "reload", "rollback", "verdict"]),
        "reason": st.just("because"),
        "state": st.sampled_from(["starting", "running", "ready", "draining", "stopping"]),
    },
    optional={
        "done": st.booleans(),
        "lanes": st.lists(st.integers(1, 4), unique=True, min_size=1),
        "spawned_mono": st.none() | st.floats(0.0, NOW),
        "lane": st.integers(0, 4),
        "by": st.just("ann"),
    },
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([k for k in Kind if k is not Kind.SCALED]),
            st.sampled_from(["web.1", "web.2", "setup.1", "web", "everup", "gone.1", "x.y", ""]),
            _PAYLOAD,
        ),
        max_size=30,
    ),
    st.sets(st.tuples(st.sampled_from([WEB, WEB2, SETUP]), st.integers(3, 4))),
    st.booleans(),
)
def test_whatever_the_journal_says_an_engine_starts_from_it(
    told: list[tuple[Kind, object, dict[str, Any]]],
    alive: set[tuple[Slot, int]],
    reloading: bool,
) -> None:
    children = [ChildFact(s, run, 70 + n, 0, n + 1) for n, (s, run) in enumerate(sorted(alive))]
    candidate = NEW_SPEC if reloading else None
    up = fold(SPEC, journal(*told), children, BOOT, NOW, candidate=candidate)
    assert {(a.slot, a.run) for a in up.adopted} == alive
    engine = Engine(SPEC, random=lambda: 0.0)
    actions = engine.handle(up, NOW)
    for slot, run in alive:
        instance = engine.process(slot, run)
        assert instance is not None
        assert instance.state.alive
    spawned = [a.slot for a in actions if isinstance(a, Spawn)]
    assert len(set(spawned)) == len(spawned)
    twice = [slot for slot, run in alive if (slot, 7 - run) in alive]
    assert not set(spawned) & set(twice)  # never a third one beside two
