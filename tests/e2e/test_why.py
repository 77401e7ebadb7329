"""``everup why``: real failures, and the sentence that names them."""

import sys
from typing import Any

from _everup import SLEEP, Everup, python, sh

ONCE = {"restart": {"intensity": {"limit": 1, "period": "60s"}, "delay": "10ms"}}

BIND = "import socket, sys; socket.socket().bind(('127.0.0.1', int(sys.argv[1])))"


def causes(everup: Everup, *subject: str, expect: int = 4) -> list[dict[str, Any]]:
    answers = everup.cli("why", "--json", *subject, expect=expect).json
    return [answer["causes"][0] | {"subject": answer["subject"]} for answer in answers]


def test_five_causes_in_one_go(everup: Everup) -> None:
    port = everup.port()
    services: dict[str, Any] = {
        "module": {"command": python("import flaskk"), **ONCE,
                   "probe": {"startup": {"tcp": "127.0.0.1:9"}}},
        "taken": {"command": python(BIND, str(port)), "depends_on": "holder", **ONCE},
        "refused": {"command": python(
            "import socket; socket.create_connection(('127.0.0.1', 9))"
        ), **ONCE},
        "config": {"command": sh("exit 78"), **ONCE},
        "fine": {"command": SLEEP},
        "holder": {"command": [sys.executable, "-m", "http.server", "-b", "127.0.0.1", str(port)],
                   "probe": {"startup": {"tcp": f"127.0.0.1:{port}"}}},
        "held": {"command": SLEEP, "depends_on": "module"},
    }  # fmt: skip
    everup.write(services)
    up = everup.cli("up", "-d", "--timeout", "30", expect=4)
    assert "because" in up.text
    for name in ("module", "taken", "refused", "config"):
        everup.wait_state(f"{name}.1", "parked")
    found = {cause["subject"]: cause for cause in causes(everup)}
    assert found["module"]["kind"] == "module"
    assert found["module"]["evidence"][0]["source"] == "output"
    assert found["taken"]["kind"] == "address_in_use"
    assert found["refused"]["kind"] == "refused"
    assert found["config"]["kind"] == "exit"
    assert found["held"]["kind"] == "dependency"
    assert "fine" not in found
    assert "module.1: because the module flaskk" in everup.cli("status", expect=4).out
    text = everup.cli("why", "module", expect=4).out
    assert "because the module flaskk is not installed where it looks" in text
    assert "is not up, because the module flaskk" in everup.cli("why", "held", expect=4).out
    everup.down()
    again = everup.cli("why", "module", expect=None)  # the files are still there
    assert "flaskk" in again.out


def test_killed_from_outside_and_well_again(everup: Everup) -> None:
    everup.up({"web": {"command": SLEEP}})
    assert "has no failure" in everup.cli("why", "web").out
    pid = everup.pid("web.1")
    everup.kill(pid)
    everup.wait_new_pid("web.1", pid)
    everup.wait_state("web.1", "ready")
    (cause,) = causes(everup, "web.1", expect=0)
    assert cause["kind"] == "signal"
    assert "kill -9" in everup.cli("why").out
    wrong = everup.cli("why", "wbe", expect=2)
    assert "there are: web" in wrong.text


def test_a_deploy_that_is_rolled_back_says_why(everup: Everup) -> None:
    web: dict[str, Any] = {"command": SLEEP}
    everup.up({"web": web})
    everup.write({"web": web | {"command": python("raise MemoryError")}})
    failed = everup.cli("reload", expect=1)
    assert "rolled back" in failed.text
    assert "because it ran out of memory" in failed.text
