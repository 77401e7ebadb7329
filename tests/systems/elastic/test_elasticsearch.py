"""What everup ships is in a real search server, each event once, whatever dies on the way."""

import asyncio
import hashlib
import json
import os
import random
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from _everup import SLEEP, Everup, python
from _feed import MadeUp, entry
from _search import Search, elasticsearch, wait_for

from everup.integrations.elasticsearch.config import Elasticsearch
from everup.integrations.elasticsearch.edge import run
from everup.integrations.elasticsearch.edge.client import Client, UnreachedError
from everup.integrations.elasticsearch.edge.setup import SetupError, recognise, setup
from everup.model.journal import Entry

FEED = str(Path(__file__).parents[1] / "_feed.py")
EVENTS, INCIDENTS = "logs-everup.events-default", "everup-incidents-default"
CRASHING = {
    "command": python("import sys; sys.exit('connection to server at \"db\" failed')"),
    "restart": {
        "delay": "200ms",
        "max_delay": "200ms",
        "jitter": "none",
        "intensity": {"limit": 10000},
    },
}


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="everup-search-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def own(everup: Everup, name: str, but: int = 0) -> int:
    """Give the pid of a process beside the engine, another one than ``but``."""

    def last() -> int:
        told = [e for e in everup.events("observer.started") if e["name"] == name]
        pid = int(told[-1]["pid"]) if told else 0
        return 0 if pid == but else pid

    return int(everup.wait_for(last, f"{name} runs"))


def acknowledged(folder: Path) -> int:
    try:
        return int(json.loads((folder / "elasticsearch/cursor").read_text())["acknowledged"])
    except FileNotFoundError:
        return 0


def settled(everup: Everup) -> None:
    """Wait until all that was journaled before this moment is acknowledged."""
    last, folder = everup.last_seq(), everup.state_dir / "observer"
    everup.wait_for(lambda: acknowledged(folder) >= last, f"event {last} is shipped", 60.0)


def sequences(search: Search) -> list[int]:
    return sorted(hit["_source"]["event"]["sequence"] for hit in search.documents(EVENTS))


def prepared(search: Search, **settings: Any) -> Elasticsearch:
    """Set a server up; give the table that ships to it."""
    table = Elasticsearch(urls=(search.url,), **settings)

    async def work() -> None:
        client = Client(
            table,
            lambda path: Path(path).read_text().split("\n")[0],
            lambda p: Path(p).read_bytes(),
        )
        try:
            said = [line async for line in setup(client, table, 30)]
            again = [line async for line in setup(client, table, 30)]
        finally:
            await client.close()
        assert any("made" in line for line in said), said
        assert not any("made" in line or "changed" in line for line in again), again

    asyncio.run(work())
    return table


async def ship(feed: MadeUp, until: int, folder: Path) -> None:
    """Ship in this process until all up to ``until`` is acknowledged."""
    work = asyncio.create_task(run(feed))
    try:
        for _ in range(3000):
            if acknowledged(folder) >= until or work.done():
                break
            await asyncio.sleep(0.02)
        if work.done():
            await work
        assert acknowledged(folder) >= until, feed.reports
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


def test_a_real_everup_ships_what_happens(everup: Everup, folder: Path) -> None:
    """To OpenSearch with data streams; its observer is killed, and it is killed itself."""
    search = Search("opensearch", folder).start()
    try:
        everup.write(
            {"web": {"command": SLEEP}, "bad": CRASHING},
            tables={"elasticsearch": {"urls": [search.url]}},
            observer=True,
            storm_brake={"limit": 10000},
        )
        everup.up(expect=None, arguments=["--timeout", "1"])

        def told() -> list[str]:
            texts = [event["text"] for event in everup.events("detect.began")]
            return [text for text in texts if "everup elasticsearch setup" in text]

        everup.wait_for(told, "what is to be done is told")
        made = everup.cli("elasticsearch", "setup").out
        assert f"data stream {EVENTS}: made" in made
        settled(everup)
        observer = own(everup, "observer")
        for _ in range(3):
            os.kill(observer, signal.SIGKILL)
            observer = own(everup, "observer", but=observer)
        search.kill()
        before = everup.last_seq()
        everup.wait_for(lambda: everup.last_seq() > before + 20, "it goes on")
        search.start()
        settled(everup)
        found = sequences(search)
        journal = [event["seq"] for event in everup.events()]  # it goes on meanwhile
        assert found == journal[: len(found)]
        first = next(
            hit["_source"]
            for hit in search.documents(INCIDENTS)
            if "bad" in hit["_source"]["everup"]["incident"]["services"]
        )
        assert "connection to server at" in str(first["everup"]["incident"])
        hits = search.ask("GET", f"/{EVENTS}/_search?q=service.name:bad%20AND%20log.level:error")
        assert hits[1]["hits"]["total"]["value"] > 0
        assert "OpenSearch 2.19.6" in everup.cli("elasticsearch", "status").out
    finally:
        search.kill()


