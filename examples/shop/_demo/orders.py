"""What became of the orders, from the shop's own database."""

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path

from _demo.control import DemoError

_SHIP_S = 15.0


async def until_shipped(database: Path, acknowledged: set[str]) -> None:
    """Wait until every order is shipped; ``DemoError`` if an acknowledged one is missing.

    A second shipment of an order is impossible: its id is the key of the table of shipments.
    """
    end_s = time.monotonic() + _SHIP_S
    with contextlib.closing(sqlite3.connect(database, timeout=5)) as db:
        stored = {row[0] for row in db.execute("SELECT id FROM orders")}
        if missing := acknowledged - stored:
            raise DemoError(f"orders: expected all in the database; {len(missing)} are missing")
        while True:
            shipped = {row[0] for row in db.execute("SELECT order_id FROM shipments")}
            if shipped >= stored:
                return
            if time.monotonic() > end_s:
                left = len(stored - shipped)
                raise DemoError(f"orders: {left} were not shipped within {_SHIP_S:g} s")
            await asyncio.sleep(0.1)
