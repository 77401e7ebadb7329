"""``everup plan``: before anything ran, and against a run with real kills."""

import contextlib
import json
import math
import os
import random
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from _everup import SLEEP, Everup

SITE = {
    "db": {"command": SLEEP},
    "web": {
        "command": SLEEP,
        "listen": "127.0.0.1:8099",
        "replicas": 2,
        "depends_on": ["db"],
        "probe": {"liveness": {"http": "/"}},
    },
}


def test_before_anything_ran(everup: Everup) -> None:
    everup.write(SITE)
    done = everup.cli("plan")
    assert "nothing measured" in done.out
    assert "a hang of db is never detected" in done.err
    assert "nothing detects its hangs: add a liveness probe" in done.out
    assert "assumed" in done.out
    assert "(next: everup" in done.out
    assert not everup.state_dir.exists()
    found = everup.cli("plan", "--json").json
    assert (found["version"], found["since"], found["measured_s"]) == (1, "90d", 0.0)
    assert found["plan"]["scope"] == ""
    assert {s["name"] for s in found["plan"]["services"]} == {"db", "web"}
    assert found["without_what_if"] is None
    assert found["target"] is None
    assert all(a["source"] in ("assumed", "config") for a in found["plan"]["assumptions"])
    assert everup.cli("plan", "--json").json == found


def test_what_if_and_target(everup: Everup) -> None:
    everup.write(SITE)
    arguments = (
        "--mttf",
        "db=30d",
        "--mttr",
        "db=10s",
        "--replicas",
        "web=1",
        "--standby",
        "web=1",
    )
    found = everup.cli("plan", *arguments, "--target", "99.9999", "--json").json
    db = found["plan"]["services"][0]
    assert db["availability"]["value"] == pytest.approx(2_592_000 / 2_592_010, abs=1e-12)
    web = next(s for s in found["plan"]["services"] if s["name"] == "web")
    assert (web["replicas"], web["standby"]) == (1, 1)
    assert found["what_if"]["replicas"] == {"web": 1}
    before = found["without_what_if"]["downtime_s_per_year"]["value"]
    assert before > found["plan"]["downtime_s_per_year"]["value"]
    assert found["target"]["reached"]
    assert found["target"]["after"] >= 0.999999
    shown = everup.cli("plan", "web", *arguments, "--target", "99.9999%").out
    assert "what if: " in shown
    assert "the target of 99.9999 %" in shown
    unreachable = everup.cli("plan", "--target", "99.99999999").out
    assert "not reached" in unreachable
    assert "common cause" in unreachable


