"""The commands: output, exit statuses, errors that help, JSON everywhere."""

import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from _everup import COMMAND_S, DEADLINE_S, EVERUP, SLEEP, Everup, python, sh

from everup import __version__

HEAVY = ("pydantic", "aiohttp", "psutil", "prometheus_client", "sqlite3", "asyncio")


class Reader:
    """Lines that a command goes on printing."""

    def __init__(self, everup: Everup, *arguments: str) -> None:
        self.everup = everup
        self.path = everup.directory / f"reader-{time.monotonic_ns()}"
        with self.path.open("wb") as file:
            self.process = everup.popen(*arguments, stdout=file)

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(DEADLINE_S)

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()

    def wait(self, text: str) -> None:
        self.everup.wait_for(
            lambda: any(text in line for line in self.lines()), f"{text!r} in {self.path}"
        )


MODULES = """
import sys
from everup.cli.main import cli
try:
    cli.main(args=sys.argv[1:], prog_name="everup")
finally:
    print(*sys.modules, file=sys.stderr)
"""


def test_status_loads_only_what_it_needs(everup: Everup) -> None:
    """So that it stays quick: nothing that takes long to import."""
    everup.up({"a": {"command": SLEEP}})
    done = subprocess.run(
        [sys.executable, "-c", MODULES, "-c", everup.config, "status"],
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=True,
    )
    assert "a.1" in done.stdout
    loaded = set(done.stderr.split())
    assert "everup.cli.status" in loaded
    assert not {name for name in loaded if name.partition(".")[0] in HEAVY}
    assert not {name for name in loaded if name.startswith(("everup.config", "everup.api"))}


def test_not_running(everup: Everup) -> None:
    """Exit status 3, and what to do; nothing is made."""
    everup.write({"web": {"command": SLEEP}})
    for command in (
        ("status",), ("events",), ("logs",), ("start",), ("stop",), ("restart", "web"),
        ("scale", "web", "1"), ("signal", "HUP", "web"), ("down",),
    ):  # fmt: skip
        for arguments in (command, (*command, "--json")):
            result = everup.cli(*arguments, expect=3)
            assert result.out == ""
            assert f"everup is not running for {everup.config}" in result.err
            assert f"start it: everup -c {everup.config} up -d" in result.err
    assert not everup.state_dir.exists()


