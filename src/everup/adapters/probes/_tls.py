"""TLS for probes: contexts, and the certificate files that the config names, read off the loop."""

import asyncio
import os
import ssl
import stat
from dataclasses import dataclass
from typing import Final, Protocol

from everup.adapters.probes._words import one_line

TTL_S: Final = 60.0
"""So long a context is used before its files are read again: certificates are renewed."""
TTL_FAILED_S: Final = 1.0
_ENTRIES: Final = 1024
_FILE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Files:
    """What a probe names: paths, empty for none."""

    verify: bool
    ca: str
    cert: str
    key: str


class Waiter(Protocol):
    """Who asked for a context."""

    def on_loaded(self, found: ssl.SSLContext | str) -> None:
        """The context, or why there is none."""


class Contexts:
    """TLS contexts. Those without files are made when first needed: loading the system's
    certificates takes time. Those with files in the loop's executor: a disk may stall."""

    __slots__ = ("_cache", "_plain", "_tasks", "_waiting")

    def __init__(self) -> None:
        self._plain: dict[bool, ssl.SSLContext] = {}
        self._cache: dict[Files, tuple[float, ssl.SSLContext | str]] = {}
        self._waiting: dict[Files, set[Waiter]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, verify: bool) -> ssl.SSLContext:
        """The context that verifies the server's certificate and name, or the one that does not."""
        if verify not in self._plain:
            self._plain[verify] = _context(verify)
        return self._plain[verify]

    def lookup(self, files: Files, waiter: Waiter) -> ssl.SSLContext | str | None:
        """What is known of the files; None: the waiter will be called."""
        loop = asyncio.get_running_loop()
        cached = self._cache.get(files)
        if cached is not None and loop.time() < cached[0]:
            return cached[1]
        waiting = self._waiting.get(files)
        if waiting is not None:
            waiting.add(waiter)
        else:
            self._waiting[files] = {waiter}
            task = loop.create_task(self._load(files, loop))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return None

    def close(self) -> None:
        """Calls nobody any more."""
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()

    async def _load(self, files: Files, loop: asyncio.AbstractEventLoop) -> None:
        found = await loop.run_in_executor(None, load, files)
        ttl_s = TTL_FAILED_S if isinstance(found, str) else TTL_S
        if len(self._cache) >= _ENTRIES:
            self._cache.clear()
        self._cache[files] = (loop.time() + ttl_s, found)
        for waiter in self._waiting.pop(files, set()):
            waiter.on_loaded(found)


def _context(verify: bool, trusted: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=trusted)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def load(files: Files) -> ssl.SSLContext | str:
    """The context that the files make, or what is wrong with them."""
    at = files.ca or files.cert
    try:
        trusted = _read(files.ca).decode("ascii", "replace") if files.ca else None
        context = _context(files.verify, trusted)
        for at in filter(None, (files.key, files.cert)):
            _read(at)
        if files.cert:
            context.load_cert_chain(files.cert, files.key or None, _no_password)
    except (OSError, ValueError) as error:
        words = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        return one_line(f"cannot be asked: {at}: {words}")
    return context


def _no_password() -> str:
    """OpenSSL would ask on the terminal, and wait."""
    raise ValueError("the key is encrypted; everup has no passphrase for it")


def _read(path: str) -> bytes:
    """A regular file of a sensible size; never waits for the other end of a FIFO."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is no regular file")
        data = file.read(_FILE_BYTES + 1)
    if len(data) > _FILE_BYTES:
        raise ValueError("it is larger than 1M")
    return data
