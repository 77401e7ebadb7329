"""A control group that cgroup.kill was used on killed whatever was born into it, once another
keeper had come that did not know; and it was used where killed processes only took their time to
go. A zygote that was lost or did not answer cost a failed start."""

import os
import signal
from pathlib import Path

import pytest
from _everup import SLEEP, Everup
from _fixtures import needs_root

from everup.keeper import birth, children


@needs_root
@pytest.mark.parametrize("both", [False, True])
def test_the_next_keeper_knows(everup: Everup, both: bool) -> None:
    everup.up({"web": {"command": SLEEP}})
    group = Path(everup.wait_event("instance.spawned", "web.1").get("cgroup") or "")
    if not (group / "cgroup.kill").exists():
        pytest.skip("no control groups of version 2")
    everup.cli("stop", "web")
    birth.taint(str(group))
    (group / "cgroup.kill").write_text("1")
    own = everup.own()
    everup.kill(*((own.keeper, own.engine) if both else (own.keeper,)))
    if both:
        everup.up(arguments=("--timeout", "0"))
    everup.wait_for(lambda: everup.own().keeper not in (0, own.keeper), "another keeper is there")
    everup.cli("start", "web")
    assert everup.instance("web.1")["restarts"] <= 1
    assert everup.state("web.1") == "ready"


@needs_root
def test_who_takes_time_to_die_is_not_killed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup.procs").write_text("")
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _number: killed.append(pid))
    monkeypatch.setattr(children, "is_zombie", lambda _pid: False)
    monkeypatch.setattr(children, "_group_members", lambda _group: [4000001, 4000002])
    assert children._kill_group(str(tmp_path))
    assert set(killed) == {4000001, 4000002}
    assert not (tmp_path / "cgroup.kill").exists()
    fresh = iter(range(4000000, 5000000))
    monkeypatch.setattr(children, "_group_members", lambda _group: [next(fresh)])
    assert children._kill_group(str(tmp_path))
    assert (tmp_path / "cgroup.kill").read_text() == "1"
    assert birth.is_tainted(str(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_without_its_zygote_the_keeper_bears_by_itself(everup: Everup, number: int) -> None:
    everup.up({"web": {"command": SLEEP}})
    for _ in range(3):
        if zygote := everup.own().zygote:
            os.kill(zygote, number)
        old = everup.pid("web.1")
        os.kill(old, signal.SIGKILL)
        everup.wait_new_pid("web.1", old)
    ends = [event for event in everup.events() if event["kind"] == "instance.exited"]
    assert [event["cause"] for event in ends] == ["SIGKILL"] * 3
