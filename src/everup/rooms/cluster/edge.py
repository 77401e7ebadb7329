"""Takes turns with etcd and the engine, and carries out what the room decides."""

import asyncio
import contextlib
import json
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

from everup import __version__
from everup.rooms.cluster.actions import Acquire, Hurry, Join, Leave, Move, Release, Say, Tell
from everup.rooms.cluster.config import Cluster
from everup.rooms.cluster.facts import Local, Missed, NotTaken, Turned
from everup.rooms.cluster.lease import Lease, RefusedError, UnreachedError

_LEAST_WAIT_S: Final = 0.05
_AGAIN_S: Final = 0.5
_MOVE_S: Final = 120.0
"""A move that has not begun by then is off."""
_MOST_TODO: Final = 1000
_PREFIX: Final = "/everup/"
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_TURNS: Final[WeakKeyDictionary[Any, "Turns"]] = WeakKeyDictionary()
Action = Hurry | Join | Leave | Acquire | Release | Move | Tell


def prepare(spec: Any) -> None:
    """Import what the cluster needs: later it may not be possible."""
    if spec.cluster.name is not None:
        import everup.integrations._shipping.tls
        import everup.rooms.cluster.etcd  # noqa: F401


async def run(host: Any) -> None:
    """Take part in the cluster of the config until cancelled."""
    table: Cluster = host.table("cluster")
    if table.name is None:
        return
    known_as = identity(host.folder("cluster"))
    lease = _etcd(table, host)
    turns = _TURNS[host] = Turns(host, table, lease, known_as)
    watching = asyncio.create_task(turns.watch())
    try:
        await turns.run()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await lease.close()


def _etcd(table: Cluster, host: Any) -> Any:
    from everup.integrations._shipping.tls import client_context
    from everup.rooms.cluster.etcd import Etcd

    ssl: Any = True
    if any(url.startswith("https:") for url in table.etcd):
        ssl = client_context(host.secret_bytes, table.ca_file, table.cert_file, table.key_file)
    password = "" if table.password_file is None else host.secret(table.password_file)
    user = table.user or ""
    return Etcd(table.etcd, timeout_s=table.retry_timeout, ssl=ssl, user=user, password=password)


