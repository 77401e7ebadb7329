"""From journal and output to a sentence: tables of failures and what is to be said of them."""

from collections.abc import Sequence
from typing import Any

import pytest

from everup.rooms.locate.causes import Answer, Known, why
from everup.rooms.locate.output import Line

T = 1_000_000.0


def entry(at: float, subject: str, kind: str, **payload: Any) -> dict[str, Any]:
    return {"at": T + at, "subject": subject, "kind": kind, **payload}


def crash(at: float, slot: str, run: int, **cause: Any) -> list[dict[str, Any]]:
    given = {"cause": "exit 1", "exit_kind": "code", "value": 1, "up_s": 0.5} | cause
    return [
        entry(at - 0.5, slot, "instance.starting", run=run),
        entry(at, slot, "instance.exited", run=run, **given),
    ]


def parked(slot: str, **cause: Any) -> list[dict[str, Any]]:
    out = [line for n in range(3) for line in crash(10.0 + n, slot, n + 1, **cause)]
    return [*out, entry(12.0, slot, "instance.parked", run=3, delay_s=60.0, attempt=3)]


def ask(
    subject: str,
    entries: Sequence[dict[str, Any]],
    output: dict[str, list[tuple[float, str]]] | None = None,
    addresses: dict[str, list[str]] | None = None,
) -> Answer:
    def between(slot: str, begin: float, end: float) -> list[Line]:
        said = (output or {}).get(slot, [])
        return [Line(T + at, text) for at, text in said if begin <= T + at <= end]

    known = Known(sorted(entries, key=lambda e: e["at"]), between, addresses or {})
    return why(subject, known)


def test_the_last_error_line_names_the_cause() -> None:
    said = {"web.1": [(11.9, "starting"), (11.95, "ModuleNotFoundError: No module named 'flask'")]}
    answer = ask("web", parked("web.1"), said)
    assert answer.failing
    assert answer.cause is not None
    assert answer.cause.kind == "module"
    assert answer.sentence == (
        "web.1 is parked (it crashed too often), because the module flask is not installed where "
        "it looks"
    )
    assert answer.done == "everup started it again 2 times, tries every 60 s"
    assert answer.since == T + 10.0


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        ({"cause": "out of memory", "exit_kind": "oom", "value": 9}, "memory_limit"),
        ({"cause": "cannot run ./shop: no such file", "exit_kind": "spawn", "value": 0}, "start"),
        ({"cause": "SIGSEGV", "exit_kind": "signal", "value": 11}, "signal"),
        ({"cause": "SIGKILL", "exit_kind": "signal", "value": 9}, "signal"),
        (
            {"cause": "SIGKILL (liveness probe: no answer)", "exit_kind": "signal", "value": 9,
             "killed_for": "liveness probe: no answer"},
            "hung",
        ),
        ({"cause": "exit 78", "exit_kind": "code", "value": 78}, "exit"),
        ({"cause": "exit 0", "exit_kind": "code", "value": 0}, "ended"),
    ],
)  # fmt: skip
def test_how_it_ended_is_a_cause_by_itself(cause: dict[str, Any], kind: str) -> None:
    answer = ask("web.1", parked("web.1", **cause))
    assert answer.cause is not None
    assert answer.cause.kind == kind


def test_a_code_that_means_nothing_is_no_confident_cause() -> None:
    answer = ask("web", parked("web.1", value=3, cause="exit 3"))
    assert answer.cause is None
    assert "no confident cause" in answer.sentence


def test_what_an_operator_stopped_has_not_failed() -> None:
    answer = ask("web", [
        entry(0, "web.1", "instance.starting", run=1),
        entry(1, "web.1", "instance.ready", run=1),
        entry(5, "web.1", "instance.stopping", run=1, reason="stopped by uid 0"),
        entry(6, "web.1", "instance.exited", run=1, cause="SIGTERM", exit_kind="signal", value=15),
        entry(6, "web.1", "instance.stopped", run=1),
    ])  # fmt: skip
    assert not answer.failing
    assert answer.causes == ()


def test_a_refused_connection_leads_to_the_service_behind_the_address() -> None:
    said = {
        "web.1": [(11.9, "ConnectionRefusedError: [Errno 111] Connect call failed "
                         "('127.0.0.1', 5432)")],
        "db.1": [(8.0, "FATAL: could not write lock file: No space left on device")],
    }  # fmt: skip
    entries = [*crash(8.2, "db.1", 1), *parked("web.1")]
    entries.append(entry(8.3, "db.1", "instance.parked", run=1, delay_s=60.0))
    answer = ask("web", entries, said, addresses={"db": ["127.0.0.1:5432"], "web": [":80"]})
    assert answer.cause is not None
    assert answer.cause.kind == "dependency"
    assert "db, which it needs, was down, because the disk is full" in answer.sentence


def test_who_waits_for_a_dependency_points_at_its_cause() -> None:
    said = {"db.1": [(11.9, "OSError: [Errno 24] Too many open files")]}
    entries = [*parked("db.1"), entry(13, "web.1", "instance.waiting", reason="waits for db")]
    answer = ask("web", entries, said)
    assert answer.sentence == (
        "web.1 is not started, because db is not up, because it has too many files or sockets open"
    )
    assert answer.path == ("web", "db")


def test_a_circle_of_waits_comes_to_an_end() -> None:
    entries = [
        entry(1, "a.1", "instance.waiting", reason="waits for b"),
        entry(1, "b.1", "instance.waiting", reason="waits for a"),
    ]
    assert "a.1" in ask("a", entries).sentence


def test_a_change_shortly_before_is_told_beside_the_cause() -> None:
    change = entry(9.0, "everup", "config.reloaded", took_s=0.1)
    said = {"web.1": [(11.9, "SyntaxError: invalid syntax")]}
    answer = ask("web", [change, *parked("web.1")], said)
    assert answer.cause is not None
    assert answer.cause.kind == "syntax"
    assert any("the config was changed 1 s before" in e.text for e in answer.cause.evidence)
    alone = ask("web", [change, *parked("web.1")])
    assert alone.cause is not None
    assert alone.cause.kind == "change"


def test_a_replica_that_serves_is_evidence() -> None:
    well = [entry(0, "web.2", "instance.ready", run=1)]
    answer = ask("web", [*well, *parked("web.1")], {"web.1": [(11.9, "MemoryError")]})
    assert answer.cause is not None
    assert any("web.2 of the same service goes on" in e.text for e in answer.cause.evidence)


def test_failures_long_ago_are_another_story() -> None:
    early = crash(-5000.0, "web.1", 1)
    answer = ask("web", [*early, *parked("web.1")])
    assert answer.since == T + 10.0


def test_who_is_unknown_is_said_to_be() -> None:
    with pytest.raises(LookupError):
        ask("nobody", parked("web.1"))
