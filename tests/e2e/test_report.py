"""`everup report` against what was done to a real everup."""

import os
import re
import signal
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from _everup import SLEEP, Everup, Json, sh

_VOID = frozenset(("meta", "br", "rect", "line", "polyline"))
FAST = {"delay": "10ms", "reset_after": "100ms", "intensity": {"limit": 50, "period": "1s"}}


class Page(HTMLParser):
    """Tags, text and attributes; fails where a tag is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in _VOID or (tag == "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def report(everup: Everup, *arguments: str, expect: int = 0) -> Json:
    found: Json = everup.cli("report", "--json", *arguments, expect=expect).json
    return found


def service(found: Json, name: str) -> Json:
    return next(s for s in found["services"] if s["name"] == name)


def kill(everup: Everup, slot: str, times: int) -> None:
    for _ in range(times):
        pid = everup.pid(slot)
        os.kill(pid, signal.SIGKILL)
        everup.wait_new_pid(slot, pid)
        everup.wait_state(slot, "ready")


def two(everup: Everup) -> None:
    everup.up(
        {
            "web": {"command": SLEEP, "restart": FAST, "slo": {"objective": 99, "window": "1d"}},
            "db": {"command": SLEEP, "restart": FAST, "replicas": 2},
            "idle": {"command": SLEEP, "autostart": False},
        }
    )


def test_it_counts_what_was_done(everup: Everup) -> None:
    two(everup)
    kill(everup, "web.1", 3)
    kill(everup, "db.2", 2)
    found = report(everup)
    assert [s["name"] for s in found["services"]] == ["db", "web"]
    web, db = service(found, "web"), service(found, "db")
    assert web["failures"]["by_kind"] == {"signal": 3}
    assert db["failures"]["by_kind"] == {"signal": 2}
    assert found["whole"]["failures"]["count"] == 5
    assert [i["failures"] for i in db["instances"]] == [0, 2]
    assert web["outages"] == 3
    assert db["outages"] == 0  # one of two went on
    assert db["times"]["down_s"] == 0 < db["times"]["degraded_s"]
    assert db["availability"]["value"] == 1
    assert 0.5 < web["availability"]["value"] < 1
    assert web["repairs"]["total"]["count"] == 3
    assert web["repairs"]["total"]["mean_s"] < 5
    assert web["slo"]["objective"] == 99
    assert web["slo"]["by"] == "time"
    assert web["slo"]["spent"] == pytest.approx(web["times"]["down_s"], abs=0.01)
    exits = everup.events("instance.exited", "web.1")
    assert sorted(i["first_seq"] for i in web["slowest"]) == [e["seq"] for e in exits]


def test_it_agrees_with_the_events_and_goes_on_from_its_checkpoint(everup: Everup) -> None:
    two(everup)
    kill(everup, "web.1", 2)
    first = report(everup, "web")
    (everup.state_dir / "history.json").unlink(missing_ok=True)
    again = report(everup, "web")
    counts = [found["services"][0]["failures"]["count"] for found in (first, again)]
    assert counts == [2, 2]
    kill(everup, "web.1", 1)
    exits, readies = (everup.events(f"instance.{k}", "web.1") for k in ("exited", "ready"))
    down_s = sum(r["mono"] - e["mono"] for e, r in zip(exits, readies[1:], strict=True))
    third = report(everup, "web")
    assert third["services"][0]["times"]["down_s"] == pytest.approx(down_s, abs=1e-4)
    assert [s["name"] for s in third["services"]] == ["web"]


def test_what_was_asked_for_is_maintenance(everup: Everup) -> None:
    two(everup)
    everup.cli("restart", "db")
    everup.cli("stop", "web")
    time.sleep(1.0)
    everup.cli("start", "web")
    found = report(everup)
    web, db = service(found, "web"), service(found, "db")
    assert web["failures"]["count"] == db["failures"]["count"] == 0
    assert 1.0 <= web["times"]["maintenance_s"] < 20
    assert web["times"]["down_s"] == 0
    assert web["availability"]["value"] == 1
    assert db["deploys"] == 1
    assert db["deploys_failed"] == 0


def test_everup_that_is_down(everup: Everup) -> None:
    two(everup)
    kill(everup, "web.1", 1)
    everup.down()
    time.sleep(0.5)
    found = report(everup)
    web = service(found, "web")
    assert web["state"] == "maintenance"
    assert web["failures"]["count"] == 1
    assert web["times"]["maintenance_s"] >= 0.5
    assert web["times"]["unknown_s"] == 0
    everup.up()
    assert service(report(everup), "web")["failures"]["count"] == 1
    assert service(report(everup), "web")["state"] == "up"


def test_an_engine_that_is_killed_costs_nothing(everup: Everup) -> None:
    two(everup)
    old = everup.engine_pid
    everup.kill(old)
    everup.wait_for(lambda: everup.engine_pid != old, "another engine")
    found = report(everup)
    assert found["whole"]["failures"]["count"] == 0
    assert service(found, "web")["times"]["unknown_s"] == 0
    assert found["off_s"] == 0


def test_everup_and_all_that_it_kept_killed_at_once(everup: Everup) -> None:
    two(everup)
    own = everup.own()
    everup.kill(*own.keepers, *own.engines, *(everup.pid(s) for s in ("web.1", "db.1", "db.2")))
    time.sleep(0.5)
    dead = report(everup)
    assert service(dead, "web")["state"] == "unknown"
    assert service(dead, "web")["times"]["unknown_s"] >= 0.5
    everup.up()
    found = report(everup)
    web = service(found, "web")
    assert web["state"] == "up"
    assert web["failures"]["by_kind"] == {"lost": 1}
    assert web["times"]["unknown_s"] >= 0.5
    assert found["off_s"] >= 0.5


def test_a_probe_that_fails(everup: Everup) -> None:
    probe = {"liveness": {"exec": ["test", "!", "-e", str(everup.control / "sick")],
                          "interval": "50ms", "failure_threshold": 3}}  # fmt: skip
    everup.up({"web": {"command": SLEEP, "probe": probe, "restart": FAST}})
    everup.tell("sick")
    verdict = everup.wait_event("instance.unhealthy", "web.1")
    everup.untell("sick")
    everup.wait_event("instance.ready", "web.1", after=verdict["seq"])
    (web,) = report(everup)["services"]
    assert set(web["failures"]["by_kind"]) == {"liveness"}
    incident = web["slowest"][-1]
    assert incident["detect_s"] > 0.05  # from the first probe that failed to the third
    assert incident["kind"] == "liveness"


def test_a_service_that_never_comes_up_is_down(everup: Everup) -> None:
    services = {"web": {"command": sh("exit 3"), "restart": FAST}}
    everup.up(services, arguments=("--timeout", "2"), expect=None)
    (web,) = report(everup)["services"]
    assert web["state"] == "down"
    assert web["open"][0]["kind"] == "exit"
    text = everup.cli("report").out
    assert "web is down now" in text


# -- output


def test_the_text_and_what_to_do_next(everup: Everup) -> None:
    two(everup)
    kill(everup, "web.1", 2)
    text = everup.cli("report").out
    assert "\x1b" not in text
    assert re.search(r"^web +up +\d", text, re.MULTILINE)
    assert re.search(r"^ +2 +signal +█", text, re.MULTILINE)
    assert "SLOWEST RECOVERIES" in text
    follow = re.search(r"everup -c \S+ (events -s \S+ --after \d+)$", text, re.MULTILINE)
    assert follow
    assert "instance.exited" in everup.cli(*follow[1].split()).out.splitlines()[0]
    assert re.search(r"\(next: everup (-c \S+ )?report web\)", text)
    alone = everup.cli("report", "web").out
    assert "INSTANCE" in alone
    assert "2 failures, web up " in alone
    assert re.search(r"^only \S+ of journal so far", alone, re.MULTILINE)
    assert "db" not in alone.replace(str(everup.directory), "")


def test_a_narrow_terminal(everup: Everup) -> None:
    two(everup)
    kill(everup, "web.1", 2)
    everup.environment.pop("COLUMNS", None)  # of the terminal that the tests run in
    wide = everup.cli("report").out
    everup.environment["COLUMNS"] = "80"
    narrow = everup.cli("report").out
    rows = [line for line in narrow.splitlines() if str(everup.config) not in line]
    assert max(map(len, rows)) <= 80 or max(rows, key=len).startswith(("1 of them", "an instance"))
    assert "no room for FAILURES OVER TIME" in narrow
    assert "no room" not in wide
    assert "FAILURES OVER TIME" in wide
    planned = everup.cli("plan").out
    assert max(map(len, wide.splitlines())) > 100
    assert "no room for" in planned


def test_a_oneshot_has_no_availability(everup: Everup) -> None:
    everup.up({"once": {"command": sh("exit 0"), "type": "oneshot"}})
    text = everup.cli("report", "once").out
    assert "nothing to report of once: it was not meant to be up" in text


def test_the_page(everup: Everup, tmp_path: Path) -> None:
    two(everup)
    kill(everup, "web.1", 2)
    everup.up({"web": {"command": SLEEP}, "<b>": {"command": SLEEP}}, expect=None)
    out = tmp_path / "report.html"
    everup.cli("report", "--html", str(out))
    text = out.read_text()
    page = Page(text)
    assert text.startswith("<!doctype html>")
    words = " ".join(page.words)
    assert "web" in words
    assert "Error budget over 24h" in words
    assert page.tags.count("svg") >= 4
    assert f"everup -c {everup.config} events -s web.1 --after" in words
    assert "script" not in page.tags
    assert not [v for n, v in page.attributes if n in ("src", "href") or n.startswith("on")]
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text


def test_names_and_causes_are_escaped(everup: Everup, tmp_path: Path) -> None:
    """Whatever a probe's answer puts into the journal."""
    evil = "<script>alert(1)</script>&\"'"
    probe = {"liveness": {"exec": ["sh", "-c", f"echo '{evil[:25]}'; exit 1"],
                          "interval": "50ms", "failure_threshold": 1}}  # fmt: skip
    everup.up({"web": {"command": SLEEP, "probe": probe}}, expect=None)
    everup.wait_event("instance.unhealthy", "web.1")
    out = tmp_path / "report.html"
    everup.cli("report", "--html", str(out))
    assert "script" not in Page(out.read_text()).tags


