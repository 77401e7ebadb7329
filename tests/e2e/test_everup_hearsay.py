"""A service that uses ``everup.tolerate`` tells its everup how what it depends on fares."""

import sys
from typing import Any

from _everup import Everup, Json

SOON = {"jitter": "none", "delay": "10ms", "max_delay": "100ms", "park_interval": "1h"}
CLIENT = """
import os, socket, sys, time
from pathlib import Path
from everup.tolerate.breaker import Breaker
from everup.tolerate.meter import Meter
from everup.tolerate.sinks import EverupSink

control = Path(sys.argv[1])
breaker = Breaker("db-breaker", open_s=0.1)
meter = Meter("db", watch=breaker)
sink = EverupSink(meter, interval_s=0.1, changes_per_s=50)

@meter
@breaker
def query():
    if (control / "down").exists():
        raise OSError("refused")

with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
    sock.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while True:
    if (control / "isolate").exists():
        breaker.isolate()
    try:
        query()
    except Exception:
        pass
    time.sleep(0.005)
"""


def client(everup: Everup) -> Json:
    script = everup.directory / "client.py"
    script.write_text(CLIENT)
    command = [sys.executable, str(script), str(everup.control)]
    return {"command": command, "notify": True, "restart": SOON}


def db(everup: Everup) -> Json:
    """What the process says of its dependency."""
    found: Json = everup.instance("a.1")["dependencies"].get("db", {})
    return found


def wait_db(everup: Everup, what: str, **expected: Any) -> Json:
    def there() -> Json | None:
        found = db(everup)
        return found if found and expected.items() <= found.items() else None

    found = everup.wait_for(there, what)
    assert found is not None
    return found


def test_a_breaker_that_opens_is_seen_and_written_down(everup: Everup) -> None:
    everup.up({"a": client(everup)})
    first = wait_db(everup, "its first word", state="closed")
    everup.wait_for(lambda: db(everup)["ok"] > first["ok"] + 20, "calls are counted")
    now = db(everup)
    assert now["calls"] == now["ok"]
    assert 0 < now["p99_ms"] < 1000
    assert not everup.events("dependency.state")

    everup.tell("down")
    opened = everup.wait_event("dependency.state", "a.1", dependency="db", state="open")
    assert opened["run"] == 1
    assert opened["failed"] >= 4
    everup.wait_for(lambda: db(everup)["rejected"] > 0, "rejections are counted")
    everup.untell("down")
    closed = everup.wait_event("dependency.state", "a.1", after=opened["seq"], state="closed")
    assert closed["ok"] > now["ok"]
    wait_db(everup, "closed again", state="closed")

    (service,) = everup.cli("status", "--json").json["services"]
    assert service["instances"][0]["dependencies"]["db"]["state"] == "closed"

    status, page = everup.request("GET", "/metrics")
    assert status == 200
    text = page.decode()
    labels = 'dependency="db",instance="a.1"'
    assert f'everup_dependency_breaker{{{labels},service="a",state="closed"}} 1.0' in text
    assert f'everup_dependency_calls_total{{{labels},outcome="failed",service="a"}}' in text
    assert f'everup_dependency_p99_seconds{{{labels},service="a"}}' in text

    everup.kill(everup.pid("a.1"))
    sums = everup.wait_event("dependency.calls", "a.1")
    assert sums["run"] == 1
    assert sums["dependencies"]["db"]["ok"] >= closed["ok"]
    assert sums["dependencies"]["db"]["failed"] >= 5
    wait_db(everup, "the next process says its own", state="closed", failed=0)
    assert "so_far" in sums


def test_a_new_engine_knows_and_goes_on_listening(everup: Everup) -> None:
    everup.up({"a": client(everup)})
    wait_db(everup, "its first word", state="closed")
    everup.tell("isolate")
    told = everup.wait_event("dependency.state", "a.1", state="isolated")
    wait_db(everup, "isolated", state="isolated")
    seq, pid = everup.last_seq(), everup.pid("a.1")
    everup.kill(everup.engine_pid)
    everup.wait_event("engine.started", after=seq)
    after = wait_db(everup, "the new engine has it from the journal", state="isolated")
    assert after["ok"] >= told["ok"]
    everup.wait_for(lambda: db(everup)["rejected"] > after["rejected"], "and hears on")
    assert not everup.events("dependency.state", after=seq)
    assert everup.pid("a.1") == pid


def test_what_makes_no_sense_is_refused(everup: Everup) -> None:
    everup.up({"a": everup.server(notify=True, restart=SOON)}, arguments=("--timeout", "0"))
    everup.wait_for(lambda: everup.output("a.1"), "it runs")
    everup.tell("notify", "EVERUP_DEPENDENCY=no spaces\nEVERUP_BREAKER=open\nREADY=1")
    everup.wait_state("a.1", "ready")
    refused = everup.wait_event("notify.refused", "everup")
    assert refused["detail"] == "EVERUP_DEPENDENCY='no spaces' of a.1"
    assert everup.instance("a.1")["dependencies"] == {}
    everup.tell("notify", "EVERUP_DEPENDENCY=fine\nEVERUP_BREAKER=half-open\nEVERUP_CALLS=0,0,7,0")
    told = everup.wait_event("dependency.state", "a.1", dependency="fine", state="half-open")
    assert (told["before"], told["rejected"]) == ("closed", 7)