@pytest.mark.parametrize("version", ["opensearch", "7.17.29"])
def test_each_event_is_there_once_over_kills(version: str, folder: Path) -> None:
    """kill -9 of who ships and of who takes; requests are limited to 64 KB (413 splits them)."""
    kills, count = int(os.environ.get("EVERUP_KILLS", "6")), 4000
    search = Search(version, folder / "search", {"http.max_content_length": "64kb"}).start()
    shipper: subprocess.Popen[bytes] | None = None
    chance = random.Random(7)
    try:
        table = prepared(search, gzip=False)
        words = json.dumps({"urls": list(table.urls), "gzip": False})
        program = [sys.executable, FEED, "elasticsearch"]
        pause_s = 0.5 * kills / (count / 50)
        for turn in range(kills):
            argv = [*program, str(folder / "state"), words, str(count), str(pause_s)]
            shipper = subprocess.Popen(argv)
            at = acknowledged(folder / "state")
            wait_for(lambda at=at: acknowledged(folder / "state") > at, "it goes on")
            time.sleep(chance.random() * 0.2)
            if turn % 4 == 3:
                search.kill()
            shipper.kill()
            shipper.wait()
            if search.process is None:
                search.start()
        argv[-1] = "0"
        shipper = subprocess.Popen(argv)
        wait_for(lambda: acknowledged(folder / "state") == count, "all is acknowledged")
        assert sequences(search) == list(range(1, count + 1))
    finally:
        if shipper is not None:
            shipper.kill()
            shipper.wait()
        search.kill()


def test_a_document_that_is_refused_holds_up_nothing(folder: Path) -> None:
    search = Search("7.17.29", folder / "search").start()
    try:
        table = prepared(search)
        wrong = {"properties": {"process": {"properties": {"pid": {"type": "long"}}}}}
        assert search.ask("PUT", f"/{EVENTS}/_mapping", wrong)[0] == 200
        feed = MadeUp(folder / "state", {"elasticsearch": table}, 500)

        def made(seq: int) -> Entry:
            return entry(seq) if seq % 100 else entry(seq)._replace(payload={"pid": 1 << 70})

        feed.made = made
        asyncio.run(ship(feed, 500, folder / "state"))
        found = sequences(search)
        assert found == [seq for seq in range(1, 501) if seq % 100]
        lines = (folder / "state/elasticsearch/refused.ndjson").read_text().splitlines()
        letters = [json.loads(line) for line in lines]
        assert [letter["what"] for letter in letters] == [f"event {n}00" for n in range(1, 6)]
        assert "out of range" in letters[0]["reason"]
        ((_, subject, ok, text),) = [r for r in feed.reports if r[1] != "elasticsearch"]
        assert (subject, ok) == ("elasticsearch documents", False)
        assert "refused.ndjson" in text
    finally:
        search.kill()


