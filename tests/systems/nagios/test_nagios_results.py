"""A real Nagios is told how real services are."""

import grp
import os
import pwd
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _everup import Everup, python
from _nagios import Nagios, packages

from everup.integrations.nagios.command import MOST_LINE_BYTES, Result, line, spool_file
from everup.integrations.nagios.objects import objects
from everup.integrations.standing import Level

SERVER = python(
    "import pathlib, socket, sys, time\n"
    "if pathlib.Path('broken').exists():\n"
    "    sys.exit('psycopg.OperationalError: connection to server at \"db\" failed')\n"
    "s = socket.socket(fileno=3)\n"
    "while True:\n"
    "    c, _ = s.accept()\n"
    "    c.close()\n"
)


def written(services: dict[str, list[str]], beat_s: float = 1.0) -> str:
    plugins = str(packages() / "usr/lib/nagios/plugins")
    return objects("box", services, address="127.0.0.1", beat_s=beat_s, plugins=plugins)


@pytest.fixture
def nagios() -> Iterator[Nagios]:
    """A Nagios that knows of web and db of box, in a folder that others may enter."""
    with tempfile.TemporaryDirectory(prefix="everup-nagios-") as folder:
        os.chmod(folder, 0o755)
        it = Nagios(Path(folder) / "nagios", written({"web": ["db"], "db": []}, beat_s=30.0))
        try:
            yield it.start()
        finally:
            it.stop()


def write(nagios: Nagios, data: bytes) -> None:
    with open(os.open(nagios.command_file, os.O_WRONLY | os.O_NONBLOCK), "wb", 0) as fifo:
        fifo.write(data)


def result(text: str, level: Level = Level.CRITICAL, **settings: str) -> Result:
    return Result("box", "web", level, text, time.time(), **settings)


def test_what_nagios_reads_of_a_line(nagios: Nagios) -> None:
    """Nothing in a text or a name begins another command or field."""
    text = "down; [1] PROCESS_SERVICE_CHECK_RESULT;box;db;2;evil\n"
    text += "[1] SHUTDOWN_PROGRAM | a\\nb \x1b[31m µ"
    write(nagios, line(result(text, long="one\ntwo", perf="'ready'=0;;;0;2")))
    found = nagios.wait("web", 2, "down")
    assert found["plugin_output"].startswith("down: [1] PROCESS_SERVICE_CHECK_RESULT:box:db:2:evil")
    assert found["plugin_output"].endswith("µ")
    assert "SHUTDOWN_PROGRAM / a/nb" in found["plugin_output"]
    assert found["performance_data"] == "'ready'=0;;;0;2"
    assert found["long_plugin_output"] == "one\\ntwo"
    other = Result("box", "a;b|c\n[1] SHUTDOWN_PROGRAM", Level.CRITICAL, "x", time.time())
    write(nagios, line(other))
    write(nagios, line(result("still there", Level.WARNING)))
    nagios.wait("web", 1, "still there")
    assert nagios.service("db").get("has_been_checked") == "0"


def test_a_line_is_at_most_what_is_written_in_one_piece(nagios: Nagios) -> None:
    whole = line(result("µ" * 5000, perf="a=1"))
    assert len(whole) <= MOST_LINE_BYTES
    write(nagios, whole)
    found = nagios.wait("web", 2, "µµµ")
    assert found["plugin_output"].endswith("µ...")


def test_files_of_the_spool_folder(nagios: Nagios) -> None:
    from everup.integrations.nagios.edge.files import Spool

    spool = Spool(str(nagios.folder / "spool"))
    spool._write(spool_file(result("x" * 3900, long="more\n" * 200, perf="n=1")))
    found = nagios.wait("web", 2, "xxx")
    assert len(found["plugin_output"]) == 3900
    assert found["long_plugin_output"].count("more") == 200
    assert found["performance_data"] == "n=1"


