"""What the shop does, as functions on a connection. Every statement is parameterised."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


class RefusedError(Exception):
    """The request cannot be done; ``status`` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Order:
    """One order as the API shows it."""

    id: str
    items: dict[str, int]
    total_cents: int
    state: str


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """A write transaction. IMMEDIATE waits for the lock at once, where waiting cannot deadlock."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk may already have rolled it back
            db.execute("ROLLBACK")
        raise


def products(db: sqlite3.Connection) -> list[dict[str, object]]:
    """All products."""
    return [dict(row) for row in db.execute("SELECT * FROM products ORDER BY sku")]


def put_in_cart(db: sqlite3.Connection, cart: str, sku: str, quantity: int) -> None:
    """Set how many of a product are in the cart; 0 takes it out."""
    with transaction(db):
        _require_products(db, {sku: quantity})
        if quantity == 0:
            db.execute("DELETE FROM cart_items WHERE cart = ? AND sku = ?", (cart, sku))
        else:
            db.execute(
                "INSERT INTO cart_items (cart, sku, quantity) VALUES (?, ?, ?)"
                " ON CONFLICT (cart, sku) DO UPDATE SET quantity = excluded.quantity",
                (cart, sku, quantity),
            )


def cart_items(db: sqlite3.Connection, cart: str) -> dict[str, int]:
    """What is in the cart, quantity by product."""
    rows = db.execute("SELECT sku, quantity FROM cart_items WHERE cart = ? ORDER BY sku", (cart,))
    return {row["sku"]: row["quantity"] for row in rows}


def place_order(
    db: sqlite3.Connection,
    order_id: str,
    items: Mapping[str, int] | None,
    cart: str | None,
    now_s: float,
) -> tuple[Order, bool]:
    """Store an order; the flag says whether it is new.

    The client chooses the id, so a client that got no answer may send the same order again: it is
    stored once. Another order under the same id is refused.
    """
    with transaction(db):
        known = db.execute("SELECT * FROM orders WHERE id = ?", (order_id,)).fetchone()
        if known is not None:
            order = _order(known)
            # A cart was emptied by the order that it became, so only given items can differ.
            if items is not None and dict(items) != order.items:
                raise RefusedError(409, "another order has this id")
            return order, False
        wanted = dict(items) if items is not None else cart_items(db, cart or "")
        if not wanted:
            raise RefusedError(422, "nothing to order")
        prices = _require_products(db, wanted)
        total = sum(prices[sku] * quantity for sku, quantity in wanted.items())
        db.execute(
            "INSERT INTO orders (id, items, total_cents, placed_at) VALUES (?, ?, ?, ?)",
            (order_id, json.dumps(wanted, sort_keys=True), total, now_s),
        )
        if items is None:
            db.execute("DELETE FROM cart_items WHERE cart = ?", (cart,))
    return Order(order_id, wanted, total, "new"), True


def order(db: sqlite3.Connection, order_id: str) -> Order | None:
    """One order."""
    row = db.execute("SELECT * FROM orders WHERE id = ?", (order_id,)).fetchone()
    return None if row is None else _order(row)


def recent_orders(db: sqlite3.Connection, limit: int) -> list[Order]:
    """The newest orders first."""
    rows = db.execute("SELECT * FROM orders ORDER BY seq DESC LIMIT ?", (limit,))
    return [_order(row) for row in rows]


def backlog(db: sqlite3.Connection, limit: int) -> int:
    """How many orders wait to be shipped, counted up to ``limit``."""
    row = db.execute(
        "SELECT count(*) FROM (SELECT 1 FROM orders WHERE state <> 'shipped' LIMIT ?)", (limit,)
    ).fetchone()
    return int(row[0])


def claim(
    db: sqlite3.Connection, worker: str, now_s: float, lease_s: float, limit: int
) -> list[str]:
    """Take orders to ship, under a lease: those of a worker that died come back when it ends."""
    with transaction(db):
        rows = db.execute(
            "UPDATE orders SET state = 'shipping', leased_by = ?, leased_until = ?"
            " WHERE seq IN (SELECT seq FROM orders WHERE state <> 'shipped'"
            " AND (state = 'new' OR leased_until < ?) ORDER BY seq LIMIT ?) RETURNING id",
            (worker, now_s + lease_s, now_s, limit),
        ).fetchall()
    return [row["id"] for row in rows]


def ship(db: sqlite3.Connection, worker: str, order_ids: list[str], now_s: float) -> int:
    """Record shipments of claimed orders and say how many; a lease lost meanwhile ships nothing."""
    shipped = 0
    with transaction(db):
        for order_id in order_ids:
            cursor = db.execute(
                "UPDATE orders SET state = 'shipped', leased_by = NULL, leased_until = NULL"
                " WHERE id = ? AND state = 'shipping' AND leased_by = ?",
                (order_id, worker),
            )
            if cursor.rowcount == 1:
                db.execute(
                    "INSERT INTO shipments (order_id, shipped_by, shipped_at) VALUES (?, ?, ?)",
                    (order_id, worker, now_s),
                )
                shipped += 1
    return shipped


def _require_products(db: sqlite3.Connection, items: Mapping[str, int]) -> dict[str, int]:
    marks = ", ".join("?" for _ in items)
    rows = db.execute(f"SELECT sku, price_cents FROM products WHERE sku IN ({marks})", tuple(items))
    prices = {row["sku"]: row["price_cents"] for row in rows}
    if missing := sorted(set(items) - set(prices)):
        raise RefusedError(422, f"no such product: {', '.join(missing)}")
    return prices


def _order(row: sqlite3.Row) -> Order:
    return Order(row["id"], json.loads(row["items"]), row["total_cents"], row["state"])
