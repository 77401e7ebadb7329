"""The database: SQLite in WAL mode, one connection per thread."""

import os
import sqlite3
import threading
from pathlib import Path

BUSY_TIMEOUT_S = 2.0

SCHEMA = """
CREATE TABLE IF NOT EXISTS products (
    sku TEXT PRIMARY KEY, name TEXT NOT NULL, price_cents INTEGER NOT NULL CHECK (price_cents >= 0)
) STRICT;
CREATE TABLE IF NOT EXISTS cart_items (
    cart TEXT NOT NULL, sku TEXT NOT NULL REFERENCES products (sku),
    quantity INTEGER NOT NULL CHECK (quantity > 0), PRIMARY KEY (cart, sku)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orders (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, items TEXT NOT NULL,
    total_cents INTEGER NOT NULL, placed_at REAL NOT NULL,
    state TEXT NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'shipping', 'shipped')),
    leased_by TEXT, leased_until REAL
) STRICT;
CREATE INDEX IF NOT EXISTS orders_open ON orders (seq) WHERE state <> 'shipped';
CREATE TABLE IF NOT EXISTS shipments (
    order_id TEXT PRIMARY KEY REFERENCES orders (id), shipped_by TEXT NOT NULL,
    shipped_at REAL NOT NULL
) STRICT;
"""

PRODUCTS = [
    ("tea", "Tea, 100 g", 450),
    ("coffee", "Coffee, 250 g", 790),
    ("mug", "Mug", 1200),
    ("kettle", "Kettle", 3900),
    ("filter", "Paper filters, 40", 250),
]


def database_path() -> Path:
    """The file named by ``SHOP_DB``, ``shop.db`` by default."""
    return Path(os.environ.get("SHOP_DB", "shop.db")).absolute()


def connect(path: Path, *, create: bool = False) -> sqlite3.Connection:
    """Open the database. Without ``create`` a missing file is an error, not a new empty shop."""
    mode = "rwc" if create else "rw"
    db = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None
    )
    try:
        db.row_factory = sqlite3.Row
        # An answered order is a promise: FULL syncs the WAL at every commit, so that it also
        # survives a power cut. (NORMAL would do for kill -9.)
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
    except sqlite3.Error:
        db.close()
        raise
    return db


def migrate(path: Path) -> None:
    """Create what is missing; running it again changes nothing."""
    db = connect(path, create=True)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(SCHEMA)
        db.executemany(
            "INSERT INTO products (sku, name, price_cents) VALUES (?, ?, ?)"
            " ON CONFLICT (sku) DO NOTHING",
            PRODUCTS,
        )
    finally:
        db.close()


class Database:
    """Hands each thread its own connection, and a new one when the file has been replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()

    def connection(self) -> sqlite3.Connection:
        """The calling thread's connection; ``OSError`` when the file is gone."""
        stat = self.path.stat()
        identity = (stat.st_dev, stat.st_ino)
        if getattr(self._local, "identity", None) != identity:
            # A deleted file can still be written to, and what is written there is lost.
            self.close()
            self._local.db = connect(self.path)
            self._local.identity = identity
        db: sqlite3.Connection = self._local.db
        return db

    def close(self) -> None:
        """Close the calling thread's connection."""
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        self._local.db = self._local.identity = None
        if db is not None:
            db.close()
