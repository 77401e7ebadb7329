"""Bad input: each shows a clear message, and nothing else goes down with it."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from _everup import FAST_PROBE, SLEEP, Everup, alive, get, python, sh
from _fixtures import needs_root

LATE = {"jitter": "none", "delay": "10ms", "park_interval": "1h"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A state directory of 4 MB."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    directory = tmp_path / ".everup"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "everup-test", str(directory)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("may not mount")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def up_beside(everup: Everup, bad: dict[str, object], *words: str) -> int:
    """``up -d`` of ``bad`` beside a healthy service: it says why, status 4; returns the pid of
    the healthy one."""
    result = everup.up({"good": everup.server(), "bad": bad}, expect=4)
    for word in words:
        assert word in result.err, result.text
    assert " status" in result.err, "says what to do next"
    good = everup.instance("good.1")
    assert good["state"] == "ready"
    status = everup.cli("status", expect=4)
    for word in words:
        assert word in status.out, status.text
    return int(good["pid"])


def test_missing_command(everup: Everup) -> None:
    pid = up_beside(
        everup, {"command": ["no-such-program"], "restart": LATE}, "bad.1", "no-such-program",
        "there is no such command in PATH=",
    )  # fmt: skip
    assert everup.pid("good.1") == pid
    exits = everup.events("instance.exited", "bad.1")
    assert {e["exit_kind"] for e in exits} == {"spawn"}
    assert everup.state("bad.1") == "parked"


def test_command_that_cannot_run(everup: Everup) -> None:
    """A path that is not there, a file without execute permission, a file that is no program."""
    plain = everup.directory / "plain"
    plain.write_text("no program\n")
    junk = everup.directory / "junk"
    junk.write_bytes(b"\x7fELF junk")
    junk.chmod(0o755)
    broken = everup.directory / "broken.sh"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    services = {"good": everup.server()}
    for name, command in {
        "absent": "/no/such/file", "plain": plain, "junk": junk, "broken": broken,
    }.items():  # fmt: skip
        services[name] = {"command": [str(command)], "restart": LATE}
    everup.up(services, expect=4)
    pid = everup.pid("good.1")
    for name in ("absent", "plain", "junk", "broken"):
        everup.wait_state(f"{name}.1", "parked")
    why = {name: everup.instance(f"{name}.1")["last_exit"] for name in services}
    assert "no such file" in why["absent"]
    assert "Permission denied" in why["plain"]
    assert "Exec format error" in why["junk"]
    assert "interpreter" in why["broken"]
    assert everup.pid("good.1") == pid


def test_port_in_use(everup: Everup) -> None:
    """The message names who has it; once it is free, ``start`` brings the service up."""
    port = everup.port()
    with socket.create_server(("127.0.0.1", port)):
        name = psutil.Process().name()
        pid = up_beside(
            everup, everup.server(listen=f"127.0.0.1:{port}", restart=LATE),
            f"cannot listen on 127.0.0.1:{port}", "Address already in use",
            f"by {name} (pid {os.getpid()})",
        )  # fmt: skip
        assert everup.events("sockets.failed", "bad")
    everup.cli("start", "bad")
    assert get(port)["pid"] == everup.pid("bad.1")
    assert everup.pid("good.1") == pid


def test_user_that_does_not_exist(everup: Everup) -> None:
    """Refused before anything starts; under a running everup nothing changes."""
    good = {"good": everup.server()}
    bad = {**good, "bad": {"command": SLEEP, "user": "no-such-user"}}
    result = everup.up(bad, expect=2)
    assert "service.bad.user" in result.err
    assert "no such user" in result.err
    assert "nothing was started" in result.err
    everup.cli("status", expect=3)

    everup.up(good)
    pid = everup.pid("good.1")
    everup.write(bad)
    os.kill(everup.keeper_pid, signal.SIGHUP)
    event = everup.wait_event("config.invalid", deadline_s=5)
    assert "no such user" in str(event["problems"])
    assert everup.pid("good.1") == pid


@needs_root
def test_group_that_does_not_exist(everup: Everup) -> None:
    bad = {"command": SLEEP, "user": "nobody", "group": "no-such-group", "restart": LATE}
    result = everup.up({"good": everup.server(), "bad": bad}, expect=None)
    assert result.status in (2, 4)
    assert "no-such-group" in result.err
    assert "does not exist" in result.err or "no such group" in result.err


def test_working_directory_missing(everup: Everup) -> None:
    pid = up_beside(
        everup, {"command": SLEEP, "directory": "not/there", "restart": LATE},
        "cannot change to the directory", f"{everup.directory}/not/there",
        "No such file or directory",
    )  # fmt: skip
    (everup.directory / "not/there").mkdir(parents=True)
    everup.cli("start", "bad")
    assert everup.pid("good.1") == pid


def test_environment_file_missing(everup: Everup) -> None:
    up_beside(
        everup, {"command": SLEEP, "environment_file": "secrets.env", "restart": LATE},
        "environment file", "secrets.env does not exist",
    )  # fmt: skip


def test_state_directory_is_a_file(everup: Everup) -> None:
    (everup.directory / "taken").write_text("")
    result = everup.up({"a": {"command": SLEEP}}, state_dir="taken", expect=1)
    assert f"the state directory {everup.directory / 'taken'} is a file" in result.err
    assert not everup.processes()


def test_state_directory_not_writable(small_disk: Path, everup: Everup) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    result = everup.up({"a": {"command": SLEEP}}, expect=1)
    assert f"cannot write to the state directory {small_disk}" in result.err
    assert "state_dir" in result.err, "says what to do"
    assert "Traceback" not in result.err
    assert not everup.processes()


def test_disk_full_at_start(small_disk: Path, everup: Everup) -> None:
    """Nothing half done: it says that the disk is full, and nothing runs."""
    fill(small_disk / "ballast")
    result = everup.up({"a": {"command": SLEEP}}, expect=1)
    assert "No space left on device" in result.text or "disk is full" in result.text
    assert "Traceback" not in result.text
    everup.wait_for(lambda: not everup.processes(), "nothing runs")


def fill(path: Path) -> None:
    with path.open("ab", 0) as file:
        for size in (65536, 4096):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def test_disk_full_under_journal_and_logs(small_disk: Path, everup: Everup) -> None:
    """Services go on, also crashed ones are restarted; what is lost is counted and told; all is
    well again once there is room, without anybody's help."""
    talker = python("import time\nwhile True:\n print('x' * 1000, flush=True); time.sleep(0.002)")
    port = everup.port()
    web = everup.server(listen=f"127.0.0.1:{port}", probe={"readiness": {"http": "/readyz"}})
    everup.up({"talker": {"command": talker, "log": {"max_size": "64M"}}, "web": web})
    before = everup.instances()
    ballast = small_disk / "ballast"
    fill(ballast)

    os.kill(before["web.1"]["pid"], signal.SIGKILL)
    pid = everup.wait_new_pid("web.1", before["web.1"]["pid"])
    assert get(port)["pid"] == pid
    everup.wait_for(lambda: everup.status()["journal_degraded"], "journal_degraded is shown")
    assert "journal" in everup.cli("status", expect=None).out
    assert everup.pid("talker.1") == before["talker.1"]["pid"]

    ballast.unlink()
    lost = everup.wait_event("log.recovered", "talker.1")
    assert lost["lost_lines"] > 0
    degraded = everup.wait_event("journal.degraded")
    assert degraded["lost_events"] == 0
    assert not everup.status()["journal_degraded"]
    exits = everup.events("instance.exited", "web.1")
    assert [e["cause"] for e in exits] == ["SIGKILL"], "the held events are written"
    assert everup.pid("talker.1") == before["talker.1"]["pid"]


