"""The real ``check_nrpe`` asks everup's observer."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme
from _everup import SLEEP, Everup
from _nagios import environment, packages, wait_for

from everup.integrations.nagios.edge.door import MOST_CONNECTIONS

CHECK_EVERUP = Path(sys.executable).with_name("check_everup")
BROKEN = {"command": ["sh", "-c", "echo cannot write: No space left on device >&2; exit 3"]}
VERSIONS = ([], ["-3"], ["-2"])


class Client:
    """check_nrpe 4.1.0, told of one server."""

    def __init__(self, port: int, *options: str) -> None:
        self.port = port
        self._options = options

    def ask(self, *arguments: str) -> tuple[int, str]:
        root = packages()
        argv = [str(root / "usr/lib/nagios/plugins/check_nrpe"), "-H", "127.0.0.1", "-E", "-D"]
        argv += ["-p", str(self.port), "-t", "8", *self._options, *arguments]
        env = environment(root)
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    def wait(self) -> None:
        """Until the server is there."""
        wait_for(lambda: self.ask()[1].startswith("EVERUP OK - everup "), "the server answers")


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def served(everup: Everup, services: Mapping[str, Mapping[str, Any]], **table: Any) -> Client:
    port = everup.port()
    table = {"listen": f"127.0.0.1:{port}"} | table
    everup.up(services, tables={"nagios.nrpe": table}, observer=True, expect=None)
    return Client(port)


@pytest.fixture
def plain(everup: Everup) -> Client:
    """One everup without TLS that 127.0.0.1 may ask, with a service that works and one that does
    not."""
    found = served(everup, {"web": {"command": SLEEP}, "bad": BROKEN}, allowed=["127.0.0.1"])
    client = Client(found.port, "-n")
    wait_for(lambda: client.ask("-c", "web")[0] == 0, "the server answers")
    return client


def test_it_answers_what_check_everup_answers(everup: Everup, plain: Client) -> None:
    everup.wait_state("bad.1", "parked", "backoff")

    def asked(*arguments: str) -> tuple[int, str]:
        argv = [str(CHECK_EVERUP), "-c", str(everup.config), *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    status, said = asked("web")
    assert (status, said.startswith("EVERUP OK - web is ready")) == (0, True)
    for version in VERSIONS:
        got = plain.ask(*version, "-c", "web")
        assert (got[0], steady(got[1])) == (status, steady(said)), version
        status_bad, said_bad = plain.ask(*version, "-c", "bad")
        assert status_bad == 2, said_bad
        assert "EVERUP CRITICAL - bad does not serve: bad.1 is " in said_bad
    wait_for(lambda: "because" in plain.ask("-c", "bad")[1], "the cause is told, too")
    status, said = plain.ask("-c", "check_everup")
    assert status == 2
    assert [line.partition(":")[0] for line in said.splitlines()][1:] == ["web", "bad"]
    assert plain.ask("-c", "check_everup_slo") == asked("--slo")
    assert plain.ask("-c", "nothing")[0] == 3
    assert "there are: web, bad" in plain.ask("-c", "nothing")[1]
    assert plain.ask("-c", "web", "-a", "-w", "5") == (
        3,
        "EVERUP UNKNOWN - arguments are refused: the command alone says what is asked for\n",
    )


def steady(text: str) -> str:
    """Without the numbers that change from moment to moment."""
    return text.partition("cpu_percent")[0]


def test_who_may_ask_and_how_many(everup: Everup, plain: Client) -> None:
    assert plain.ask("-b", "127.0.0.2", "-c", "web")[0] != 0
    with socket.create_connection(("127.0.0.1", plain.port), 5, ("127.0.0.2", 0)) as stranger:
        assert stranger.recv(10) == b""
    held = [socket.create_connection(("127.0.0.1", plain.port), 5) for _ in range(MOST_CONNECTIONS)]
    try:
        with socket.create_connection(("127.0.0.1", plain.port), 5) as one_more:
            assert one_more.recv(10) == b""
    finally:
        for connection in held:
            connection.close()
    plain.wait()
    for data in (b"\0" * 16, b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 5000):
        with socket.create_connection(("127.0.0.1", plain.port), 5) as wrong:
            wrong.sendall(data)
            assert is_closed(wrong)
    assert plain.ask("-c", "web")[0] == 0
    assert "Traceback" not in everup.report()


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(10) == b""
    except ConnectionResetError:
        return True


def test_tls(everup: Everup, authority: trustme.CA) -> None:
    server = authority.issue_cert("127.0.0.1")
    client = authority.issue_cert("nagios@example.org")
    folder = everup.directory
    write(folder / "ca.pem", authority.cert_pem.bytes())
    write(folder / "cert.pem", b"".join(blob.bytes() for blob in server.cert_chain_pems))
    write(folder / "key.pem", server.private_key_pem.bytes())
    write(folder / "nagios.pem", b"".join(blob.bytes() for blob in client.cert_chain_pems))
    write(folder / "nagios.key", client.private_key_pem.bytes())
    files = {"tls_cert_file": "cert.pem", "tls_key_file": "key.pem"}
    anybody = served(everup, {"web": {"command": SLEEP}}, **files)
    anybody.wait()
    for version in VERSIONS:
        assert anybody.ask(*version, "-c", "web")[0] == 0
    assert anybody.ask("-A", str(folder / "ca.pem"), "-c", "web")[0] == 0
    assert anybody.ask("-n", "-c", "web")[0] != 0
    assert anybody.ask("-S", "TLSv1.1", "-c", "web")[0] != 0
    # From now on a client has to show its certificate.
    table = {"listen": f"127.0.0.1:{anybody.port}", "tls_client_ca_file": "ca.pem", **files}
    everup.write({"web": {"command": SLEEP}}, tables={"nagios.nrpe": table}, observer=True)
    everup.cli("reload")
    own = ["-C", str(folder / "nagios.pem"), "-K", str(folder / "nagios.key")]
    known = Client(anybody.port, *own)
    known.wait()
    wait_for(lambda: anybody.ask("-c", "web")[0] != 0, "who shows no certificate is refused")
    assert known.ask("-c", "web")[0] == 0
    assert "Traceback" not in everup.report()


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    os.chmod(path, 0o600)


def test_what_keeps_it_from_listening_is_told(everup: Everup) -> None:
    (everup.directory / "cert.pem").write_text("no certificate")
    files = {"tls_cert_file": "cert.pem", "tls_key_file": "missing.pem"}
    served(everup, {"web": {"command": SLEEP}}, **files)
    found = everup.wait_event("detect.began", condition="unreached")
    assert "missing.pem" in found["text"]
    with socket.create_server(("127.0.0.1", everup.port())) as taken:
        table = {"listen": f"127.0.0.1:{taken.getsockname()[1]}"}
        everup.write({"web": {"command": SLEEP}}, tables={"nagios.nrpe": table}, observer=True)
        everup.cli("reload")
        again = everup.wait_event("detect.began", condition="unreached", after=found["seq"])
        assert "address already in use" in again["text"]
    everup.wait_event("detect.ended", after=again["seq"], condition="unreached")
