"""What the first screen says, in a real Chromium, of services that a test makes up."""

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _chromium import chromium

sys.path.append(str(Path(__file__).parents[2] / "unit" / "console"))

from _console import FakeFeed, incident, instance, served, service, status

from everup.model.condition import Severity

BACKOFF = instance("db.1", "backoff", last_exit="exit 1", retry_in_s=30.0)
WELL = [service("web", instance("web.1")), service("api", instance("api.1"))]


class Served(threading.Thread):
    """A console with a fake feed, on a loop of its own."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.feed = FakeFeed()
        self.url = ""
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._it: Any = None

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        async with served(self.feed) as self._it:
            self.feed.sessions.ticket("T" * 43, "ada", time.monotonic())
            self.url = self._it.url
            self._ready.set()
            await self._end.wait()

    def __enter__(self) -> "Served":
        self.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self.join(10)

    def show(self, *services: Any, known: Any = (), **more: Any) -> None:
        """Make everything so, and have it told."""

        def change() -> None:
            self.feed.now = status(*services, **more)
            self.feed.known = list(known)
            self._it.hub.wake()

        self._loop.call_soon_threadsafe(change)


@pytest.fixture(scope="module")
def pages() -> Iterator[Any]:
    with chromium() as browser, Served() as console:
        tab = browser.new_context(locale="en-GB").new_page()
        tab.goto(f"{console.url}/#{'T' * 43}")
        tab.wait_for_selector("tbody tr")
        yield tab, console


def over(**more: Any) -> Any:
    found = incident(2, "cache.1 was out of memory")
    at = time.time() - 2.5 * 86400  # tests may take their time: it is two days for long
    found.resolved_at, found.state, found.since = at, "resolved", at - 60.5
    for name, value in more.items():
        setattr(found, name, value)
    return found


def hurting(**more: Any) -> Any:
    found = incident(3, "db.1 is parked, because the disk is full")
    found.since = time.time() - 240
    for name, value in more.items():
        setattr(found, name, value)
    return found


CASES = [
    ("good", "All 2 services are up.", "No incident is known.", WELL, []),
    ("good", "All 2 services are up.", "Last incident 2 d ago, over after 1 min:", WELL, [over()]),
    ("good", "The service is up.", "", WELL[:1], []),
    ("good", "No service is configured.", "", [], []),
    (
        "good", "All 2 services that should run are up; stopped on purpose: old.", "",
        [*WELL, service("old", instance("old.1", "stopped", want=False))], [],
    ),
    (
        "bad", "2 of 3 services are up. db is down.", "",
        [*WELL, service("db", BACKOFF)], [],
    ),
    (
        "warning", "2 of 3 services are up. db is degraded.", "",
        [*WELL, service("db", BACKOFF, instance("db.2"), replicas=2)], [],
    ),
    (
        "bad", "db.1 is parked, because the disk is full.", "the disk is full (90 % sure)",
        [*WELL, service("db", BACKOFF)], [hurting(), over()],
    ),
    (
        "bad", "db.1 is parked, because the disk is full.", "starts db.1 again in",
        [*WELL, service("db", BACKOFF)], [hurting(number=4)],
    ),
    (
        "bad", "db.1 is parked, because the disk is full.", "Taken on by ada",
        [*WELL, service("db", BACKOFF)], [hurting(acknowledged_by="ada", state="acknowledged")],
    ),
    (
        "bad", "db.1 is parked, because the disk is full.", "1 more open",
        [*WELL, service("db", BACKOFF)],
        [hurting(), hurting(number=5, severity=Severity.WARNING, sentence="slow")],
    ),
    (
        "bad", "db.1 is parked, because the disk is full.", "everup would",
        [*WELL, service("db", BACKOFF)], [hurting(proposal="restart db.1")],
    ),
    (
        "warning", "All 2 services are up.", "Incident 3 hurts nobody any more",
        WELL, [hurting(state="mitigated")],
    ),
    (
        "warning", "db.1 is parked, because the disk is full.", "No confident cause yet",
        [*WELL, service("db", instance("db.1"))], [hurting(severity=Severity.WARNING, reason=None)],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("tone", "text", "also", "services", "known"), CASES)
def test_the_sentence(
    pages: Any, tone: str, text: str, also: str, services: Any, known: Any
) -> None:
    tab, console = pages
    console.show(*services, known=known)
    tab.locator(f".banner.{tone} h1", has_text=text).wait_for(timeout=10_000)
    tab.locator(".banner", has_text=also).wait_for(timeout=10_000)
    assert tab.inner_text(".banner h1") == text
    assert tab.title().startswith("everup" if tone == "good" else "●")


def test_what_is_not_well_comes_first_and_a_filter_finds_it(pages: Any) -> None:
    tab, console = pages
    many = [service(f"s{n:03d}", instance(f"s{n:03d}.1")) for n in range(300)]
    console.show(*many, service("db", BACKOFF))
    tab.locator("tbody tr").nth(300).wait_for()
    assert tab.locator("tbody th").first.inner_text() == "db"
    tab.keyboard.press("/")
    tab.keyboard.type("s29")
    tab.wait_for_function("() => document.querySelectorAll('tbody tr').length === 10")
    tab.fill(".filter", "no such")
    tab.get_by_text("Nothing fits.").wait_for()
    tab.fill(".filter", "")


def test_an_engine_that_is_away_and_a_journal_that_is_not_written(pages: Any) -> None:
    tab, console = pages
    console.show(*WELL, journal_degraded=True, journal_degraded_reason="No space left on device")
    tab.locator(".link-lost", has_text="No space left on device").wait_for()
    console.feed.away = True
    console.show(*WELL)
    tab.locator(".link-lost", has_text="engine does not answer").wait_for(timeout=10_000)
    console.feed.away = False
    console.show(*WELL)
    tab.locator(".link-lost").wait_for(state="hidden", timeout=10_000)


def test_a_language_is_changed_at_once_and_kept(pages: Any) -> None:
    tab, console = pages
    console.show(*WELL)
    tab.get_by_role("button", name="中文").click()
    tab.locator(".banner h1", has_text="全部 2 个服务正常。").wait_for()
    assert tab.get_attribute("html", "lang") == "zh-CN"
    tab.reload()
    tab.locator(".banner h1", has_text="全部 2 个服务正常。").wait_for()
    tab.get_by_role("button", name="English").click()
    tab.locator(".banner h1", has_text="All 2 services are up.").wait_for()
