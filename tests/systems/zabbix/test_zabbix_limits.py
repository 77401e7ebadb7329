"""A large everup, and a silent one, in a real Zabbix."""

import asyncio
import time
from typing import Any

from _everup import Everup
from _zabbix import Zabbix, wait_for
from test_zabbix_outage import problems, setup

from everup.integrations.delivery import ChannelError
from everup.integrations.zabbix.edge.sender import Push, Sender
from everup.integrations.zabbix.status import MOST_BYTES, told
from everup.model.condition import Severity
from everup.model.incident import Incident

SERVICES, REPLICAS = 90, 1
KEPT_BYTES = 1 << 16


def _name(number: int) -> str:
    return f"service-{number:03}-{'x' * 50}"


def status() -> dict[str, Any]:
    usage = {"cpu_percent": 12.5, "rss_bytes": 123_456_789}
    services = []
    for number in range(SERVICES):
        name = _name(number)
        state = {"state": "ready", "want": True, "done": False, "restarts": 0, "usage": usage}
        instances = [{"slot": f"{name}.{n}", **state} for n in range(1, REPLICAS + 1)]
        found = {"name": name, "type": "service", "replicas": REPLICAS, "ready": REPLICAS}
        services.append(found | {"instances": instances})
    return {"version": "1", "journal_degraded": False, "services": services}


def test_a_value_that_is_larger_than_what_zabbix_keeps(everup: Everup, zabbix: Zabbix) -> None:
    """Zabbix keeps 64 KiB of a text. What depends on it is made from all of it."""
    everup.write({"web": {"command": ["true"]}}, tables={"zabbix": {"host": "large"}})
    setup(everup, zabbix)
    hurt = _name(SERVICES - 1)
    text = 'a;b|c "quoted" {HOST.NAME} {$EVERUP.SILENCE} $1 \\1 %s <b> µ\u2028\x1b[31m'
    incident = Incident(1, hurt, 1.0, Severity.CRITICAL, f"{hurt} is down, because {text}")

    def push(*incidents: Incident) -> None:
        found = told(time.time(), "large", status(), incidents)
        assert KEPT_BYTES < len(found.text) < MOST_BYTES
        asyncio.run(Sender(f"127.0.0.1:{zabbix.port}").send([Push("large", found.text)]))

    def pushed() -> bool:
        try:
            push()
        except ChannelError:  # Zabbix has not read its own config yet
            return False
        return True

    def value(key: str) -> str:
        asked = {"hostids": host, "filter": {"key_": key}, "output": ["lastvalue", "lastclock"]}
        found = zabbix.api("item.get", **asked)
        return str(found[0]["lastvalue"]) if found and found[0]["lastclock"] != "0" else ""

    host = zabbix.api("host.get", filter={"host": "large"})[0]["hostid"]
    wait_for(pushed, "the host is known")
    began = time.monotonic()

    pushed_at = time.monotonic()

    def discovered() -> bool:
        nonlocal pushed_at
        if time.monotonic() - pushed_at > 2.0:  # Zabbix is to have time for making items
            push()
            pushed_at = time.monotonic()
        known = value(f"everup.instance.state[{hurt}.1]"), value(f"everup.service.level[{hurt}]")
        return known == ("ready", "0")

    wait_for(discovered, "all services and instances are discovered")
    print(f"discovered {SERVICES} services: {time.monotonic() - began:.1f} s")
    began = time.monotonic()
    push(incident)
    (found,) = wait_for(lambda: problems(zabbix, "large"), "the last one's problem is there")
    print(f"its problem: {time.monotonic() - began:.1f} s")
    shown = 'a;b|c "quoted" {HOST.NAME} {$EVERUP.SILENCE} $1 \\1 %s <b> µ\\u2028\\x1b[31m'
    assert found["name"] == f"{hurt} is down, because {shown}"
    push()
    wait_for(lambda: not problems(zabbix, "large"), "and is over")
    zabbix.api_of("host.delete", [host])
