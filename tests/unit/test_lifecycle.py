"""The state table: every pair is there, and the paths that matter."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.model.action import GiveTime, RunHook, Signal, Spawn
from everup.model.event import Hook
from everup.model.instance import ExitCause, ExitKind, Slot, State
from everup.model.record import Instance
from everup.model.spec import Hooks, Intensity, Probe, Probes, Restart, Service, Watchdog
from everup.supervise.lifecycle import REKILL_S, REST, TABLE, Happening, On, step

SLOT = Slot("web", 1)
PLAIN = Service("web", ("serve",))
KILLED = ExitCause(ExitKind.SIGNAL, 9, "SIGKILL")
CLEAN = ExitCause(ExitKind.CODE, 0)


def run(service: Service, instance: Instance, *events: Happening, now: float = 100.0) -> Instance:
    for event in events:
        instance, _ = step(service, instance, event, 0.5, now)
    return instance


def up(service: Service = PLAIN) -> Instance:
    start = (Happening(On.START), Happening(On.SPAWNED, pid=7), Happening(On.STARTED))
    return run(service, Instance(SLOT, want=True), *start)


@pytest.mark.parametrize("state", list(State))
def test_every_pair_is_in_the_table(state: State) -> None:
    assert set(TABLE[state]) == set(On)


@pytest.mark.parametrize("state", [s for s in State if not s.alive])
@pytest.mark.parametrize(
    "on", [On.SPAWNED, On.EXITED, On.UNHEALTHY, On.READY, On.UNREADY, On.HOOK_DONE, On.DRAINED]
)
def test_late_news_of_a_process_change_nothing(state: State, on: On) -> None:
    before = Instance(SLOT, state, want=True)
    after, effects = step(PLAIN, before, Happening(on, cause=KILLED), 0.5, 1.0)
    assert after == before
    assert effects == ()


@given(
    st.lists(st.tuples(st.sampled_from(list(On)), st.booleans(), st.sampled_from(list(Hook)))),
    st.sampled_from(["plain", "hooks", "notify", "oneshot", "drain"]),
    st.floats(0, 0.999),
)
def test_any_sequence_keeps_the_invariants(
    events: list[tuple[On, bool, Hook]], kind: str, u: float
) -> None:
    service = {
        "plain": PLAIN,
        "hooks": replace(PLAIN, hooks=Hooks(("a",), ("b",), ("c",), ("d",))),
        "notify": replace(PLAIN, notify=True, watchdog=Watchdog(1.0)),
        "oneshot": replace(PLAIN, type="oneshot"),
        "drain": replace(PLAIN, drain_timeout=5.0),
    }[kind]
    instance, now = Instance(SLOT, want=True), 0.0
    for on, ok, hook in events:
        now += 1.0
        event = Happening(on, "why", pid=7, cause=KILLED if ok else CLEAN, hook=hook, ok=ok)
        before = instance
        instance, effects = step(service, before, event, u, now)
        spawns = [e for e in effects if isinstance(e, Spawn)]
        assert len(spawns) <= 1
        if spawns:  # never a second process beside a first
            assert before.pid == 0
            assert instance.state is State.STARTING
        if instance.state in (State.BACKOFF, State.PARKED):
            assert instance.deadline is not None
            assert not instance.pid
        if instance.state in (State.RUNNING, State.READY, State.DRAINING):
            assert instance.pid
        if not instance.state.alive:
            assert not instance.pid
        assert instance.run - before.run in (0, 1)


def test_plain_start_is_ready_at_once() -> None:
    instance, effects = step(PLAIN, Instance(SLOT, want=True), Happening(On.START), 0.5, 1.0)
    assert effects == (Spawn(SLOT, 1),)
    assert instance.state is State.STARTING
    assert run(PLAIN, instance, Happening(On.SPAWNED, pid=7)).state is State.READY


@pytest.mark.parametrize(
    "service",
    [replace(PLAIN, notify=True), replace(PLAIN, probe=Probes(startup=Probe(tcp="listen")))],
)
def test_waits_for_its_word_and_is_killed_without(service: Service) -> None:
    waiting = run(
        service, Instance(SLOT, want=True), Happening(On.START), Happening(On.SPAWNED, pid=7)
    )
    assert waiting.state is State.STARTING
    assert waiting.deadline == 100.0 + service.start_timeout
    killed, effects = step(service, waiting, Happening(On.DEADLINE), 0.5, 200.0)
    assert effects == (Signal(SLOT, 1, "SIGKILL", "all"),)
    assert "not started within 90 s" in killed.verdict
    after = run(service, killed, Happening(On.EXITED, cause=KILLED))
    assert after.last_exit is not None
    assert "not started" in str(after.last_exit)
    assert after.attempt == 1


def test_not_ready_until_the_readiness_probe_says_so() -> None:
    service = replace(PLAIN, probe=Probes(readiness=Probe(tcp="listen")))
    running = up(service)
    assert running.state is State.RUNNING
    ready = run(service, running, Happening(On.READY))
    assert ready.state is State.READY
    assert ready.deadline == running.deadline  # stability counts from the start
    assert run(service, ready, Happening(On.UNREADY)).state is State.RUNNING


def test_crash_restarts_at_once_then_backs_off_then_parks() -> None:
    service = replace(PLAIN, restart=Restart(jitter="none", intensity=Intensity(3, 10.0)))
    instance, states = up(service), []
    for _ in range(4):
        instance = run(service, instance, Happening(On.EXITED, cause=KILLED))
        states.append((instance.state, instance.deadline and instance.deadline - 100.0))
        instance = replace(instance, state=State.STOPPED)
        instance = run(service, instance, Happening(On.START), Happening(On.SPAWNED, pid=8))
    assert [state for state, _ in states] == [
        State.STOPPED,  # and started again in the same step, by the engine
        State.BACKOFF,
        State.BACKOFF,
        State.PARKED,
    ]
    assert [delay for _, delay in states][1:] == [
        pytest.approx(0.1),
        pytest.approx(0.2),
        pytest.approx(60.0),
    ]


def test_stable_for_a_while_starts_the_backoff_anew_but_stays_in_the_window() -> None:
    service = replace(PLAIN, restart=Restart(reset_after=1.0, intensity=Intensity(2, 100.0)))
    instance, now = up(service), 100.0
    for _ in range(2):
        now += 5.0
        instance = run(service, instance, Happening(On.DEADLINE), now=now)
        assert instance.attempt == 0
        instance = run(service, instance, Happening(On.EXITED, cause=KILLED), now=now)
        assert instance.state is State.STOPPED
        start = (Happening(On.START), Happening(On.SPAWNED, pid=8))
        instance = run(service, instance, *start, now=now)
    instance = run(service, instance, Happening(On.EXITED, cause=KILLED), now=now + 5)
    assert instance.state is State.PARKED  # one crash in 5 s, each after a stable time: a loop


def test_an_asked_stop_is_no_crash() -> None:
    stopping, effects = step(PLAIN, up(), Happening(On.STOP, "operator"), 0.5, 100.0)
    assert effects == (GiveTime(SLOT, 1, "SIGTERM"), Signal(SLOT, 1, "SIGTERM"))
    assert stopping.deadline == 100.0 + PLAIN.stop_timeout
    stopped = run(PLAIN, replace(stopping, want=False), Happening(On.EXITED, cause=KILLED))
    assert stopped.state is State.STOPPED
    assert stopped.crashes == ()


def test_stop_timeout_kills_everything_again_and_again() -> None:
    instance = run(PLAIN, up(), Happening(On.STOP))
    for _ in range(3):
        instance, effects = step(PLAIN, instance, Happening(On.DEADLINE), 0.5, 120.0)
        assert effects == (Signal(SLOT, 1, "SIGKILL", "all"),)
        assert instance.deadline == 120.0 + REKILL_S


def test_operators_stop_beats_a_verdict_under_way() -> None:
    condemned = run(PLAIN, up(), Happening(On.UNHEALTHY, "liveness"))
    stopped = run(
        PLAIN,
        replace(condemned, want=False),
        Happening(On.STOP, "operator"),
        Happening(On.EXITED, cause=KILLED),
    )
    assert stopped.state is State.STOPPED


def test_stop_during_the_spawn_kills_what_comes_of_it() -> None:
    starting = run(PLAIN, Instance(SLOT, want=True), Happening(On.START))
    stopping = run(PLAIN, replace(starting, want=False), Happening(On.STOP))
    late, effects = step(PLAIN, stopping, Happening(On.SPAWNED, pid=9), 0.5, 101.0)
    assert effects == (Signal(SLOT, 1, "SIGKILL", "all"),)
    assert late.state is State.STOPPING
    assert run(PLAIN, late, Happening(On.EXITED, cause=KILLED)).state is State.STOPPED


@pytest.mark.parametrize("drain_s", [0.0, 5.0], ids=["signalled", "draining"])
def test_who_is_left_after_the_main_process_has_the_rest_of_the_time(drain_s: float) -> None:
    service = replace(PLAIN, drain_timeout=drain_s, stop_timeout=9.0)
    stopping = run(service, up(service), Happening(On.STOP, "operator"))
    left = run(service, stopping, Happening(On.LEFT, cause=CLEAN), now=103.0)
    assert (left.state, left.phase) == (State.STOPPING, REST)
    assert left.deadline == (109.0 if not drain_s else 112.0)
    killed, effects = step(service, left, Happening(On.DEADLINE), 0.5, 120.0)
    assert effects == (Signal(SLOT, 1, "SIGKILL", "all"),)
    ended = run(service, killed, Happening(On.EXITED, cause=CLEAN))
    assert (ended.state, ended.crashes, ended.reason) == (State.STOPPED, (), "operator")


def test_a_hook_that_stops_the_main_process_leaves_the_rest_all_of_the_time() -> None:
    service = replace(PLAIN, hooks=Hooks(pre_stop=("c",)), stop_timeout=9.0)
    stopping = run(service, up(service), Happening(On.STOP))
    left = run(service, stopping, Happening(On.LEFT, cause=CLEAN), now=103.0)
    assert (left.phase, left.deadline) == (REST, 112.0)
    after, effects = step(service, left, Happening(On.HOOK_DONE, hook=Hook.PRE_STOP), 0.5, 104.0)
    assert (after, effects) == (left, ())


def test_who_is_being_killed_has_no_time_left() -> None:
    condemned = run(PLAIN, up(), Happening(On.UNHEALTHY, "hangs"))
    after, effects = step(PLAIN, condemned, Happening(On.LEFT, cause=KILLED), 0.5, 101.0)
    assert (after, effects) == (condemned, ())


def test_hooks_run_around_start_and_stop() -> None:
    service = replace(PLAIN, hooks=Hooks(("a",), ("b",), ("c",), ("d",)))

    def done(hook: Hook, ok: bool = True) -> Happening:
        return Happening(On.HOOK_DONE, hook=hook, ok=ok, reason="exit 1")

    instance, effects = step(service, Instance(SLOT, want=True), Happening(On.START), 0.5, 1.0)
    assert effects == (RunHook(SLOT, 1, Hook.PRE_START),)
    failed = run(service, instance, done(Hook.PRE_START, ok=False))
    assert failed.last_exit is not None
    assert failed.last_exit.kind is ExitKind.HOOK
    instance, effects = step(service, instance, done(Hook.PRE_START), 0.5, 1.0)
    assert effects == (Spawn(SLOT, 1),)
    instance, effects = step(service, instance, Happening(On.SPAWNED, pid=7), 0.5, 1.0)
    assert effects == (RunHook(SLOT, 1, Hook.POST_START),)
    assert instance.state is State.READY
    instance, effects = step(service, instance, Happening(On.STOP), 0.5, 1.0)
    assert effects == (GiveTime(SLOT, 1, "SIGTERM"), RunHook(SLOT, 1, Hook.PRE_STOP))
    instance, effects = step(service, instance, done(Hook.PRE_STOP, ok=False), 0.5, 1.0)
    assert effects == (Signal(SLOT, 1, "SIGTERM"),)
    instance, effects = step(service, instance, Happening(On.EXITED, cause=CLEAN), 0.5, 1.0)
    assert effects == (RunHook(SLOT, 1, Hook.POST_STOP),)
    assert run(service, instance, done(Hook.POST_STOP)).state is State.STOPPED


def test_crash_with_a_post_stop_hook_is_still_a_crash() -> None:
    service = replace(PLAIN, hooks=Hooks(post_stop=("d",)))
    instance = run(service, up(service), Happening(On.EXITED, cause=KILLED))
    assert instance.state is State.STOPPING
    instance = run(service, instance, Happening(On.HOOK_DONE, hook=Hook.POST_STOP))
    assert len(instance.crashes) == 1


@pytest.mark.parametrize(
    ("policy", "cause", "state"),
    [
        ("always", CLEAN, State.STOPPED),  # wants to run: the engine starts it again
        ("always", KILLED, State.STOPPED),
        ("on-failure", KILLED, State.STOPPED),
        ("on-failure", CLEAN, State.STOPPED),
        ("never", CLEAN, State.STOPPED),
        ("never", KILLED, State.FAILED),
    ],
)
def test_policy(policy: str, cause: ExitCause, state: State) -> None:
    service = replace(PLAIN, restart=Restart(policy=policy))  # type: ignore[arg-type]
    after = run(service, up(service), Happening(On.EXITED, cause=cause))
    assert after.state is state
    again = policy == "always" or (policy == "on-failure" and cause is KILLED)
    assert after.done is (state is State.STOPPED and not again)


def test_drain_then_stop() -> None:
    service = replace(PLAIN, drain_timeout=5.0)
    draining = run(service, up(service), Happening(On.STOP))
    assert draining.state is State.DRAINING
    assert draining.deadline == 105.0
    for event in (On.DRAINED, On.DEADLINE):
        _, effects = step(service, draining, Happening(event), 0.5, 105.0)
        assert effects == (Signal(SLOT, 1, "SIGTERM"),)


def test_who_is_replaced_drains_for_a_moment_though_no_time_is_set() -> None:
    draining = run(PLAIN, up(), Happening(On.STOP, drain_s=1.0))
    assert (draining.state, draining.deadline) == (State.DRAINING, 101.0)
    longer = replace(PLAIN, drain_timeout=5.0)
    assert run(longer, up(longer), Happening(On.STOP, drain_s=1.0)).deadline == 105.0
    running = replace(up(), state=State.RUNNING)  # gets no connections: nothing to wait for
    assert run(PLAIN, running, Happening(On.STOP, drain_s=1.0)).state is State.STOPPING


def test_a_run_goes_on_from_the_highest_number_that_was_used_up() -> None:
    """A successor that failed had one as well."""
    started = run(PLAIN, Instance(SLOT, want=True, run=3, spent=5), Happening(On.START))
    assert (started.run, started.spent) == (6, 6)


def test_the_process_is_started_in_its_lane() -> None:
    _, effects = step(PLAIN, Instance(SLOT, want=True, lane=4), Happening(On.START), 0.5, 100.0)
    assert effects == (Spawn(SLOT, 1, 4),)


def test_what_identifies_a_process_is_known_while_it_lives() -> None:
    start = Happening(On.START), Happening(On.SPAWNED, pid=7, facts={"start": 99})
    alive = run(PLAIN, Instance(SLOT, want=True), *start)
    assert alive.facts == {"start": 99}
    assert run(PLAIN, alive, Happening(On.EXITED, cause=CLEAN)).facts == {}
