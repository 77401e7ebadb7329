"""What a changed config means: added, removed, changed in place, changed with a restart."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from _bench import LISTEN, READINESS, db, spec_of, web
from hypothesis import given, settings
from hypothesis import strategies as st

from everup.engine.changes import compare
from everup.engine.records import CannotChangeError, Change, Plan
from everup.model.recovery import Recover
from everup.model.spec import (
    Everup,
    Group,
    Hooks,
    Limits,
    Listener,
    Log,
    Probes,
    Restart,
    Rollout,
    Service,
    Slo,
    Spec,
    StormBrake,
    Watchdog,
)

LIVE: dict[str, Any] = {
    "replicas": 5,
    "standby": 2,
    "depends_on": ("db",),
    "probe": READINESS,
    "restart": Restart(delay=3.0),
    "start_timeout": 7.0,
    "stop_signal": "SIGINT",
    "stop_scope": "all",
    "stop_timeout": 7.0,
    "drain_timeout": 7.0,
    "hooks": Hooks(pre_stop=("x",)),
    "log": Log(files=2),
    "autostart": False,
    "overlap": False,
    "rollout": Rollout(batch=2),
    "recover": Recover(mode="watch"),
    "slo": Slo(99.0),
}
"""A change of these, and what it is changed to: no process need know."""
RESTART: dict[str, Any] = {
    "command": ("serve", "v2"),
    "notify": True,
    "watchdog": Watchdog(),
    "environment": {"A": "1"},
    "environment_file": ("x",),
    "pass_environment": ("A_*",),
    "directory": "/srv",
    "user": "nobody",
    "group": "nogroup",
    "umask": "027",
    "nice": 5,
    "limits": Limits(tasks=9),
    "singleton": True,
}
"""These a process is started with."""
COLD: dict[str, Any] = {
    "listen": (Listener("main", "127.0.0.1:9090"),),
    "port": 9000,
    "type": "oneshot",
}
"""These change the sockets or what it is: the one can't run beside the other."""
OLD = spec_of(web(), db())


def change(**keys: Any) -> Change:
    (only,) = compare(OLD, spec_of(replace(web(), **keys), db())).changed
    return only


def test_every_setting_of_a_service_is_in_one_of_the_tables() -> None:
    """A new one must be thought of."""
    names = {f.name for f in fields(Service)} - {"name"}
    tables = (LIVE, RESTART, COLD)
    assert names == {key for table in tables for key in table}
    assert len(names) == sum(map(len, tables))


@pytest.mark.parametrize("key", LIVE)
def test_changed_in_place(key: str) -> None:
    assert change(**{key: LIVE[key]}) == Change("web", (key,), restart=False, cold=False)


@pytest.mark.parametrize("key", RESTART)
def test_changed_with_a_restart(key: str) -> None:
    assert change(**{key: RESTART[key]}) == Change("web", (key,), restart=True, cold=False)


@pytest.mark.parametrize("key", COLD)
def test_changed_with_a_stop(key: str) -> None:
    assert change(**{key: COLD[key]}) == Change("web", (key,), restart=True, cold=True)


def test_keys_are_named_in_the_order_of_the_reference() -> None:
    assert change(stop_timeout=1.0, command=("x",), replicas=9).keys == (
        "command", "replicas", "stop_timeout",
    )  # fmt: skip


@pytest.mark.parametrize(
    "listen",
    [
        (Listener("main", "127.0.0.1:8080", backlog=7),),
        (*LISTEN, Listener("admin", "127.0.0.1:8081")),
        (),
    ],
)
def test_every_change_of_a_listener_is_cold(listen: tuple[Listener, ...]) -> None:
    assert change(listen=listen).cold


def test_added_and_removed() -> None:
    plan = compare(OLD, spec_of(db(), Service("a", ("x",)), Service("b", ("x",))))
    assert plan == Plan(added=("a", "b"), removed=("web",))
    assert plan
    assert plan.restarted == ()


def test_renamed_is_another_one() -> None:
    plan = compare(spec_of(web()), spec_of(replace(web(), name="site")))
    assert (plan.added, plan.removed, plan.changed) == (("site",), ("web",), ())


def test_restarted_are_those_that_need_it() -> None:
    plan = compare(OLD, spec_of(web(nice=1), db(stop_timeout=1.0)))
    assert plan.restarted == ("web",)
    assert [c.service for c in plan.changed] == ["web", "db"]


def test_settings_and_groups_by_name() -> None:
    old = replace(OLD, group={"a": Group("a", ("web",)), "b": Group("b", ("db",))})
    new = replace(
        OLD,
        group={"a": Group("a", ("web", "db")), "c": Group("c", ("db",))},
        everup=Everup(starvation_lag=1.0, storm_brake=StormBrake(limit=0)),
    )
    assert compare(old, new) == Plan(
        settings=(
            "everup.starvation_lag", "everup.storm_brake", "group.a", "group.b", "group.c",
        )
    )  # fmt: skip


def test_another_state_dir_is_refused() -> None:
    with pytest.raises(CannotChangeError, match=r"'\.everup' to '/x': .*everup down and everup up"):
        compare(OLD, replace(OLD, everup=Everup(state_dir="/x")))


# -- for any two configs

_KEYS = {**LIVE, **RESTART, **COLD}


@st.composite
def services(draw: Callable[..., Any], name: str) -> Service:
    keys = draw(st.sets(st.sampled_from(sorted(_KEYS)), max_size=4))
    return replace(Service(name, ("serve",), probe=Probes()), **{key: _KEYS[key] for key in keys})


@st.composite
def specs(draw: Callable[..., Any]) -> Spec:
    names = draw(st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True))
    everup = draw(st.sampled_from([Everup(), Everup(starvation_max=1.0)]))
    group = {"g": Group("g", ("a",))} if draw(st.booleans()) else {}
    return Spec({name: draw(services(name)) for name in names}, group, everup)


@given(specs())
@settings(max_examples=50, deadline=None)
def test_the_same_is_no_change(spec: Spec) -> None:
    assert compare(spec, spec) == Plan()
    assert not compare(spec, spec)


@given(specs(), specs())
@settings(max_examples=100, deadline=None)
def test_every_service_is_in_one_place(old: Spec, new: Spec) -> None:
    plan = compare(old, new)
    changed = [c.service for c in plan.changed]
    same = [n for n in old.service if old.service[n] == new.service.get(n)]
    assert sorted([*plan.added, *changed, *same]) == sorted(new.service)
    assert sorted([*plan.removed, *changed, *same]) == sorted(old.service)
    assert bool(plan) == (old != new)
    for c in plan.changed:
        before, after = old.service[c.service], new.service[c.service]
        assert replace(before, **{key: getattr(after, key) for key in c.keys}) == after
        assert c.restart == any(key not in LIVE for key in c.keys)
        assert c.cold == any(key in COLD for key in c.keys)


@given(specs(), specs())
@settings(max_examples=50, deadline=None)
def test_there_and_back_are_the_same_keys(old: Spec, new: Spec) -> None:
    there, back = compare(old, new), compare(new, old)
    assert there.added == back.removed
    assert sorted(there.changed, key=lambda c: c.service) == sorted(
        back.changed, key=lambda c: c.service
    )
    assert there.settings == back.settings
