"""The worker: takes orders from the table and ships them. ``python -m shop.worker``."""

import os
import signal
import sqlite3
import threading
import time

from shop import store
from shop.db import Database, database_path
from shop.log import log
from shop.notify import notify, watchdog_period_s

BATCH = 50
LEASE_S = 10.0
IDLE_S = 0.1


def work_once(database: Database, name: str) -> int:
    """Claim one batch, ship it, and say how many orders were shipped."""
    db = database.connection()
    if store.backlog(db, 1) == 0:  # a read: an idle worker never takes the write lock
        return 0
    claimed = store.claim(db, name, time.time(), LEASE_S, BATCH)
    return store.ship(db, name, claimed, time.time()) if claimed else 0


def run(database: Database, name: str, stop: threading.Event) -> None:
    """Work until ``stop``.

    The watchdog is fed by this loop and by nothing else: a thread of its own would go on saying
    that all is well while the work hangs.
    """
    period_s = watchdog_period_s()
    shipped, ready, fed_at = 0, False, float("-inf")
    while not stop.is_set():
        try:
            done = work_once(database, name)
        except (sqlite3.OperationalError, OSError) as error:
            # Locked, full or missing: not a reason to die, and not one to say that all is well.
            log("error", "database", error=str(error))
            notify(f"STATUS=database: {error}")
            stop.wait(1.0)
            continue
        shipped += done
        now_s = time.monotonic()
        if not ready:
            notify("READY=1", "STATUS=waiting for orders")
            ready = True
        if period_s is not None and now_s - fed_at >= period_s:
            notify("WATCHDOG=1", f"STATUS={shipped} orders shipped")
            fed_at = now_s
        if done:
            log("info", "shipped", orders=done)
        else:
            stop.wait(IDLE_S)
    notify("STOPPING=1", f"STATUS={shipped} orders shipped")


def main() -> None:
    """Run until SIGTERM or SIGINT; the batch in hand is finished first."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    # The pid makes the name unique: a successor must not pass for the worker that held the lease.
    name = f"worker.{os.environ.get('SHOP_REPLICA', '1')}-{os.getpid()}"
    database = Database(database_path())
    log("info", "started", name=name)
    try:
        run(database, name, stop)
    finally:
        database.close()
    log("info", "stopped", name=name)


if __name__ == "__main__":
    main()
