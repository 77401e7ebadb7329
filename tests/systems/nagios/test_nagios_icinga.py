"""A real Icinga 2 is told by its API."""

import asyncio
import contextlib
import hashlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from _everup import SLEEP, Everup
from _icinga import Icinga
from _nagios import wait_for
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from test_nagios_nsca import free_port
from test_nagios_results import SERVER

from everup.integrations.delivery import ChannelError
from everup.integrations.nagios.command import Result
from everup.integrations.nagios.config import Icinga as Table
from everup.integrations.nagios.edge.icinga import Api
from everup.integrations.nagios.icinga import objects
from everup.integrations.standing import Level


@pytest.fixture
def icinga() -> Iterator[Icinga]:
    """An Icinga that knows of web and db of box."""
    written = objects("box", {"web": ["db"], "db": []}, address="127.0.0.1", beat_s=1.0)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="everup-icinga-"))
        yield stack.enter_context(Icinga(Path(folder), free_port(), written).running())


def tables(everup: Everup, icinga: Icinga) -> dict[str, Any]:
    (everup.directory / "password").write_text("s3cret\n")
    (everup.directory / "ca.crt").write_bytes((icinga.folder / "ca.crt").read_bytes())
    table = {"url": f"https://127.0.0.1:{icinga.port}", "user": "everup"}
    table |= {"password_file": "password", "ca_file": "ca.crt", "server_name": "icinga"}
    found = {key: value for key, value in table.items() if value is not None}
    return {"nagios": {"host": "box", "heartbeat": "1s"}, "nagios.icinga": found}


def unreached(everup: Everup) -> list[tuple[str, str]]:
    found = everup.events("detect.began")
    return [(e["subject"], e["text"]) for e in found if e["condition"] == "unreached"]


def test_an_outage_is_seen_with_its_cause_and_silence_is_noticed(
    everup: Everup, icinga: Icinga
) -> None:
    restart = {"delay": "100ms", "max_delay": "200ms", "jitter": "none"}
    server = {"command": SERVER, "restart": {**restart, "intensity": {"limit": 1000}}}
    services = {
        "web": {**server, "listen": f"127.0.0.1:{everup.port()}"},
        "db": {"command": SLEEP},
    }
    everup.up(services, tables=tables(everup, icinga), observer=True)
    icinga.wait("web", 0, "web is ready")
    icinga.wait("everup", 0, "2 of 2 services serve")
    (everup.directory / "broken").touch()
    everup.kill(everup.pid("web.1"))
    _, said, perf = icinga.wait("web", 2, "because")
    assert "connection to server at" in said
    assert "ready=0" in perf
    # What Icinga does not know of is told, and holds up nothing.
    everup.write(
        services | {"new": {"command": SLEEP}}, tables=tables(everup, icinga), observer=True
    )
    (everup.directory / "broken").unlink()
    everup.cli("reload")
    icinga.wait("web", 0, "web is ready")
    wait_for(lambda: unreached(everup), "the unknown one is told")
    [(subject, text)] = unreached(everup)
    assert (subject, "box!new is not known there" in text) == ("icinga objects", True)
    everup.down()
    icinga.wait("web", 3, "told nothing")


class Told:
    """As much of the feed as a channel needs: secrets, and what it reports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reports: list[tuple[str, bool, str]] = []

    def secret(self, path: str) -> str:
        return "s3cret" if path == "password" else "wrong"

    def secret_bytes(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()

    def report(self, kind: str, subject: str, ok: bool, text: str) -> None:
        self.reports.append((subject, ok, text))


def sent(icinga: Icinga, services: Sequence[str], **more: Any) -> Told:
    """Send a result for each service; raises what the channel does."""
    told = Told(icinga.folder)
    table = {"url": f"https://127.0.0.1:{icinga.port}", "user": "everup"}
    table |= {"password_file": "password", "ca_file": "ca.crt", "server_name": "icinga"} | more

    async def run() -> None:
        api = Api(cast(Any, told), Table(**table), 60)
        try:
            items = [Result("box", name, Level.WARNING, "; slow | x", 1.0) for name in services]
            assert await api.send(items) == len(items)
        finally:
            await api.close()

    asyncio.run(run())
    return told


def test_who_is_not_let_in_or_speaks_to_another(icinga: Icinga) -> None:
    chain = x509.load_pem_x509_certificates((icinga.folder / "icinga.crt").read_bytes())
    own = hashlib.sha256(chain[0].public_bytes(Encoding.DER)).hexdigest()
    bare: dict[str, Any] = {"ca_file": None, "server_name": None}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"password_file": "wrong"}, "Unauthorized"),
        ({"server_name": None}, "is not trusted"),
        ({"ca_file": None}, "is not trusted"),
        ({"fingerprint": "00" * 32, **bare}, f"has the fingerprint {own}"),
        ({"url": f"https://127.0.0.1:{free_port()}"}, "refused"),
    ]
    for more, says in wrong:
        with pytest.raises(ChannelError, match=says):
            sent(icinga, ["web"], **more)
    assert "slow" not in icinga.service("web")[1]
    told = sent(icinga, ["web", "nothing", "db"], fingerprint=own.upper(), **bare)
    assert icinga.service("web")[:2] == (1, ": slow / x")
    assert icinga.service("db")[0] == 1
    [(subject, ok, text)] = told.reports
    assert (subject, ok) == ("icinga objects", False)
    assert text.startswith("box!nothing is not known there")
    began = time.perf_counter()
    sent(icinga, ["web"] * 100)
    print(f"100 results in {time.perf_counter() - began:.2f} s")
