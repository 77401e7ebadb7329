"""The shop of examples/shop: its web service under uvicorn on a passed socket, and its worker."""

import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SHOP = EXAMPLES / "shop"
DEADLINE_S = 20.0
WEB = ["-m", "uvicorn", "--factory", "shop.app:create_app", "--fd", "3", "--no-access-log"]


class Shop:
    """One shop in a directory of its own: database, listener, processes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = directory / "shop.db"
        self.crash_file = directory / "crash"
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *argv: str, listen: bool = False, **env: str) -> subprocess.Popen[bytes]:
        """Start ``python ARGV`` with the shop's environment."""
        fd = self.listener.fileno()
        command = [sys.executable, *argv]
        if listen:
            activate = [sys.executable, str(EXAMPLES / "activation" / "activate.py"), f"--fd={fd}"]
            command = [*activate, "--", *command]
        shop_env = {"SHOP_DB": str(self.database), "SHOP_CRASH_FILE": str(self.crash_file)}
        process = subprocess.Popen(
            command,
            cwd=SHOP,
            env=os.environ | shop_env | {"PYTHONDONTWRITEBYTECODE": "1"} | env,
            pass_fds=[fd] if listen else [],
            stdin=subprocess.DEVNULL,
        )
        self.processes.append(process)
        return process

    def web(self, **env: str) -> subprocess.Popen[bytes]:
        """Start a replica."""
        return self.start(*WEB, listen=True, **env)

    def migrate(self) -> None:
        """Run the oneshot."""
        assert self.start("-m", "shop.migrate").wait(DEADLINE_S) == 0

    def request(self, method: str, path: str, body: object = None) -> tuple[int, object]:
        """Status and body (parsed, where it is JSON); waits for a replica that starts."""
        host, port = self.listener.getsockname()
        client = http.client.HTTPConnection(host, port, timeout=DEADLINE_S)
        try:
            client.request(method, path, None if body is None else json.dumps(body))
            response = client.getresponse()
            text = response.read().decode()
            is_json = response.headers.get_content_type() == "application/json"
            return response.status, json.loads(text) if is_json else text
        finally:
            client.close()

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """Ask the database itself."""
        db = sqlite3.connect(self.database, timeout=5)
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()

    def close(self) -> None:
        """End what was started."""
        for process in self.processes:
            process.kill()
            process.wait(DEADLINE_S)
        self.listener.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    instance = Shop(tmp_path)
    yield instance
    instance.close()


