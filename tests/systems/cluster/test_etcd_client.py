"""The client against three real members: killed, stopped, cut off, and with users."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from _etcd import Members, members

from everup.rooms.cluster.etcd import Etcd
from everup.rooms.cluster.lease import RefusedError, UnreachedError

PREFIX = "/everup/shop/"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    with members(tmp_path_factory.mktemp("etcd") / "three") as cluster:
        yield cluster


@asynccontextmanager
async def client(cluster: Members, timeout_s: float = 6.0, **more: str) -> AsyncIterator[Etcd]:
    etcd = Etcd(cluster.urls, timeout_s=timeout_s, **more)
    try:
        yield etcd
    finally:
        await etcd.close()


def test_a_key_has_one_owner_and_a_growing_token(three: Members) -> None:
    async def main() -> None:
        async with client(three) as etcd:
            one, ttl_s = await etcd.begin(5.0)
            other, _ = await etcd.begin(5.0)
            assert ttl_s == 5.0
            assert await etcd.acquire(PREFIX + "owners/a", "n1", one)
            assert not await etcd.acquire(PREFIX + "owners/a", "n2", other)
            first = (await etcd.look(PREFIX)).items["owners/a"]
            assert (first.value, first.session) == ("n1", one)
            assert not await etcd.release(PREFIX + "owners/a", first.token - 1)
            assert await etcd.release(PREFIX + "owners/a", first.token)
            assert await etcd.acquire(PREFIX + "owners/a", "n2", other)
            second = (await etcd.look(PREFIX)).items["owners/a"]
            assert second.token > first.token
            await etcd.end(other)
            await etcd.end(other)  # over already
            assert "owners/a" not in (await etcd.look(PREFIX)).items
            assert (await etcd.renew(other)).ttl_s == 0
            renewed = await etcd.renew(one)
            assert renewed.ttl_s == 5.0
            assert renewed.term == (await etcd.look(PREFIX)).term
            await etcd.end(one)

    asyncio.run(main())


def test_a_stopped_leader_costs_one_slow_answer(three: Members) -> None:
    async def main() -> None:
        async with client(three) as etcd:
            session, _ = await etcd.begin(30.0)
            leader = three.leader()
            while etcd.where != three.urls[leader].removeprefix("http://"):
                etcd._at = (etcd._at + 1) % 3  # the worst one is asked first
            three.signal(leader, signal.SIGSTOP)
            try:
                assert (await etcd.renew(session)).ttl_s == 30.0
                assert await etcd.acquire(PREFIX + "owners/b", "n1", session)
                assert (await etcd.look(PREFIX)).items["owners/b"].session == session
            finally:
                three.signal(leader, signal.SIGCONT)
            await etcd.end(session)

    asyncio.run(main())


def test_without_a_majority_nothing_is_believed(three: Members) -> None:
    async def main() -> None:
        async with client(three, 1.5) as etcd:
            session, _ = await etcd.begin(30.0)
            leader = three.leader()
            stopped = [number for number in range(3) if number != leader]
            for number in stopped:
                three.signal(number, signal.SIGSTOP)
            try:
                with pytest.raises(UnreachedError):
                    await etcd.acquire(PREFIX + "owners/c", "n1", session)
                with pytest.raises(UnreachedError):
                    await etcd.look(PREFIX)
            finally:
                for number in stopped:
                    three.signal(number, signal.SIGCONT)
        async with client(three) as etcd:
            item = (await etcd.look(PREFIX)).items.get("owners/c")
            # Done after all, or not done: the look tells, and the answer that failed did not.
            assert item is None or item.session == session
            await etcd.end(session)

    asyncio.run(main())


def test_a_watch_goes_on_over_the_death_of_its_member(three: Members) -> None:
    async def main() -> None:
        async with client(three) as etcd:
            session, _ = await etcd.begin(30.0)
            seen: asyncio.Queue[int] = asyncio.Queue()
            after = (await etcd.look(PREFIX)).revision

            async def watch() -> None:
                async for revision in etcd.watch(PREFIX, after):
                    seen.put_nowait(revision)

            watching = asyncio.create_task(watch())
            await etcd.put(PREFIX + "moves/a", "n1", session)
            first = await asyncio.wait_for(seen.get(), 20)
            victim = etcd._at
            three.kill(victim)
            try:
                await etcd.put(PREFIX + "moves/a", "n2", session)
                assert await asyncio.wait_for(seen.get(), 20) > first
            finally:
                watching.cancel()
                three.start(victim)
                await asyncio.to_thread(three.wait)
            await etcd.end(session)

    asyncio.run(main())


def test_a_watch_begins_again_where_history_was_compacted(three: Members) -> None:
    async def main() -> None:
        async with client(three) as etcd:
            session, _ = await etcd.begin(30.0)
            for value in "abc":
                await etcd.put(PREFIX + "moves/b", value, session)
            last = (await etcd.look(PREFIX)).revision
            three.ctl("compact", str(last))
            async with asyncio.timeout(20):
                async for revision in etcd.watch(PREFIX, last - 3):
                    assert revision >= last
                    break
            await etcd.end(session)

    asyncio.run(main())


def test_a_wrong_password_is_said_and_a_right_one_outlives_the_ticket(tmp_path: Path) -> None:
    flags = ("--auth-token-ttl", "1")
    with members(tmp_path / "users", 1, flags) as cluster:
        cluster.ctl("user", "add", "root:geheim")
        cluster.ctl("user", "grant-role", "root", "root")
        cluster.ctl("auth", "enable")

        async def main() -> None:
            async with client(cluster, user="root", password="wrong") as etcd:
                with pytest.raises(RefusedError, match="authentication failed"):
                    await etcd.look(PREFIX)
            async with client(cluster) as etcd:
                with pytest.raises(RefusedError, match="user name is empty"):
                    await etcd.look(PREFIX)
            async with client(cluster, user="root", password="geheim") as etcd:
                session, _ = await etcd.begin(5.0)
                assert await etcd.acquire(PREFIX + "owners/a", "n1", session)
                etcd._ticket = "stale.1"
                assert (await etcd.renew(session)).ttl_s > 0
                etcd._ticket = "stale.1"
                assert "owners/a" in (await etcd.look(PREFIX)).items

        asyncio.run(main())


def test_a_server_that_is_not_trusted_is_told_nothing(tmp_path: Path) -> None:
    import ssl
    import subprocess

    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=etcd",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    with members(tmp_path / "tls", 1, (f"--cert-file={cert}", f"--key-file={key}")) as cluster:

        async def main() -> None:
            trusting = ssl.create_default_context(cafile=str(cert))
            etcd = Etcd(cluster.urls, timeout_s=10.0, ssl=trusting)
            async with asyncio.timeout(20):
                while True:
                    try:
                        await etcd.look(PREFIX)
                        break
                    except UnreachedError:
                        await asyncio.sleep(0.1)
            await etcd.close()
            async with client(cluster) as strict:
                with pytest.raises(UnreachedError, match="not trusted"):
                    await strict.look(PREFIX)

        asyncio.run(main())