def test_config_that_changed_for_the_worse(everup: Everup) -> None:
    """SIGHUP tells what is wrong; the accepted config stays in force, also for a new engine."""
    port = everup.port()
    everup.up({"web": everup.server(listen=f"127.0.0.1:{port}", replicas=2)})
    before = everup.instances()
    engine = everup.engine_pid
    everup.config.write_text('[service.web]\ncomand = ["x"]\nreplicas = -1\n')
    os.kill(everup.keeper_pid, signal.SIGHUP)
    event = everup.wait_event("config.invalid")
    assert event["file"] == str(everup.config)
    told = " ".join(event["problems"])
    assert "comand" in told
    assert "command" in told
    assert "replicas" in told
    assert {s: i["pid"] for s, i in everup.instances().items()} == {
        s: i["pid"] for s, i in before.items()
    }

    for text in ("[service.web\n", None):  # no TOML any more; no file any more
        if text is None:
            everup.config.unlink()
        else:
            everup.config.write_text(text)
        seq = everup.last_seq()
        os.kill(everup.keeper_pid, signal.SIGHUP)
        everup.wait_event("config.invalid", after=seq)

    os.kill(engine, signal.SIGKILL)
    everup.wait_event("engine.started", takeover=True)
    after = everup.instances()
    assert {s: (i["pid"], i["restarts"]) for s, i in after.items()} == {
        s: (i["pid"], i["restarts"]) for s, i in before.items()
    }
    assert get(port)["pid"] in {i["pid"] for i in after.values()}
    everup.config.write_text("broken = [\n")
    everup.down()