AS_A_MEMBER = """
import asyncio, sys, time
from everup.integrations.nagios.command import Result
from everup.integrations.nagios.edge.files import CommandFile, Spool
from everup.integrations.standing import Level
from everup.observer.drop import become
become(61000, 61000, [int(sys.argv[3])])
for channel, service in ((CommandFile(sys.argv[1]), "web"), (Spool(sys.argv[2]), "db")):
    result = Result("box", service, Level.CRITICAL, "told by a member", time.time())
    asyncio.run(channel.send([result]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="starts processes of other users")
def test_nagios_reads_what_a_member_of_its_group_writes() -> None:
    """Nagios and everup's user are two accounts that have a group in common."""
    with tempfile.TemporaryDirectory(prefix="everup-nagios-") as folder:
        os.chmod(folder, 0o755)
        group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid)
        where = Path(folder) / "nagios"
        it = Nagios(where, written({"web": [], "db": []}, 30.0), ("nobody", group.gr_name))
        try:
            it.start()
            argv = [sys.executable, "-c", AS_A_MEMBER, str(it.command_file), str(it.spool)]
            argv.append(str(group.gr_gid))
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            it.wait("web", 2, "told by a member")
            it.wait("db", 2, "told by a member")
        finally:
            it.stop()


def test_an_outage_is_seen_with_its_cause_and_its_end(everup: Everup, nagios: Nagios) -> None:
    restart = {
        "delay": "100ms",
        "max_delay": "200ms",
        "jitter": "none",
        "intensity": {"limit": 1000},
    }
    server = {"command": SERVER, "restart": restart}
    everup.up(
        {
            "web": {**server, "listen": f"127.0.0.1:{everup.port()}", "depends_on": ["db"]},
            "db": {**server, "listen": f"127.0.0.1:{everup.port()}"},
        },
        tables={"nagios": {"host": "box", "command_file": str(nagios.command_file)}},
        observer=True,
    )
    nagios.wait("web", 0, "web is ready")
    assert "2 of 2 services serve" in nagios.wait("everup", 0)["plugin_output"]
    (everup.directory / "broken").touch()
    began = time.monotonic()
    everup.kill(everup.pid("web.1"))
    found = nagios.wait("web", 2)
    print(f"fault to CRITICAL in status.dat: {time.monotonic() - began:.2f} s")
    said = nagios.wait("web", 2, "because")["plugin_output"]
    assert "connection to server at" in said
    assert found["performance_data"].startswith("ready=0 wanted=1")
    (everup.directory / "broken").unlink()
    nagios.wait("web", 0, "web is ready")

    # Nagios away, its FIFO still there: what is newest arrives when it is back.
    def told(kind: str) -> list[str]:
        found = everup.events(f"detect.{kind}")
        return [e["text" if kind == "began" else "why"] for e in found if _unreached(e)]

    nagios.kill()
    (everup.directory / "broken").touch()
    everup.kill(everup.pid("db.1"))
    (text,) = everup.wait_for(lambda: told("began"), "that is told")
    assert "nobody reads it" in text
    nagios.start()
    nagios.wait("db", 2)
    everup.wait_for(lambda: told("ended"), "that it is back is told")
    assert nagios.log().count("SERVICE ALERT: box;web;CRITICAL") == 1


def _unreached(event: dict[str, Any]) -> bool:
    return bool(event["condition"] == "unreached")


def test_silence_is_noticed(everup: Everup, nagios: Nagios) -> None:
    nagios.stop()
    fresh = Nagios(nagios.folder, written({"web": []}, beat_s=1.0))
    assert "Total Errors:   0" in fresh.check()
    everup.up(
        {"web": {"command": ["sleep", "1000"]}},
        tables={"nagios": {"host": "box", "spool": str(fresh.spool), "heartbeat": "1s"}},
        observer=True,
    )
    fresh.start()
    try:
        fresh.wait("web", 0, "web is ready")
        everup.down()
        fresh.wait("web", 3, "told nothing")
    finally:
        fresh.stop()