def test_what_if_a_service_was_there(everup: Everup) -> None:
    everup.write({**SITE, "off": {"command": SLEEP, "replicas": 0}})
    found = everup.cli("plan", "off", "--replicas", "off=2", "--mttf", "off=9d", "--json").json
    assert found["plan"]["services"][0]["mttf_s"] == pytest.approx(9 * 86400)
    assert found["without_what_if"] is None
    assert "has no replicas" in everup.cli("plan", "off", expect=2).err
    assert "has no replicas" in everup.cli("plan", "--mttf", "off=9d", expect=2).err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("wob",), ("'wob'", "did you mean web?")),
        (("--replicas", "wbe=3"), ("--replicas wbe=3", "did you mean web?")),
        (("--replicas", "web"), ("--replicas web", "SERVICE=VALUE")),
        (("--replicas", "web=0"), ("--replicas web=0", "from 1 to 1000")),
        (("--standby", "web=x"), ("--standby web=x", "from 0 to 100")),
        (("--mttr", "db=10"), ("--mttr db=10", "a unit")),
        (("--mttf", "db=0"), ("--mttf db=0", "above 0")),
        (("--coverage", "db=2"), ("--coverage db=2", "0 to 1")),
        (("--common-cause", "web=nan"), ("--common-cause web=nan", "0 to 1")),
        (("--target", "100"), ("--target 100", "below 100")),
        (("--target", "many"), ("--target many", "99.99")),
        (("--since", "yesterday"), ("--since yesterday", "30d")),
    ],
)
def test_errors_say_what_is_valid(
    everup: Everup, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    everup.write(SITE)
    done = everup.cli("plan", *arguments, expect=2)
    assert all(word in done.err for word in words), done.err
    assert not done.out


def test_a_config_with_nothing_to_plan(everup: Everup) -> None:
    everup.write({"once": {"command": ["true"], "type": "oneshot"}})
    assert "no service that is to be up" in everup.cli("plan", expect=2).err
    everup.config.write_text("[service.web]\ncommand = 3\n")
    assert "is not valid" in everup.cli("plan", expect=2).err


# -- against a run with real kills

MTTF_S = 1.0
RUN_S = 14.0
SEED = 11


class Killer(threading.Thread):
    """Kills each replica after it was ready for an exponential time, until it is told to stop."""

    def __init__(self, everup: Everup, seed: int) -> None:
        super().__init__(daemon=True)
        self._everup, self._enough = everup, threading.Event()
        self.kills: dict[str, int] = {}
        slots = sorted(everup.instances())
        # A stream of its own for each: how long a start takes then moves no other's times.
        self._up = {slot: self._times(f"{seed} {slot}") for slot in slots}
        self._due: dict[str, tuple[int, float]] = {}

    @staticmethod
    def _times(seed: str) -> Iterator[float]:
        """Each pair of two mirrored ones, so that a few have nearly the mean of many."""
        rng = random.Random(seed)
        while True:
            u = rng.random()
            yield exponential(u)
            yield exponential(1 - u)

    def run(self) -> None:
        while not self._enough.wait(0.03):
            now = time.monotonic()
            for slot, instance in self._everup.instances().items():
                pid = instance["pid"]
                if instance["state"] != "ready" or pid is None:
                    continue
                if self._due.get(slot, (0, 0.0))[0] != pid:
                    self._due[slot] = (pid, now + next(self._up[slot]))
                elif now >= self._due[slot][1]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    self.kills[slot] = self.kills.get(slot, 0) + 1
                    self._due[slot] = (pid, float("inf"))

    def stop(self) -> None:
        self._enough.set()
        self.join(30.0)


def exponential(u: float) -> float:
    return -MTTF_S * math.log(max(u, 1e-9))


def test_the_prediction_holds_for_real_processes_that_are_killed(everup: Everup) -> None:
    """The rates are those of the kills; the repair times are measured, as the machine gives them.
    Measured and predicted are of the same time."""
    probe = {"readiness": {"http": "/readyz", "interval": "50ms", "timeout": "2s"}}
    often = {
        "delay": "0s", "reset_after": "0s", "intensity": {"limit": 10000, "period": "1s"},
    }  # fmt: skip
    one = everup.server(listen=f"127.0.0.1:{everup.port()}", probe=probe, restart=often)
    two = everup.server(listen=f"127.0.0.1:{everup.port()}", probe=probe, restart=often, replicas=2)
    everup.up({"one": one, "two": two}, storm_brake={"limit": 0})
    killer = Killer(everup, SEED)
    killer.start()
    try:
        time.sleep(RUN_S)
        report = everup.cli("report", "--json").json
        mttr = {s["name"]: s["repairs"]["total"]["mean_s"] for s in report["services"]}
        arguments: list[str] = ["--common-cause", "two=0"]
        for name, mean_s in mttr.items():
            arguments += ["--mttf", f"{name}={MTTF_S}s", "--mttr", f"{name}={mean_s:.3f}s"]
        found = everup.cli("plan", *arguments, "--json").json
    finally:
        killer.stop()
    assert all(count >= 5 for count in killer.kills.values()), killer.kills
    services = {s["name"]: s for s in found["plan"]["services"]}
    for name, service in services.items():
        compared = service["comparison"]
        assert compared is not None
        assert compared["inside"], (name, mttr, killer.kills, json.dumps(compared))
        assert compared["predicted"]["high"] > compared["predicted"]["low"]
    # The interval is no wide guess: some downtime is certain, and most of the time is not lost.
    one_of = services["one"]["comparison"]["predicted"]
    assert 0.3 < one_of["low"] < one_of["high"] < 1
    assert services["two"]["alone"]["value"] > services["one"]["alone"]["value"]
    assert found["plan"]["comparison"]["inside"]
    shown = everup.cli("plan", *arguments).out
    assert "COMPARED" in shown
    # By what the journal itself has: the rates are then measured ones.
    assert "measured" in everup.cli("plan").out
