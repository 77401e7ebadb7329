"""The real ``zabbix_get`` and a real server ask everup as if it were an agent."""

import secrets
import socket
import subprocess
import sys

import pytest
from _everup import Everup
from _releases import environment
from _zabbix import Zabbix, free_port, wait_for


def test_everup_answers_as_an_agent(everup: Everup, zabbix: Zabbix) -> None:
    port = free_port()
    table = {"agent": f"127.0.0.1:{port}", "host": "asked", "agent_allow": ["127.0.0.1"]}
    services = {"web": {"command": ["sleep", "1000"]}}
    everup.up(services, tables={"zabbix": table}, observer=True)

    def get(key: str, address: str = "127.0.0.1") -> str:
        asked = ["-s", "127.0.0.1", "-p", str(port), "-k", key, "-I", address, "-t", "5"]
        argv = zabbix.release.argv("usr/bin/zabbix_get", *asked)
        done = subprocess.run(argv, env=environment(), capture_output=True, text=True)
        return (done.stdout + done.stderr).strip()

    everup.wait_for(lambda: get("agent.ping") == "1", "it answers")
    everup.wait_state("web.1", "ready")
    wait_for(lambda: get("everup.service.ready[web]") == "1.0", "web is ready")
    assert get("everup.services.discovery") == '[{"{#SERVICE}": "web"}]'
    assert "ZBX_NOTSUPPORTED: everup keeps no service other" in get("everup.service.ready[other]")
    assert "ZBX_NOTSUPPORTED: everup knows no key system.run" in get("system.run[id]")
    assert "1" not in get("agent.ping", "127.0.0.2").split(), "that address may not ask"
    # Whoever says nothing, and more than there is room for, keeps nobody out for long.
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    everup.wait_for(lambda: get("agent.ping") == "1", "it answers again")
    for connection in silent:
        connection.close()

    interface = {"type": 1, "main": 1, "useip": 1, "ip": "127.0.0.1", "dns": "", "port": str(port)}
    host = zabbix.host("asked", interfaces=[interface])
    item = {"hostid": host, "type": 0, "value_type": 0, "delay": "1s"}
    item["interfaceid"] = zabbix.api("hostinterface.get", hostids=host)[0]["interfaceid"]
    zabbix.api("item.create", name="x", key_='everup.service.level["web"]', **item)

    def level() -> str:
        return str(zabbix.items("asked")['everup.service.level["web"]']["lastvalue"])

    wait_for(lambda: level() == "0", "the server has asked")
    everup.cli("stop", "web")
    wait_for(lambda: level() == "1", "and asks again")


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python has TLS-PSK since 3.13")
def test_a_pre_shared_key(everup: Everup, zabbix: Zabbix) -> None:
    port, key = free_port(), everup.directory / "psk"
    key.write_text(secrets.token_hex(32))
    other = everup.directory / "other"
    other.write_text(secrets.token_hex(32))
    table = {"agent": f"127.0.0.1:{port}", "psk_identity": "box", "psk_file": str(key)}
    everup.up({"web": {"command": ["true"]}}, tables={"zabbix": table}, observer=True)

    def get(*options: str) -> str:
        asked = ["-s", "127.0.0.1", "-p", str(port), "-k", "agent.ping", *options]
        argv = zabbix.release.argv("usr/bin/zabbix_get", *asked)
        return subprocess.run(argv, env=environment(), capture_output=True, text=True).stdout

    psk = ("--tls-connect", "psk", "--tls-psk-identity", "box", "--tls-psk-file")
    everup.wait_for(lambda: get(*psk, str(key)) == "1\n", "it answers with the key")
    assert get(*psk, str(other)) == ""
    assert get() == ""
