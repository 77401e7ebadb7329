"""Threads and tasks whose turns a seed decides, so that what they do to each other comes again."""

import asyncio
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import everup.tolerate

LINES = 4
"""Handing over at every single line finds no more, and takes three times as long."""
PACKAGE = str(Path(everup.tolerate.__file__).parent)


class Threads:
    """Threads that run one at a time: at any line of the package (one in ``LINES`` of them, by the
    seed), and wherever a job says, a seeded choice is made who goes on. As a lock it hands over
    while another holds it."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._gates: dict[int, threading.Semaphore] = {}
        self._local = threading.local()
        self._holder = -1
        self._depth = 0

    def adopt(self, *policies: Any) -> None:
        """Their locks become this one. Before a function is decorated: closures take locks along.
        One lock in the place of many only makes fewer turns possible."""
        for policy in policies:
            for one in (policy, getattr(policy, "_places", None), getattr(policy, "budget", None)):
                if hasattr(one, "_lock"):
                    one._lock = self

    def run(self, *jobs: Callable[[], object]) -> None:
        """All of them, to the end. Raises what the first of them raised."""
        wrong: list[BaseException] = []
        ready = threading.Barrier(len(jobs) + 1, timeout=60)
        threads = [
            threading.Thread(target=self._work, args=(index, job, ready, wrong))
            for index, job in enumerate(jobs)
        ]
        for thread in threads:
            thread.start()
        ready.wait()
        self._next().release()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        if wrong:
            raise wrong[0]

    def switch(self) -> None:
        """Let another go on, or not. Nothing outside of ``run``."""
        if getattr(self._local, "me", None) is None:
            return
        gate, mine = self._next(), self._gates[self._local.me]
        if gate is not mine:
            gate.release()
            mine.acquire()

    def _next(self) -> threading.Semaphore:
        return self._gates[self._random.choice(sorted(self._gates))]

    def _work(
        self,
        me: int,
        job: Callable[[], object],
        ready: threading.Barrier,
        wrong: list[BaseException],
    ) -> None:
        gate = self._gates[me] = threading.Semaphore(0)
        ready.wait()
        gate.acquire()
        self._local.me = me
        sys.settrace(self._trace)
        try:
            job()
        except BaseException as error:
            wrong.append(error)
        finally:
            sys.settrace(None)
            self._local.me = None
            del self._gates[me]
            if self._gates:
                self._next().release()

    def _trace(self, frame: Any, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if self._random.random() * LINES < 1:
            self.switch()
        return self._trace

    def __enter__(self) -> None:
        me = getattr(self._local, "me", None)
        while self._holder not in (-1, me) and me is not None:
            self.switch()
        self._holder = -1 if me is None else me
        self._depth += 1

    def __exit__(self, *exc: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._holder = -1


class Tasks:
    """Tasks that come, wait and are cancelled as a seed says."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    async def pause(self, most_s: float = 0.0) -> None:
        """A few turns of the loop, and up to ``most_s`` of its time."""
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)
        if most_s:
            await asyncio.sleep(self.random.choice((0.0, most_s / 4, most_s)))

    async def run(
        self, jobs: int, job: Callable[[], Any], most_s: float, cancelled: float = 0.0
    ) -> list[Any]:
        """So many, begun within ``most_s``; this share of them is cancelled within as long."""

        async def come() -> Any:
            await self.pause(most_s)
            return await job()

        tasks = [asyncio.ensure_future(come()) for _ in range(jobs)]
        for task in tasks:
            if self.random.random() < cancelled:
                delay_s = most_s * self.random.random()
                asyncio.get_running_loop().call_later(delay_s, task.cancel)
        return await asyncio.gather(*tasks, return_exceptions=True)
