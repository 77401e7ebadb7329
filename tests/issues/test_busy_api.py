"""A command that comes while everup replaces itself was told "everup is being replaced" and ended
with an error; nothing had been done, so it can ask again."""

import json
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer

from everup.adapters.place import Place
from everup.cli.client import Client

BUSY = (503, {"error": "everup is being replaced", "hint": "again in a moment"})


def test_a_command_is_asked_again(tmp_path: Path) -> None:
    place = Place.of(str(tmp_path / "everup.toml"), "state")
    Path(place.api_socket).parent.mkdir(parents=True, exist_ok=True)
    answers = iter([BUSY, BUSY, (200, {"version": "1"})])
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path)
            status, body = next(answers)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    with UnixStreamServer(place.api_socket, Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            assert Client(place).post("/v1/services/web/stop") == {"version": "1"}
        finally:
            server.shutdown()
    assert asked == ["/v1/services/web/stop"] * 3
