"""From a target to addresses and request bytes."""

import socket
import ssl

import pytest

from everup import __version__
from everup.adapters.probes._plan import Plan, make_plan
from everup.adapters.probes._tls import Contexts
from everup.model.instance import Slot
from everup.model.signal import ProbeKind, ProbeTarget
from everup.model.spec import Probe

SLOT = Slot("web", 1)


def plan(probe: Probe, **fields: object) -> Plan:
    target = ProbeTarget(SLOT, ProbeKind.READINESS, 1, probe, **fields)  # type: ignore[arg-type]
    return make_plan(target, Contexts().get)


def request(url: str, **probe: object) -> list[str]:
    made = plan(Probe(http="/", **probe), url=url)  # type: ignore[arg-type]
    assert not made.error
    assert made.request.endswith(b"\r\n\r\n")
    return made.request.decode().split("\r\n")[:-2]


def test_the_request() -> None:
    assert request("http://127.0.0.1:8080/healthz?deep=1") == [
        "GET /healthz?deep=1 HTTP/1.1",
        "Host: 127.0.0.1:8080",
        f"User-Agent: everup/{__version__}",
        "Accept: */*",
        "Connection: close",
    ]


@pytest.mark.parametrize(
    ("url", "line", "host"),
    [
        ("http://127.0.0.1", "GET / HTTP/1.1", "127.0.0.1"),
        ("http://127.0.0.1:80/", "GET / HTTP/1.1", "127.0.0.1"),
        ("http://[::1]:81/a b", "GET /a%20b HTTP/1.1", "[::1]:81"),
        ("https://localhost:443/%41?q=ö#part", "GET /%41?q=%C3%B6 HTTP/1.1", "localhost"),
        ("http://bücher.example/", "GET / HTTP/1.1", "xn--bcher-kva.example"),
    ],
)
def test_request_line_and_host(url: str, line: str, host: str) -> None:
    lines = request(url)
    assert lines[0] == line
    assert lines[1] == f"Host: {host}"


def test_own_headers_replace_everups_except_connection() -> None:
    lines = request(
        "http://127.0.0.1/",
        headers={"host": "shop.example", "X-Key": "a", "connection": "keep-alive"},
        method="POST",
    )
    assert lines[0] == "POST / HTTP/1.1"
    assert "host: shop.example" in lines
    assert "X-Key: a" in lines
    assert "Content-Length: 0" in lines
    assert [line for line in lines if line.lower().startswith("connection")] == [
        "Connection: close"
    ]


def test_user_and_password_in_the_url() -> None:
    assert "Authorization: Basic dTpwQHc=" in request("http://u:p%40w@127.0.0.1/")


@pytest.mark.parametrize(
    ("fields", "family", "address"),
    [
        ({"url": "http://127.0.0.1:81/"}, socket.AF_INET, ("127.0.0.1", 81)),
        ({"url": "http://127.0.0.1/"}, socket.AF_INET, ("127.0.0.1", 80)),
        ({"url": "https://127.0.0.1/"}, socket.AF_INET, ("127.0.0.1", 443)),
        ({"url": "http://[::1]:82/"}, socket.AF_INET6, ("::1", 82, 0, 0)),
        ({"url": "/x", "host": "127.0.0.2", "port": 83}, socket.AF_INET, ("127.0.0.2", 83)),
        ({"url": "http://localhost/x", "unix": "/run/s"}, socket.AF_UNIX, "/run/s"),
        ({"url": "http://localhost/x", "unix": "@abc"}, socket.AF_UNIX, "\0abc"),
    ],
)
def test_http_addresses(fields: dict[str, object], family: int, address: object) -> None:
    made = plan(Probe(http="/x"), **fields)
    assert (made.error, made.family, made.address) == ("", family, address)


def test_tcp_addresses() -> None:
    made = plan(Probe(tcp="listen"), host="::1", port=5)
    assert (made.family, made.address) == (socket.AF_INET6, ("::1", 5, 0, 0))
    assert plan(Probe(tcp="127.0.0.1:7")).address == ("127.0.0.1", 7)
    assert plan(Probe(tcp="listen"), unix="/run/s").address == "/run/s"
    assert plan(Probe(tcp="db.example:5432")).name == ("db.example", 5432)


@pytest.mark.parametrize(
    ("probe", "url", "words"),
    [
        (Probe(http="/"), "ftp://127.0.0.1/", "ftp"),
        (Probe(http="/"), "http://127.0.0.1:99999/", "Port"),
        (Probe(http="/"), "http:///x", "no address"),
        (Probe(http="/", status="2xx"), "http://127.0.0.1/", "2xx"),
        (Probe(http="/", body="("), "http://127.0.0.1/", "regular expression"),
        (Probe(http="/", method="GET /"), "http://127.0.0.1/", "method"),
        (Probe(http="/", headers={"A": "b\r\nC: d"}), "http://127.0.0.1/", "header"),
        (Probe(tcp="nowhere"), "", "cannot be asked"),
    ],
)
def test_what_cannot_be_asked_says_why(probe: Probe, url: str, words: str) -> None:
    assert words in plan(probe, url=url).error


def test_tls_contexts() -> None:
    contexts = Contexts()
    assert contexts.get(True) is contexts.get(True)
    assert contexts.get(True).verify_mode == ssl.CERT_REQUIRED
    assert contexts.get(False).verify_mode == ssl.CERT_NONE
    assert plan(Probe(http="/"), url="https://shop.example/").server_name == "shop.example"
    assert plan(Probe(http="/"), url="http://shop.example/").tls is None