class Turns:
    """One machine's turns. Nothing that is asked of etcd is believed by its answer: the next turn
    looks, and a majority confirms what it sees."""

    def __init__(self, host: Any, table: Cluster, lease: Lease, identity: str) -> None:
        self._host = host
        self._table = table
        self._lease = lease
        self._prefix = f"{_PREFIX}{table.name}/"
        self._identity = identity
        self._session = 0
        self._seen = 0
        self._todo: deque[Action] = deque(maxlen=_MOST_TODO)
        self._poked = asyncio.Event()
        self._watches = asyncio.Event()
        self._was_missed = False

    def add(self, action: Action) -> None:
        """Take what the room wants done."""
        if not isinstance(action, Hurry):
            self._todo.append(action)
        if isinstance(action, Hurry | Move):
            self._poked.set()

    async def run(self) -> None:
        """Take turns until cancelled."""
        while True:
            began = time.monotonic()
            self._poked.clear()
            wait_s = self._table.loop_wait
            try:
                if await self._turn():
                    wait_s = _LEAST_WAIT_S
                self._report(None)
            except (UnreachedError, RefusedError) as error:
                self._host.dispatch(Missed(str(error)))
                self._report(error)
                wait_s = min(wait_s, _AGAIN_S)
            except OSError as error:  # the engine: another one comes
                self._host.say(f"cluster: {error}")
                wait_s = min(wait_s, _AGAIN_S)
            await self._wait(began + wait_s - time.monotonic())

    async def watch(self) -> None:
        """Have a turn at once when something in the cluster changes."""
        while True:
            await self._watches.wait()
            try:
                async for _ in self._lease.watch(self._prefix, self._seen):
                    self._poked.set()
            except (UnreachedError, RefusedError):
                await asyncio.sleep(_AGAIN_S)

    async def _wait(self, wait_s: float) -> None:
        await asyncio.sleep(_LEAST_WAIT_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._poked.wait(), max(0.0, wait_s - _LEAST_WAIT_S))

    def _report(self, error: Exception | None) -> None:
        if error is None and not self._was_missed:
            return
        self._was_missed = error is not None
        text = "etcd answers again" if error is None else f"etcd could not be asked: {error}"
        self._host.report("unreached", "cluster", error is None, text[:300])

    # -- one turn

    async def _turn(self) -> bool:
        """Renew, look, ask the engine, decide, do; tells whether there is more to do at once."""
        asked_at, until, term = boottime(), None, 0
        if self._session:
            renewed = await self._lease.renew(self._session)
            term = renewed.term
            if renewed.ttl_s <= 0:
                self._session = 0
            else:
                until = asked_at + min(self._table.ttl, renewed.ttl_s) - self._table.margin_s
        look = await self._lease.look(self._prefix)
        if until is not None and term != look.term:
            # A member that led once, and was stopped, renews by itself before it finds out that
            # another leads: etcd 3.4.23 and others do. What a majority has confirmed since is of
            # another term then, and the renewal is not believed.
            until = None
        self._seen = max(self._seen, look.revision)
        self._watches.set()
        async with asyncio.timeout(self._table.retry_timeout):
            here = await self._host.link.get("/v1/cluster")
        local = {name: Local(**said) for name, said in here["local"].items()}
        self._host.dispatch(
            Turned(look, self._identity, until, self._session, bool(here["leaving"]), local)
        )
        stale = until is None and self._session != 0
        return await self._do() or stale

    async def _do(self) -> bool:
        todo = sorted(self._todo, key=lambda action: not isinstance(action, Tell))
        self._todo.clear()
        again = False
        for action in todo:
            again = await self._one(action) or again
        return again

    async def _one(self, action: Action) -> bool:
        table, lease = self._table, self._lease
        match action:
            case Tell():
                return await self._tell(action)
            case Join(session=0):
                return await self._join()
            case Join(session=session):
                self._session = session
                return True
            case Hurry():
                return True
            case Leave():
                await lease.end(self._session)
                self._session = 0
                return False
            case Acquire(key=key, drop=drop):
                others = [self._prefix + other for other in drop]
                key, node = self._prefix + key, str(table.node)
                return await lease.acquire(key, node, self._session, others)
            case Release(key=key, token=token):
                return await lease.release(self._prefix + key, token)
            case Move(service=service, to=to):
                session, _ = await lease.begin(_MOVE_S)
                await lease.put(f"{self._prefix}moves/{service}", to, session)
                return True

    async def _join(self) -> bool:
        session, _ = await self._lease.begin(self._table.ttl)
        said = {"id": self._identity, "host": socket.gethostname(), "everup": __version__}
        key = f"{self._prefix}members/{self._table.node}"
        if not await self._lease.acquire(key, json.dumps(said), session):
            await self._lease.end(session)
            return False
        self._session = session
        return True

    async def _tell(self, action: Tell) -> bool:
        body = {
            "until": action.until,
            "margin_s": self._table.margin_s,
            "says": [_plain(say) for say in action.says],
            "view": action.view,
        }
        async with asyncio.timeout(self._table.retry_timeout):
            answer: Mapping[str, Any] = await self._host.link.post("/v1/cluster/tell", body)
        for say in action.says:
            if (why := answer["refused"].get(say.service)) is not None:
                self._host.dispatch(NotTaken(say.service, say.token, str(why)[:300]))
        return bool(answer["refused"]) or any(say.yields for say in action.says)


def _plain(say: Say) -> dict[str, Any]:
    return {"service": say.service, "token": say.token, "yields": say.yields}


def boottime() -> float:
    """Give seconds since the machine was booted, also those that it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def identity(folder: Path) -> str:
    """Give what tells this state directory from any other, and this boot of the machine from the
    one before: nothing that ran before it runs any more."""
    path = folder / "identity"
    try:
        own = path.read_text("utf-8").strip()
    except (OSError, ValueError):
        own = ""
    if not own:
        own = secrets.token_hex(16)
        fresh = folder / "identity.new"
        fresh.write_text(f"{own}\n", "utf-8")
        os.replace(fresh, path)
    try:
        boot = Path(_BOOT_ID).read_text("utf-8").strip()
    except (OSError, ValueError):
        boot = ""
    return f"{own}.{boot}"


def _perform(action: Action, host: Any) -> None:
    turns = _TURNS.get(host)
    if turns is not None:
        turns.add(action)


SOURCES: Final = (run,)
PERFORMERS: Final = dict.fromkeys((Hurry, Join, Leave, Acquire, Release, Move, Tell), _perform)
PREPARE: Final = prepare
