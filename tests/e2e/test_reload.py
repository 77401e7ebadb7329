"""Deploys: a changed config is applied as a whole, or not at all, and no request is lost."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from _everup import DEADLINE_S, SLEEP, Everup, sh
from test_rollout import QUICK, READY, assert_served, get_plain, kept, load, served_by

from everup.adapters.aside import Shelf
from everup.adapters.place import Place
from everup.daemon import takeover
from everup.model.journal import Entry

SLEEPER = {"command": SLEEP, "rollout": QUICK}


def accepted(everup: Everup) -> str:
    return Path(everup.place.accepted).read_text()


def assert_config(everup: Everup, text: str) -> None:
    """What is in force, and nothing that waits."""
    assert accepted(everup) == text
    assert not Path(everup.place.next).exists()


def version(everup: Everup, name: str, **settings: Any) -> dict[str, Any]:
    return kept(everup, environment={"VERSION": name}, **settings)


def test_plan_and_all_kinds_of_change(everup: Everup) -> None:
    """Shown first; --dry-run changes nothing; then all of it, each as said."""
    port, other = everup.port(), everup.port()
    services: dict[str, Mapping[str, Any]] = {
        "web": version(everup, "one", listen=f"127.0.0.1:{port}", probe=READY),
        "live": {**SLEEPER, "restart": {"policy": "always"}},
        "gone": SLEEPER,
        "same": SLEEPER,
        "many": {**SLEEPER, "replicas": 2},
    }
    everup.up(services)
    before, first = everup.members(), everup.config.read_text()
    services = {
        "web": version(everup, "two", listen=f"127.0.0.1:{port}", probe=READY),
        "live": {**SLEEPER, "restart": {"policy": "never"}, "stop_timeout": "3s"},
        "same": SLEEPER,
        "many": {**SLEEPER, "replicas": 3},
        "new": version(everup, "new", listen=f"127.0.0.1:{other}", depends_on=["same"]),
    }
    groups = {"pair": {"services": ["same", "live"]}}
    everup.write(services, groups=groups, metrics_interval="5s")
    plan = [
        "+ new: added",
        "- gone: removed, its processes stop",
        "~ web: changed, each new process comes to ready before the old one drains (environment)",
        "~ live: changed in place (restart, stop_timeout)",
        "~ many: changed in place (replicas)",
        "~ settings: everup.metrics_interval, group.pair",
    ]
    seq = everup.last_seq()
    result = everup.cli("reload", "--dry-run")
    last = f"nothing was changed  (next: everup -c {everup.config} reload)"
    assert result.out.splitlines() == [*plan, last]
    assert everup.last_seq() == seq
    assert everup.members() == before
    assert_config(everup, first)
    with load(port) as client:
        served_by(everup, client, before["web"][0][1] if "web" in before else everup.pid("web.1"))
        result = everup.cli("reload")
        summary = client.stop()
    assert_served(summary)
    assert {body.split()[1] for body in summary.answers} == {"one", "two"}
    lines = result.out.splitlines()
    assert lines[:-1] == plan
    assert lines[-1].startswith("applied in")
    assert_config(everup, everup.config.read_text())
    after = everup.members()
    kept_slots = ("live.1", "same.1", "many.1", "many.2")
    assert {slot: after[slot] for slot in kept_slots} == {slot: before[slot] for slot in kept_slots}
    assert set(after) == {*kept_slots, "many.3", "new.1", "web.1"}
    assert get_plain(port).split()[1] == "two"
    assert get_plain(other).split()[1] == "new"
    # In place means in force: a restart policy of never.
    os.kill(everup.pid("live.1"), signal.SIGKILL)
    everup.wait_state("live.1", "failed")
    started = everup.events("config.reloading", after=seq)[0]
    assert (started["added"], started["removed"]) == (["new"], ["gone"])
    assert started["restarted"] == ["web"]
    assert started["by"] == f"uid {os.getuid()}"
    assert everup.events("config.reloaded", after=seq)
    # The same again, and a comment: nothing to do.
    for text in ("", "# a word\n"):
        everup.config.write_text(everup.config.read_text() + text)
        result = everup.cli("reload")
        assert "nothing changes" in result.out
        assert_config(everup, everup.config.read_text())
    assert json.loads(everup.cli("reload", "--json").out)["result"] == "unchanged"
    assert everup.cli("check", "-q").status == 0


def test_probe_and_log_settings_take_effect(everup: Everup) -> None:
    """Without a new process: a faster probe with another path, and log files of another size."""
    port = everup.port()
    slow = {"readiness": {"http": "/", "interval": "1h"}}
    talk = sh("while :; do echo a line that is some forty characters long; sleep 0.01; done")
    web = version(everup, "one", listen=f"127.0.0.1:{port}", probe=slow)
    everup.up({"web": web, "talk": {"command": talk, "rollout": QUICK}})
    before = everup.members()
    everup.tell("unready")
    everup.write(
        {
            "web": web | {"probe": READY},
            "talk": {"command": talk, "rollout": QUICK, "log": {"max_size": "4K", "files": 1}},
        }
    )
    result = everup.cli("reload")
    assert "~ web: changed in place (probe)" in result.out
    everup.wait_state("web.1", "running")
    everup.untell("unready")
    everup.wait_state("web.1", "ready")
    logs = Path(everup.place.logs)
    everup.wait_for(lambda: list(logs.glob("talk.1.log.*")), "a rotated file")
    assert everup.members() == before
    # A probe that is taken away asks nothing, and what it said does not hold.
    everup.tell("unready")
    everup.wait_state("web.1", "running")
    everup.write({"web": {key: v for key, v in web.items() if key != "probe"}})
    everup.cli("reload")
    assert everup.state("web.1") == "ready"
    assert everup.members() == {"web.1": before["web.1"]}


def test_other_address(everup: Everup) -> None:
    """Its sockets change, so all of it stops and starts; the others do not notice."""
    old, new = everup.port(), everup.port()
    web = {"replicas": 2, "probe": READY}
    everup.up({"web": version(everup, "one", listen=f"127.0.0.1:{old}", **web), "b": SLEEPER})
    other = everup.pid("b.1")
    everup.write({"web": version(everup, "two", listen=f"127.0.0.1:{new}", **web), "b": SLEEPER})
    result = everup.cli("reload")
    assert "~ web: changed, ALL its processes stop before the first starts again" in result.out
    assert get_plain(new).split()[1] == "two"
    with pytest.raises(ConnectionRefusedError):
        get_plain(old)
    assert everup.pid("b.1") == other
    assert {slot: len(runs) for slot, runs in everup.members().items()} == {
        "web.1": 1, "web.2": 1, "b.1": 1,
    }  # fmt: skip
    # Back, where the other address is taken by somebody else.
    accepted_before = everup.config.read_text()
    import socket

    with socket.create_server(("127.0.0.1", old)):
        everup.write(
            {"web": version(everup, "three", listen=f"127.0.0.1:{old}", **web), "b": SLEEPER}
        )
        pids = everup.members()
        result = everup.cli("reload", expect=1)
    assert "nothing was stopped" in result.err
    assert "in use" in result.err
    assert everup.members() == pids
    assert get_plain(new).split()[1] == "two"
    assert_config(everup, accepted_before)


def test_more_replicas_and_another_command(everup: Everup) -> None:
    """Both at once; a number that an operator has set holds as long as the config's does not
    change."""
    port = everup.port()
    listen = f"127.0.0.1:{port}"
    everup.up({"web": version(everup, "one", listen=listen, replicas=1, probe=READY)})
    everup.cli("scale", "web", "2")
    with load(port) as client:
        everup.write({"web": version(everup, "two", listen=listen, replicas=1, probe=READY)})
        everup.cli("reload")
        assert set(everup.members()) == {"web.1", "web.2"}
        everup.write({"web": version(everup, "three", listen=listen, replicas=3, probe=READY)})
        everup.cli("reload")
        everup.wait_for(lambda: len(everup.members()) == 3, "a third one")
        everup.wait_state("web.3", "ready")
        everup.write({"web": version(everup, "three", listen=listen, replicas=1, probe=READY)})
        everup.cli("reload")
        everup.wait_for(lambda: set(everup.members()) == {"web.1"}, "the others are gone")
        summary = client.stop()
    assert_served(summary)
    assert {body.split()[1] for body in summary.answers} == {"one", "two", "three"}


def test_invalid_config_is_refused(everup: Everup) -> None:
    """With the words of ``everup check``; nothing is changed."""
    everup.up({"a": SLEEPER})
    before, text = everup.members(), everup.config.read_text()
    everup.config.write_text(text.replace("command", "comand"))
    seq = everup.last_seq()
    check = everup.cli("check", expect=2).err.splitlines()
    result = everup.cli("reload", expect=2)
    assert f"{everup.config} is not valid; nothing was changed:" in result.err
    for line in check[:-1]:
        assert line.removeprefix("error: ") in result.err
    assert f"everup -c {everup.config} check" in result.err
    everup.config.write_text("[[[")
    everup.cli("reload", "--dry-run", expect=2)
    everup.config.write_bytes(b"\xff\xfe")
    assert "cannot read" in everup.cli("reload", expect=2).err
    everup.config.write_text(text.replace("[everup]", '[everup]\nmetrics_interval = "5s"'))
    everup.cli("reload")
    assert everup.members() == before
    assert len(everup.events("config.reloading", after=seq)) == 1


def test_state_dir_cannot_change(everup: Everup) -> None:
    """The everup of another state directory is another one: this one goes on, and says how."""
    everup.up({"a": SLEEPER})
    text = everup.config.read_text()
    everup.config.write_text(text.replace("[everup]", '[everup]\nstate_dir = "elsewhere"'))
    status, body = everup.request("POST", "/v1/reload", {})
    assert status == 409
    answer = json.loads(body)
    assert "state_dir changes from" in answer["error"]
    assert "that takes everup down and everup up; nothing was changed" in answer["error"]
    for command in (("reload",), ("up", "-d")):  # not a second everup with the same services
        result = everup.cli(*command, expect=1)
        assert f"everup runs already for {everup.config}" in result.err
        assert f"with the state directory {everup.state_dir} (keeper pid" in result.err
        assert "put state_dir back" in result.err
    assert not (everup.directory / "elsewhere" / "lock").exists()
    everup.config.write_text(text)
    assert everup.state("a.1") == "ready"


def test_broken_version_is_rolled_back(everup: Everup) -> None:
    """No request is lost and no old process stopped; what was added is gone again; the reason is
    in the output, in the status of the command and in the journal."""
    port = everup.port()
    web = {"listen": f"127.0.0.1:{port}", "replicas": 2, "probe": READY}
    everup.up({"web": version(everup, "one", **web), "b": SLEEPER})
    before, text = everup.members(), everup.config.read_text()
    everup.tell("crash.two")
    new = {"web": version(everup, "two", **web), "b": SLEEPER | {"stop_timeout": "1s"}}
    everup.write({**new, "added": SLEEPER})
    seq = everup.last_seq()
    with load(port) as client:
        result = everup.cli("reload", expect=1)
        for slot in ("web.1", "web.2"):
            served_by(everup, client, before[slot][0][1])
        summary = client.stop()
    assert_served(summary, before["web.1"][0][1], before["web.2"][0][1])
    reason = "web: web.1 did not come to ready: it ended: exit 7"
    assert f"rolled back, the config before is in force: {reason}" in result.err
    assert f"everup -c {everup.config} logs web" in result.err
    everup.wait_for(lambda: everup.members() == before, "what was added is gone")
    assert everup.events("config.rolling_back", after=seq)[0]["reason"] == reason
    assert everup.events("config.rolled_back", after=seq)[0]["reason"] == reason
    assert_config(everup, text)
    # The same for a machine.
    result = everup.cli("reload", "--json", expect=1)
    answer = json.loads(result.out)
    assert (answer["result"], answer["reason"]) == ("rolled back", reason)
    assert answer["plan"]["added"] == ["added"]
    assert everup.members() == before
    # And once it is mended, it goes through.
    everup.untell("crash.two")
    everup.cli("reload")
    assert get_plain(port).split()[1] == "two"


def test_second_service_is_broken(everup: Everup) -> None:
    """The first one, which was through already, goes back as well."""
    ports = everup.port(), everup.port()
    listen = [f"127.0.0.1:{port}" for port in ports]

    def services(name: str) -> dict[str, Any]:
        return {
            "web": version(everup, name, listen=listen[1], probe=READY, depends_on=["db"]),
            "db": version(everup, name, listen=listen[0], probe=READY),
        }

    everup.up(services("one"))
    before, text = everup.members(), everup.config.read_text()
    everup.write(services("two"))
    seq = everup.last_seq()
    with load(ports[0]) as client, load(ports[1]) as other:
        reloading = everup.popen("reload")
        # Broken from now on, when db, on which web depends, has its new process.
        everup.wait_event("instance.ready", "db.1", after=seq)
        everup.tell("crash.two")
        out, _ = reloading.communicate(timeout=DEADLINE_S)
        assert reloading.returncode == 1, out
        summaries = client.stop(), other.stop()
    for summary in summaries:
        assert_served(summary)
    assert "web: web.1 did not come to ready" in out.decode(), out.decode() + everup.report()
    after = everup.members()
    assert after["web.1"] == before["web.1"]
    assert after["db.1"] != before["db.1"]
    assert [get_plain(port).split()[1] for port in ports] == ["one", "one"]
    assert [e["how"] for e in everup.events("rollout.started", "db", seq)] == ["reload", "rollback"]
    assert_config(everup, text)
    assert everup.cli("status").status == 0


def test_broken_worker_is_rolled_back(everup: Everup) -> None:
    """One that cannot run twice had to stop first: it comes back with its old command."""
    everup.up({"a": SLEEPER, "once": {"command": sh("exit 0"), "type": "oneshot"}})
    text, seq = everup.config.read_text(), everup.last_seq()
    junk = everup.directory / "program"
    junk.write_text("junk")  # is there and may be executed: that it cannot run shows when it is
    junk.chmod(0o755)
    everup.write({"a": {"command": [str(junk)]}, "once": SLEEPER | {"type": "oneshot"}})
    result = everup.cli("reload", expect=1)
    assert f"a.1 did not come to ready: it ended: cannot run {junk}" in result.err
    everup.wait_state("a.1", "ready")
    command = Path(f"/proc/{everup.pid('a.1')}/cmdline").read_text()
    assert command.split("\0")[0] == "sleep"
    assert_config(everup, text)
    assert [e["how"] for e in everup.events("rollout.started", "a", seq)] == ["reload", "rollback"]
    assert everup.instance("once.1")["done"]


def test_deploy_that_mends(everup: Everup) -> None:
    """What was broken before does not stand in the way, and comes up with its new command; a
    second try that is no better leaves all as it was."""
    bad = {"command": sh("exit 3"), "restart": {"delay": "10ms", "park_interval": "1h"}}
    everup.up({"web": bad, "too": bad, "c": SLEEPER, "off": SLEEPER}, expect=4)
    for slot in ("web.1", "too.1"):
        everup.wait_state(slot, "parked")
    everup.cli("stop", "off")
    pid, text = everup.pid("c.1"), everup.config.read_text()
    worse = {**bad, "command": sh("exit 4")}
    everup.write({"web": worse, "too": bad, "c": SLEEPER, "off": SLEEPER})
    result = everup.cli("reload", expect=1)
    assert "web: web.1 did not come to ready: it ended: exit 4" in result.err
    assert_config(everup, text)
    other = {"command": ["sleep", "2000"], "rollout": QUICK}
    everup.write({"web": SLEEPER, "too": bad, "c": SLEEPER, "off": other})
    everup.cli("reload")
    assert everup.state("web.1") == "ready"
    assert everup.pid("c.1") == pid
    assert everup.instance("too.1")["last_exit"] == "exit 3"
    # What an operator has stopped stays so; its new command is for when it is started.
    assert everup.state("off.1") == "stopped"
    everup.cli("start", "off")
    assert Path(f"/proc/{everup.pid('off.1')}/cmdline").read_text() == "sleep\0002000\0"


def test_added_service_is_broken(everup: Everup) -> None:
    """Nobody else is touched; an address that is taken is named."""
    port = everup.port()
    web = version(everup, "one", listen=f"127.0.0.1:{port}", probe=READY)
    everup.up({"web": web})
    before, text = everup.members(), everup.config.read_text()
    junk = everup.directory / "program"
    junk.write_text("junk")
    junk.chmod(0o755)
    everup.write(
        {
            "web": version(everup, "two", listen=f"127.0.0.1:{port}"),
            "new": {"command": [str(junk)]},
        }
    )
    result = everup.cli("reload", expect=1)
    assert f"new: new.1 did not come to ready: it ended: cannot run {junk}" in result.err
    everup.write({"renamed": web})
    result = everup.cli("reload", expect=1)
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in result.err, result.err
    assert everup.members() == before
    assert_config(everup, text)
    assert set(everup.instances()) == {"web.1"}
    assert not everup.events("rollout.started")


def test_one_at_a_time(everup: Everup) -> None:
    """A reload or restart while one is under way is refused; a stop of everup ends it."""
    port = everup.port()
    web = {"listen": f"127.0.0.1:{port}", "probe": READY}
    everup.up({"web": version(everup, "one", **web), "b": SLEEPER})
    everup.tell("unready.two")
    text = everup.config.read_text()
    everup.write({"web": version(everup, "two", **web), "b": SLEEPER})
    result = everup.cli("reload", "--timeout", "0")
    assert "applying it" in result.out
    everup.wait_for(lambda: everup.service("web")["rollout"], "it is rolling")
    for command in (("reload",), ("restart", "web"), ("restart", "b")):
        result = everup.cli(*command, expect=1)
        assert "reload is under way" in result.err
        assert f"everup -c {everup.config} status" in result.err
    result = everup.cli("status", expect=None)
    assert "reload under way for" in result.out
    assert "left: web" in result.out
    assert "web: restart for the changed config under way, left: web.1" in result.out
    assert everup.status()["reloading"]["left"] == ["web"]
    assert Path(everup.place.next).read_text() == everup.config.read_text()
    everup.down()
    assert_config(everup, text)
    assert everup.events("config.rolled_back")[-1]["reason"] == "everup is stopping"


@pytest.mark.parametrize("broken", [False, True])
def test_engine_dies_in_the_middle(everup: Everup, broken: bool) -> None:
    """kill -9 at each stage: the next engine goes on with the reload, or with the way back."""
    ports = everup.port(), everup.port()
    listen = [f"127.0.0.1:{port}" for port in ports]

    def services(name: str) -> dict[str, Any]:
        return {
            "db": version(everup, name, listen=listen[0], probe=READY),
            "web": version(everup, name, listen=listen[1], probe=READY, replicas=2),
        }

    everup.up(services("one"))
    text = everup.config.read_text()
    everup.write({**services("two"), "new": SLEEPER})
    seq = everup.last_seq()
    stages = [("config.reloading", "everup"), ("instance.outgoing", "db.1"), ("rollout.done", "db")]
    stages.append(("config.rolling_back", "everup") if broken else ("instance.outgoing", "web.2"))
    with load(ports[0]) as client, load(ports[1]) as other:
        reloading = everup.popen("reload")
        for number, (kind, subject) in enumerate(stages):
            everup.wait_event(kind, subject, after=seq)
            if broken and number == 2:
                everup.tell("crash.two")
            everup.kill(everup.own().engine)
        out, _ = reloading.communicate(timeout=2 * DEADLINE_S)
        summaries = client.stop(), other.stop()
    assert reloading.returncode == int(broken), out.decode() + everup.report()
    for summary in summaries:
        assert_served(summary)
    name = "one" if broken else "two"
    assert [get_plain(port).split()[1] for port in ports] == [name, name]
    assert_config(everup, text if broken else everup.config.read_text())
    slots = {"db.1", "web.1", "web.2"} | (set() if broken else {"new.1"})
    everup.wait_for(lambda: set(everup.members()) == slots, "the right ones are left")
    assert all(len(runs) == 1 for runs in everup.members().values())
    assert everup.status()["reloading"] is None


def test_hangup_only_looks(everup: Everup) -> None:
    """SIGHUP checks the file and says what to do; nothing is applied by it."""
    log = everup.state_dir / "everup.log"
    everup.up({"a": SLEEPER})
    before, text = everup.members(), everup.config.read_text()
    everup.write({"a": {"command": ["sleep", "2000"]}})
    os.kill(everup.keeper_pid, signal.SIGHUP)
    everup.wait_for(lambda: "everup reload" in log.read_text(), "it says how")
    everup.config.write_text("nonsense")
    os.kill(everup.keeper_pid, signal.SIGHUP)
    everup.wait_event("config.invalid")
    assert everup.members() == before
    assert_config(everup, text)


def test_both_die_in_the_middle(everup: Everup) -> None:
    """``up -d`` goes on with the reload, whatever the file says by then, and says so."""
    port = everup.port()
    web = {"listen": f"127.0.0.1:{port}", "probe": READY, "replicas": 2}
    everup.up({"web": version(everup, "one", **web), "b": SLEEPER})
    other = everup.members()["b.1"]
    everup.write({"web": version(everup, "two", **web), "b": SLEEPER})
    two = everup.config.read_text()
    with load(port) as client:
        reloading = everup.popen("reload")
        everup.wait_event("instance.outgoing", "web.2")
        own = everup.own()
        everup.kill(*own.keepers, *own.engines)
        everup.write({"web": version(everup, "three", **web), "b": SLEEPER})
        result = everup.up()
        assert "a reload was under way and goes on first" in result.err
        assert_config(everup, two)
        reloading.communicate(timeout=DEADLINE_S)
        everup.cli("reload")
        summary = client.stop()
    assert_served(summary)
    assert {body.split()[1] for body in summary.answers} == {"one", "two", "three"}
    assert get_plain(port).split()[1] == "three"
    assert everup.members()["b.1"] == other
    assert all(len(runs) == 1 for runs in everup.members().values())


def test_broken_config_that_waited_for_up(everup: Everup) -> None:
    """Both were killed, and the new config does not work: taken back, tried, rolled back, told."""
    port = everup.port()
    web = {"listen": f"127.0.0.1:{port}", "probe": READY}
    everup.up({"web": version(everup, "one", **web)})
    before, text = everup.members(), everup.config.read_text()
    own = everup.own()
    everup.kill(*own.keepers, *own.engines)
    everup.tell("crash.two")
    everup.write({"web": version(everup, "two", **web)})
    result = everup.up(expect=1)
    assert "everup runs, but the changed config was rolled back: web: web.1 did not" in result.err
    assert f"everup -c {everup.config} reload" in result.err
    assert everup.members() == before
    assert_config(everup, text)


def test_config_that_changed_while_everup_was_dead(everup: Everup) -> None:
    """Both are killed, the config changes, ``up -d``: taken back first, then applied."""
    port = everup.port()
    web = {"listen": f"127.0.0.1:{port}", "probe": READY}
    everup.up({"web": version(everup, "one", **web), "b": SLEEPER})
    before = everup.members()
    with load(port) as client:
        own = everup.own()
        everup.kill(*own.keepers, *own.engines)
        everup.write({"web": version(everup, "two", **web), "b": SLEEPER, "c": SLEEPER})
        result = everup.up()
        assert "2 instances of an earlier everup go on running" in result.out
        assert everup.events("config.reloaded"), "up waits for that as well"
        summary = client.stop()
    assert_served(summary)
    assert get_plain(port).split()[1] == "two"
    after = everup.members()
    assert after["b.1"] == before["b.1"]
    assert set(after) == {"web.1", "b.1", "c.1"}
    assert_config(everup, everup.config.read_text())
    assert everup.events("config.reloading")[0]["by"] == "everup up"


@pytest.mark.parametrize("end", ["config.reloaded", "config.rolled_back", ""])
def test_engine_dies_between_its_word_and_the_files(tmp_path: Path, end: str) -> None:
    """The journal has the end of a reload, the files do not: the next engine makes up for it."""
    place = Place.of(str(tmp_path / "everup.toml"), ".everup")
    Path(place.state_dir).mkdir()
    text = '[service.a]\ncommand = ["{}"]\n'
    Path(place.accepted).write_text(text.format("one"))
    Path(place.next).write_text(text.format("two"))
    about = takeover.digest(place.next)

    def entry(seq: int, kind: str, **payload: str) -> Entry:
        return Entry(seq, 0.0, 0.0, "boot", kind, "everup", payload)

    shelf, said = Shelf(print), [entry(1, "config.reloading", config=about)]
    said += [entry(2, end)] if end else []
    found, over = takeover.config_in_force(place, shelf, said)
    assert over == bool(end)
    asyncio.run(shelf.done(lambda: None, 10.0))
    assert Path(place.next).exists() == (not end)
    name = "two" if end == "config.reloaded" else "one"
    assert Path(place.accepted).read_text() == text.format(name)
    assert (found is not None) == (end == "config.reloaded")
    if found is not None:
        assert found.service["a"].command == ("two",)
    # A text that `everup up` left after that is another matter.
    Path(place.next).write_text(text.format("three"))
    assert takeover.config_in_force(place, shelf, said) == (None, False)
    asyncio.run(shelf.done(lambda: None, 10.0))
    assert Path(place.next).exists()


@pytest.mark.parametrize("more", [{}, {"replicas": 3}], ids=["listener", "and replicas"])
def test_a_listener_that_stays_is_handed_on(everup: Everup, more: dict[str, Any]) -> None:
    """Another one is added, with a new command and more replicas: who comes to the first one
    meanwhile waits there, and nobody is refused."""
    one, two = everup.port(), everup.port()
    web = {"listen": {"main": f"127.0.0.1:{one}"}, "replicas": 2, "probe": READY}
    everup.up({"web": version(everup, "one", **web)})
    both = {"main": f"127.0.0.1:{one}", "other": f"127.0.0.1:{two}"}
    with load(one) as client:
        for listen in (both, {"main": f"127.0.0.1:{one}"}):
            fresh = {**web, **more, "listen": listen}
            everup.write({"web": version(everup, f"v{len(listen)}", **fresh)})
            everup.cli("reload")
        summary = client.stop()
    # asyncio itself resets what it accepts in the turn in which its server closes.
    assert (summary.refused, summary.timed_out, summary.wrong) == (0, 0, 0), summary
    assert summary.reset <= 2, summary


def test_an_address_that_is_taken_is_found_before_anything_stops(everup: Everup) -> None:
    one = everup.port()
    web = {"listen": {"main": f"127.0.0.1:{one}"}, "probe": READY}
    everup.up({"web": version(everup, "one", **web)})
    before = everup.members()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listen = {"main": f"127.0.0.1:{one}", "other": f"127.0.0.1:{port}"}
        everup.write({"web": version(everup, "one", **web | {"listen": listen})})
        done = everup.cli("reload", expect=1)
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.err
    assert everup.members() == before
    assert not everup.events("config.reloading")
