"""The API by itself: who may speak, what it says of itself, metrics, bad requests, streams."""

import http.client
import json
import os
import socket
import stat
import threading
from typing import Any

import pytest
from _everup import FAST_PROBE, SLEEP, Everup, UnixConnection, sh
from _fixtures import needs_root
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.parser import text_string_to_metric_families

from everup.api.openapi import openapi
from everup.api.server import application
from everup.cli.client import Client
from everup.cli.context import Failure

NOBODY = 65534


def test_socket_mode(everup: Everup) -> None:
    everup.write({"a": {"command": SLEEP}})
    everup.cli("up", "-d", preexec_fn=lambda: os.umask(0))
    mode = os.stat(everup.place.api_socket).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def _as_nobody(everup: Everup) -> tuple[str, int, str]:
    """What another user gets: from the command, and the API's status and body."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # only what is imported already: this user may not read our files
        answer: list[Any] = ["", 0, ""]
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            try:
                Client(everup.place).get("/v1/status")
            except Failure as failure:
                answer[0] = failure.text
            status, body = everup.request("POST", "/v1/stop", {})
            answer[1:] = status, body.decode()
        except BaseException as error:
            answer[2] = repr(error)
        finally:
            os.write(write, json.dumps(answer).encode())
            os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as pipe:
        said, status, body = json.loads(pipe.read())
    os.waitpid(pid, 0)
    return said, status, body


@needs_root
def test_another_user_is_refused(open_everup: Everup) -> None:
    """By the mode of the socket; and where that was opened up, by who is on the other side."""
    everup = open_everup
    everup.up({"a": {"command": SLEEP}})
    said, status, body = _as_nobody(everup)
    assert "belongs to another user" in said
    assert status == 0
    assert "PermissionError" in body

    os.chmod(everup.place.api_socket, 0o666)
    said, status, body = _as_nobody(everup)
    assert f"uid {NOBODY} may not speak to this everup" in said
    assert status == 403
    assert json.loads(body)["error"] == f"uid {NOBODY} may not speak to this everup"
    assert everup.state("a.1") == "ready"
    assert not everup.events("service.wanted")


def test_openapi_describes_every_route() -> None:
    document = openapi()
    OpenAPIV31SpecValidator(document).validate()
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    backend: Any = object()  # routes only, nobody is asked
    routes = {
        (route.method, route.resource.canonical)
        for route in application(backend).router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert described == routes
    names = [op["operationId"] for item in document["paths"].values() for op in item.values()]
    assert len(names) == len(set(names))


def _validator(document: dict[str, Any], name: str) -> Draft202012Validator:
    """For a schema of the document; keys that it does not describe are errors."""
    closed = json.loads(json.dumps(document["components"]["schemas"]))
    for title, schema in closed.items():
        if title != "Event":  # its other keys depend on its kind
            schema["additionalProperties"] = False
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": {"schemas": closed}}
    )


def test_answers_are_as_described(everup: Everup) -> None:
    """The running one describes itself, and what it says is what it describes."""
    probe = {"readiness": {"http": "/readyz", **FAST_PROBE}}
    web = everup.server(listen=f"127.0.0.1:{everup.port()}", standby=1, replicas=2, probe=probe)
    everup.up(
        {
            "web": web,
            "bad": {"command": sh("echo oops >&2; exit 3"), "restart": {"delay": "1h"}},
            "once": {"command": sh(r"printf 'a\377b\n'"), "type": "oneshot"},
            "off": {"command": SLEEP, "autostart": False},
        },
        arguments=("--timeout", "0"),
    )
    everup.wait_state("bad.1", "backoff")
    everup.wait_for(lambda: everup.instance("once.1")["done"], "once is done")
    everup.wait_state("web.3", "ready")
    everup.wait_for(lambda: everup.output("once.1") and everup.output("bad.1"), "their output")
    status, body = everup.request("GET", "/v1/openapi.json")
    assert status == 200
    document = json.loads(body)
    assert document == openapi()

    _validator(document, "Status").validate(everup.status())
    everup.cli("restart", "web.1", "--timeout", "0")
    now = everup.status()
    assert everup.service("web")["rollout"] or everup.events("rollout.done", "web")
    _validator(document, "Status").validate(now)
    everup.wait_event("rollout.done", "web")
    for path, name in (("/v1/events", "Event"), ("/v1/logs", "LogLine")):
        status, body = everup.request("GET", path)
        lines = [json.loads(line) for line in body.splitlines()]
        assert lines
        for line in lines:
            _validator(document, name).validate(line)
    accepted, error = _validator(document, "Accepted"), _validator(document, "Error")
    for path, request, good in (
        ("/v1/stop", {"targets": ["web.1"]}, True),
        ("/v1/start", {"targets": ["web"]}, True),
        ("/v1/restart", {"targets": ["web.2"]}, True),
        ("/v1/signal", {"targets": ["web.3"], "signal": "WINCH"}, True),
        ("/v1/restart", {"targets": ["web.2"]}, False),
        ("/v1/reexec", {"argv": ["/nowhere"], "engine": ["/nowhere"]}, False),
        ("/v1/scale", {"service": "web", "replicas": 1}, True),
        ("/v1/stop", {"targets": ["wbe"]}, False),
        ("/v1/nowhere", {}, False),
        ("/v1/down", {}, True),
    ):
        status, body = everup.request("POST", path, request)
        assert (status == 200) == good, body
        (accepted if good else error).validate(json.loads(body))
    everup.wait_for(lambda: not everup.processes(), "everup is down")


def test_metrics(everup: Everup) -> None:
    port = everup.port()
    everup.up({"web": everup.server(listen=f"127.0.0.1:{port}"), "a": {"command": SLEEP}})
    pid = everup.pid("a.1")
    os.kill(pid, 9)
    everup.wait_new_pid("a.1", pid)
    everup.wait_for(lambda: everup.instance("a.1")["usage"], "a sample")
    status, body = everup.request("GET", "/metrics")
    assert status == 200
    families = {f.name: f for f in text_string_to_metric_families(body.decode())}
    assert all(family.documentation for family in families.values())
    values = {
        (s.name, *sorted(s.labels.values())): s.value
        for family in families.values()
        for s in family.samples
    }
    both = {"a.1", "web.1"}
    for name, kind in (
        ("state", "gauge"),
        ("restarts", "counter"),
        ("memory_bytes", "gauge"),
        ("cpu_seconds", "counter"),
        ("processes", "gauge"),
        ("threads", "gauge"),
        ("open_fds", "gauge"),
        ("disk_read_bytes", "counter"),
        ("disk_written_bytes", "counter"),
    ):
        family = families[f"everup_instance_{name}"]
        assert family.type == kind
        assert {s.labels["instance"] for s in family.samples} == both
        assert {s.labels["service"] for s in family.samples} == {"a", "web"}
    assert {s.labels["instance"] for s in families["everup_instance_in_balance"].samples} == {
        "web.1"
    }
    assert values["everup_instance_state", "a", "a.1", "ready"] == 1
    assert values["everup_instance_state", "a", "a.1", "parked"] == 0
    assert values["everup_instance_restarts_total", "a", "a.1"] == 1
    assert values["everup_instance_in_balance", "web", "web.1"] == 1
    assert values["everup_instance_memory_bytes", "web", "web.1"] > 1 << 20
    assert values[("everup_machine_cpus",)] == os.cpu_count()
    for name in ("load", "cpu_percent", "memory_total_bytes", "memory_available_bytes"):
        assert families[f"everup_machine_{name}"].type == "gauge"
    assert families["everup_machine_net_received_bytes"].type == "counter"
    assert families["everup_info"].samples[0].labels["version"] == everup.status()["version"]


def test_bad_requests(everup: Everup) -> None:
    """Each is refused in the one form, none is a fault of ours, nothing comes of any."""
    everup.up({"web": {"command": SLEEP}, "once": {"command": ["true"], "type": "oneshot"}})
    seq = everup.last_seq()
    for path, body, status, words in (
        ("/v1/stop", {"targets": "web"}, 400, "expected a list"),
        ("/v1/stop", {"targets": [1]}, 400, "expected a list"),
        ("/v1/stop", ["web"], 400, "JSON object"),
        ("/v1/stop", {"targets": ["web.0"]}, 404, "web.0"),
        ("/v1/stop", {"targets": ["web", "\udc80"]}, 404, "no service"),
        ("/v1/scale", {"service": "web", "replicas": "3"}, 400, "whole number"),
        ("/v1/scale", {"service": "web", "replicas": True}, 400, "whole number"),
        ("/v1/scale", {"service": "web", "replicas": 1.5}, 400, "whole number"),
        ("/v1/scale", {"service": "web", "replicas": -1}, 400, "0 to 1000"),
        ("/v1/scale", {"service": "web", "replicas": 10**6}, 400, "0 to 1000"),
        ("/v1/scale", {"service": ["web"], "replicas": 1}, 404, "no service"),
        ("/v1/scale", {}, 404, "no service"),
        ("/v1/scale", {"service": "once", "replicas": 2}, 400, "oneshot"),
        ("/v1/signal", {"targets": ["web"], "signal": "FOO"}, 400, "no signal"),
        ("/v1/signal", {"targets": ["web"], "signal": 9}, 400, "no signal"),
        ("/v1/stop", {"targets": ["x" * 70_000]}, 413, ""),
    ):
        found, answer = everup.request("POST", path, body)
        assert found == status, (path, body, answer)
        assert words in json.loads(answer)["error"]
    for data in (b"{", b"\xff", b"[" * 50_000, b'{"replicas": ' + b"9" * 5000 + b"}"):
        connection = UnixConnection(everup.place.api_socket)
        headers = {"Content-Type": "application/json; charset=no-such"}
        connection.request("POST", "/v1/stop", data, headers)
        response = connection.getresponse()
        assert response.status == 400
        assert "no JSON" in json.loads(response.read())["error"]
        connection.close()
    many = "&".join(["kind=*"] * 1000)  # more than SQLite takes
    for path, status in (
        ("/v1/events?n=x", 400),
        ("/v1/events?n=%C2%B2", 400),
        ("/v1/events?n=-1", 400),
        ("/v1/events?n=" + "9" * 5000, 400),
        ("/v1/events?after=1e3", 400),
        ("/v1/events?since=yesterday", 400),
        ("/v1/events?kind=instance.exitd", 400),
        ("/v1/events?service=wbe", 404),
        (f"/v1/events?{many}", 400),
        ("/v1/logs?n=100001", 400),
        ("/v1/logs?service=wbe", 404),
        ("/v1/logs?service=web&service=wbe", 404),
        ("/v1/start", 405),
        ("/v2/status", 404),
        ("/", 404),
    ):
        found, answer = everup.request("GET", path)
        assert found == status, (path, answer)
        assert json.loads(answer)["error"]
    assert (
        "did you mean instance.exited?"
        in everup.request("GET", "/v1/events?kind=instance.exitd")[1].decode()
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:  # no HTTP at all
        sock.connect(everup.place.api_socket)
        sock.sendall(b"\x00\xff nonsense\r\n\r\n")
        assert sock.recv(100).split()[1] == b"400"
    assert everup.state("web.1") == "ready"
    assert everup.last_seq() == seq
    log = (everup.state_dir / "everup.log").read_text()
    assert "Traceback" not in log


def _sockets(pid: int) -> int:
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        found += target.startswith("socket:") or ".log" in target
    return found


def test_followers_that_go_leave_nothing(everup: Everup) -> None:
    """Also those that wait for what never comes: their sockets and files are closed."""
    everup.up({"a": {"command": sh("echo hello; exec sleep 1000")}})
    everup.wait_for(lambda: everup.output("a.1"), "output")
    everup.status()
    engine = everup.engine_pid
    before = _sockets(engine)
    followers = []
    for path in ("/v1/events?follow=1&n=0&kind=group.*", "/v1/logs?follow=1&n=0") * 5:
        connection = UnixConnection(everup.place.api_socket)
        connection.request("GET", path)
        assert connection.getresponse().status == 200
        followers.append(connection)
    assert _sockets(engine) >= before + 12  # 10 connections and 5 files; one may just have gone
    for connection in followers:
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
    everup.wait_for(lambda: _sockets(engine) <= before, "they are closed")


def test_slow_reader_harms_nobody(everup: Everup) -> None:
    """One that asks for everything and reads nothing; others are answered."""
    everup.up({"a": {"command": sh("seq 20000; exec sleep 1000")}})
    everup.wait_for(lambda: "20000" in everup.output("a.1")[-1:], "all is stored")
    lazy = UnixConnection(everup.place.api_socket)
    lazy.request("GET", "/v1/logs?n=100000&follow=1")
    try:
        answers: list[int] = []

        def ask() -> None:
            answers.append(everup.request("GET", "/v1/status")[0])

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [200] * 8
        response = lazy.getresponse()
        texts = [json.loads(response.readline())["text"] for _ in range(20000)]
        assert texts == [str(n) for n in range(1, 20001)]
    finally:
        lazy.close()


def test_status_during_down(everup: Everup) -> None:
    """It says that it is stopping, and refuses what makes no sense then."""
    everup.tell("stubborn")
    everup.up({"a": everup.server(stop_timeout="1h")})
    everup.wait_for(lambda: everup.output("a.1"), "it has its handler")
    keeper = everup.keeper_pid
    status, body = everup.request("POST", "/v1/down")
    assert (status, json.loads(body)["keeper"]) == (200, {"pid": keeper})
    everup.wait_state("a.1", "stopping")
    assert everup.status()["stopping"]
    status, body = everup.request("POST", "/v1/start", {})
    assert status == 409
    assert "is stopping" in json.loads(body)["error"]
    # Only once it has refused the first one: else it ends by that, and there is no second.
    everup.wait_for((everup.control / "refused").exists, "it was asked to end")
    everup.untell("stubborn")
    os.kill(everup.pid("a.1"), 15)
    everup.wait_for(lambda: keeper not in everup.processes(), "everup is down")
    with pytest.raises((OSError, http.client.HTTPException)):
        everup.request("GET", "/v1/status")
