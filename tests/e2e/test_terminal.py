"""What services, paths and templates bring to a terminal."""

import json
from pathlib import Path

from _everup import Everup, python

EVIL = "\x1b[2J\x9b31m\u202egnp.exe\x07\r\u2028"
SEEN = r"\x1b[2J\x9b31m\u202egnp.exe\x07\r\u2028"
_SAYS = """
import os, socket, sys, time
evil = sys.argv[1].encode().decode("unicode_escape")
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(f"READY=1\\nSTATUS={evil}".encode(), os.environ["NOTIFY_SOCKET"])
sys.stdout.buffer.write(evil.encode() + b"\\xff\\n")
sys.stdout.flush()
time.sleep(1000)
"""
_ANSWERS = 'import sys; print(sys.argv[1].encode().decode("unicode_escape")); sys.exit(1)'


def test_nothing_is_obeyed(everup: Everup) -> None:
    coded = EVIL.encode("unicode_escape").decode()
    probe = {"exec": python(_ANSWERS, coded), "interval": "100ms", "failure_threshold": 100}
    everup.up(
        {
            "web": {"command": python(_SAYS, coded), "notify": True},
            "sick": {"command": ["sleep", "1000"], "probe": {"readiness": probe}},
            "gone": {"command": [f"/no{EVIL}where"], "directory": "/"},
            "odd": {"command": ["sleep", f"1000{EVIL}"]},
        },
        expect=None,
    )
    everup.wait_for(lambda: everup.instance("web.1")["status_text"], "its status")
    everup.wait_for(lambda: everup.output("web.1"), "its output")
    everup.wait_for(lambda: everup.instance("sick.1")["probes"], "a probe")
    said = {
        command[0]: everup.cli(*command, expect=None).text
        for command in (("status",), ("logs",), ("events",), ("check",), ("start", "gone"))
    }
    (everup.state_dir / "everup.log").read_text().encode("ascii")
    for command, text in said.items():
        assert harmless(text), (command, text)
    assert SEEN in said["status"]
    assert SEEN + r"\xff" in said["logs"]
    assert harmless(everup.cli("logs", "--plain").text)
    for command in ("logs", "events"):
        raw = everup.cli(command, "--raw").text
        assert not harmless(raw)
        text = everup.cli(command, "--json").out
        text.encode("ascii")
        assert harmless(text)
        found = [json.loads(line) for line in text.splitlines()]
        assert any(EVIL in str(value) for one in found for value in one.values()), command


def test_a_path_with_control_characters(tmp_path: Path) -> None:
    directory = tmp_path / f"a{EVIL}b"
    directory.mkdir()
    everup = Everup(directory)
    try:
        everup.write({"web": {"command": ["sleep", "1000"], "prot": 1}})
        assert harmless(everup.cli("check", expect=2).text)
        everup.up({"web": {"command": ["sleep", "1000"]}})
        for command in ("status", "up", "logs", "check"):
            assert harmless(everup.cli(command, expect=None).text)
    finally:
        everup.close()
    assert harmless(everup.cli("status", expect=3).text)
    assert harmless(everup.cli("logs", EVIL, expect=None).text)
    assert harmless(everup.cli(f"--{EVIL}", expect=2).text)
    assert harmless(everup.cli("logs", f"--{EVIL}", expect=2).text)


def harmless(text: str) -> bool:
    return not any(character in text for character in EVIL if not character.isalnum()
                   and character not in "[.") and "\x1b" not in text  # fmt: skip
