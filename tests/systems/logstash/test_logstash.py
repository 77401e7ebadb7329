"""What everup ships arrives at a real Lumberjack server, whatever dies on the way."""

import asyncio
import json
import os
import random
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
from _lumber import Lumber, wait_for

from everup.integrations.logstash.config import Logstash
from everup.integrations.logstash.edge import sender_of
from everup.integrations.logstash.edge.sender import UnreachedError

FEED = str(Path(__file__).parents[1] / "_feed.py")
WINDOW = 200


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="everup-lumber-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def shipper(folder: Path, count: int, pause_s: float = 0.0, **table: Any) -> Any:
    argv = [sys.executable, FEED, "logstash", str(folder / "state"), json.dumps(table), str(count)]
    return subprocess.Popen([*argv, str(pause_s)])


def acknowledged(folder: Path) -> int:
    try:
        text = (folder / "logstash/cursor").read_text()
    except FileNotFoundError:
        return 0
    return int(json.loads(text)["acknowledged"])


def test_nothing_is_lost_over_kills_of_both(folder: Path) -> None:
    """And at most one window comes twice for each kill."""
    kills, count = int(os.environ.get("EVERUP_KILLS", "16")), 20_000
    chance = random.Random(3)
    servers = [Lumber(folder).start(), Lumber(folder)]
    hosts = [server.host for server in servers]
    process = None
    try:
        for turn in range(kills):
            at = acknowledged(folder / "state")
            pause_s = 0.3 * kills / (count / 50)
            process = shipper(folder, count, pause_s, hosts=hosts, window=WINDOW)
            wait_for(lambda at=at: acknowledged(folder / "state") > at, "it goes on")
            time.sleep(chance.random() * 0.1)
            if turn % 2:  # the other one takes over
                servers[turn // 2 % 2].kill()
                servers[1 - turn // 2 % 2].start()
                at = acknowledged(folder / "state")
                wait_for(lambda at=at: acknowledged(folder / "state") > at, "the other takes it")
            process.kill()
            process.wait()
        process = shipper(folder, count, hosts=hosts, window=WINDOW)
        wait_for(lambda: acknowledged(folder / "state") == count, "all is acknowledged")
        numbers = [number for _, number in servers[0].took()]
        assert sorted(set(numbers)) == list(range(1, count + 1))
        doubled = len(numbers) - count
        print(f"{doubled} of {count} came twice over {kills} kills")
        assert doubled <= WINDOW * kills * 3 // 2
        assert len({name for name, _ in servers[0].took()}) == count
    finally:
        for each in (process, *servers):
            if each is not None:
                each.kill()


def why(**table: Any) -> str:
    """Give why one document is not taken."""

    async def work() -> str:
        sender = sender_of(Logstash(**table), lambda path: Path(path).read_bytes())
        try:
            async for _ in sender.send([b"{}"]):
                pass
        except UnreachedError as error:
            return str(error)
        finally:
            sender.close()
        return ""

    return asyncio.run(work())


def test_certificates_of_both_sides(folder: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    for name, issuer in (("server", authority), ("client", authority), ("other", stranger)):
        made = issuer.issue_cert("127.0.0.1", "localhost")
        made.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        made.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    stranger.cert_pem.write_to_path(str(folder / "stranger.pem"))
    server = Lumber(folder, tls=folder).start()
    try:
        table = {"hosts": [server.host], "tls": True, "ca_file": str(folder / "ca.pem")}
        own = {"cert_file": str(folder / "client.pem"), "key_file": str(folder / "client.key")}
        assert "CERTIFICATE_REQUIRED" in why(**table)
        strange = {"ca_file": str(folder / "stranger.pem")}
        assert "its certificate is not trusted" in why(**table | own | strange)
        other = {name: path.replace("client.", "other.") for name, path in own.items()}
        assert "TLS fails" in why(**table | other)
        assert "closed the connection" in why(hosts=table["hosts"], tls=False)
        assert server.took() == []
        process = shipper(folder, 100, **table, **own)
        try:
            wait_for(lambda: acknowledged(folder / "state") == 100, "all is acknowledged")
        finally:
            process.kill()
            process.wait()
        assert [number for _, number in server.took()] == list(range(1, 101))
        server.kill()
        plain = Lumber(folder).start()
        try:
            assert "set logstash.tls = false" in why(**table | {"hosts": [plain.host]})
        finally:
            plain.kill()
    finally:
        server.kill()


def test_a_real_everup_ships_what_happens(everup: Everup, folder: Path) -> None:
    server = Lumber(folder)
    crashing = {
        "command": python("import sys; sys.exit('connection to server at \"db\" failed')"),
        "restart": {"delay": "200ms", "max_delay": "200ms", "intensity": {"limit": 10000}},
    }
    try:
        everup.up(
            {"web": {"command": SLEEP}, "bad": crashing},
            tables={"logstash": {"hosts": [server.host]}},
            observer=True,
            expect=None,
            arguments=["--timeout", "1"],
        )

        def told(kind: str) -> bool:
            found = everup.events(f"detect.{kind}")
            return any(each["condition"] == "unreached" for each in found)

        everup.wait_for(lambda: told("began"), "that it is not reached is told")
        server.start()
        everup.wait_for(lambda: told("ended"), "that it is over is told")
        last = everup.last_seq()
        state = everup.state_dir / "observer"
        everup.wait_for(lambda: acknowledged(state) >= last, "all is shipped")
        numbers = [number for _, number in server.took()]
        journal = [event["seq"] for event in everup.events()]
        assert numbers == journal[: len(numbers)]
        assert server.took("everup.incidents")
        assert "shipped up to event" in everup.cli("logstash", "status").out
        assert "beats {" in everup.cli("logstash", "config").out
    finally:
        server.kill()
