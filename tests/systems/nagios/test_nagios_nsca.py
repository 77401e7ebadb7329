"""A real NSCA daemon hands what it gets to a real Nagios."""

import asyncio
import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from _everup import SLEEP, Everup
from _nagios import Nagios, environment, packages, wait_for
from test_nagios_results import written

from everup.integrations.delivery import ChannelError
from everup.integrations.nagios.command import Result
from everup.integrations.nagios.edge.nsca import Daemon, ciphers
from everup.integrations.nagios.nsca import Method
from everup.integrations.standing import Level

PASSWORD = b"s3cret-" * 6  # longer than any key
NUMBERS: dict[Method, int] = {"none": 0, "xor": 1, "3des": 3, "rijndael-128": 14}


@pytest.fixture(scope="module")
def nagios() -> Iterator[Nagios]:
    """A Nagios that knows of web and db of box."""
    with tempfile.TemporaryDirectory(prefix="everup-nsca-") as folder:
        os.chmod(folder, 0o755)
        it = Nagios(Path(folder) / "nagios", written({"web": [], "db": []}, 30.0))
        try:
            yield it.start()
        finally:
            it.stop()


@contextlib.contextmanager
def nsca(nagios: Nagios, method: Method, port: int) -> Iterator[None]:
    """The daemon, for one method."""
    root = packages()
    user = "nobody" if os.geteuid() == 0 else str(os.geteuid())
    config = nagios.folder / f"nsca-{method}.cfg"
    settings = {
        "pid_file": nagios.folder / "nsca.pid",
        "server_port": port,
        "server_address": "127.0.0.1",
        "nsca_user": user,
        "nsca_group": "nogroup" if user == "nobody" else str(os.getegid()),
        "debug": 0,
        "command_file": nagios.command_file,
        "alternate_dump_file": nagios.folder / "nsca.dump",
        "aggregate_writes": 0,
        "append_to_file": 0,
        "max_packet_age": 30,
        "password": PASSWORD.decode(),
        "decryption_method": NUMBERS[method],
    }
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    argv = [str(root / "usr/sbin/nsca"), "-c", str(config), "--single", "-f"]
    with open(nagios.folder / "nsca.out", "wb") as said:
        process = subprocess.Popen(
            argv, env=environment(root), stdout=said, stderr=subprocess.STDOUT
        )
    try:
        wait_for(lambda: listens(port), "nsca listens")
        yield
    finally:
        process.terminate()
        process.wait(10)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return False
    return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def result(service: str, text: str) -> Result:
    return Result("box", service, Level.CRITICAL, text, time.time(), perf="ready=0")


@pytest.mark.parametrize("method", get_args(Method))
def test_each_method(nagios: Nagios, method: Method) -> None:
    port = free_port()
    items = [result("web", f"by {method};\nµ | [1] SHUTDOWN_PROGRAM"), result("db", method)]
    with nsca(nagios, method, port):
        daemon = Daemon(("127.0.0.1", port), ciphers(method), PASSWORD)
        assert asyncio.run(daemon.send(items)) == 2
        found = nagios.wait("web", 2, f"by {method}:")
        assert found["plugin_output"].endswith("µ / [1] SHUTDOWN_PROGRAM")
        assert found["performance_data"] == "ready=0"
        nagios.wait("db", 2, method)
        # As long as there is.
        long = result("web", "x" * 5000)
        asyncio.run(daemon.send([long, *items[1:]]))
        found = nagios.wait("web", 2, "xxx")
        assert found["plugin_output"].endswith("xxx...") or len(found["plugin_output"]) == 4000
        if method != "none":
            wrong = Daemon(("127.0.0.1", port), ciphers(method), b"wrong")
            with pytest.raises(ChannelError, match="is the password the same"):
                asyncio.run(wrong.send(items))


def sent_to(greeting: bytes) -> str:
    """Send a result to a server that says this and closes; gives what is told of it."""

    async def run() -> None:
        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(greeting)
            await writer.drain()
            writer.transport.abort()

        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await Daemon(("127.0.0.1", port), ciphers("xor"), b"").send([result("web", "x")] * 50)

    with pytest.raises(ChannelError) as caught:
        asyncio.run(run())
    return str(caught.value)


def test_who_is_no_nsca_daemon() -> None:
    assert "does it let this host in?" in sent_to(b"")
    assert "does it let this host in?" in sent_to(b"220 mail.example ESMTP\r\n")
    gone = Daemon(("127.0.0.1", free_port()), ciphers("none"), b"")
    with pytest.raises(ChannelError, match="connection refused"):
        asyncio.run(gone.send([result("web", "x")]))


def test_the_observer_tells_by_nsca(everup: Everup, nagios: Nagios) -> None:
    port = free_port()
    secret = everup.directory / "nsca.password"
    secret.write_bytes(b"wrong\n")
    secret.chmod(0o600)
    table = {"servers": [f"127.0.0.1:{port}"], "password_file": "nsca.password"}
    tables = {"nagios": {"host": "box", "heartbeat": "1s"}, "nagios.nsca": table}
    services = {"web": {"command": SLEEP}, "db": {"command": SLEEP}}
    with nsca(nagios, "rijndael-128", port):
        everup.up(services, tables=tables, observer=True)
        found = everup.wait_event("detect.began", condition="unreached")
        assert (found["subject"], "is the password the same" in found["text"]) == (
            f"nsca 127.0.0.1:{port}",
            True,
        )
        secret.write_bytes(PASSWORD + b"\n")
        tables["nagios"]["heartbeat"] = "30s"
        everup.write(services, tables=tables, observer=True)
        everup.cli("reload")
        nagios.wait("web", 0, "web is ready")
        nagios.wait("db", 0, "db is ready")
    everup.wait_event("detect.ended", condition="unreached")
    assert PASSWORD.decode() not in everup.report()