def test_up_with_an_invalid_config(everup: Everup) -> None:
    """Every problem in one go, with its place; nothing is started."""
    everup.config.write_text(
        '[service.web]\ncommand = "uvicorn"\nreplica = 2\n'
        '[service.db]\ncommand = ["x"]\ndepends_on = ["cache"]\nstop_timeout = 5\n'
    )
    result = everup.cli("up", "-d", expect=2)
    for word in ("web", "command", "replicas", "cache", "stop_timeout", '"5s"'):
        assert word in result.err, result.err
    assert "Traceback" not in result.err
    assert not everup.state_dir.exists()
    assert everup.cli("check", expect=2).status == 2


def test_second_up_on_the_same_state_directory(everup: Everup) -> None:
    everup.up({"a": {"command": SLEEP}})
    pid, keeper, seq = everup.pid("a.1"), everup.keeper_pid, everup.last_seq()
    for arguments in (("up",), ("up", "-d")):
        result = everup.cli(*arguments, expect=1)
        assert f"already running for {everup.state_dir} (keeper pid {keeper})" in result.err
        assert " status" in result.err
    everup.config.write_text('[service.a]\ncommand = ["sleep", "1"]\n')
    everup.cli("up", "-d", expect=1)
    assert "1000" in (everup.state_dir / "config.accepted.toml").read_text()
    assert everup.pid("a.1") == pid
    assert everup.last_seq() == seq


def test_two_ups_at_once(everup: Everup) -> None:
    """Exactly one of them wins."""
    everup.write({"a": {"command": SLEEP}})
    racers = [everup.popen("up", "-d") for _ in range(3)]
    ends = sorted(racer.wait(30) for racer in racers)
    for racer in racers:
        assert racer.stdout is not None
        racer.stdout.close()
    assert ends == [0, 1, 1]
    assert len(everup.events("instance.spawned")) == 1


def test_probes_that_answer_garbage_or_never(everup: Everup) -> None:
    """Each is a failed probe with its reason; the service beside them is not touched."""
    for name in ("garbage", "silent"):
        (everup.control / name).mkdir()
    (everup.control / "garbage/garbage").touch()
    (everup.control / "silent/hang").touch()
    liveness = {"http": "/healthz", "interval": "50ms", "timeout": "200ms"}
    ports = [everup.port() for _ in range(3)]
    services = {
        name: everup.server(
            name, listen=f"127.0.0.1:{port}", probe={"liveness": liveness}, restart=LATE
        )
        for name, port in zip(("garbage", "silent", "good"), ports, strict=True)
    }
    endless = {"exec": sh("sleep 999 & sleep 999"), "interval": "50ms", "timeout": "200ms"}
    services["endless"] = {"command": SLEEP, "probe": {"liveness": endless}, "restart": LATE}
    everup.up(services, arguments=("--timeout", "0"), starvation_psi=100, starvation_lag="60s")
    everup.wait_state("good.1", "ready")
    pid = everup.pid("good.1")
    why = {}
    for name in ("garbage", "silent", "endless"):
        why[name] = everup.wait_event("instance.unhealthy", f"{name}.1")["reason"]
    assert "HTTP" in why["garbage"], why
    assert "no answer within 200ms" in why["silent"], why
    assert "still running after 200ms" in why["endless"], why
    assert everup.pid("good.1") == pid
    assert not everup.events("instance.suspected", "good.1")
    everup.cli("stop", "endless")
    everup.wait_for(
        lambda: not [c for c in everup.processes().values() if "sleep 999" in c],
        "no process of a probe is left",
    )


FLOOD = """
import os, sys, time
end, line, sent = time.monotonic() + 2.0, (b"f" * 99 + b"\\n") * 640, 0
while time.monotonic() < end:
    while True:
        n = os.write(1, line)
        sent += n
        assert n == len(line)
        break
os.write(2, f"wrote {sent}\\n".encode())
time.sleep(1000)
"""