def test_a_server_under_pressure_gets_everything_in_time(folder: Path) -> None:
    """OpenSearch without memory to spare answers 429 until it has some."""
    search = Search("opensearch", folder / "search").start()
    try:
        table = prepared(search)
        limited = {"transient": {"indices.breaker.total.limit": "1b"}}
        feed = MadeUp(folder / "state", {"elasticsearch": table}, 3000)

        async def work() -> None:
            assert search.ask("PUT", "/_cluster/settings", limited)[0] == 200
            task = asyncio.create_task(ship(feed, 3000, folder / "state"))
            while not feed.reports:
                await asyncio.sleep(0.05)
            assert acknowledged(folder / "state") == 0
            free = {"transient": {"indices.breaker.total.limit": None}}
            while search.ask("PUT", "/_cluster/settings", free)[0] != 200:
                await asyncio.sleep(0.05)
            await task

        asyncio.run(work())
        assert sequences(search) == list(range(1, 3001))
        kinds = [(ok, text.partition(":")[0]) for _, _, ok, text in feed.reports]
        assert kinds == [(False, "nothing is shipped"), (True, "it takes what it is sent")]
    finally:
        search.kill()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with server.pem, server.key and the ca.pem that signed them."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    server.private_key_pem.write_to_path(str(folder / "server.key"))
    server.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    return folder


def test_passwords_keys_and_certificates(folder: Path, certificates: Path) -> None:
    """Elasticsearch 7.17 with its security: a user that may do no more than it must.

    (This distribution cannot make API keys: it lacks the analyzers of that index.)
    """
    search = Search("7.17.29", folder / "search", SECURE)
    config = search.folder / "home/config"
    shutil.copytree(elasticsearch("7.17.29"), search.folder / "home")
    for name in ("server.key", "server.pem"):
        shutil.copy(certificates / name, config / name)
    # Of "secret word", by bcrypt.
    word = "$2a$10$abcdefghijklmnopqrstuurqombnWKmyEJXa.t9eqOAOBQaOVfVRm"
    (config / "users").write_text(f"boss:{word}\nshipper:{word}\n")
    (config / "users_roles").write_text("superuser:boss\neverup:shipper\n")
    (config / "roles.yml").write_text(RIGHTS)
    for name, text in (("password", "secret word\n"), ("wrong", "another\n")):
        (folder / name).write_text(text)
    search.trust(certificates / "ca.pem", "boss", "secret word")
    search.start()
    try:
        urls = (search.url,)
        boss = {"user": "boss", "password_file": str(folder / "password")}
        ca = {"ca_file": str(certificates / "ca.pem")}
        assert said(urls=urls, **ca, user="boss", password_file=str(folder / "wrong")).endswith(
            "the API key or the password is wrong, or is missing"
        )
        assert "is not trusted" in said(urls=urls, **boss)
        assert "has the fingerprint" in said(urls=urls, **boss, fingerprint="ab" * 32)
        plain = search.url.replace("https:", "http:")
        assert "closed the connection" in said(urls=(plain,), **boss)
        der = ssl.PEM_cert_to_DER_cert((certificates / "server.pem").read_text())
        prepared(search, **boss, fingerprint=hashlib.sha256(der).hexdigest())
        words = {"user": "shipper", "password_file": str(folder / "password")}
        table = Elasticsearch(urls=urls, **ca, **words)
        feed = MadeUp(folder / "state", {"elasticsearch": table}, 300)
        asyncio.run(ship(feed, 300, folder / "state"))
        assert sequences(search) == list(range(1, 301))
    finally:
        search.kill()


def said(**words: Any) -> str:
    """Give why a server with such a table is not reached."""

    async def work() -> str:
        client = Client(
            Elasticsearch(**words),
            lambda path: Path(path).read_text().split("\n")[0],
            lambda path: Path(path).read_bytes(),
        )
        try:
            await recognise(client)
        except (SetupError, UnreachedError) as error:
            return str(error)
        finally:
            await client.close()
        return ""

    return asyncio.run(work())


RIGHTS = """everup:
  cluster: [monitor]
  indices:
    - names: ["logs-everup.*", "everup-incidents-*"]
      privileges: [index, view_index_metadata]
"""
SECURE = {
    "xpack.security.enabled": "true",
    "xpack.security.http.ssl.enabled": "true",
    "xpack.security.http.ssl.key": "server.key",
    "xpack.security.http.ssl.certificate": "server.pem",
    "xpack.security.authc.api_key.enabled": "true",
    "xpack.security.authc.realms.file.file1.order": "0",
}
