"""gRPC probes (grpc.health.v1) against a real server and against answers of all kinds."""

import asyncio
from collections.abc import Iterator
from concurrent import futures
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_probes_servers import OK, SLOT, ask, free_port, serving

from everup.adapters.probes._grpc import GrpcCheck, GrpcResponse
from everup.model.signal import ProbeKind, ProbeResult, ProbeTarget
from everup.model.spec import Probe

SETTINGS = bytes.fromhex("000000040000000000")
SERVING = bytes.fromhex("000007 00 00 00000001 00 00000002 0801".replace(" ", ""))
HEADERS = bytes.fromhex("000001 01 04 00000001 88".replace(" ", ""))
TRAILERS = bytes.fromhex("000001 01 05 00000001 88".replace(" ", ""))


def grpc(port: int, service: str = "", timeout_s: float = 10.0) -> ProbeTarget:
    probe = Probe(grpc="listen", grpc_service=service, interval=3600.0, timeout=timeout_s)
    return ProbeTarget(SLOT, ProbeKind.READINESS, 7, probe, host="127.0.0.1", port=port)


def asking(port: int, service: str = "", timeout_s: float = 10.0) -> ProbeResult:
    return asyncio.run(ask(grpc(port, service, timeout_s)))


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[int, Any]]:
    """Port and health of a server of grpcio."""
    library: Any = pytest.importorskip("grpc")
    health: Any = pytest.importorskip("grpc_health.v1.health")
    stubs: Any = pytest.importorskip("grpc_health.v1.health_pb2_grpc")
    running = library.server(futures.ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    stubs.add_HealthServicer_to_server(servicer, running)
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield port, servicer
    running.stop(None).wait()


def test_a_real_server(server: tuple[int, Any]) -> None:
    port, servicer = server
    for status, ok, words in (
        (1, True, "SERVING"),
        (2, False, "NOT_SERVING"),
        (0, False, "UNKNOWN"),
    ):
        servicer.set("", status)
        servicer.set("shop.v1." + "x" * 180, status)
        for service in ("", "shop.v1." + "x" * 180):
            result = asking(port, service)
            assert (result.ok, result.detail) == (ok, words)
    assert not asking(port, "nobody.knows.it").ok


def test_a_real_server_without_health() -> None:
    library: Any = pytest.importorskip("grpc")
    running = library.server(futures.ThreadPoolExecutor(1))
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    try:
        result = asking(port)
    finally:
        running.stop(None).wait()
    assert not result.ok
    assert "no grpc.health.v1" in result.detail


@pytest.mark.parametrize(
    ("reply", "ok", "words"),
    [
        (SETTINGS + HEADERS + SERVING + TRAILERS, True, "SERVING"),
        (SETTINGS + HEADERS + SERVING[:-1] + b"\2", False, "NOT_SERVING"),
        (SETTINGS + HEADERS + SERVING[:-1] + b"\x63", False, "status 99"),
        (SETTINGS + TRAILERS, False, "the call ended without an answer"),
        (SETTINGS + HEADERS + SERVING[:9], False, "connection closed within the answer (28 bytes)"),
        (b"", False, "connection closed without an answer"),
        (OK, False, "connected, but the answer is not HTTP/2: b'HTTP/1.1 200 OK"),
        (SETTINGS + bytes.fromhex("00000403000000000100000007"), False, "the call was reset"),
        (SETTINGS + bytes.fromhex("00000a0700000000000000000000000002") + b"no",
         False, "the server went away: HTTP/2 error 2 no"),
        (SETTINGS + b"\xff\xff\xff" + SERVING[3:], False, "connected, but a frame of the answer"),
        (SETTINGS + SERVING[:9] + b"\x01" + SERVING[10:], False, "is no HealthCheckResponse"),
    ],
)  # fmt: skip
def test_answers(reply: bytes, ok: bool, words: str) -> None:
    async def main() -> ProbeResult:
        async with serving(reply) as requests:
            return await ask(grpc(requests.port))

    result = asyncio.run(main())
    assert result.ok is ok
    assert words in result.detail


def test_nobody_answers() -> None:
    assert asking(free_port()).detail == "connection refused"

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SETTINGS)
        await asyncio.Event().wait()

    async def main() -> ProbeResult:
        async with serving(silent) as requests:
            return await ask(grpc(requests.port, timeout_s=0.2))

    assert "no answer within 200ms" in asyncio.run(main()).detail


def judge(data: bytes, cuts: list[int]) -> GrpcResponse:
    response = GrpcCheck("").respond()
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    if not any(response.feed(data[start:end]) for start, end in pairwise(edges)):
        response.end()
    return response


@given(st.lists(st.integers(0, 200)))
def test_the_verdict_does_not_depend_on_how_it_is_cut_up(cuts: list[int]) -> None:
    padded = bytes.fromhex("00000b 00 08 00000001 03 00 00000002 0801 000000".replace(" ", ""))
    for data in (SETTINGS + HEADERS + SERVING + TRAILERS, SETTINGS + HEADERS + padded):
        response = judge(data, cuts)
        assert (response.ok, response.detail) == (True, "SERVING")


@given(st.binary(max_size=80), st.lists(st.integers(0, 200), max_size=3), st.booleans())
def test_any_bytes_have_a_verdict(data: bytes, cuts: list[int], after: bool) -> None:
    response = judge(SETTINGS + HEADERS + data if after else data, cuts)
    assert response.done
    assert response.detail