def test_flood_of_output(everup: Everup) -> None:
    """A writer as fast as it can be: nothing lost, disk use bounded, neighbours served."""
    port = everup.port()
    probe = {"liveness": {"http": "/healthz", **FAST_PROBE}}
    everup.up(
        {
            "flood": {"command": python(FLOOD), "log": {"max_size": "1M", "files": 3}},
            "good": everup.server(listen=f"127.0.0.1:{port}", probe=probe),
        }
    )
    pids = {slot: i["pid"] for slot, i in everup.instances().items()}
    logs = Path(everup.place.logs)
    everup.wait_for(
        lambda: any("wrote" in line for line in everup.output("flood.1", "stderr")),
        "the flood has ended",
    )
    assert get(port)["pid"] == pids["good.1"]
    assert {slot: i["pid"] for slot, i in everup.instances().items()} == pids
    assert not everup.events("instance.unhealthy")
    assert not everup.events("log.lost")
    size = sum(path.stat().st_size for path in logs.glob("flood.1.log*"))
    assert size < 5 << 20
    assert psutil.Process(everup.engine_pid).memory_info().rss < 300 << 20


BINARY = """
import os, time
os.write(1, bytes(range(256)) * 2 + b"\\n\\xff\\xfe\\x1b[31m end\\n")
os.write(2, b"\\xc3\\x28 bad utf-8\\n")
os.write(1, b"\\0" * 5000 + b"\\n")
os.write(1, b"last\\n")
time.sleep(1000)
"""


def test_binary_output(everup: Everup) -> None:
    """Stored byte for byte; the commands show it without falling over."""
    everup.up({"a": {"command": python(BINARY)}, "good": {"command": SLEEP}})
    path = Path(everup.place.logs) / "a.1.log"
    everup.wait_for(lambda: path.exists() and b"last\n" in path.read_bytes(), "all is stored")
    data = path.read_bytes()
    head = bytes(range(10)), bytes(range(11, 256)) + bytes(range(10))
    for part in (*head, b"\xff\xfe\x1b[31m end\n", b"\xc3\x28 bad utf-8\n", b"\0" * 5000 + b"\n"):
        assert part in data
    shown = [json.loads(line) for line in everup.cli("logs", "a", "--json").out.splitlines()]
    assert [x["text"] for x in shown if x["stream"] == "stdout"][-1] == "last"
    assert r"\xff\xfe" in everup.cli("logs", "a").out
    assert everup.state("good.1") == "ready"


LONG = """
import os, sys, time
block, size = b"0123456789abcdef" * 4096, int(sys.argv[1]) << 20
for _ in range(size // len(block)):
    done = 0
    while done < len(block):
        done += os.write(1, block[done:])
os.write(1, b"\\nend\\n")
time.sleep(1000)
"""


def test_very_long_line(everup: Everup) -> None:
    """64 MB without a newline (1 GB by hand): stored in parts, memory stays bounded."""
    size_mb = int(os.environ.get("EVERUP_LONG_LINE_MB", "64"))
    size = size_mb << 20
    log = {"max_size": f"{size_mb * 2}M"}
    command = python(LONG, str(size_mb))
    everup.up({"a": {"command": command, "log": log}, "good": {"command": SLEEP}})
    path = Path(everup.place.logs) / "a.1.log"
    engine = psutil.Process(everup.engine_pid)
    peak = 0

    def ended() -> bool:
        nonlocal peak
        peak = max(peak, engine.memory_info().rss)
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 200))
            return b"F end\n" in file.read()

    everup.wait_for(ended, "the whole line is stored", deadline_s=20 + size_mb / 4)
    stored = parts = 0
    with path.open("rb") as file:
        for line in file:
            flag, text = line.split(b" ", 3)[2:]
            parts += flag[:1] == b"P"
            stored += len(text) - 1
    assert stored == size + len(b"end")
    assert parts >= size // (64 << 10) - 1
    assert peak < 200 << 20
    assert not everup.events("log.lost")
    tail = everup.cli("logs", "a", "-n", "1", "--plain").out
    assert tail == "end\n"
    assert alive(everup.pid("good.1"))


def test_overlap_that_cannot_be(everup: Everup) -> None:
    """Two processes on one port, a oneshot twice: valid, but not without a word."""
    port = {"command": SLEEP, "port": everup.port(), "overlap": True}
    once = {"command": SLEEP, "type": "oneshot", "overlap": True}
    everup.write({"web": port, "once": once, "fine": {"command": SLEEP, "overlap": True}})
    lines = everup.cli("check", "-q").err.splitlines()
    warnings = [line for line in lines if line.startswith("warning:")]
    assert len(warnings) == 2
    assert "service.web.overlap" in warnings[0]
    assert "two processes cannot bind one port" in warnings[0]
    assert "service.once.overlap" in warnings[1]
    assert "has no effect on a oneshot" in warnings[1]