def wait_for(condition: Callable[[], bool]) -> None:
    """Until ``condition`` holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def test_orders_are_stored_once(shop: Shop) -> None:
    """The same id again is the same order, also at once from many clients and after a kill."""
    shop.migrate()
    web = shop.web()
    order = {"id": "a-1", "items": {"tea": 2, "mug": 1}}
    expected = {"id": "a-1", "items": {"mug": 1, "tea": 2}, "total_cents": 2100, "state": "new"}

    assert shop.request("POST", "/orders", order) == (201, expected)
    assert shop.request("POST", "/orders", order) == (200, expected)
    assert shop.request("POST", "/orders", {"id": "a-1", "items": {"tea": 1}})[0] == 409
    assert shop.request("GET", "/orders/a-1") == (200, expected)
    assert shop.request("GET", "/orders") == (200, {"orders": [expected]})

    same = {"id": "a-2", "items": {"coffee": 1}}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: shop.request("POST", "/orders", same)[0], range(16)))
    assert sorted(answers) == [200] * 15 + [201]

    web.kill()
    web.wait(DEADLINE_S)
    shop.web()
    assert shop.request("POST", "/orders", same)[0] == 200
    assert shop.rows("SELECT id FROM orders ORDER BY id") == [("a-1",), ("a-2",)]


def test_cart_becomes_an_order_once(shop: Shop) -> None:
    shop.migrate()
    shop.web()
    assert shop.request("PUT", "/carts/c1/items/tea", {"quantity": 3})[0] == 204
    assert shop.request("PUT", "/carts/c1/items/tea", {"quantity": 2})[0] == 204
    assert shop.request("PUT", "/carts/c1/items/mug", {"quantity": 1})[0] == 204
    assert shop.request("PUT", "/carts/c1/items/mug", {"quantity": 0})[0] == 204
    assert shop.request("GET", "/carts/c1") == (200, {"items": {"tea": 2}})

    order = {"id": "from-cart", "cart": "c1"}
    assert shop.request("POST", "/orders", order)[0] == 201
    assert shop.request("GET", "/carts/c1") == (200, {"items": {}})
    status, again = shop.request("POST", "/orders", order)  # the cart is empty now: no new order
    assert status == 200
    assert isinstance(again, dict)
    assert again["items"] == {"tea": 2}
    assert shop.request("POST", "/orders", {"id": "other", "cart": "c1"})[0] == 422


def test_bad_requests_are_refused(shop: Shop) -> None:
    shop.migrate()
    shop.web()
    tea = {"tea": 1}
    refused: list[tuple[int, object]] = [
        (422, {"items": tea}),
        (422, {"id": "x' OR 1=1 --", "items": tea}),
        (422, {"id": "x", "items": {"no-such": 1}}),
        (422, {"id": "x", "items": {"tea": 0}}),
        (422, {"id": "x", "items": {"tea": True}}),
        (422, {"id": "x", "items": {"tea": 1001}}),
        (422, {"id": "x", "items": {}}),
        (422, {"id": "x"}),
        (400, ["no", "object"]),
        (413, {"id": "x", "items": tea, "note": "n" * 70_000}),
    ]
    for status, body in refused:
        assert shop.request("POST", "/orders", body)[0] == status, body
    assert shop.request("GET", "/orders/none")[0] == 404
    assert shop.request("GET", "/orders?limit=0")[0] == 400
    assert shop.request("GET", "/orders") == (200, {"orders": []})
    status, page = shop.request("GET", "/")
    assert status == 200
    assert "Coffee, 250 g" in str(page)


def test_crash_file_makes_it_exit(shop: Shop) -> None:
    """Status 3 as often as the number says; then it serves."""
    shop.migrate()
    shop.crash_file.write_text("2\n")
    for left in ("1", "0"):
        assert shop.web().wait(DEADLINE_S) == 3
        assert shop.crash_file.read_text() == left
    shop.web()
    assert shop.request("GET", "/healthz") == (200, "ok\n")


def test_ready_only_with_a_database(shop: Shop) -> None:
    """Liveness never asks the database; readiness sees it missing, coming, going, coming back."""
    shop.web()
    assert shop.request("GET", "/healthz")[0] == 200
    assert shop.request("GET", "/readyz")[0] == 503
    assert not shop.database.exists(), "a missing database must not become an empty one"
    assert shop.request("POST", "/orders", {"id": "a", "items": {"tea": 1}})[0] == 503

    shop.migrate()
    assert shop.request("GET", "/readyz")[0] == 200
    assert shop.request("POST", "/orders", {"id": "a", "items": {"tea": 1}})[0] == 201

    for file in shop.directory.glob("shop.db*"):
        file.unlink()
    assert shop.request("GET", "/readyz")[0] == 503
    assert shop.request("POST", "/orders", {"id": "b", "items": {"tea": 1}})[0] == 503
    assert shop.request("GET", "/healthz")[0] == 200

    shop.migrate()  # a new file: what is answered now is in it
    assert shop.request("POST", "/orders", {"id": "c", "items": {"tea": 1}})[0] == 201
    assert shop.rows("SELECT id FROM orders") == [("c",)]


def test_not_ready_with_a_backlog(shop: Shop) -> None:
    shop.migrate()
    shop.web(SHOP_MAX_BACKLOG="1")
    for number in range(2):
        assert shop.request("GET", "/readyz")[0] == 200
        shop.request("POST", "/orders", {"id": f"o{number}", "items": {"tea": 1}})
    assert shop.request("GET", "/readyz")[0] == 503

    shop.start("-m", "shop.worker")
    wait_for(lambda: shop.request("GET", "/readyz")[0] == 200)


def test_worker_ships_each_order_once(shop: Shop) -> None:
    """It speaks sd_notify; what a killed worker had claimed is shipped when its lease ends."""
    shop.migrate()
    db = sqlite3.connect(shop.database)
    with db:
        db.executemany(
            "INSERT INTO orders (id, items, total_cents, placed_at, state, leased_by, leased_until)"
            " VALUES (?, '{\"tea\": 1}', 450, 0, ?, ?, ?)",
            [
                ("new", "new", None, None),
                ("abandoned", "shipping", "worker.1-1", time.time() - 1),
                ("held", "shipping", "worker.1-2", time.time() + 3600),
            ],
        )
    db.close()

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        path = str(shop.directory / "notify")
        supervisor.bind(path)
        supervisor.settimeout(DEADLINE_S)
        worker = shop.start("-m", "shop.worker", NOTIFY_SOCKET=path, WATCHDOG_USEC="100000")
        assert supervisor.recv(4096).startswith(b"READY=1\n")
        assert supervisor.recv(4096) == b"WATCHDOG=1\nSTATUS=2 orders shipped"
        assert supervisor.recv(4096).startswith(b"WATCHDOG=1\n")
        shipped = shop.rows("SELECT order_id FROM shipments ORDER BY order_id")
        assert shipped == [("abandoned",), ("new",)]
        assert shop.rows("SELECT state FROM orders WHERE id = 'held'") == [("shipping",)]

        worker.send_signal(signal.SIGTERM)
        assert worker.wait(DEADLINE_S) == 0
        messages: list[bytes] = []
        while not messages or not messages[-1].startswith(b"STOPPING=1"):
            messages.append(supervisor.recv(4096))


def test_replica_stops_gracefully(shop: Shop) -> None:
    """SIGTERM: it ends, and the next replica takes over the same socket."""
    shop.migrate()
    first = shop.web()
    assert shop.request("GET", "/readyz")[0] == 200
    first.terminate()
    assert first.wait(DEADLINE_S) in (0, -signal.SIGTERM)
    shop.web()
    assert shop.request("GET", "/readyz")[0] == 200
