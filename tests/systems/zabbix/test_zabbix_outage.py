"""An outage in a real Zabbix: one problem with the cause as its name, and its end."""

import json
import time
from typing import Any

from _everup import Everup, Result, python
from _zabbix import PASSWORD, Zabbix, wait_for


def server(says: str, after_s: float = 0.0, broken: str = "broken") -> list[str]:
    """A server that ends with those words once there is a file ``broken``, and does not serve
    until that is gone. It ends once: a crash loop would be over after a minute only."""
    return python(
        "import pathlib, select, socket, sys, time\n"
        f"broken = pathlib.Path('{broken}')\n"
        "while broken.exists():\n"
        "    time.sleep(0.02)\n"
        "s = socket.socket(fileno=3)\n"
        "while not broken.exists():\n"
        "    if select.select([s], [], [], 0.02)[0]:\n"
        "        s.accept()[0].close()\n"
        f"time.sleep({after_s})\n"
        f"sys.exit({says!r})\n"
    )


def setup(everup: Everup, zabbix: Zabbix, expect: int = 0, **more: str) -> Result:
    secret = everup.directory / "password"
    secret.write_text(f"{more.pop('password', PASSWORD)}\n")
    options = {"url": zabbix.url, "user": "Admin", "password-file": str(secret)} | more
    arguments = [word for key, value in options.items() for word in (f"--{key}", value)]
    return everup.cli("zabbix", "setup", *arguments, expect=expect)


def problems(zabbix: Zabbix, host: str, *, over: bool = False) -> list[dict[str, Any]]:
    """The problems of a host's services, oldest first; ``over``: also those that are over. This
    machine may have problems of its own meanwhile: too little CPU."""
    found: list[dict[str, Any]] = zabbix.api(
        "event.get" if over else "problem.get",
        hostids=zabbix.api("host.get", filter={"host": host}, output=["hostid"])[0]["hostid"],
        output="extend",
        selectTags=["tag", "value"],
        sortfield=["eventid"],
        **({"value": 1} if over else {}),
    )
    return [p for p in found if any(tag["tag"] == "service" for tag in p["tags"])]


def test_an_outage_is_one_problem_with_its_cause(everup: Everup, zabbix: Zabbix) -> None:
    lost = server('OperationalError: connection to server at "db" failed', 0.3)
    full = server("OSError: [Errno 28] No space left on device")
    settings = {"probe": {"readiness": {"tcp": "listen", "interval": "50ms", "timeout": "1s"}}}
    listen = [f"127.0.0.1:{everup.port()}" for _ in range(2)]
    services = {
        "web": {"command": lost, "listen": listen[0], "depends_on": ["db"], **settings},
        "db": {"command": full, "listen": listen[1], **settings},
    }
    table = {"servers": [f"127.0.0.1:{zabbix.port}"], "host": "box", "heartbeat": "2s"}
    everup.write(services, tables={"zabbix": table}, observer=True)
    assert "Incorrect user name or password" in setup(everup, zabbix, 1, password="wrong").err
    assert "the host box was made" in setup(everup, zabbix).out
    assert "the host box has the template" in setup(everup, zabbix).out, "again changes nothing"
    everup.up()

    def value(key: str) -> str:
        return str(zabbix.items("box").get(key, {}).get("lastvalue", ""))

    wait_for(lambda: value("everup.service.ready[web]") == "1", "the services are discovered")
    wait_for(lambda: value("everup.instance.state[db.1]") == "ready", "and the instances")
    assert "2 of 2 services serve" in value("everup.text")
    assert problems(zabbix, "box") == []
    (everup.directory / "broken").touch()
    began = time.monotonic()
    (found,) = wait_for(lambda: problems(zabbix, "box"), "the problem is there")
    print(f"fault to problem: {time.monotonic() - began:.2f} s")
    (everup.directory / "broken").unlink()
    assert "because the disk is full" in found["name"], "what is the cause, where it began"
    assert found["severity"] == "4"
    wait_for(lambda: value("everup.service.level[web]") == "2", "web does not serve either")
    # everup's engine dies meanwhile: that is no problem of a service, and ends none.
    everup.kill(everup.engine_pid)
    everup.wait_for(lambda: not problems(zabbix, "box"), "it is resolved", 90)
    (over,) = problems(zabbix, "box", over=True)
    assert over["eventid"] == found["eventid"], "both services were one problem"
    opened = [e for e in everup.events("incidents.opened") if e["subject"] != "machine"]
    merged = [e["number"] for e in everup.events("incidents.merged")]
    (incident,) = (e["number"] for e in opened if e["number"] not in merged)
    everup.wait_event("incidents.resolved", number=incident)
    services = json.loads(value("everup.status"))["services"]
    assert [(s["critical"], s["warning"]) for s in services] == [("", ""), ("", "")]