def test_config_that_is_not_there(everup: Everup) -> None:
    result = everup.cli("status", expect=2)
    assert f"there is no config file {everup.config}" in result.err
    for arguments in (("status",), ("up", "-d"), ("check",)):
        done = subprocess.run(
            [EVERUP, *arguments], cwd=everup.directory, env=everup.environment,
            capture_output=True, text=True, timeout=COMMAND_S, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert "there is no everup.toml here or in a directory above" in done.stderr
        assert "write one: everup init" in done.stderr


def test_config_that_is_lost(everup: Everup) -> None:
    """What everup goes by is not lost with the file."""
    everup.up({"a": {"command": SLEEP}})
    text = everup.config.read_text()
    everup.config.unlink()
    result = everup.cli("status", expect=2)
    assert f"there is no config file {everup.config}" in result.err
    assert f"is kept in {everup.place.accepted}: copy it back" in result.err
    assert Path(everup.place.accepted).read_text() == text
    everup.config.write_text(text)
    everup.down()


def test_config_is_found_above(everup: Everup) -> None:
    everup.up({"a": {"command": SLEEP}})
    below = everup.directory / "one" / "two"
    below.mkdir(parents=True)
    for environment, directory in (
        (everup.environment, below),
        (everup.environment | {"EVERUP_CONFIG": str(everup.config)}, Path("/")),
    ):
        done = subprocess.run(
            [EVERUP, "status", "--json"], cwd=directory, env=environment,
            capture_output=True, text=True, timeout=COMMAND_S, check=True,
        )  # fmt: skip
        assert json.loads(done.stdout)["config"] == str(everup.config)


def test_json_everywhere(everup: Everup) -> None:
    """One document, or one for each line where it goes on."""
    everup.write({"web": {"command": sh("echo hello; exec sleep 1000"), "replicas": 2}})
    assert everup.cli("check", "--json").json == {"valid": True, "problems": [], "warnings": []}
    assert everup.cli("check", "--schema", "--json").json["title"]
    up = everup.cli("up", "-d", "--json").json
    assert up == {"keeper": {"pid": everup.keeper_pid}, "engine": {"pid": everup.engine_pid}}
    everup.wait_for(lambda: everup.output("web.2"), "output")
    status = everup.cli("status", "--json").json
    assert [i["slot"] for i in status["services"][0]["instances"]] == ["web.1", "web.2"]
    for arguments, slots in (
        (("stop", "web.1"), ["web.1"]),
        (("start", "web.1"), ["web.1"]),
        (("restart", "web"), ["web.1", "web.2"]),
        (("scale", "web", "1"), ["web.1"]),
        (("signal", "CONT", "web"), ["web.1"]),
    ):
        answer = everup.cli(*arguments, "--json").json
        assert answer["slots"] == slots
        assert answer["after"] > 0
    for command, key in (("events", "kind"), ("logs", "text")):
        lines = [json.loads(line) for line in everup.cli(command, "--json").out.splitlines()]
        assert lines
        assert all(line[key] for line in lines)
    assert everup.cli("version", "--json").json["everup"] == __version__
    for shell in ("bash", "zsh", "fish"):
        assert "_EVERUP_COMPLETE" in everup.cli("completion", shell, "--json").json["script"]
    init = everup.cli("init", "fresh.toml", "--json").json
    assert init == {"file": "fresh.toml", "from": "nothing"}
    keeper = everup.keeper_pid
    assert everup.cli("down", "--json").json["keeper"] == {"pid": keeper}

    everup.config.write_text("[service.web]\n")
    result = everup.cli("check", "--json", expect=2)
    assert not result.json["valid"]
    assert "command" in result.json["problems"][0]


def test_exit_statuses_and_errors(everup: Everup) -> None:
    """0 done, 1 it failed, 2 used wrongly, 4 not well; an error says what and what next."""
    everup.up(
        {
            "web": {"command": SLEEP},
            "bad": {"command": ["false"], "restart": {"policy": "never"}},
            "off": {"command": SLEEP, "autostart": False},
            "once": {"command": ["true"], "type": "oneshot"},
        },
        expect=4,
    )
    result = everup.cli("status", expect=4)
    assert "bad.1: exit 1" in result.out
    assert "off.1: " in result.out
    assert f"(everup -c {everup.config} start off.1)" in result.out
    assert everup.cli("status", "--json", expect=4).json["services"]
    assert "bad" not in everup.cli("status", "web", "once", expect=0).out
    assert "web.1" in everup.cli("status", "web.1", expect=0).out
    result = everup.cli("start", "bad", expect=4)
    assert "bad.1 is failed: " in result.err
    for arguments, status, words in (
        (("stop", "wbe"), 1, ("no service or instance 'wbe'", "did you mean web?")),
        (("stop", "web.2"), 1, ("'web.2'", "did you mean web.1?")),
        (("start", "zzzz"), 1, ("'zzzz'", "there are: web, bad, off, once")),
        (("status", "wbe"), 1, ("'wbe'", "did you mean web?")),
        (("logs", "wbe"), 1, ("'wbe'", "did you mean web?")),
        (("logs", "web", "wbe"), 1, ("'wbe'", "did you mean web?")),
        (("events", "-s", "wbe"), 1, ("'wbe'", "did you mean web?")),
        (("events", "-k", "instance.exited.*"), 1, ("no kind", "instance.exited?")),
        (("signal", "FOO", "web"), 1, ("'FOO' is no signal", "SIGHUP")),
        (("scale", "once", "2"), 1, ("oneshot",)),
        (("scale", "web", "1001"), 1, ("expected 0 to 1000",)),
        (("scale", "web", "many"), 2, ("many", "integer")),
        (("signal", "HUP"), 2, ("name the services",)),
        (("events", "--since", "yesterday"), 2, ("--since yesterday", "10m (ago)")),
        (("events", "--since", "99999999999d"), 2, ("--since",)),
        (("events", "-n", "-5"), 1, ("n=-5",)),
        (("statsu",), 2, ("'statsu'", "Did you mean 'status'?")),
        (("status", "--jsn"), 2, ("--json",)),
        (("completion", "tcsh"), 2, ("bash",)),
    ):
        result = everup.cli(*arguments, expect=status)
        assert result.out == ""
        for word in words:
            assert word in result.err, (arguments, result.err)
        assert "Traceback" not in result.err
    # A hint repeats the -c of the command, but only before a command.
    everup.tell("stubborn")
    everup.down()
    everup.up({"a": everup.server(stop_timeout="1h")})
    everup.wait_for(lambda: everup.output("a.1"), "it has its handler")
    result = everup.cli("down", "--timeout", "0.1", expect=1)
    assert "still stopping after 0.1 s" in result.err
    assert "everup goes on with it" in result.err
    assert f"everup -c {everup.config} status" in result.err
    keeper = everup.keeper_pid
    os.kill(everup.pid("a.1"), signal.SIGKILL)
    everup.wait_for(lambda: keeper not in everup.processes(), "down")


def test_scale_note(everup: Everup) -> None:
    """Status says where it differs from the config, and how to go back to that."""
    everup.up({"web": {"command": SLEEP, "replicas": 2}})
    assert "scaled" not in everup.cli("status").out
    everup.cli("scale", "web", "3")
    note = f"web: scaled to 3, the config says 2 (everup -c {everup.config} scale web 2)"
    assert note in everup.cli("status").out
    everup.cli("scale", "web", "2")
    assert "scaled" not in everup.cli("status").out


def test_events(everup: Everup) -> None:
    everup.up({"web": {"command": SLEEP, "replicas": 2}, "webby": {"command": SLEEP}})
    everup.cli("restart", "web.1")
    everup.cli("stop", "webby")

    def shown(*arguments: str) -> list[dict[str, object]]:
        out = everup.cli("events", "--json", *arguments).out
        return [json.loads(line) for line in out.splitlines()]

    journal = everup.events()
    seqs = [e["seq"] for e in shown("-n", "100000")]
    assert seqs == [e["seq"] for e in journal] == sorted(seqs)
    assert shown() == shown("-n", "50")
    assert [e["seq"] for e in shown("-n", "3")] == seqs[-3:]
    assert shown("-n", "0") == []
    assert [e["seq"] for e in shown("--after", str(seqs[-4]))] == seqs[-3:]
    assert shown("--after", str(seqs[-1])) == []
    # A service is not another that begins like it.
    web = {e["subject"] for e in shown("-s", "web")}
    assert {"web.1", "web.2"} <= web <= {"web", "web.1", "web.2"}
    assert {e["subject"] for e in shown("-s", "web.2")} == {"web.2"}
    assert {e["subject"] for e in shown("-s", "web.2", "-s", "webby.1")} == {"web.2", "webby.1"}
    kinds = {e["kind"] for e in shown("-k", "instance.*")}
    assert {"instance.ready", "instance.spawned", "instance.exited"} <= kinds
    assert all(str(kind).startswith("instance.") for kind in kinds)
    assert {e["kind"] for e in shown("-k", "instance.exited", "-k", "service.*")} == {
        "instance.exited",
        "service.wanted",
    }
    exited = shown("-s", "web", "-k", "instance.exited")
    assert [(e["subject"], e["cause"]) for e in exited] == [("web.1", "SIGTERM")]
    # Times: of an event, in every form.
    middle = str(shown("--after", str(seqs[len(seqs) // 2]))[0]["time"])
    split = shown("--until", middle), shown("--since", middle)
    assert split[0]
    assert split[1]
    assert {e["seq"] for half in split for e in half} == set(seqs)
    now = datetime.now(UTC).astimezone()
    hour_ago = now - timedelta(hours=1)
    for text in ("1h", "2d", hour_ago.strftime("%Y-%m-%dT%H:%M"), "2020-01-01"):
        assert [e["seq"] for e in shown("--since", text)] == seqs
        assert shown("--until", text) == []
    for text in ("0:00", "00:00:00", "0:00:00"):
        shown("--since", text)
    later = (now + timedelta(hours=1)).isoformat()
    assert shown("--since", later) == []
    text = everup.cli("events", "-s", "web.1", "-k", "instance.exited").out
    assert "web.1" in text
    assert "instance.exited" in text
    assert "cause=SIGTERM" in text


def test_events_follow(everup: Everup) -> None:
    """A follower sees what comes, also after many; filtered as before; and it ends."""
    everup.up({"a": {"command": SLEEP}, "b": {"command": SLEEP}})
    with (
        Reader(everup, "events", "-f", "-n", "1", "--json") as all_of_them,
        Reader(everup, "events", "-f", "-n", "0", "-s", "a", "-k", "instance.ready") as some,
        Reader(everup, "events", "-f", "-k", "service.*", "--json") as wanted,
    ):
        all_of_them.wait('"seq"')
        first = json.loads(all_of_them.lines()[0])["seq"]
        everup.wait_for(lambda: _followers(everup) >= 3, "all of them follow")
        for _ in range(2):
            everup.cli("stop")
            everup.cli("start")
        last = everup.last_seq()
        all_of_them.wait(f'"seq": {last},')
        everup.wait_for(lambda: len(some.lines()) >= 2, "two events")
        everup.wait_for(lambda: len(wanted.lines()) >= 8, "eight events")
        assert [json.loads(line)["seq"] for line in all_of_them.lines()] == list(
            range(first, last + 1)
        )
        assert len(some.lines()) == 2
        assert all("instance.ready" in line and " a.1 " in line for line in some.lines())
        assert {json.loads(line)["kind"] for line in wanted.lines()} == {"service.wanted"}
        some.process.send_signal(signal.SIGINT)
        assert some.process.wait(DEADLINE_S) == 130
        everup.cli("down", "--timeout", "8")  # followers do not hold it up
        for reader in (all_of_them, wanted):
            assert reader.process.wait(DEADLINE_S) in (0, 3)
        assert "Traceback" not in all_of_them.path.read_text()


def _followers(everup: Everup) -> int:
    """Connections that the engine has accepted on its API and still holds."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    # state 03: connected
    return sum(line.endswith(everup.place.api_socket) and line.split()[5] == "03" for line in lines)


TALK = """
import os, sys, time
me = os.environ["EVERUP_REPLICA"]
n = 0
while True:
    path = f"{sys.argv[1]}/say.{n}.{me}"
    while not os.path.exists(path):
        time.sleep(0.005)
    os.write(1, f"line {n} of {me}\\n".encode())
    n += 1
"""


def test_logs(everup: Everup) -> None:
    """Merged by time over the replicas; the last lines; as they come; also of new replicas."""
    talk = python(TALK, str(everup.control))
    everup.up({"web": {"command": talk, "replicas": 2}, "b": {"command": sh("echo b; sleep 999")}})
    said = []
    for n in range(5):
        for replica in (1, 2) if n % 2 else (2, 1):
            everup.tell(f"say.{n}.{replica}")
            text = f"line {n} of {replica}"
            everup.wait_for(lambda r=replica, t=text: t in everup.output(f"web.{r}"), text)
            said.append(text)
    assert everup.cli("logs", "web", "--plain").out.splitlines() == said
    assert everup.cli("logs", "web", "--plain", "-n", "3").out.splitlines() == said[-3:]
    assert everup.cli("logs", "web", "-n", "0").out == ""
    only = everup.cli("logs", "web.2", "--plain").out.splitlines()
    assert only == [text for text in said if text.endswith("of 2")]
    assert set(everup.cli("logs", "--plain", "--raw").out.splitlines()) == {*said, "b"}
    lines = [json.loads(line) for line in everup.cli("logs", "--json").out.splitlines()]
    assert [x["time_ns"] for x in lines] == sorted(x["time_ns"] for x in lines)
    assert {x["slot"] for x in lines} == {"web.1", "web.2", "b.1"}
    assert everup.cli("logs", "web").out.splitlines()[-1].endswith(f"web.1 | {said[-2]}") or (
        said[-1] in everup.cli("logs", "web").out.splitlines()[-1]
    )

    with Reader(everup, "logs", "web", "-f", "-n", "2", "--plain") as reader:
        reader.wait(said[-1])
        for replica in (2, 1):
            everup.tell(f"say.5.{replica}")
            reader.wait(f"line 5 of {replica}")
        everup.tell("say.0.3")
        everup.cli("scale", "web", "3")
        reader.wait("line 0 of 3")
        everup.tell("say.1.3")
        reader.wait("line 1 of 3")
        assert reader.lines() == [
            *said[-2:],
            "line 5 of 2", "line 5 of 1", "line 0 of 3", "line 1 of 3",
        ]  # fmt: skip


BINARY = """
import os, time
os.write(1, b"a\\xff\\x00\\xfe\\xc3\\x28b\\n" + "grün €\\n".encode() + b"\\x1b[31mred\\r\\n")
os.write(2, b"error\\n")
time.sleep(1000)
"""


def test_logs_plain_is_binary_safe(everup: Everup) -> None:
    """--plain gives the bytes that the service wrote; the others show what can be shown."""
    everup.up({"a": {"command": python(BINARY)}})
    everup.wait_for(lambda: len(everup.output("a.1")) >= 4, "all is stored")
    for locale in ("C.UTF-8", "C", "POSIX"):
        done = subprocess.run(
            [EVERUP, "-c", everup.config, "logs", "--plain", "--raw"],
            env=everup.environment | {"LC_ALL": locale, "PYTHONUTF8": "0"},
            capture_output=True,
            timeout=COMMAND_S,
            check=True,
        )
        lines = sorted(done.stdout.split(b"\n"))
        assert lines == sorted(
            [b"a\xff\x00\xfe\xc3\x28b", "grün €".encode(), b"\x1b[31mred\r", b"error", b""]
        )
    out = everup.cli("logs").out
    assert r"| a\xff" in out
    assert "| grün €" in out
    assert "! error" in out
    done = subprocess.run(
        [EVERUP, "-c", everup.config, "logs"],
        env=everup.environment | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        timeout=COMMAND_S,
        check=True,
    )
    assert b"| gr\xfcn \\u20ac" in done.stdout


def test_reader_that_has_seen_enough(everup: Everup) -> None:
    """`| head -1`: no complaint."""
    everup.up({"a": {"command": sh("seq 20000; exec sleep 1000")}})
    everup.wait_for(lambda: "20000" in everup.output("a.1")[-1:], "all is stored")
    for command in ("logs -n 20000", "events", "logs -f -n 20000", "status"):
        done = subprocess.run(
            ["sh", "-c", f"'{EVERUP}' -c '{everup.config}' {command} | head -1"],
            env=everup.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=True,
        )
        assert len(done.stdout.splitlines()) == 1
        assert done.stderr == ""


def test_check(everup: Everup) -> None:
    """All problems at once, each with its line and what would be valid."""
    everup.config.write_text(
        "[service.web]\n"
        'command = "sleep 1000"\n'
        "replica = 2\n"
        'stop_timeout = "soon"\n'
        "[service.db]\n"
        'command = ["sleep", "1000"]\n'
        'depends_on = ["cache"]\n'
    )
    result = everup.cli("check", expect=2)
    problems = [line for line in result.err.splitlines() if line.startswith("error:")]
    found = {int(line.split(":")[2]) for line in problems}
    assert found == {2, 3, 4, 7}
    assert all(f"{everup.config}:" in line for line in problems)
    for word in ("replicas", "stop_timeout", '"soon"', "cache"):
        assert word in result.err
    assert f"{everup.config} has {len(problems)} problems" in result.err
    data = everup.cli("check", "--json", expect=2).json
    assert [f"error: {problem}" for problem in data["problems"]] == problems
    assert "has" in everup.cli("check", "-q", expect=2).err

    everup.config.write_text("[service.web\n")
    assert f"{everup.config}:1" in everup.cli("check", expect=2).err
    everup.config.write_bytes(b'[service.web]\ncommand = ["\xff"]\n')
    assert "Traceback" not in everup.cli("check", expect=2).err

    everup.write({"web": {"command": SLEEP}})
    result = everup.cli("check")
    assert "stop_timeout" in result.out, "defaults are shown"
    assert "is valid: 1 service" in result.err
    assert everup.cli("check", "-q").out == ""
    schema = everup.cli("check", "--schema").json
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(schema)
    assert Draft202012Validator(schema).is_valid({"service": {"web": {"command": SLEEP}}})
    assert not Draft202012Validator(schema).is_valid({"service": {"web": {"comand": SLEEP}}})


PROCFILE = """\
release: python3 manage.py migrate
web: python3 -m http.server $PORT --bind 127.0.0.1
worker: python3 worker.py --queue 'a b' && echo done
"""
SUPERVISORD = """\
[supervisord]
logfile=/tmp/supervisord.log

[program:web]
command=/usr/bin/python3 -m http.server 80%(process_num)02d
process_name=%(program_name)s_%(process_num)02d
numprocs=2
autorestart=unexpected
stopsignal=INT
stopwaitsecs=7
environment=A="1",B="two words"

[program:worker]
command=/usr/bin/sleep 1000
autostart=false

[group:all]
programs=web,worker
"""


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("", "", ("[service.web]",)),
        ("Procfile", PROCFILE, ("[service.release]", '"oneshot"', "[service.worker]", "{port}")),
        ("supervisord.conf", SUPERVISORD, ("[service.web]", "replicas = 2", '"7s"', "SIGINT")),
    ],
)
def test_init(everup: Everup, name: str, text: str, words: tuple[str, ...]) -> None:
    """What it writes is valid as it is; what is there is not written over."""
    if name:
        (everup.directory / name).write_text(text)
    result = everup.cli("init")
    assert f"wrote everup.toml from {name or 'nothing'}" in result.out
    assert "check" in result.out
    written = everup.config.read_text()
    for word in words:
        assert word in written, written
    checked = everup.cli("check")
    assert "is valid" in checked.err
    everup.config.write_text("# mine\n")
    result = everup.cli("init", expect=1)
    assert "everup.toml is there already" in result.err
    assert "--force" in result.err
    assert everup.config.read_text() == "# mine\n"
    everup.cli("init", "--force")
    assert everup.config.read_text() == written
    if name:
        option = "--procfile" if name == "Procfile" else "--supervisord"
        (everup.directory / name).rename(everup.directory / "else where")
        result = everup.cli("init", option, "else where", "o t.toml")
        assert "everup -c 'o t.toml' check" in result.out
        assert everup.cli("init", option, "nowhere", "x.toml", expect=2).err
    assert "cannot write" in everup.cli("init", "no/such/dir.toml", expect=1).err


def test_init_and_up(everup: Everup) -> None:
    """The shortest way there is: init, up, and it serves."""
    everup.cli("init")
    written = everup.config.read_text()
    assert "port = 8000 " in written
    everup.config.write_text(written.replace("port = 8000 ", f"port = {everup.port()} "))
    everup.up()
    assert everup.state("web.1") == "ready"


def test_version_and_help(everup: Everup) -> None:
    assert everup.cli("version").out.startswith(f"everup {__version__} ")
    assert __version__ in everup.cli("--version").out
    out = everup.cli("--help").out
    for command in ("up", "down", "status", "check", "completion"):
        assert f"  {command} " in out
        assert "--json" in everup.cli(command, "--help").out
    assert "3 everup is not running" in " ".join(out.split())


def test_completion(everup: Everup) -> None:
    """Scripts that their shells can read, and that complete commands and options."""
    for shell in ("bash", "zsh", "fish"):
        script = everup.cli("completion", shell).out
        assert "_EVERUP_COMPLETE" in script
        if program := shutil.which(shell):
            subprocess.run([program, "-n"], input=script.encode(), check=True, timeout=COMMAND_S)
    script = everup.cli("completion", "bash").out
    ask = "COMP_WORDS=(everup st); COMP_CWORD=1; _everup_completion everup; echo ${COMPREPLY[*]}"
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{ask}"],
        env=everup.environment | {"PATH": f"{Path(EVERUP).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=True,
    )
    assert done.stdout.split() == ["status", "start", "stop"]
    assert _completed(everup, "everup st", 1) == {"start", "stop", "status"}
    assert "--timeout" in _completed(everup, "everup up --t", 2)


def _completed(everup: Everup, words: str, at: int) -> set[str]:
    done = subprocess.run(
        [EVERUP],
        env=everup.environment
        | {"_EVERUP_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)},
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=True,
    )
    return {line.partition(",")[2] for line in done.stdout.splitlines()}


def test_second_up_is_refused(everup: Everup) -> None:
    everup.up({"a": {"command": SLEEP}})
    pid = everup.pid("a.1")
    for arguments in (("up",), ("up", "-d"), ("up", "-d", "--json")):
        result = everup.cli(*arguments, expect=1)
        assert f"(keeper pid {everup.keeper_pid})" in result.err
        assert f"look: everup -c {everup.config} status" in result.err
        assert f"stop it: everup -c {everup.config} down" in result.err
    assert everup.pid("a.1") == pid


def _up_in_terminal(everup: Everup) -> tuple["subprocess.Popen[bytes]", int]:
    """``everup up`` as in a terminal of its own; and the other end of that."""
    ours, theirs = pty.openpty()
    running = everup.popen(
        "up",
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(1, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    return running, ours


def _typed_on(running: "subprocess.Popen[bytes]", terminal: int) -> str:
    """All that it says until it has ended."""
    said = b""
    try:
        while data := os.read(terminal, 65536):
            said += data
    except OSError:  # the other end is closed
        pass
    os.close(terminal)
    running.wait(DEADLINE_S)
    return said.decode()


def test_ctrl_c_stops_in_order(everup: Everup) -> None:
    """The key itself, which goes to all processes of the terminal: services do not hear it."""
    loud = python(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: print('got SIGINT', flush=True))\n"
        "print('here', flush=True)\n"
        "time.sleep(1000)"
    )
    everup.write(
        {
            "a": {"command": loud},
            "b": {"command": loud, "depends_on": ["a"]},
            "c": {"command": loud, "depends_on": ["b"]},
        }
    )
    running, terminal = _up_in_terminal(everup)
    everup.wait_for(lambda: os.path.exists(everup.place.api_socket), "API")
    for slot in ("a.1", "b.1", "c.1"):
        everup.wait_for(lambda s=slot: everup.output(s), f"{slot} is here")
    os.write(terminal, b"\x03")
    said = _typed_on(running, terminal)
    assert running.returncode == 0
    assert "all services are down" in said
    stopped = [e["subject"] for e in everup.events("instance.stopped")]
    assert stopped == ["c.1", "b.1", "a.1"]
    assert [e["cause"] for e in everup.events("instance.exited")] == ["SIGTERM"] * 3
    for slot in ("a.1", "b.1", "c.1"):
        assert everup.output(slot) == ["here"]
    assert everup.events("engine.stopped")
    assert everup.cli("status", expect=3).out == ""


def test_second_ctrl_c_hurries(everup: Everup) -> None:
    everup.tell("stubborn")
    everup.write({"a": everup.server(stop_timeout="1h"), "b": everup.server(stop_timeout="1h")})
    running, terminal = _up_in_terminal(everup)
    everup.wait_for(lambda: os.path.exists(everup.place.api_socket), "API")
    for slot in ("a.1", "b.1"):
        everup.wait_for(lambda s=slot: everup.output(s), "it has its handler")
    os.write(terminal, b"\x03")
    for slot in ("a.1", "b.1"):
        everup.wait_state(slot, "stopping")
    os.write(terminal, b"\x03")
    said = _typed_on(running, terminal)
    assert running.returncode == 0
    assert "SIGINT again: killing what is left" in said
    assert [e["cause"] for e in everup.events("instance.exited")] == ["SIGKILL"] * 2
