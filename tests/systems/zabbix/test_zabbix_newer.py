"""The same with a real Zabbix 7.0: its template's format, its discovery, its question to agents."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from _everup import Everup
from _releases import environment, seven
from _zabbix import Zabbix, free_port, wait_for
from test_zabbix_outage import problems, server, setup


@pytest.fixture
def newer() -> Iterator[Zabbix]:
    with tempfile.TemporaryDirectory(prefix="everup-zabbix-") as folder:
        os.chmod(folder, 0o755)
        it = Zabbix(Path(folder) / "zabbix", seven())
        try:
            yield it.start()
        finally:
            it.stop()


def test_zabbix_7(everup: Everup, newer: Zabbix) -> None:
    port = free_port()
    listen = f"127.0.0.1:{everup.port()}"
    probe = {"readiness": {"tcp": "listen", "interval": "50ms", "timeout": "1s"}}
    full = server("OSError: [Errno 28] No space left on device")
    everup.write(
        {"web": {"command": full, "listen": listen, "probe": probe}},
        tables={
            "zabbix": {
                "servers": [f"127.0.0.1:{newer.port}"],
                "host": "box",
                "heartbeat": "1s",
                "agent": f"127.0.0.1:{port}",
            }
        },
        observer=True,
    )
    assert "in the format of Zabbix 7.0" in setup(everup, newer).out
    assert "the host box has the template" in setup(everup, newer).out, "again changes nothing"
    (found,) = newer.api("template.get", filter={"host": "everup"}, selectDashboards=["name"])
    assert [board["name"] for board in found["dashboards"]] == ["everup"]
    everup.up()

    def value(key: str) -> str:
        return str(newer.items("box").get(key, {}).get("lastvalue", ""))

    wait_for(lambda: value("everup.service.ready[web]") == "1", "the service is discovered")
    wait_for(lambda: value("everup.instance.state[web.1]") == "ready", "and its instance")

    def get(key: str) -> str:
        asked = ["-s", "127.0.0.1", "-p", str(port), "-k", key]
        argv = newer.release.argv("usr/bin/zabbix_get", *asked)
        done = subprocess.run(argv, env=environment(), capture_output=True, text=True)
        return (done.stdout + done.stderr).strip()

    assert get("everup.service.ready[web]") == "1.0"
    assert "everup keeps no service other" in get("everup.service.ready[other]")
    (everup.directory / "broken").touch()
    (problem,) = wait_for(lambda: problems(newer, "box"), "the problem is there")
    assert "because the disk is full" in problem["name"]
    (everup.directory / "broken").unlink()
    everup.wait_state("web.1", "ready")
