"""A large everup, and a silent one, in a real Zabbix."""

import asyncio
import time
from typing import Any

from _everup import Everup
from _zabbix import Zabbix, wait_for
from test_zabbix_outage import problems, setup

from everup.integrations.zabbix.edge.sender import Push, Sender
from everup.integrations.zabbix.status import MOST_BYTES, told
from everup.model.condition import Severity
from everup.model.incident import Incident

SERVICES, REPLICAS = 300, 8


def status() -> dict[str, Any]:
    usage = {"cpu_percent": 12.5, "rss_bytes": 123_456_789}
    services = []
    for number in range(SERVICES):
        name = f"service-{number:03}"
        state = {"state": "ready", "want": True, "done": False, "restarts": 0, "usage": usage}
        instances = [{"slot": f"{name}.{n}", **state} for n in range(1, REPLICAS + 1)]
        found = {"name": name, "type": "service", "replicas": REPLICAS, "ready": REPLICAS}
        services.append(found | {"instances": instances})
    return {"version": "1", "journal_degraded": False, "services": services}


def test_a_value_that_is_larger_than_what_zabbix_keeps(everup: Everup, zabbix: Zabbix) -> None:
    """Zabbix keeps 64 KiB of a text. What depends on it is made from all of it."""
    everup.write({"web": {"command": ["true"]}}, tables={"zabbix": {"host": "large"}})
    setup(everup, zabbix)
    hurt = f"service-{SERVICES - 1}"
    text = 'a;b|c "quoted" {HOST.NAME} {$EVERUP.SILENCE} $1 \\1 %s <b> µ\u2028\x1b[31m'
    incident = Incident(1, hurt, 1.0, Severity.CRITICAL, f"{hurt} is down, because {text}")

    def push(*incidents: Incident) -> None:
        found = told(time.time(), "large", status(), incidents)
        assert 1 << 18 < len(found.text) < MOST_BYTES
        asyncio.run(Sender(f"127.0.0.1:{zabbix.port}").send([Push("large", found.text)]))

    def level() -> str:
        key = f"everup.service.level[{hurt}]"
        asked = {"hostids": host, "filter": {"key_": key}, "output": ["lastvalue", "lastclock"]}
        found = zabbix.api("item.get", **asked)
        return str(found[0]["lastvalue"]) if found and found[0]["lastclock"] != "0" else ""

    host = zabbix.api("host.get", filter={"host": "large"})[0]["hostid"]
    began = time.monotonic()

    def discovered() -> bool:
        push()
        return level() == "0"

    wait_for(discovered, "all services are discovered", 60)
    print(f"discovered {SERVICES} services: {time.monotonic() - began:.1f} s")
    began = time.monotonic()
    push(incident)
    (found,) = wait_for(lambda: problems(zabbix, "large"), "the last one's problem is there")
    print(f"its problem: {time.monotonic() - began:.1f} s")
    shown = 'a;b|c "quoted" {HOST.NAME} {$EVERUP.SILENCE} $1 \\1 %s <b> µ\\u2028\\x1b[31m'
    assert found["name"] == f"{hurt} is down, because {shown}"
    push()
    wait_for(lambda: not problems(zabbix, "large"), "and is over")