# -- what is wrong


def failing(everup: Everup, *arguments: str, expect: int) -> str:
    return everup.cli("report", *arguments, expect=expect).err


def test_nothing_to_read(everup: Everup) -> None:
    everup.write({"web": {"command": SLEEP}})
    text = failing(everup, expect=1)
    assert "there is no journal at" in text
    assert "up -d" in text


def test_nothing_to_say_yet(everup: Everup) -> None:
    everup.up({"web": {"command": SLEEP, "autostart": False}})
    assert "nothing to report yet" in everup.cli("report").out
    assert report(everup)["services"] == []
    assert "nothing is known of web yet" in failing(everup, "web", expect=1)


def test_mistakes(everup: Everup) -> None:
    two(everup)
    for arguments, status, words in (
        (("wep",), 1, "did you mean web?"),
        (("--since", "soon"), 2, "expected 30d (ago)"),
        (("--since", "0d"), 2, "a time before now"),
        (("--since", "2999-01-01"), 2, "a time before now"),
        (("--html", "/proc/nowhere/report.html"), 1, "cannot write"),
    ):
        assert words in failing(everup, *arguments, expect=status)


def test_a_journal_that_is_none(everup: Everup) -> None:
    two(everup)
    everup.down()
    for path in everup.state_dir.glob("journal.db*"):
        path.unlink()
    (everup.state_dir / "journal.db").write_text("x" * 5000)
    assert "cannot read the journal" in failing(everup, expect=1)


def test_since(everup: Everup) -> None:
    two(everup)
    kill(everup, "web.1", 1)
    time.sleep(1.2)
    found: Any = report(everup, "--since", "1s")
    assert service(found, "web")["failures"]["count"] == 0
    assert service(found, "web")["times"]["up_s"] == pytest.approx(1, abs=0.1)
