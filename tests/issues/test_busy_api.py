"""A command that comes while everup replaces itself was told "everup is being replaced" and ended
with an error; nothing had been done, so it can ask again."""

import json
import socket
import threading
from pathlib import Path

from everup.adapters.place import Place
from everup.cli.client import Client


def test_a_command_is_asked_again(tmp_path: Path) -> None:
    place = Place.of(str(tmp_path / "everup.toml"), "state")
    Path(place.api_socket).parent.mkdir(parents=True, exist_ok=True)
    answers = [
        (503, {"error": "everup is being replaced", "hint": "again in a moment"}),
        (503, {"error": "everup is being replaced", "hint": "again in a moment"}),
        (200, {"version": "1"}),
    ]
    asked: list[str] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place.api_socket)
        server.listen()

        def serve() -> None:
            for status, body in answers:
                connection, _ = server.accept()
                with connection:
                    asked.append(connection.recv(65536).decode().split("\r\n")[0])
                    text = json.dumps(body)
                    head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(text)}\r\n\r\n"
                    connection.sendall((head + text).encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert Client(place).post("/v1/services/web/stop") == {"version": "1"}
        thread.join(10)
    assert asked == ["POST /v1/services/web/stop HTTP/1.1"] * 3
