"""everup's own processes, stopped: each is missed within seconds, whoever it is and whenever."""

import fcntl
import os
import signal
import threading

import pytest
from _everup import Everup, get


def said(everup: Everup) -> str:
    return (everup.state_dir / "everup.log").read_text("utf-8", "replace")


def test_a_stopped_keeper_is_replaced(everup: Everup) -> None:
    """Nobody could be started or stopped any more; the engine follows it as after a kill."""
    port = everup.port()
    everup.up({"web": everup.server(listen=f"127.0.0.1:{port}"), "idle": everup.server("idle")})
    web, idle, keeper = everup.pid("web.1"), everup.pid("idle.1"), everup.keeper_pid
    os.kill(keeper, signal.SIGSTOP)
    os.kill(idle, signal.SIGKILL)
    everup.wait_for(lambda: everup.own().keeper not in (0, keeper), "another keeper")
    everup.wait_new_pid("idle.1", idle)
    assert everup.pid("web.1") == web
    assert get(port)["pid"] == web
    assert "the keeper hangs: it is stopped" in said(everup)
    everup.cli("restart", "web")
    assert everup.pid("web.1") != web


def test_a_keeper_that_is_stopped_while_an_engine_starts(everup: Everup) -> None:
    """It is watched from the engine's first instant on, before it has said hello, or after."""
    everup.up({"idle": everup.server()})
    idle, keeper, engine = everup.pid("idle.1"), everup.keeper_pid, everup.engine_pid
    os.kill(engine, signal.SIGKILL)
    everup.wait_for(lambda: everup.own().engine not in (0, engine), "another engine")
    os.kill(keeper, signal.SIGSTOP)
    everup.wait_for(lambda: everup.own().keeper not in (0, keeper), "another keeper", 40.0)
    os.kill(idle, signal.SIGKILL)
    everup.wait_new_pid("idle.1", idle)


def test_an_engine_that_is_stopped_in_its_first_moments(everup: Everup) -> None:
    """While it loads what it is made of, before it has said anything."""
    everup.up({"idle": everup.server()})
    idle, engine = everup.pid("idle.1"), everup.engine_pid
    os.kill(engine, signal.SIGKILL)
    young = everup.wait_for(
        lambda: everup.own().engine if everup.own().engine not in (0, engine) else 0, "an engine"
    )
    os.kill(young, signal.SIGSTOP)
    everup.wait_for(lambda: everup.own().engine not in (0, engine, young), "a third engine", 40.0)
    assert everup.pid("idle.1") == idle
    assert "the engine hangs: it is stopped" in said(everup)
    os.kill(idle, signal.SIGKILL)
    everup.wait_new_pid("idle.1", idle)


def test_a_stopped_zygote_costs_nobody_a_start(everup: Everup) -> None:
    """Another one forks at once; it is told as what it is, and as no limit of processes."""
    everup.up({"idle": everup.server()})
    idle = everup.pid("idle.1")
    os.kill(everup.own().zygote, signal.SIGSTOP)
    os.kill(idle, signal.SIGKILL)
    everup.wait_new_pid("idle.1", idle)
    assert everup.instance("idle.1")["restarts"] == 1
    assert "forks for everup hangs: it is stopped" in said(everup)
    assert "limit" not in said(everup)


def test_both_stopped_at_once(everup: Everup) -> None:
    """Neither can see to the other: the process that forks for the keeper wakes that, and the
    keeper ends its engine."""
    everup.up({"idle": everup.server()})
    idle, own = everup.pid("idle.1"), everup.own()
    for pid in (own.engine, own.keeper):
        os.kill(pid, signal.SIGSTOP)
    os.kill(idle, signal.SIGKILL)
    everup.wait_for(lambda: everup.own().engine not in (0, own.engine), "another engine", 60.0)
    everup.wait_new_pid("idle.1", idle)
    assert everup.own().keeper == own.keeper
    assert "the engine hangs: it is stopped" in said(everup)


def test_a_stop_that_passes_harms_nobody(everup: Everup) -> None:
    everup.up({"idle": everup.server()})
    own = everup.own()
    for pid in (own.engine, own.keeper):
        os.kill(pid, signal.SIGSTOP)
        threading.Event().wait(1.5)
        os.kill(pid, signal.SIGCONT)
    everup.cli("restart", "idle")
    after = everup.own()
    assert (after.engine, after.keeper) == (own.engine, own.keeper)


@pytest.mark.parametrize("full", [False, True])
def test_an_output_that_nobody_reads(everup: Everup, full: bool) -> None:
    """``everup up`` in the foreground, its output a pipe to a log driver that hangs: engines and
    services come back all the same."""
    everup.write({"idle": everup.server()})
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    if full:
        os.write(writer, b"." * 4096)
    process = everup.popen("up", stdout=writer, stderr=writer)
    os.close(writer)
    everup.wait_state("idle.1", "ready")
    for _ in range(30):
        idle = everup.pid("idle.1")
        everup.cli("restart", "idle", "--timeout", "20")
        assert everup.pid("idle.1") != idle
    engine = everup.engine_pid
    os.kill(engine, signal.SIGKILL)
    everup.wait_for(lambda: everup.own().engine not in (0, engine), "another engine")
    idle = everup.pid("idle.1")
    os.kill(idle, signal.SIGKILL)
    everup.wait_new_pid("idle.1", idle)
    threading.Thread(target=_drain, args=(reader,), daemon=True).start()
    everup.down()
    process.wait(timeout=60)


def _drain(reader: int) -> None:
    while os.read(reader, 65536):
        pass
