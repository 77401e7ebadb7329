"""HTTP, HTTPS and TCP probes against real servers, good ones and bad ones."""

import asyncio
import contextlib
import os
import resource
import socket
import ssl
import struct
from pathlib import Path

import pytest
import trustme
from test_probes_servers import (
    OK,
    ask,
    free_port,
    full_listener,
    http,
    probing,
    serving,
    tcp,
    until,
)

from everup.adapters.probes import _tls
from everup.model.signal import ProbeResult, ProbeTarget

SHORT_S = 0.15
TO_OTHER = b"HTTP/1.1 302 Found\r\nLocation: https://x.example/\r\n\r\n"
NOT_HTTP = "connected, but the answer is not HTTP: "


def against(reply: object, **fields: object) -> ProbeResult:
    """The result of one probe of a server that gives this reply."""

    async def main() -> ProbeResult:
        async with serving(reply) as requests:  # type: ignore[arg-type]
            return await ask(http(requests.port, **fields))  # type: ignore[arg-type]

    return asyncio.run(main())


def asking(target: ProbeTarget) -> ProbeResult:
    return asyncio.run(ask(target))


async def forever(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.parametrize(
    ("reply", "fields", "ok", "detail"),
    [
        (OK, {}, True, "200 OK"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", {}, True, "302 Found"),
        (b"HTTP/1.1 302 Found\r\n\r\n", {"status": "200-299"}, False, "302 Found"),
        (TO_OTHER, {}, False, "302 Found, but it redirects to another host: https://x.example/"),
        (TO_OTHER, {"headers": {"Host": "x.example:80"}}, True, "302 Found"),
        (TO_OTHER, {"redirects": "any"}, True, "302 Found"),
        (TO_OTHER, {"redirects": "never"}, False, "302 Found, but it redirects"),
        (b"HTTP/1.0 200 OK\nX: y\n\nhello", {"body": "^hello$"}, True, "200 OK"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", {"status": "404"}, True, "404 Not Found"),
        (b"HTTP/1.1 503\r\nContent-Length: 0\r\n\r\n", {}, False, "503 Service Unavailable"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, {}, True, "200 OK"),
        (OK[:-5], {"method": "HEAD"}, True, "200 OK"),
        (OK, {"body": "^hel+o$"}, True, "200 OK"),
        (OK, {"body": "bye"}, False, "200 OK, but the body does not match /bye/"),
        (OK[:-2], {"body": "hel"}, False, "200 OK, but closed within the body (3 bytes)"),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", {"body": "^hello$"}, True, "200 OK"),
        (b"", {}, False, "connection closed without an answer"),
        (b"+PONG\r\n", {}, False, "connected, but the answer is not HTTP: b'+PONG\\r\\n'"),
        (b"\0" * 100000, {}, False, f"{NOT_HTTP}{bytes(32)!r}..."),
    ],
)
def test_answers(reply: bytes, fields: dict[str, object], ok: bool, detail: str) -> None:
    result = against(reply, **fields)
    assert (result.ok, result.detail) == (ok, detail)


def test_the_request_that_the_server_sees() -> None:
    async def main() -> None:
        async with serving(OK) as requests:
            await ask(http(requests.port, "/healthz", headers={"X-Key": "a"}))
            assert requests == [
                f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{requests.port}\r\n"
                "User-Agent: everup/0.1.0\r\nAccept: */*\r\nX-Key: a\r\n"
                "Connection: close\r\n\r\n".encode()
            ]

    asyncio.run(main())


def test_a_chunked_body_in_small_pieces() -> None:
    async def reply(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        for i in range(len(whole)):
            writer.write(whole[i : i + 1])
            await writer.drain()
            await asyncio.sleep(0)
        await forever(_reader, writer)  # keeps the connection, as many do

    assert against(reply, body="^hello$").detail == "200 OK"


def test_headers_are_enough_and_the_rest_is_still_read() -> None:
    """A server that writes its body to a closed connection would log a broken pipe."""
    written = asyncio.Event()

    async def reply(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n")
        await writer.drain()
        await reported.wait()
        for _ in range(9):
            writer.write(b"x" * 10000)
            await writer.drain()
            await asyncio.sleep(0)
        assert not writer.transport.is_closing()
        written.set()

    async def main() -> None:
        async with serving(reply) as requests, probing() as (prober, results):
            prober.start(http(requests.port))
            (result,) = await results.many(1)
            assert result.ok
            reported.set()
            await until(written.is_set)
            await until(lambda: not prober.reactor._handlers)
        assert len(results) == 1

    reported = asyncio.Event()
    asyncio.run(main())


def test_silence() -> None:
    result = against(forever, timeout=SHORT_S)
    assert not result.ok
    assert result.detail == "no answer within 150ms (connected, no byte received)"
    assert result.latency_s >= SHORT_S


@pytest.mark.parametrize(
    ("piece", "fields", "words"),
    [
        (b"X-Endless: yes\r\n" * 4096, {"timeout": 10.0}, "headers do not end within 32 KiB"),
        (b"X", {"timeout": SHORT_S}, "no end of the headers"),
        (b"\r\n\r\nbody", {"timeout": 10.0, "body": "x"}, "the body does not match"),
        (b"\r\n\r\n", {"timeout": SHORT_S, "body": "x"}, ""),
    ],
    ids=["headers", "drip", "body", "slow body"],
)
def test_what_never_ends(piece: bytes, fields: dict[str, object], words: str) -> None:
    async def reply(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0 if len(piece) > 5 else 0.01)

    result = against(reply, **fields)
    assert not result.ok
    assert words in result.detail


def test_reset() -> None:
    async def reply(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reset(writer)

    assert against(reply).detail == "connection reset without an answer"


def test_reset_within_the_answer() -> None:
    async def reply(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        reset(writer)

    assert against(reply).detail == "connection reset after 17 bytes of the answer"


def test_refused() -> None:
    port = free_port()
    for target in (http(port), tcp(port)):
        result = asking(target)
        assert (result.ok, result.detail) == (False, "connection refused")


def test_a_full_queue_of_connections() -> None:
    with full_listener(socket.AF_INET, ("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for target in (http(port, timeout=SHORT_S), tcp(port, timeout=SHORT_S)):
            result = asking(target)
            assert (result.ok, result.detail) == (False, "no connection within 150ms")


def test_a_full_queue_of_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")

    async def main() -> None:
        with full_listener(socket.AF_UNIX, path) as listener:
            result = await ask(tcp(0, unix=path, timeout=SHORT_S))
            assert not result.ok
            assert "queue of the listener is full" in result.detail
            # And once the queue is served, the waiting probe gets its turn.
            probe = asyncio.create_task(ask(tcp(0, unix=path)))
            await asyncio.sleep(0)
            listener.settimeout(10)
            listener.accept()[0].close()
            assert (await probe).ok

    asyncio.run(main())


def test_unix_sockets(tmp_path: Path) -> None:
    path = str(tmp_path / "s")

    async def main() -> None:
        result = await ask(http(0, unix=path, url="http://localhost/healthz"))
        assert result.detail == f"no such file or directory ({path})"
        async with serving(OK, unix=path) as requests:
            target = http(0, unix=path, url="http://localhost/healthz", body="hello")
            assert (await ask(target)).ok
            assert requests[0].startswith(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
            assert (await ask(tcp(0, unix=path))).detail == "connected"
        too_long = await ask(tcp(0, unix="/" + "x" * 200))
        assert not too_long.ok

    asyncio.run(main())


def test_source_address_and_ipv6() -> None:
    peers = []

    async def reply(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer.get_extra_info("peername")[0])
        writer.write(OK)

    async def main() -> None:
        async with serving(reply) as requests:
            assert (await ask(http(requests.port, source="127.77.0.3"))).ok
            assert peers == ["127.77.0.3"]
            wrong = await ask(http(requests.port, source="192.0.2.1"))
            assert "192.0.2.1" in wrong.detail

    asyncio.run(main())


def test_traffic_class_on_ipv6() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 loopback")
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        listener.listen(8)
        port = listener.getsockname()[1]

        async def main() -> ProbeResult:
            server = asyncio.get_running_loop().run_in_executor(None, serve)
            result = await ask(http(port, host="[::1]", traffic_class=0x48))
            await server
            return result

        def serve() -> None:
            listener.settimeout(10)
            connection, _ = listener.accept()
            with connection:
                # The class of the SYN; IPV6_PKTOPTIONS (6) gives what the connection came with.
                connection.recv(4096)
                options = connection.getsockopt(socket.IPPROTO_IPV6, 6, 256)
                classes.append(struct.pack("i", 0x48) in options)
                connection.sendall(OK)

        classes: list[bool] = []
        assert asyncio.run(main()).ok
        assert classes == [True]


def test_tcp() -> None:
    async def main() -> None:
        async with serving(OK) as requests:
            assert (await ask(tcp(requests.port))).detail == "connected"

    asyncio.run(main())


def test_a_port_that_talks_to_itself_is_closed() -> None:
    """Linux lets a client be its own peer, when the free port it connects to is the one that it
    is given to connect from."""

    async def main() -> None:
        for target in (tcp, http):
            port = free_port()
            async with probing() as (prober, results):
                prober.start(target(port), first_after_s=0.05)
                (watch,) = prober._watches.values()
                watch.plan.source = ("127.0.0.1", port)  # no wait for it to happen by chance
                (result,) = await results.many(1)
                assert (result.ok, result.detail) == (False, "connection refused")

    asyncio.run(main())


def test_names() -> None:
    async def main() -> None:
        async with serving(OK) as requests:
            # localhost may be ::1 first, where nobody listens.
            assert (await ask(http(requests.port, host="localhost"))).ok
            result = await ask(http(requests.port, host="no-such-host.invalid"))
            assert not result.ok
            assert result.detail.startswith("cannot resolve no-such-host.invalid: ")

    asyncio.run(main())


def test_what_cannot_be_asked() -> None:
    result = asking(http(1, url="gopher://127.0.0.1/"))
    assert not result.ok
    assert "gopher" in result.detail


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return ca


def server_context(ca: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    return context


def test_tls(authority: trustme.CA) -> None:
    async def main() -> None:
        async with serving(OK, ssl=server_context(authority, "127.0.0.1")) as requests:
            url = f"https://127.0.0.1:{requests.port}/"
            assert (await ask(http(0, url=url))).detail == "200 OK"
            assert (await ask(http(0, url=url, body="^hello$"))).ok
            assert not (await ask(http(0, url=url, body="bye"))).ok

    asyncio.run(main())


def test_tls_certificates(authority: trustme.CA) -> None:
    async def main(ca: trustme.CA, name: str, words: str) -> None:
        async with serving(OK, ssl=server_context(ca, name)) as requests:
            url = f"https://127.0.0.1:{requests.port}/"
            result = await ask(http(0, url=url))
            assert not result.ok
            assert result.detail.startswith("certificate verify failed: ")
            assert words in result.detail
            assert (await ask(http(0, url=url, tls_verify=False))).ok

    asyncio.run(main(authority, "shop.example", "127.0.0.1"))
    asyncio.run(main(trustme.CA(), "127.0.0.1", "issuer"))


def test_tls_files_of_the_config(tmp_path: Path) -> None:
    """A CA of one's own, and a certificate to show to a server that asks for one."""
    ca, other = trustme.CA(), trustme.CA()
    mine = ca.issue_cert("everup.example")
    for name, blob in (
        ("ca", ca.cert_pem),
        ("other", other.cert_pem),
        ("cert", mine.cert_chain_pems[0]),
        ("key", mine.private_key_pem),
        ("both", mine.private_key_and_cert_chain_pem),
    ):
        blob.write_to_path(str(tmp_path / name))
    (tmp_path / "bad").write_text("no certificate")
    os.mkfifo(tmp_path / "fifo")
    context = server_context(ca, "127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)

    async def main() -> None:
        async with serving(OK, ssl=context) as requests:
            url = f"https://127.0.0.1:{requests.port}/"

            async def asked(**files: str) -> ProbeResult:
                paths = {f"tls_{key}": str(tmp_path / name) for key, name in files.items()}
                return await ask(http(0, url=url, body="^hello$", **paths))  # type: ignore[arg-type]

            assert (await asked(ca="ca", cert="cert", key="key")).detail == "200 OK"
            assert (await asked(ca="ca", cert="both")).ok
            assert not (await asked(ca="ca")).ok  # shows none
            assert "certificate verify failed" in (await asked(ca="other", cert="both")).detail
            for name, words in (
                ("bad", ""),
                ("nowhere", "No such file"),
                ("fifo", "it is no regular file"),
            ):
                for files in ({"ca": name}, {"ca": "ca", "cert": name}):
                    result = await asked(**files)
                    assert not result.ok
                    assert result.detail.startswith(f"cannot be asked: {tmp_path / name}: ")
                    assert words in result.detail

    asyncio.run(main())


def test_a_renewed_certificate_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tls, "TTL_S", 0.0)
    old, new = trustme.CA(), trustme.CA()
    path = tmp_path / "ca"
    old.cert_pem.write_to_path(str(path))

    async def main() -> None:
        async with serving(OK, ssl=server_context(new, "127.0.0.1")) as requests:
            target = http(
                0, url=f"https://127.0.0.1:{requests.port}/", tls_ca=str(path), interval=0.05
            )
            async with probing() as (prober, results):
                prober.start(target)
                await until(lambda: len(results) > 1)
                assert not results[-1].ok
                new.cert_pem.write_to_path(str(path))
                await until(lambda: results[-1].ok)

    asyncio.run(main())


def test_tls_server_name_and_source(authority: trustme.CA) -> None:
    names: list[str | None] = []
    context = server_context(authority, "localhost")
    context.sni_callback = lambda _sock, name, _context: names.append(name)

    async def main() -> None:
        async with serving(OK, ssl=context) as requests:
            url = f"https://localhost:{requests.port}/"
            assert (await ask(http(0, url=url, source="127.77.0.4"))).ok
            assert names == ["localhost"]

    asyncio.run(main())


def test_tls_to_a_server_without() -> None:
    async def talks_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(OK)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(talks_plainly, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        result = await ask(http(0, url=f"https://127.0.0.1:{port}/"))
        assert "connected, but TLS failed" in result.detail
        server.close()

    asyncio.run(main())


def test_tls_handshake_that_never_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        result = asking(http(0, url=url, timeout=SHORT_S))
    assert result.detail == "no answer within 150ms (connected, TLS handshake not finished)"


def test_out_of_descriptors_is_everups_own_trouble() -> None:
    """Such a verdict must not look like one about the service."""

    async def main() -> None:
        async with serving(OK) as requests, probing() as (prober, results):
            prober.start(http(requests.port, interval=5.0), first_after_s=0.05)
            held = []
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.dup(0))
            try:
                (result,) = await results.many(1)
            finally:
                for fd in held:
                    os.close(fd)
            assert result.detail == "everup could not ask: too many open files"
            assert result.lateness_s >= 5.0

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        asyncio.run(main())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
