"""Somebody removes everup's own sockets: a cleaner, an operator, a restored backup."""

import os
import shutil
import socket
from pathlib import Path

import pytest
from _everup import SLEEP, Everup, python

from everup.cli.client import keeper_lives

_SPEAKS = """
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ["NOTIFY_SOCKET"])
s.send(b"READY=1")
count = 0
while True:
    count += 1
    s.send(b"STATUS=word %d" % count)
    time.sleep(0.2)
"""
_NOTIFIES = {"command": python(_SPEAKS), "notify": True}


def serves(everup: Everup) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(everup.place.api_socket)
            return True
    except OSError:
        return False


def word(everup: Everup, slot: str) -> int:
    return int(everup.instance(slot)["status_text"].partition(" ")[2] or 0)


def heard(everup: Everup, slot: str) -> None:
    before = word(everup, slot)
    everup.wait_for(lambda: word(everup, slot) > before, "it is heard")


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_they_are_made_again(everup: Everup, how: str) -> None:
    everup.up(
        {"told": _NOTIFIES, "later": _NOTIFIES | {"autostart": False}, "web": {"command": SLEEP}}
    )
    pids, engine = {slot: everup.pid(slot) for slot in ("told.1", "web.1")}, everup.engine_pid
    for _ in range(2):
        for path in (everup.place.api_socket, everup.place.notify_socket):
            os.unlink(path)
            if how == "replaced":
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.bind(path)
        everup.wait_for(lambda: serves(everup), "the API is there again")
        everup.wait_for(lambda: Path(everup.place.notify_socket).is_socket(), "and notify.sock")
        everup.cli("status", expect=None)
        heard(everup, "told.1")  # it has connected to the one before
    everup.cli("start", "later")
    everup.wait_for(lambda: everup.state("later.1") == "ready", "who starts now is heard")
    everup.cli("restart", "told")
    assert everup.state("told.1") == "ready"
    assert everup.engine_pid == engine
    assert everup.pid("web.1") == pids["web.1"]
    details = [event["detail"] for event in everup.events("facility.missing", "everup")]
    assert {name for name in ("api.sock", "notify.sock") for d in details if name in d} == {
        "api.sock", "notify.sock",
    }  # fmt: skip
    everup.kill(engine)
    everup.wait_for(lambda: everup.engine_pid != engine, "another engine")
    heard(everup, "told.1")


def test_the_lock_is_made_again(everup: Everup) -> None:
    """Without it, commands took everup for one that does not run, and `up` refused without end."""
    everup.up({"web": {"command": SLEEP}})
    keeper, engine, pid = everup.keeper_pid, everup.engine_pid, everup.pid("web.1")
    lock = Path(everup.place.lock)
    for _ in range(2):
        lock.unlink()
        said = everup.cli("up", "-d", expect=None)
        assert said.status != 0
        assert "already" in said.err
        everup.wait_for(lock.exists, "the lock is there again")
        everup.wait_for(lambda: keeper_lives(everup.place), "and the keeper holds it")
        assert everup.keeper_pid == keeper
    details = [event["detail"] for event in everup.events("facility.missing", "everup")]
    assert [detail for detail in details if str(lock) in detail]
    everup.kill(engine)
    everup.wait_for(lambda: everup.engine_pid != engine, "another engine")
    everup.kill(keeper)
    everup.wait_for(lambda: everup.keeper_pid != keeper, "another keeper, by the same lock")
    assert everup.pid("web.1") == pid
    everup.down()
    assert not keeper_lives(everup.place)


def test_the_directory_of_sockets_is_removed(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 110)
    directory.mkdir()
    everup = Everup(directory)
    run = everup.place.run_dir
    assert run != str(everup.state_dir)
    try:
        everup.up({"told": _NOTIFIES})
        shutil.rmtree(run)
        everup.wait_for(lambda: serves(everup), "the API is there again")
        everup.wait_for(lambda: Path(everup.place.notify_socket).is_socket(), "and notify.sock")
        everup.cli("restart", "told")
        assert everup.state("told.1") == "ready"
        everup.down()
        assert not Path(run).exists()
    finally:
        everup.close()
        shutil.rmtree(run, ignore_errors=True)


def test_removed_while_no_engine_was_there(everup: Everup) -> None:
    everup.up({"told": _NOTIFIES})
    engine = everup.engine_pid
    everup.kill(engine)
    for path in (everup.place.api_socket, everup.place.notify_socket):
        os.unlink(path)
    everup.wait_for(lambda: serves(everup), "the API is there again")
    everup.wait_for(lambda: Path(everup.place.notify_socket).is_socket(), "and notify.sock")
    everup.cli("restart", "told")
    assert everup.state("told.1") == "ready"
