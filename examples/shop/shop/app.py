"""The web service: ``uvicorn --factory shop.app:create_app --fd 3``."""

import asyncio
import contextlib
import json
import os
import re
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from everup.tolerate import Shed, asgi
from shop import store
from shop.db import Database, connect, database_path
from shop.exchange import Exchange, exchange
from shop.log import log
from shop.page import render
from shop.store import RefusedError

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

THREADS = 4
MAX_WAITING = 256
"""Requests inside that wait for the database; more are told to come back."""
MAX_BODY_BYTES = 64 << 10
MAX_BACKLOG = 10_000
"""With this many orders unshipped, taking more would be a promise that nobody keeps."""
SLOW_S = 0.5
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Shop:
    """The handlers, and what they share."""

    def __init__(self, path: Path, replica: str, max_backlog: int, rates: Exchange) -> None:
        self._database = Database(path)
        self._path = path
        self._replica = replica
        self._max_backlog = max_backlog
        self._exchange = rates
        # SQLite blocks: in threads it cannot hold up /healthz, which says whether the loop lives.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="db")
        self._waiting = 0

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Told by uvicorn at start and stop."""
        log("info", "started", pid=os.getpid(), database=self._path)
        yield
        self._threads.shutdown(wait=True)
        await self._exchange.close()
        log("info", "stopped", pid=os.getpid())

    def load(self) -> float:
        """How busy it is, 0 to 1: what matters little is shed before it is full."""
        return self._waiting / MAX_WAITING

    async def _query(self, call: Callable[[sqlite3.Connection], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise RefusedError(503, "too many requests at once")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                self._threads, lambda: call(self._database.connection())
            )
        finally:
            self._waiting -= 1

    async def healthz(self, _request: Request) -> Response:
        """Liveness: the process and its loop run. No database: restarting would not mend that."""
        return PlainTextResponse("ok\n")

    async def readyz(self, _request: Request) -> Response:
        """Readiness: the database answers and the worker keeps up."""

        def check() -> int:
            db = connect(self._path)  # a new connection: an old one would not see a missing file
            try:
                db.execute("SELECT 1 FROM products LIMIT 1").fetchone()
                return store.backlog(db, self._max_backlog + 1)
            finally:
                db.close()

        try:
            loop = asyncio.get_running_loop()
            open_orders = await loop.run_in_executor(self._threads, check)
        except sqlite3.Error as error:
            return PlainTextResponse(f"database: {error}\n", 503)
        if open_orders > self._max_backlog:
            return PlainTextResponse(f"more than {self._max_backlog} orders unshipped\n", 503)
        return PlainTextResponse(f"ready, {open_orders} orders unshipped\n")

    async def index(self, _request: Request) -> Response:
        """A page for people."""
        products, orders = await self._query(
            lambda db: (store.products(db), store.recent_orders(db, 10))
        )
        return HTMLResponse(render(products, orders, self._replica))

    async def products(self, _request: Request) -> Response:
        """All products."""
        return JSONResponse({"products": await self._query(store.products)})

    async def prices(self, request: Request) -> Response:
        """All products in another currency, by the rates of now or of a while ago."""
        currency = _checked_id(request.path_params["currency"], "currency")
        rate = (await self._exchange.rates()).get(currency)
        if rate is None:
            raise RefusedError(404, "no such currency")
        products = await self._query(store.products)
        prices = {str(p["sku"]): round(int(str(p["price_cents"])) * rate) for p in products}
        return JSONResponse({"currency": currency, "cents": prices})

    async def get_cart(self, request: Request) -> Response:
        """What is in a cart."""
        cart = _checked_id(request.path_params["cart"], "cart")
        return JSONResponse({"items": await self._query(lambda db: store.cart_items(db, cart))})

    async def put_cart_item(self, request: Request) -> Response:
        """Set the quantity of one product; the same request twice is the same as once."""
        cart = _checked_id(request.path_params["cart"], "cart")
        sku = _checked_id(request.path_params["sku"], "product")
        quantity = _quantity((await _json_object(request)).get("quantity"), least=0)
        await self._query(lambda db: store.put_in_cart(db, cart, sku, quantity))
        return Response(status_code=204)

    async def get_orders(self, request: Request) -> Response:
        """The newest orders, ``?limit=`` of them (1 to 500, 50 by default)."""
        text = request.query_params.get("limit", "50")
        if not re.fullmatch(r"\d{1,3}", text) or not 1 <= int(text) <= 500:
            raise RefusedError(400, "limit: expected 1 to 500")
        orders = await self._query(lambda db: store.recent_orders(db, int(text)))
        return JSONResponse({"orders": [asdict(order) for order in orders]})

    async def get_order(self, request: Request) -> Response:
        """One order."""
        order_id = _checked_id(request.path_params["id"], "id")
        order = await self._query(lambda db: store.order(db, order_id))
        if order is None:
            raise RefusedError(404, "no such order")
        return JSONResponse(asdict(order))

    async def post_order(self, request: Request) -> Response:
        """Place an order; 201 when it is new, 200 when it was here already."""
        body = await _json_object(request)
        order_id = _checked_id(body.get("id"), "id")
        items = None if body.get("items") is None else _items(body["items"])
        cart = None if items is not None else _checked_id(body.get("cart"), "items or cart")
        now_s = time.time()
        order, new = await self._query(
            lambda db: store.place_order(db, order_id, items, cart, now_s)
        )
        if new:
            log("info", "order", id=order.id, total_cents=order.total_cents)
        return JSONResponse(asdict(order), 201 if new else 200)


def create_app() -> Starlette:
    """The app, configured by SHOP_DB, SHOP_REPLICA, SHOP_MAX_BACKLOG and SHOP_CRASH_FILE."""
    _crash_if_told(os.environ.get("SHOP_CRASH_FILE"))
    shop = Shop(
        database_path(),
        os.environ.get("SHOP_REPLICA", ""),
        int(os.environ.get("SHOP_MAX_BACKLOG", MAX_BACKLOG)),
        exchange(),
    )
    routes = [
        ("GET", "/", shop.index),
        ("GET", "/healthz", shop.healthz),
        ("GET", "/readyz", shop.readyz),
        ("GET", "/products", shop.products),
        ("GET", "/prices/{currency}", shop.prices),
        ("GET", "/carts/{cart}", shop.get_cart),
        ("PUT", "/carts/{cart}/items/{sku}", shop.put_cart_item),
        ("GET", "/orders", shop.get_orders),
        ("POST", "/orders", shop.post_order),
        ("GET", "/orders/{id}", shop.get_order),
    ]
    return Starlette(
        routes=[Route(path, _guarded(call), methods=[method]) for method, path, call in routes],
        # Reads deadlines and priorities, answers 503 and 504 for policies.
        middleware=[
            Middleware(asgi.Middleware, policy=Shed("priority", load=shop.load))  # type: ignore[arg-type]
        ],
        lifespan=shop.lifespan,
    )


def _guarded(handler: Handler) -> Handler:
    """Turn refusals and database errors into answers; log what is slow or failed."""

    async def guarded(request: Request) -> Response:
        started_s = time.monotonic()
        try:
            response = await handler(request)
        except RefusedError as refusal:
            response = _error(refusal.status, str(refusal))
        except (sqlite3.OperationalError, OSError) as error:
            response = _error(503, f"database: {error}")
        took_s = time.monotonic() - started_s
        if response.status_code >= 500 or took_s >= SLOW_S:
            log(
                "warning",
                "request",
                method=request.method,
                path=request.url.path,
                status=response.status_code,
                took_ms=round(took_s * 1000),
            )
        return response

    return guarded


def _error(status: int, message: str) -> Response:
    headers = {"Retry-After": "1"} if status == 503 else None
    return JSONResponse({"error": message}, status, headers)


async def _json_object(request: Request) -> dict[str, object]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise RefusedError(413, f"body: at most {MAX_BODY_BYTES} bytes")
    try:
        value = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, "body: expected JSON") from error
    if not isinstance(value, dict):
        raise RefusedError(400, "body: expected a JSON object")
    return value


def _checked_id(value: object, name: str) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise RefusedError(422, f"{name}: expected 1 to 64 letters, digits, - or _")
    return value


def _items(value: object) -> dict[str, int]:
    if not isinstance(value, dict) or not 1 <= len(value) <= 100:
        raise RefusedError(422, "items: expected an object of 1 to 100 products and quantities")
    return {
        _checked_id(sku, "product"): _quantity(quantity, least=1) for sku, quantity in value.items()
    }


def _quantity(value: object, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 1000:
        raise RefusedError(422, f"quantity: expected {least} to 1000")
    return value


def _crash_if_told(file: str | None) -> None:
    """For demonstrations: exit with status 3 as often as the number in the file says."""
    if not file:
        return
    try:
        text = Path(file).read_text()
    except FileNotFoundError:
        return
    left = int(text) if text.strip().isdigit() else 0
    if left > 0:
        # Replaced as a whole: a kill between the two steps leaves the old number or the new.
        new = Path(f"{file}.{os.getpid()}")
        new.write_text(str(left - 1))
        new.replace(file)
        log("error", "crash", left=left - 1)
        sys.exit(3)
