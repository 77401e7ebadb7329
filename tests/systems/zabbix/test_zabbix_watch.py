"""Problems of a real Zabbix become conditions, and acknowledgements go both ways."""

import subprocess
from typing import Any

from _everup import Everup
from _releases import environment
from _zabbix import Zabbix, wait_for
from test_zabbix_outage import problems, server, setup


def value(zabbix: Zabbix, host: str, number: int) -> None:
    """Send a value by Zabbix' own sender until it is taken."""
    told = ["-z", "127.0.0.1", "-p", str(zabbix.port), "-s", host, "-k", "disk", "-o", str(number)]
    argv = zabbix.release.argv("usr/bin/zabbix_sender", *told)

    def taken() -> bool:
        done = subprocess.run(argv, env=environment(), capture_output=True, text=True)
        return "processed: 1" in done.stdout

    wait_for(taken, "the value is taken")


def test_problems_of_zabbix_and_who_has_taken_them_on(everup: Everup, zabbix: Zabbix) -> None:
    host = zabbix.host("dbhost")
    zabbix.api("item.create", hostid=host, name="disk", key_="disk", type=2, value_type=3)
    zabbix.api(
        "trigger.create",
        description="disk is slow",
        expression="last(/dbhost/disk)>0",
        priority=4,
        tags=[{"tag": "service", "value": "db"}],
    )
    made = zabbix.api("token.create", name="everup", userid="1")["tokenids"]
    (token,) = zabbix.api_of("token.generate", made)
    secret = everup.directory / "token"
    secret.write_text("f" * 64)
    secret.chmod(0o600)
    table = {
        "servers": [f"127.0.0.1:{zabbix.port}"],
        "host": "watched",
        "heartbeat": "1s",
        "api": zabbix.url,
        "api_token_file": "token",
        "watch": ["watched", "dbhost"],
        "watch_interval": "1s",
    }
    probe = {"readiness": {"tcp": "listen", "interval": "50ms", "timeout": "1s"}}
    full = "OSError: [Errno 28] No space left on device"
    services: dict[str, Any] = {
        name: {
            "command": server(full, broken=f"{name}-is-broken"),
            "listen": f"127.0.0.1:{everup.port()}",
            "probe": probe,
        }
        for name in ("web", "api")
    }
    services["db"] = {"command": ["sleep", "1000"]}
    everup.write(services, tables={"zabbix": table}, observer=True)
    setup(everup, zabbix)
    everup.up()

    def conditions(kind: str, what: str = "began") -> list[dict[str, Any]]:
        return [e for e in everup.events(f"detect.{what}") if e["condition"] == kind]

    (refused,) = everup.wait_for(lambda: conditions("unreached"), "a wrong token is told")
    assert "cannot be asked: host.get:" in refused["text"]
    assert "ffff" not in str(everup.events())
    secret.write_text(token["token"])
    everup.cli("reload")
    everup.kill(*(pid for pid, c in everup.processes().items() if "everup.observer" in c))
    everup.wait_for(lambda: conditions("unreached", "ended"), "the right one is taken")

    value(zabbix, "dbhost", 1)
    (found,) = everup.wait_for(lambda: conditions("reported"), "the problem is a condition")
    assert (found["subject"], found["text"]) == ("db", "Zabbix says: disk is slow (high)")
    everup.wait_event("incidents.opened", "db")
    value(zabbix, "dbhost", 0)
    everup.wait_for(lambda: conditions("reported", "ended"), "and is over")

    def problem_of(service: str) -> Any:
        found = problems(zabbix, "watched")
        return [p for p in found if {"tag": "service", "value": service} in p["tags"]]

    # Taken on in everup, so in Zabbix as well.
    (everup.directory / "web-is-broken").touch()
    (problem,) = wait_for(lambda: problem_of("web"), "an incident is a problem")
    number = everup.wait_event("incidents.opened", "web")["number"]
    everup.cli("ack", str(number))

    def event() -> Any:
        asked = {"eventids": problem["eventid"], "select_acknowledges": "extend"}
        return zabbix.api("event.get", output="extend", **asked)[0]

    wait_for(lambda: event()["acknowledged"] == "1", "it is acknowledged there too")
    assert event()["acknowledges"][0]["message"].startswith("taken on in everup by")

    # And the other way round.
    (everup.directory / "api-is-broken").touch()
    (other,) = wait_for(lambda: problem_of("api"), "another one")
    zabbix.api("event.acknowledge", eventids=other["eventid"], action=6, message="mine")
    last = everup.wait_event("incidents.opened", "api")["number"]
    taken = everup.wait_event("incidents.acknowledged", number=last)
    assert taken["by"] == "Admin in Zabbix"

    told = [found["name"] for found in problems(zabbix, "watched", over=True)]
    assert not [name for name in told if "disk is slow" in name], "Zabbix is not told it again"
    assert len(event()["acknowledges"]) == 1
    assert len(everup.events("incidents.acknowledged")) == 2
    for name in ("web", "api"):
        (everup.directory / f"{name}-is-broken").unlink()
        everup.wait_state(f"{name}.1", "ready")
