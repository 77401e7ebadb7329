"""The console in a real Chromium, served by a real everup."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _chromium import axe, chromium
from _everup import Everup, UnixConnection

SCRIPT = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
SERVER = f"""
import os, socket, sys
if os.path.exists("broken-" + sys.argv[1]):
    sys.exit("OSError: [Errno 28] No space left on device")
print({SCRIPT!r} + "\\x1b[31mred\\x1b[0m", flush=True)
s = socket.socket(fileno=3)
while True:
    s.accept()[0].close()
"""
OFTEN = {"delay": "200ms", "max_delay": "200ms", "jitter": "none", "intensity": {"limit": 500}}
NAMES = ("api", "db", "web")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as it:
        yield it


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everup]:
    """One everup with a console, for all of these tests."""
    everup = Everup(tmp_path_factory.mktemp("console"))
    try:
        (everup.directory / "server.py").write_text(SERVER)
        services: dict[str, dict[str, Any]] = {
            name: {
                "command": [sys.executable, "-S", "-E", "server.py", name],
                "listen": f"127.0.0.1:{everup.port()}",
                "restart": OFTEN,
                "environment": {"API_TOKEN": "hunter2"},
            }
            for name in NAMES
        }
        services["db"]["restart"] = OFTEN | {"delay": "4s", "max_delay": "4s"}
        services["web"] |= {"replicas": 2, "depends_on": ["api"]}
        services["deaf"] = {
            "command": [sys.executable, "-S", "-E", "-c", "import time; time.sleep(1000)"],
            "listen": {"main": {"address": f"127.0.0.1:{everup.port()}", "backlog": 4}},
            "recover": {"mode": "ask", "ladder": ["restart"], "wait": "1s"},
            "probe": {"startup": {"exec": ["true"], "interval": "50ms"}},
            "autostart": False,
        }
        console = {"listen": f"127.0.0.1:{everup.port()}"}
        everup.up(services, observer=True, tables={"console": console})
        yield everup
    finally:
        everup.close()


def link(it: Everup) -> str:
    return str(it.cli("console", "--json").json["link"])


class Page:
    """A tab that has opened the console, and what went wrong in it."""

    def __init__(self, browser: Any, it: Everup, **context: Any) -> None:
        size = {"width": 1280, "height": 900}
        self.context = browser.new_context(**{"viewport": size, "locale": "en-GB", **context})
        self.tab = self.context.new_page()
        self.wrong: list[str] = []
        self.elsewhere: list[str] = []
        self.tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.tab.on("console", self._said)
        self.url = link(it)
        self.origin = self.url.partition("#")[0]
        self.tab.on("request", self._asked)
        self.tab.goto(self.url)
        self.tab.wait_for_selector("tbody tr")

    def _said(self, message: Any) -> None:
        # An answer that is none is told by the browser itself, and is no fault of the page.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.wrong.append(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(self.origin):
            self.elsewhere.append(request.url)

    def go(self, place: str) -> None:
        self.tab.evaluate("place => { location.hash = place }", place)

    def wait(self, script: str) -> None:
        self.tab.wait_for_function(script, timeout=20_000)

    def says(self, selector: str, text: str, patience_s: float = 20) -> None:
        self.tab.locator(selector, has_text=text).first.wait_for(timeout=1000 * patience_s)

    def close(self) -> None:
        self.context.close()
        assert self.wrong == []
        assert self.elsewhere == []


@pytest.fixture
def open_page(browser: Any, it: Everup) -> Iterator[Callable[..., Page]]:
    pages: list[Page] = []

    def opened(**context: Any) -> Page:
        pages.append(Page(browser, it, **context))
        return pages[-1]

    yield opened
    for page in pages:
        page.close()


def test_a_link_is_good_once_and_leaves_no_secret_behind(
    it: Everup, open_page: Callable[..., Page], browser: Any
) -> None:
    page = open_page()
    secret = page.url.partition("#")[2]
    page.wait("() => document.querySelectorAll('tbody tr.up').length === 3")
    assert page.tab.url == f"{page.origin}#/"
    assert secret not in page.tab.evaluate("() => JSON.stringify(localStorage) + document.cookie")
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"] is True
    assert cookie["sameSite"] == "Strict"
    page.tab.reload()
    page.says(".link", "Live")

    other = browser.new_context().new_page()
    other.goto(page.url)
    other.wait_for_selector(".out")
    assert "used, or is too old" in other.inner_text(".failed")
    other.fill("#link", link(it))
    other.keyboard.press("Enter")
    other.wait_for_selector("tbody tr")
    other.get_by_role("button", name="Sign out").click()
    other.wait_for_selector(".out")
    other.context.close()


def test_a_failure_is_told_with_its_cause_and_over_when_it_is(
    it: Everup, open_page: Callable[..., Page]
) -> None:
    page = open_page()
    broken = it.directory / "broken-db"
    broken.touch()
    os.kill(it.pid("db.1"), signal.SIGKILL)
    page.says(".banner h1", "because the disk is full")
    page.says("tr.down th", "db")
    assert "●" in page.tab.title()
    page.tab.get_by_role("button", name="Acknowledge").click()
    page.tab.keyboard.type("I make room <b>now</b>")
    page.tab.keyboard.press("Enter")
    page.says(".banner", "Taken on by")
    (ack,) = it.events("incidents.acknowledged")
    assert ack["note"] == "I make room <b>now</b>"
    page.tab.locator(".banner h1 a").click()
    page.says("h2", "Evidence")
    page.says(".evidence li", "No space left on device")
    page.says(".entries li", "somebody has taken it on")
    page.tab.get_by_role("button", name="Silence").click()
    page.tab.get_by_label("For how long").select_option(label="4h")
    page.tab.get_by_label("Reason").fill("it is known")
    page.says("dialog code", "--for 4h --why 'it is known'")
    page.tab.keyboard.press("Enter")
    page.says(".entries li", "somebody wants silence")
    (silenced,) = it.events("notify.silenced", str(ack["number"]))
    assert silenced["why"] == "it is known"
    assert 4 * 3600 - 60 < silenced["until"] - time.time() <= 4 * 3600
    broken.unlink()
    # What crashed again and again is watched for a while before that counts as over.
    page.says(".banner", "over", patience_s=90)
    page.go("#/")
    page.says("tr.up th", "db")


def test_acts_have_a_reason_and_show_their_command(
    it: Everup, open_page: Callable[..., Page]
) -> None:
    page = open_page()
    old = it.pid("api.1")
    page.tab.locator("tbody th a", has_text="api").focus()
    page.tab.keyboard.press("Enter")
    page.says(".banner h1", "api")
    page.tab.locator(".banner").get_by_role("button", name="Restart").focus()
    page.tab.keyboard.press("Enter")
    dialog = page.tab.locator("dialog")
    assert f"everup -c {it.config} restart api" in dialog.inner_text()
    page.tab.keyboard.press("Enter")
    assert dialog.count() == 1, "there is no act without a reason"
    page.tab.keyboard.type("new certificates")
    page.tab.keyboard.press("Enter")
    it.wait_new_pid("api.1", old)
    (acted,) = it.events("console.acted", "api")
    assert (acted["command"], acted["why"]) == ("restart", "new certificates")
    wanted = it.events("rollout.started", "api")[-1]
    assert wanted["by"].endswith("in the console: new certificates")
    page.tab.wait_for_selector("dialog", state="detached")

    page.tab.locator(".banner").get_by_role("button", name="Stop").click()
    assert "These need it: web." in page.tab.locator("dialog").inner_text()
    page.tab.keyboard.press("Escape")
    page.go("#/service/db")
    page.says(".banner h1", "db")
    page.tab.locator(".banner").get_by_role("button", name="Stop").click()
    page.tab.keyboard.type("maintenance")
    page.tab.keyboard.press("Enter")
    page.says(".banner .chip", "Stopped")
    page.go("#/")
    page.says("tr.stopped th", "db")
    it.cli("start", "db")
    page.says("tr.up th", "db")


def test_what_everup_proposes_is_approved(it: Everup, open_page: Callable[..., Page]) -> None:
    """A server that lives and accepts nothing, whose ladder asks first."""
    page = open_page()
    it.cli("start", "deaf")
    old = it.pid("deaf.1")
    address = it.service("deaf")["addresses"][0].partition(":")
    waiting = [socket.socket() for _ in range(12)]
    try:
        for client in waiting:
            client.setblocking(False)
            client.connect_ex((address[0], int(address[2])))
        # A machine that is starved of CPU makes everup wait with its verdicts.
        (proposed,) = it.wait_for(lambda: it.events("recover.proposed"), "it proposes", 120)
        page.go(f"#/incident/{proposed['number']}")
        page.says(".banner", "everup would")
        page.tab.locator(".banner").get_by_role("button", name="Approve").click()
        assert "everup -c " in page.tab.locator("dialog code").inner_text()
        page.tab.keyboard.type("go on")
        page.tab.keyboard.press("Enter")
        it.wait_new_pid("deaf.1", old)
    finally:
        for client in waiting:
            client.close()
    (answered,) = it.events("recover.answered")
    assert (answered["yes"], answered["note"]) == (True, "go on")
    it.cli("stop", "deaf")


def test_text_of_services_is_text(it: Everup, open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.go("#/service/web")
    page.says(".output", "<script>window.hacked=1</script>")
    assert "\\x1b" not in page.tab.inner_text(".output")
    page.says(".config", 'API_TOKEN = "********"')
    assert "hunter2" not in page.tab.content()
    page.go(f"#/events?text={SCRIPT}")
    page.says(".entries", "Nothing fits.")
    page.go("#/events?kind=instance.*&subject=web&text=ready")
    page.says(".entries li", "is ready")
    page.go("#/events?kind=nonsense")
    page.says(".failed", "there is no kind of event")
    page.go("#/service/%3Cscript%3E")
    page.says("h1", "There is no service <script> any more.")
    assert page.tab.evaluate("() => window.hacked") is None
    blocked = page.tab.evaluate(
        "() => { try { document.body.innerHTML = 'x'; } catch (e) { return e.name; } }"
    )
    assert blocked == "TypeError", "the browser itself refuses markup"
    assert [text for text in page.wrong if "TrustedHTML" not in text] == []
    page.wrong.clear()


def test_it_goes_on_over_the_death_of_observer_and_engine(
    it: Everup, open_page: Callable[..., Page]
) -> None:
    page = open_page()
    page.says(".link", "Live")
    told = it.events("observer.started")
    observer = [e["pid"] for e in told if e["name"] == "observer"][-1]
    os.kill(observer, signal.SIGSTOP)
    try:
        os.kill(it.engine_pid, signal.SIGKILL)
    finally:
        os.kill(observer, signal.SIGKILL)
    page.says(".link", "No connection")
    page.says(".link", "Live")
    old = it.pid("web.1")
    os.kill(old, signal.SIGKILL)
    it.wait_new_pid("web.1", old)
    page.says(".entries li .subject", "web.1")
    engine = it.engine_pid
    os.kill(engine, signal.SIGKILL)
    it.wait_for(lambda: it.status()["engine"]["pid"] != engine, "another engine runs")
    page.go("#/service/api")
    page.tab.locator(".banner").get_by_role("button", name="Restart").click()
    page.tab.keyboard.type("the session outlives the engine")
    old = it.pid("api.1")
    page.tab.keyboard.press("Enter")
    it.wait_new_pid("api.1", old)


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize(("locale", "word"), [("en-GB", "Up"), ("zh-CN", "正常")])
def test_a_phone(open_page: Callable[..., Page], scheme: str, locale: str, word: str) -> None:
    size = {"width": 360, "height": 740}
    page = open_page(viewport=size, color_scheme=scheme, locale=locale, timezone_id="Asia/Tokyo")
    page.says("tbody .chip", word)
    for place in ("#/", "#/service/web", "#/events", "#/incidents"):
        page.go(place)
        page.tab.wait_for_selector("h1")
        wide = page.tab.evaluate("() => document.documentElement.scrollWidth")
        assert wide <= size["width"], place
    page.go("#/")
    shown = page.tab.locator(".entries time").first
    at = time.gmtime(
        page.tab.evaluate("() => Date.parse(document.querySelector('.entries time').dateTime)")
        / 1000
        + 9 * 3600
    )
    assert time.strftime("%H:%M:%S", at) in shown.inner_text()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_a_screen_reader_finds_its_way(open_page: Callable[..., Page], scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    script = axe()
    for place in ("#/", "#/service/web", "#/events", "#/incidents", "#/incident/1"):
        page.go(place)
        page.tab.wait_for_selector("h1")
        page.tab.wait_for_timeout(300)
        page.tab.evaluate(script)
        found = page.tab.evaluate("() => axe.run(document)")["violations"]
        serious = [
            (place, v["id"], [n["html"][:120] for n in v["nodes"]][:3])
            for v in found
            if v["impact"] in ("serious", "critical")
        ]
        assert serious == []


def test_the_observer_may_bring_acts_and_has_none_of_its_own(it: Everup) -> None:
    path = str(it.place.observer_socket)
    nobody = {
        "session": "A" * 43,
        "token": "B" * 43,
        "command": "stop",
        "target": "api",
        "why": "x",
    }
    assert _post(path, "/v1/console/ticket", {"user": "root"})[0] == 403
    for what in ("act", "session", "close"):
        assert _post(path, f"/v1/console/{what}", nobody)[0] == 403
    assert _post(path, "/v1/console/redeem", {"ticket": "guessed"})[0] == 403
    assert _post(path, "/v1/stop", {"targets": ["api"]})[0] == 403
    ticket = json.loads(it.request("POST", "/v1/console/ticket", {"user": "ada"})[1])["ticket"]
    status, secrets = _post(path, "/v1/console/redeem", {"ticket": ticket})
    assert status == 200
    mine = {**nobody, "session": secrets["session"], "token": secrets["token"]}
    for wrong in (
        {"command": "down"},
        {"command": "scale"},
        {"target": "no"},
        {"target": None},
        {"why": ""},
        {"command": "silence", "number": 1, "for_s": 1},
        {"command": "ack", "number": "1"},
        {"why": "x" * 501},
    ):
        status, answer = _post(path, "/v1/console/act", mine | wrong)
        assert status in (400, 404), (wrong, answer)
    assert _post(path, "/v1/console/act", mine | {"command": "start"})[0] == 200
    assert it.events("service.wanted", "api")[-1]["by"] == "ada in the console: x"
    assert _post(path, "/v1/console/close", mine)[0] == 200
    assert _post(path, "/v1/console/act", mine)[0] == 403


def _post(path: str, target: str, body: Any) -> tuple[int, Any]:
    connection = UnixConnection(path)
    try:
        connection.request("POST", target, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_the_command_says_what_is_missing(everup: Everup) -> None:
    everup.up({"a": {"command": ["sleep", "1000"]}}, observer=True)
    answer = everup.cli("console", expect=1)
    assert "there is no console: the config does not say where" in answer.err
    assert "[console] listen" in answer.err
    where = {"listen": f"127.0.0.1:{everup.port()}"}
    everup.write({"a": {"command": ["sleep", "1000"]}}, observer=True, tables={"console": where})
    everup.cli("reload")
    assert everup.cli("console").out.startswith(f"http://{where['listen']}/#")
    assert Path(everup.place.state_dir).exists()
