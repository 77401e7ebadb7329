"""A real Nagios runs everup's event handler."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _everup import SLEEP, Everup
from _nagios import Nagios, wait_for
from test_nagios_results import write, written

HANDLER = Path(sys.executable).with_name("everup-nagios-handler")
# As docs/how-to/nagios.md has it.
COMMAND = """
define command {{
  command_name everup-tell
  command_line {handler} --secret={secret} --to=127.0.0.1:{port} '--host=$HOSTNAME$' \
'--service=$SERVICEDESC$' --state=$SERVICESTATE$ --type=$SERVICESTATETYPE$ \
--attempt=$SERVICEATTEMPT$ '--about=$_SERVICEEVERUP$' '--text=$SERVICEOUTPUT$' \
>> {folder}/handled 2>&1
}}
"""
SERVICE = """
define service {{
  host_name box
  service_description {name}
  check_command everup-up
  max_check_attempts 3
  check_interval 1
  retry_interval 1
  active_checks_enabled 0
  check_period everup-always
  notification_period everup-always
  contacts everup-nobody
  event_handler everup-tell
  {macro}
}}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="everup-nagios-") as path:
        os.chmod(path, 0o755)
        yield Path(path)


def result(nagios: Nagios, service: str, code: int, text: str) -> None:
    words = f"[{int(time.time())}] PROCESS_SERVICE_CHECK_RESULT;box;{service};{code};{text}\n"
    write(nagios, words.encode())


def reported(everup: Everup, kind: str) -> list[dict[str, Any]]:
    return [e for e in everup.events(f"detect.{kind}") if e["condition"] == "reported"]


def test_a_failure_opens_an_incident_and_its_end_ends_it(everup: Everup, folder: Path) -> None:
    secret, port = everup.directory / "secret", everup.port()
    secret.write_text("s3cret\n")
    secret.chmod(0o640)
    nagios = Nagios(folder / "nagios", "")
    settings = {"handler": HANDLER, "secret": secret, "port": port, "folder": nagios.folder}
    texts = [
        written({"web": []}, 30.0),
        COMMAND.format(**settings),
        SERVICE.format(name="HTTP", macro="_EVERUP web"),
        SERVICE.format(name="SMTP", macro=""),
    ]
    (nagios.folder / "objects.cfg").write_text("\n".join(texts))
    tables = {
        "nagios": {"host": "box", "command_file": str(nagios.command_file)},
        "nagios.handler": {"secret_file": "secret", "listen": f"127.0.0.1:{port}"},
    }
    try:
        nagios.start()
        everup.up({"web": {"command": SLEEP}}, tables=tables, observer=True)
        # The first soft attempt is waited out; the second is told.
        text = r"it's; $(touch /tmp/x) `id` \\ \" <b> 100% | a=1"
        result(nagios, "HTTP", 2, text)
        nagios.wait("HTTP", 2)
        wait_for(lambda: "soft" in said(nagios), "the first attempt was told")
        assert reported(everup, "began") == []
        began = time.monotonic()
        result(nagios, "HTTP", 2, text)
        found = everup.wait_event("detect.began", condition="reported")
        print(f"result to condition: {time.monotonic() - began:.2f} s")
        assert found["subject"] == "web"
        assert found["text"].startswith("fails, as Nagios says: its: (touch /tmp/x) id")
        assert found["text"].endswith("(box/HTTP)")
        opened = everup.wait_event("incidents.opened", "web")
        # Another one, of the machine; what everup told Nagios itself is no news.
        for _ in range(3):
            result(nagios, "SMTP", 2, "no greeting")
        other = everup.wait_event("detect.began", condition="reported", after=found["seq"])
        assert (other["subject"], "no greeting (box/SMTP)" in other["text"]) == ("machine", True)
        # The observer dies; the next one knows what Nagios will not say again.
        pid = everup.events("observer.started")[-1]["pid"]
        everup.kill(pid)
        result(nagios, "HTTP", 0, "fine")
        ended = everup.wait_event("detect.ended", "web", condition="reported")
        assert ended["why"] == "Nagios says that it is over"
        everup.wait_event("incidents.mitigated", "web", number=opened["number"])
        assert [e["subject"] for e in reported(everup, "ended")] == ["web"]
        assert len(reported(everup, "began")) == 2
        # Who does not know the secret tells nothing; what everup told is not taken back.
        assert ask(port, secret, "--service=web") == (0, "ignored: everup told Nagios of it")
        assert ask(port, secret, "--about=wen")[1].startswith("refused: there is no service wen")
        wrong = everup.directory / "wrong"
        wrong.write_text("other\n")
        assert ask(port, wrong)[0] == 1
        assert "signature" in ask(port, wrong)[1]
        # Without a handler nobody would end it.
        del tables["nagios.handler"]
        everup.write({"web": {"command": SLEEP}}, tables=tables, observer=True)
        everup.cli("reload")
        everup.wait_event("detect.ended", "machine", condition="reported")
    finally:
        nagios.stop()


def said(nagios: Nagios) -> str:
    path = nagios.folder / "handled"
    return path.read_text() if path.exists() else ""


def ask(port: int, secret: Path, *more: str) -> tuple[int, str]:
    argv = [str(HANDLER), f"--secret={secret}", f"--to=127.0.0.1:{port}", "--host=box"]
    argv += ["--state=CRITICAL", *more]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()
