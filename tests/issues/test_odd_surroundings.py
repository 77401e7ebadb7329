"""Commands ended with a traceback in a directory that was deleted meanwhile, with a config whose
path is no UTF-8 text, and with arguments that are none."""

import os
import subprocess
from pathlib import Path

import pytest
from _everup import EVERUP, SLEEP, Everup

_COMMANDS = [
    "check",
    "status",
    "up",
    "down",
    "stop",
    "restart",
    "reload",
    "logs",
    "events",
    "report",
]
_COMMANDS += ["plan", "reexec", "init --supervisord {conf} new.toml"]


def run(*words: bytes | str, cwd: Path, deleted: bool = False) -> tuple[int, str]:
    """Status and output of everup, in ``cwd`` or where that has been deleted."""
    script = 'rmdir "$PWD"; exec "$@"' if deleted else 'exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", EVERUP, *words],
        cwd=cwd, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    text = (done.stdout + done.stderr).decode()
    assert "Traceback" not in text, text
    return done.returncode, text


@pytest.mark.parametrize("command", _COMMANDS)
def test_in_a_deleted_directory(command: str, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    (tmp_path / "s.conf").write_text("[program:a]\ncommand=b\n")
    words = command.format(conf=tmp_path / "s.conf").split()
    status, text = run(*words, cwd=tmp_path / "gone", deleted=True)
    assert status in (1, 2)
    assert "the current directory does not exist any more" in text or words[0] == "init"


def test_a_named_config_needs_no_directory(everup: Everup) -> None:
    everup.write({"web": {"command": SLEEP}})
    for command in ("check", "up -d", "status", "restart web", "down"):
        gone = everup.directory / "gone"
        gone.mkdir()
        words = command.split()
        status, text = run("-c", str(everup.config), *words, cwd=gone, deleted=True)
        assert status == 0, text


@pytest.mark.parametrize("command", _COMMANDS[:-1])
def test_a_config_whose_path_is_no_utf8(command: str, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/\xffd"
    os.mkdir(odd)
    with open(odd + b"/everup.toml", "w") as file:
        file.write('[service.web]\ncommand = ["sleep", "1000"]\n')
    for words in ((b"-c", odd + b"/everup.toml", command), (command,)):
        cwd = tmp_path if len(words) > 1 else Path(os.fsdecode(odd))
        status, text = run(*words, cwd=cwd)
        assert status == 2
        assert "the path of the config is no UTF-8 text" in text
        assert "\\xff" in text


@pytest.mark.parametrize("running", [True, False])
def test_arguments_that_nothing_can_be_called(everup: Everup, running: bool) -> None:
    everup.write({"web": {"command": SLEEP}})
    if running:
        everup.up()
    for command in ("stop", "status", "logs", "report", "plan", "events --kind"):
        for word in (b"\xff", b"a\x1b]0;x\x07\nb", "\u202e".encode()):
            status, text = run(*command.split(), word, cwd=everup.directory)
            assert status or command.startswith(("events", "plan"))
            assert all(char.isprintable() or char == "\n" for char in text), text
