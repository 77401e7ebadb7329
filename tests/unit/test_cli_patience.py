"""Commands that wait outlast an engine that is silent for a while."""

import contextlib
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from everup.adapters.place import Place
from everup.cli.client import Client, SilentError
from everup.cli.context import FAILED, Failure
from everup.cli.progress import patiently

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"a": "b"}'
SILENT_S = 0.02
LONG_S = 60.0


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """Of an everup whose keeper lives, and keeps the API's socket, while no engine accepts."""
    place = Place.of(str(tmp_path / "everup.toml"), ".")
    os.makedirs(place.run_dir, exist_ok=True)
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Client(place)


@pytest.fixture
def listener(client: Client) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(client.place.api_socket)
        sock.listen(16)
        yield sock


def answer(listener: socket.socket) -> None:
    """Those that have given up meanwhile are in the queue too."""
    for _ in range(3):
        connection, _ = listener.accept()
        with connection, contextlib.suppress(ConnectionError):
            connection.recv(4096)
            connection.sendall(ANSWER)


def test_waits_until_the_next_engine_accepts(client: Client, listener: socket.socket) -> None:
    asked = 0
    engine = threading.Thread(target=answer, args=(listener,), daemon=True)

    def ask() -> Any:
        nonlocal asked
        asked += 1
        if asked == 3:
            engine.start()
        return client.get("/v1/status", timeout_s=SILENT_S if asked < 3 else LONG_S)

    assert patiently(client, ask, time.monotonic() + LONG_S) == {"a": "b"}
    assert asked == 3
    engine.join()


def test_gives_up_in_time_and_says_who_is_silent(client: Client, listener: socket.socket) -> None:
    with pytest.raises(SilentError) as raised:
        patiently(client, lambda: client.get("/v1/status", timeout_s=SILENT_S), time.monotonic())
    assert f"does not answer on {client.place.api_socket}" in raised.value.text
    assert "is its engine stopped?" in raised.value.hint


def test_does_not_wait_for_what_nobody_will_answer(client: Client) -> None:
    """A refusal is an answer: it is not asked for again."""
    asked = 0

    def ask() -> Any:
        nonlocal asked
        asked += 1
        raise Failure("refused")

    with pytest.raises(Failure, match="refused") as raised:
        patiently(client, ask, time.monotonic() + LONG_S)
    assert raised.value.status == FAILED
    assert asked == 1
