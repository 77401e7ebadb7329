"""An environment file that is a pipe stopped everup: it waited in open(), and so did each engine
after it. A directory in its place was ignored without a word."""

import asyncio
import os
import threading
from pathlib import Path

import pytest
from _everup import SLEEP, Everup

from everup.adapters import aside, launch
from everup.adapters.launch import LaunchError
from everup.daemon import preparing
from everup.daemon.preparing import Preparing
from everup.model.instance import Slot
from everup.model.spec import Service


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "it is a pipe (FIFO), not a regular file"),
        (os.mkdir, "it is a directory, not a regular file"),
        (lambda path: os.symlink("/dev/tty0", path), "it is a device, not a regular file"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 2 << 20), "larger than"),
        (lambda path: Path(path).write_bytes(b"A=\xff\xfe"), "cannot be read: 'utf-8'"),
        (lambda path: os.symlink(path, path), "Too many levels of symbolic links"),
    ],
)
@pytest.mark.parametrize("name", ["x.env", "-x.env"])
def test_what_is_no_environment_file_is_said(
    tmp_path: Path, make: object, words: str, name: str
) -> None:
    try:
        make(tmp_path / "x.env")  # type: ignore[operator]
    except PermissionError:
        pytest.skip("needs root")
    service = Service("web", ("serve",), environment_file=(name,))
    with pytest.raises(LaunchError) as error:
        launch.environment(service, Slot("web", 1), str(tmp_path), {}, None)
    if "device" in words and "No such" in str(error.value):
        pytest.skip("no such device here")
    assert words in str(error.value)
    assert str(tmp_path / "x.env") in str(error.value)


def test_one_that_may_be_missing(tmp_path: Path) -> None:
    service = Service("web", ("serve",), environment_file=("-no.env", "-x.env/y"))
    (tmp_path / "x.env").write_text("A=1\r\nB='two # 2'\n")
    launch.environment(service, Slot("web", 1), str(tmp_path), {}, None)
    service = Service("web", ("serve",), environment_file=("x.env",))
    found = launch.environment(service, Slot("web", 1), str(tmp_path), {}, None)
    assert (found["A"], found["B"]) == ("1", "two # 2")


def test_a_call_that_does_not_answer() -> None:
    never = threading.Event()
    with pytest.raises(aside.LateError, match=r"no answer within 0\.05 s"):
        aside.call(0.05, never.wait)
    with pytest.raises(ZeroDivisionError):
        aside.call(30.0, lambda: 1 / 0)
    assert aside.call(30.0, lambda: 7) == 7
    never.set()


def test_a_pipe_costs_its_own_service_alone(everup: Everup) -> None:
    """The others are started and restarted, and the next engine begins."""
    os.mkfifo(everup.directory / "pipe.env")
    services = {
        "pipe": {"command": SLEEP, "environment_file": ["pipe.env"]},
        "web": {"command": SLEEP},
    }
    everup.up(services, expect=None)
    everup.wait_state("web.1", "ready")
    failed = everup.wait_event("instance.exited", "pipe.1")
    assert "it is a pipe (FIFO), not a regular file" in failed["cause"]
    engine = everup.engine_pid
    everup.kill(engine)
    everup.wait_for(lambda: everup.engine_pid != engine, "the next engine")
    old = everup.pid("web.1")
    os.kill(old, 9)
    everup.wait_new_pid("web.1", old)
    (everup.directory / "pipe.env").unlink()
    (everup.directory / "pipe.env").write_text("A=1\n")
    everup.cli("start", "pipe")
    everup.wait_state("pipe.1", "ready")


def test_a_user_lookup_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a directory service (LDAP) that is gone: its service fails, others do not wait."""
    never = threading.Event()
    monkeypatch.setattr(launch.pwd, "getpwnam", lambda _name: never.wait(30.0))
    monkeypatch.setattr(preparing, "WAIT_S", 0.2)
    slow, quick = Service("slow", ("serve",), user="ldap"), Service("quick", ("serve",))
    happened: list[str] = []

    def begin(being: Preparing, service: Service) -> None:
        being.make(
            f"main:{service.name}:1",
            service,
            lambda: {"who": launch.identity(service)},
            lambda _request: happened.append(f"{service.name} goes"),
            lambda why: happened.append(f"{service.name}: {why}"),
        )

    async def run() -> None:
        being = Preparing(asyncio.get_running_loop().create_task)
        begin(being, slow)
        begin(being, quick)
        assert happened == ["quick goes"]
        while len(happened) < 2:
            await asyncio.sleep(0)
        assert "cannot be looked up: no answer within 0.2 s" in happened[1]
        begin(being, slow)
        being.cancel("main:slow:1")
        while len(happened) < 3:
            await asyncio.sleep(0)
        assert happened[2] == "slow: stopped before it was started"
        with pytest.raises(aside.LateError):
            await preparing.ready(slow, lambda: {"who": launch.identity(slow)})

    asyncio.run(run())
    never.set()
    assert len(happened) == 3
