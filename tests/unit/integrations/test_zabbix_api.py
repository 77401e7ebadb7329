"""What stands behind the address of Zabbix' API may be anything."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from everup.integrations.zabbix.edge.api import Api, ApiError


@contextlib.contextmanager
def behind(*answers: bytes, endless: bytes = b"") -> Iterator[tuple[str, list[bytes]]]:
    """A listener that gives each connection one of these answers, whatever it is asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        asked.append(whole(connection))
                        connection.sendall(answer)
                        while endless:
                            connection.sendall(endless)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/zabbix/", asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def whole(connection: socket.socket) -> bytes:
    """A request with its body."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65536)
    head, _, body = head.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def http(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def result(value: object) -> bytes:
    return http(json.dumps({"jsonrpc": "2.0", "result": value, "id": 1}).encode())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "does not speak HTTP"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "does not speak HTTP"),
        (http(b"<html>"), "is no Zabbix API: it says b'<html>'"),
        (http(b"[" * 100_000), "is no Zabbix API"),
        (http(b"[]"), "is no Zabbix API"),
        (http(b'{"error": 1}'), "is no Zabbix API"),
        (http(b"no", "502 Bad Gateway"), "HTTP status 502: b'no'"),
        (http(b"", "302 Found", "Location: https://else\r\n"), "sends us to 'https://else'"),
        (
            http(b'{"error":{"message":"Invalid params.","data":"x"}}'),
            "host.get: Invalid params. x",
        ),
        (http(result(1))[:60], "host.get|does not speak HTTP|no Zabbix API"),
    ],
)
def test_answers_that_are_none(answer: bytes, words: str) -> None:
    with behind(answer) as (url, _), pytest.raises(ApiError, match=words):
        Api(url).ask("host.get")


def test_an_answer_without_end() -> None:
    begin = b"HTTP/1.1 200 OK\r\n\r\n"
    with (
        behind(begin, endless=bytes(1 << 16)) as (url, _),
        pytest.raises(ApiError, match="larger than 32 MiB"),
    ):
        Api(url).ask("host.get")


@pytest.mark.parametrize(
    ("version", "words"),
    [("5.4.12", "needs 6.0 or later"), ("x", "says that its version is 'x'")],
)
def test_versions(version: str, words: str) -> None:
    with behind(result(version)) as (url, _), pytest.raises(ApiError, match=words):
        assert Api(url).version


@pytest.mark.parametrize(("version", "how"), [("6.0.14", "body"), ("7.2.0", "header")])
def test_how_a_token_goes(version: str, how: str) -> None:
    with behind(result(version), result([])) as (url, asked):
        api = Api(url)
        api.use("secret")
        assert api.ask("host.get", output=["host"]) == []
    head, _, body = asked[1].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /zabbix/api_jsonrpc.php HTTP/1.1\r\n")
    found: dict[str, Any] = json.loads(body)
    assert found["params"] == {"output": ["host"]}
    assert (found.get("auth") == "secret") is (how == "body")
    assert (b"Authorization: Bearer secret" in head) is (how == "header")


@pytest.mark.parametrize("url", ["zabbix.example", "ftp://zabbix", "http://", "http://a:b/", ""])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ApiError, match=r"like https://zabbix\.example/zabbix"):
        Api(url)


def test_a_password_in_an_address_is_not_shown() -> None:
    with behind(http(b"x")) as (url, _), pytest.raises(ApiError) as error:
        Api(url.replace("http://", "http://admin:secret@")).ask("host.get")
    assert "secret" not in str(error.value)


def test_nobody_listens() -> None:
    with behind() as (url, _):
        pass
    with pytest.raises(ApiError, match="nobody listens there"):
        Api(url).ask("host.get")
