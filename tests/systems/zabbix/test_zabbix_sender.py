"""A real Zabbix takes what everup tells, and everup tells where it does not."""

import asyncio
import json
import secrets
import sys
from typing import Any

import pytest
from _everup import Everup
from _zabbix import Zabbix, wait_for

from everup.integrations.delivery import ChannelError
from everup.integrations.zabbix.edge import tls
from everup.integrations.zabbix.edge.sender import Push, Sender


def test_what_zabbix_takes_and_what_it_does_not(everup: Everup, zabbix: Zabbix) -> None:
    everup.up(
        {"web": {"command": ["sleep", "1000"]}},
        tables={
            "zabbix": {
                "servers": [f"127.0.0.1:1;127.0.0.1:{zabbix.port}"],
                "host": "sent \"a\" 'b'",
                "heartbeat": "1s",
            }
        },
        observer=True,
    )

    def told(kind: str) -> list[str]:
        found = everup.events(f"detect.{kind}")
        mine = [e for e in found if e["condition"] == "unreached"]
        return [e["text" if kind == "began" else "why"] for e in mine]

    (text,) = everup.wait_for(lambda: told("began"), "that nothing is taken is told")
    assert "127.0.0.1:1: nobody listens there" not in text, "a node that took nothing was reached"
    assert "knows no host" in text
    # Zabbix allows no quotes in a host's name: what was told above arrives nowhere.
    host = zabbix.host("sent")
    zabbix.api(
        "item.create", hostid=host, name="everup", key_="everup.status", type=2, value_type=4
    )
    config = everup.config.read_text().replace("sent \\\"a\\\" 'b'", "sent")
    everup.config.write_text(config)
    everup.cli("reload")
    everup.wait_for(lambda: told("ended"), "that it is taken is told")

    def value() -> Any:
        text = zabbix.items("sent")["everup.status"]["lastvalue"]
        return json.loads(text) if text else {}

    found = wait_for(value, "the value is there")
    assert found["services"][0]["name"] == "web"
    assert found["services"][0]["level"] == 0
    zabbix.stop_server()
    everup.wait_for(lambda: len(told("began")) == 2, "that nobody listens is told")
    assert "nobody listens there" in told("began")[1]
    everup.cli("stop", "web")
    zabbix.start_server()
    everup.wait_for(lambda: len(told("ended")) == 2, "that it is reached again is told")
    wait_for(lambda: value()["services"][0]["level"] == 1, "the newest value is there")


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python has TLS-PSK since 3.13")
def test_a_pre_shared_key(zabbix: Zabbix) -> None:
    key, other = secrets.token_hex(32), secrets.token_hex(32)
    host = zabbix.host("locked", tls_accept=2, tls_psk_identity="everup", tls_psk=key)
    zabbix.api(
        "item.create", hostid=host, name="everup", key_="everup.status", type=2, value_type=4
    )

    def send(key: str | None, text: str) -> str:
        context = None if key is None else tls.client("everup", key)
        try:
            asyncio.run(Sender(f"127.0.0.1:{zabbix.port}", context).send([Push("locked", text)]))
        except ChannelError as error:
            return str(error)
        return ""

    wait_for(lambda: not send(key, "with the key"), "it is taken with the key")
    assert "another key" in send(other, "with another key")
    assert "TLS alone" in send(None, "without")
    wait_for(lambda: zabbix.items("locked")["everup.status"]["lastvalue"], "it is there")
    assert zabbix.items("locked")["everup.status"]["lastvalue"] == "with the key"
