"""From a service to a spawn request, and to where its probes go."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from everup.adapters import steering
from everup.adapters.cgroups import Placement
from everup.adapters.launch import (
    LaunchError,
    argv,
    environment,
    explain_failure,
    identity,
    request,
    user_exists,
)
from everup.adapters.targets import target
from everup.model.instance import Slot
from everup.model.signal import ProbeKind, ProbeTarget
from everup.model.spec import Limits, Listener, Probe, Service

WEB2 = Slot("web", 2)
LANE = 3
"""Not that of its number: the successor of a process has another one."""
NOWHERE = Placement(v2=None, v1=())


def web(**more: Any) -> Service:
    return Service("web", ("serve", "--port={port}", "{service}-{replica}", "{{}}"), **more)


def env(service: Service, directory: str = "/", **extra: str) -> dict[str, str]:
    return environment(service, WEB2, directory, extra, None)


def test_words_are_filled_in_for_the_replica() -> None:
    service = web(port=9000)
    assert argv(service, WEB2, service.command) == ["serve", "--port=9001", "web-2", "{}"]


def test_environment_is_what_is_named_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_EVERUP", "x")
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.delenv("PATH")
    got = env(web(port=9000, environment={"ID": "r{replica}", "LANG": "de"}), EXTRA="1")
    assert "SECRET_OF_EVERUP" not in got
    assert got["LANG"] == "de"
    assert got["ID"] == "r2"
    assert got["PORT"] == "9001"
    assert got["EXTRA"] == "1"
    assert "/usr/bin" in got["PATH"]
    assert got["EVERUP_INSTANCE"] == "web.2"
    assert (got["EVERUP_SERVICE"], got["EVERUP_REPLICA"]) == ("web", "2")


def test_environment_files_in_order_under_the_table(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("# said once\nA=1\nB=$A {replica}\nexport C='x y'\nBARE\n")
    (tmp_path / "b.env").write_text("A=2\nPORT=1\n")
    files = ("a.env", "-missing.env", "b.env")
    got = env(web(port=9000, environment_file=files, environment={"C": "z"}), str(tmp_path))
    assert (got["A"], got["B"], got["C"], got["PORT"]) == ("2", "$A {replica}", "z", "9001")
    assert "BARE" not in got


def test_an_environment_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"x\.env does not exist \(-x\.env would allow that\)"):
        env(web(port=1, environment_file=("x.env",)), str(tmp_path))
    (tmp_path / "bad.env").write_bytes(b"A=\xff\xfe\n")
    with pytest.raises(LaunchError, match="cannot be read"):
        env(web(port=1, environment_file=("bad.env",)), str(tmp_path))


def test_users_that_do_not_exist() -> None:
    assert identity(web()) is None
    assert not user_exists("nobody-of-that-name")
    with pytest.raises(LaunchError, match="user 'nobody-of-that-name' does not exist"):
        identity(web(user="nobody-of-that-name"))
    with pytest.raises(LaunchError, match="group 'no-such-group' does not exist"):
        identity(web(group="no-such-group"))


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_another_user_brings_its_own_home() -> None:
    who = identity(web(user="nobody"))
    assert who is not None
    assert who.uid > 0
    assert who.groups == [who.gid]
    got = environment(web(port=1), WEB2, "/", {}, who)
    assert got["USER"] == got["LOGNAME"] == "nobody"
    assert got["HOME"] == who.environment["HOME"] != os.environ.get("HOME")


def asked(service: Service, **more: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "config_dir": "/etc/shop", "placement": NOWHERE, "extra": {}, "listen": False,
    }  # fmt: skip
    return request(service, WEB2, ("serve",), **(settings | more))


def test_a_plain_request_asks_for_nothing_special() -> None:
    got = asked(web())
    assert set(got) == {"argv", "env", "cwd", "listen_pid"}
    assert os.path.normpath(got["cwd"]) == "/etc/shop"


def test_a_request_with_everything() -> None:
    limits = Limits(nofile=100, core=0)
    service = web(directory="sub", nice=5, umask="027", limits=limits)
    got = asked(service, placement=Placement(v2="/cg", v1=("/a", "/b")), listen=True)
    assert got["cwd"] == "/etc/shop/sub"
    assert (got["nice"], got["umask"]) == (5, 0o27)
    assert got["limits"] == {"nofile": 100, "core": 0}  # none at all is a limit too
    assert (got["cgroup"], list(got["cgroups"])) == ("/cg", ["/a", "/b"])
    assert got["listen_pid"] is True
    assert asked(web(directory="/srv"))["cwd"] == "/srv"


@pytest.mark.parametrize(
    ("stage", "number", "expected"),
    [
        ("command", errno.ENOENT, "cannot run serve: there is no such command in PATH=/bin"),
        ("command", errno.EACCES, "cannot run serve: Permission denied"),
        ("directory", errno.ENOENT, "cannot change to the directory /x: No such file"),
        ("user", errno.EPERM, "cannot become the user: Operation not permitted"),
        ("fork", errno.EAGAIN, "(the limit of processes is reached)"),
        ("descriptors", 0, "cannot set it up (descriptors): odd"),
    ],
)
def test_failures_in_words(stage: str, number: int, expected: str) -> None:
    what = {"argv": ["serve"], "cwd": "/x", "env": {"PATH": "/bin"}}
    assert expected in explain_failure(what, stage, number, "odd")


def test_a_missing_interpreter_is_thought_of() -> None:
    what = {"argv": ["./serve"], "cwd": "/x", "env": {}}
    assert "the interpreter in its first line" in explain_failure(what, "command", 2, "")


# -- targets


def aim(service: Service, **probe: Any) -> ProbeTarget:
    return target(service, WEB2, ProbeKind.LIVENESS, 3, Probe(**probe), LANE)


def listening(*addresses: str) -> Service:
    names = ("main", "admin")
    pairs = zip(names, addresses, strict=False)
    return Service("web", ("serve",), listen=tuple(Listener(n, a) for n, a in pairs), replicas=3)


@pytest.mark.parametrize(
    ("address", "host", "url"),
    [
        ("127.0.0.1:80", "127.0.0.1", "http://127.0.0.1:80/z"),
        (":80", "127.0.0.1", "http://127.0.0.1:80/z"),
        ("0.0.0.0:80", "127.0.0.1", "http://127.0.0.1:80/z"),
        ("[::]:80", "::1", "http://[::1]:80/z"),
        ("[::1]:80", "::1", "http://[::1]:80/z"),
    ],
)
def test_own_listener_is_reached_steered(address: str, host: str, url: str) -> None:
    got = aim(listening(address), http="/z")
    assert (got.host, got.port, got.url, got.run) == (host, 80, url, 3)
    if ":" in host:
        assert (got.source, got.traffic_class) == ("::1", steering.probe_traffic_class(LANE))
    else:
        assert (got.source, got.traffic_class) == ("127.77.0.3", 0)
    assert aim(listening(address), tcp="listen").url == ""


def test_named_listener_and_unix() -> None:
    service = listening("127.0.0.1:80", "unix:/run/admin.sock")
    assert aim(service, http="/z").port == 80
    got = aim(service, http="/z", listener="admin")
    assert (got.unix, got.url, got.source) == ("/run/admin.sock", "http://localhost/z", "")


def test_own_port() -> None:
    got = aim(Service("web", ("serve",), port=9000, replicas=3), http="/z?r={replica}")
    assert got.url == "http://127.0.0.1:9001/z?r=2"
    assert (got.port, got.source) == (9001, "")


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://db/x", "db", 80),
        ("https://db/x", "db", 443),
        ("https://[::1]:8443/x", "::1", 8443),
        ("http://127.0.0.1:{port}/x", "127.0.0.1", 9001),
    ],
)
def test_whole_urls(url: str, host: str, port: int) -> None:
    got = aim(Service("web", ("serve",), port=9000), http=url)
    assert (got.host, got.port, got.source) == (host, port, "")
    assert got.url == url.replace("{port}", "9001")


def test_other_tcp_and_exec() -> None:
    got = aim(web(port=1), tcp="[::1]:5432")
    assert (got.host, got.port, got.source) == ("::1", 5432, "")
    assert aim(web(), exec=("check",)).url == ""


def test_probe_sources_stay_in_their_range() -> None:
    assert steering.probe_source(1) == "127.77.0.1"
    assert steering.probe_source(1100) == "127.77.4.76"
    classes = [steering.probe_traffic_class(n) for n in range(1, 1101)]
    used = [c for c in classes if c]
    assert len(set(used)) == len(used) == steering.MAX_TRAFFIC_CLASS_REPLICA
    assert all(0 < c < 256 and not c & 3 for c in used)
