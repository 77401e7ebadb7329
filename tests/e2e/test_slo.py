"""Alerts on the error budget of a real service, and what the next engine knows of them."""

import asyncio
import time
from pathlib import Path

from _everup import SLEEP, Everup, sh

from everup.daemon import memory

QUICK = {"interval": "20ms", "timeout": "5s", "failure_threshold": 1}
DOWN_S = 0.3


def outage(everup: Everup, slot: str = "web.1") -> None:
    everup.tell("unready")
    everup.wait_state(slot, "running")
    time.sleep(DOWN_S)
    everup.untell("unready")
    everup.wait_state(slot, "ready")


def test_a_budget_that_burns_is_told_once(everup: Everup) -> None:
    """0.17 s an hour is what 99.99 % of a day allows before somebody is to look."""
    web = {
        "command": SLEEP,
        "probe": {"readiness": {"exec": sh("test ! -e control/unready"), **QUICK}},
        "slo": {"objective": 99.99, "window": "1d"},
    }
    everup.up({"web": web})
    outage(everup)
    assert everup.events("slo.burning") == []  # one outage is told as what it is
    outage(everup)
    burning = everup.wait_event("slo.burning", "web", window_s=3600.0)
    assert burning["urgency"] == "page"
    assert burning["outages"] == 2
    assert burning["burn_rate"] >= burning["threshold"]
    everup.kill(everup.own().engine)
    everup.wait_for(lambda: everup.own().engine, "another engine")
    history = Path(everup.place.state_dir) / "history.json"
    everup.wait_for(history.exists, "the history was read")
    outage(everup)
    windows = [e["window_s"] for e in everup.events("slo.burning", "web")]
    assert sorted(set(windows)) == sorted(windows)
    assert everup.events("slo.calm") == []
    began = time.monotonic()
    told = asyncio.run(memory.remember(everup.place, ["web", "nobody"], 3600))
    ((name, spans),) = told.spans
    assert name == "web"
    down = [until - since for since, until, up in spans if not up]
    assert len(down) == 3
    assert min(down) >= DOWN_S
    assert spans[-1][2]
    assert abs(spans[-1][1] - began) < 60  # by the monotonic clock


def test_no_journal_no_memory(everup: Everup) -> None:
    assert asyncio.run(memory.remember(everup.place, ["web"], 3600)).spans == ()
