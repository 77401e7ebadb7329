"""What probes say without end, and what the API is sent that is no request."""

import asyncio
import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
from _everup import SLEEP, Everup, sh

from everup.daemon.said import Said

_HEAD = b"Host: x\r\nConnection: close\r\n"
_STOP = b"POST /v1/stop HTTP/1.1\r\n" + _HEAD
_MALFORMED = {
    "gzip": (_STOP + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde", 415),
    "deflate": (_STOP + b"Content-Encoding: deflate\r\nContent-Length: 5\r\n\r\nabcde", 415),
    "brotli": (_STOP + b"Content-Encoding: br\r\nContent-Length: 5\r\n\r\nabcde", 415),
    "gzip in chunks": (
        _STOP + b"Content-Encoding: GZIP\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        415,
    ),
    "chunks": (_STOP + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabcde\r\n0\r\n\r\n", 400),
    "bytes": (b"\x00\x01\x02\r\n\r\n", 400),
    "version": (b"GET / HTTP/9.9\r\n" + _HEAD + b"\r\n", 400),
    "line": (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n" + _HEAD + b"\r\n", 400),
    "header": (b"GET /v1/status HTTP/1.1\r\nbad header\r\n\r\n", 400),
    "length": (_STOP + b"Content-Length: -5\r\n\r\n", 400),
    "no text": (_STOP + b"Content-Length: 3\r\n\r\n\xff\xfe\xfd", 400),
    "depth": (_STOP + b"Content-Length: 60000\r\n\r\n" + b"[" * 60000, 400),
    "config": (_STOP + b"Everup-Config: %00\r\nContent-Length: 2\r\n\r\n{}", 400),
    "size": (_STOP + b"Content-Length: 100000\r\n\r\n" + b"x" * 100000, 413),
}


def ask(path: str, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(path)
        sock.sendall(request)
        answer = b""
        try:
            while data := sock.recv(65536):
                answer += data
        except ConnectionResetError:
            pass
        return answer


def test_malformed_requests_are_answered_and_leave_one_line(everup: Everup) -> None:
    everup.up({"web": {"command": SLEEP}})
    pid = everup.pid("web.1")
    for _ in range(3):
        for name, (request, status) in _MALFORMED.items():
            answer = ask(everup.place.api_socket, request)
            assert answer.split(b" ", 2)[1] == str(status).encode(), (name, answer[:200])
            if status == 415:
                assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["error"], name
    log = (everup.state_dir / "everup.log").read_text()
    assert "Traceback" not in log
    assert log.count("the API was sent what is no HTTP request") == 1
    assert everup.pid("web.1") == pid


@pytest.mark.parametrize("end", ["exit 0", "exit 3"])
def test_a_probe_that_says_much_is_judged_by_its_end(everup: Everup, end: str) -> None:
    script = sh(f"head -c 4000000 /dev/zero | tr '\\0' x; echo; echo its last words; {end}")
    probe = {"exec": script, "interval": "100ms", "timeout": "20s", "failure_threshold": 1000}
    everup.up(
        {"web": {"command": SLEEP, "probe": {"readiness": probe}}},
        arguments=() if end == "exit 0" else ("--timeout", "0"),
    )
    everup.wait_for(lambda: everup.instance("web.1")["probes"], "it was asked")
    told = everup.instance("web.1")["probes"]["readiness"]
    assert told["ok"] == (end == "exit 0")
    assert told["detail"].endswith("its last words")


def test_of_what_is_said_without_end_little_is_kept() -> None:
    """And little is taken: who writes waits."""

    async def listen() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        said, took = Said(loop), 0
        flood = subprocess.Popen(["yes"], stdout=said.write)
        os.close(said.write)
        try:
            for _ in range(200):
                await asyncio.sleep(0)
                took = max(took, len(said._kept))
            await asyncio.sleep(0.3)
            read = int(Path(f"/proc/{flood.pid}/io").read_text().split("wchar: ")[1].split()[0])
            assert said.last_line() in ("y", "")
            return took, read
        finally:
            flood.kill()
            flood.wait()
            said.close()

    kept, written = asyncio.run(listen())
    assert kept <= 4096
    assert written < 64 << 20


def test_the_last_words_of_a_command_that_has_ended() -> None:
    async def listen() -> str:
        said = Said(asyncio.get_running_loop())
        subprocess.run(["echo", "one\ntwo \xff"], stdout=said.write, check=True)
        os.close(said.write)
        try:
            return said.last_line()
        finally:
            said.close()

    assert asyncio.run(listen()) == "two \xff"
