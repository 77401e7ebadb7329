"""Whether the journal's file is still the one that is written, and its upkeep."""

import contextlib
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

from everup.adapters import _journal_file as files

DELETED, REPLACED, WAL_DELETED = "deleted", "replaced", "wal deleted"


class Watch:
    """Used by the journal's thread; ``damage`` and ``look`` are set by its own as well, and the
    journal leaves the file only while that is not ``busy``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ""
        """What was found; the journal must leave the file."""
        self.look: files.Look | None = None
        self.thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        return self.thread is not None and self.thread.is_alive()

    def take(self) -> None:
        """From now on it is the file that is there now. OSError."""
        self.look = files.look(self.path)

    def fault(self) -> str:
        """What happened to the file, "" if nothing did or that cannot be told now. Three calls of
        stat; a look into it, if somebody else wrote it, follows in the thread."""
        known = self.look
        try:
            now = files.look(self.path)
        except OSError:
            return ""
        if known is None:
            return ""
        if now.main != known.main:
            return REPLACED if now.main else DELETED
        if (known.wal and now.wal != known.wal) or (known.shm and now.shm != known.shm):
            return WAL_DELETED
        if now.written != known.written:
            self.tend(check=True)
        return ""

    def tend(self, *, check: bool) -> None:
        """Checkpoint, or look for damage if somebody else has written into the main file. In a
        thread: both wait for the disk, and the loop must not."""
        if self.busy:
            return
        known = self.look

        def run() -> None:
            with contextlib.suppress(sqlite3.Error, OSError, MemoryError):
                now = files.look(self.path)
                if known is None or now.main != known.main:
                    return  # not ours: the next look tells
                with contextlib.closing(files.open_as(self.path, "rw")) as db:
                    self._tend(db, known, doubt=check or now.written != known.written)

        with contextlib.suppress(RuntimeError, MemoryError):  # no more threads: the next time
            thread = threading.Thread(target=run, name="journal", daemon=True)
            thread.start()
            self.thread = thread

    def _tend(self, db: sqlite3.Connection, known: files.Look, *, doubt: bool) -> None:
        try:
            if not doubt:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            after = files.look(self.path)
            if doubt:
                files.check(db)
            self.look = replace(known, written=after.written)
        except sqlite3.Error as error:
            if not files.is_damage(error):
                raise
            self.damage = f"corrupt: {error}"

    def drop_wal(self) -> None:
        """SQLite leaves its WAL where the main file was taken away. To another one it is
        poison."""
        known = self.look
        if known is None:
            return
        with contextlib.suppress(OSError):
            now = files.look(self.path)
            for suffix, old, new in (("-wal", known.wal, now.wal), ("-shm", known.shm, now.shm)):
                if new is not None and new == old:
                    Path(f"{self.path}{suffix}").unlink()
