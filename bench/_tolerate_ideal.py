"""What bench/tolerate.py measures against: closures as one would write them by hand for exactly one
purpose, with the semantics of the policy and without events, names, notes on errors and options.
What is decided once (limits, the clock) is bound in the closure; nothing is looked up twice."""

import asyncio
import sys
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, copy_context
from math import inf
from typing import Any

Sync = Callable[..., Any]
Async = Callable[..., Awaitable[Any]]

ATTEMPTS, FAILURES, OPEN_S, TIMEOUT_S = 3, 5, 30.0, 30.0
SIZE, RATE, LEAST, SLOW_S = 100, 0.5, 10, 1.0
PLACES, QUEUE = 10, 10
MANY = 10**9  # calls a second, or retries: never reached
BOUNDS_S = [1e-5 * 2.0 ** (n / 4) for n in range(97)]
now = time.monotonic


class Refused(Exception):  # noqa: N818 - as everup names it
    """The call was not made."""

    retry_after_s: float


def refused(text: str, after_s: float) -> Refused:
    error = Refused(text)
    error.retry_after_s = after_s
    return error


def none_s(failed: int) -> float:
    """A backoff that does not wait."""
    return 0.0


# --- retry ----------------------------------------------------------------------------------

deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def wait_s(failed: int, error: Exception, backoff: Callable[[int], float]) -> float | None:
    """How long to wait; None: the deadline would be over."""
    wish = getattr(error, "retry_after_s", None)
    delay_s = backoff(failed) if wish is None else min(wish, 60.0)
    end = deadline.get()
    return None if end is not None and now() + delay_s >= end else delay_s


def retry(call: Sync, backoff: Callable[[int], float] = none_s) -> Sync:
    def guarded(*args: Any, **kwargs: Any) -> Any:
        failed = 0
        while True:
            try:
                return call(*args, **kwargs)
            except Exception as error:
                failed += 1
                if failed == ATTEMPTS or (delay_s := wait_s(failed, error, backoff)) is None:
                    raise
                if delay_s:
                    time.sleep(delay_s)

    return guarded


def retry_async(call: Async, backoff: Callable[[int], float] = none_s) -> Async:
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        failed = 0
        while True:
            try:
                return await call(*args, **kwargs)
            except Exception as error:
                failed += 1
                if failed == ATTEMPTS or (delay_s := wait_s(failed, error, backoff)) is None:
                    raise
                if delay_s:
                    await asyncio.sleep(delay_s)

    return guarded


def bucket(ratio: float = 0.2, per_s: float = MANY, most: float = MANY) -> tuple[Any, Any]:
    """A retry budget: every call brings a part of a token, time some more, a retry takes one."""
    lock = threading.Lock()
    tokens, last = most, now()

    def deposit() -> None:
        nonlocal tokens
        with lock:
            tokens += ratio

    def withdraw() -> bool:
        nonlocal tokens, last
        at = now()
        with lock:
            tokens = min(most, tokens + (at - last) * per_s)
            last = at
            if tokens < 1.0:
                return False
            tokens -= 1.0
            return True

    return deposit, withdraw


def budget(call: Sync, backoff: Callable[[int], float] = none_s) -> Sync:
    deposit, withdraw = bucket()

    def guarded(*args: Any, **kwargs: Any) -> Any:
        deposit()
        failed = 0
        while True:
            try:
                return call(*args, **kwargs)
            except Exception as error:
                failed += 1
                if failed == ATTEMPTS or (delay_s := wait_s(failed, error, backoff)) is None:
                    raise
                if not withdraw():
                    raise
                if delay_s:
                    time.sleep(delay_s)

    return guarded


def budget_async(call: Async, backoff: Callable[[int], float] = none_s) -> Async:
    deposit, withdraw = bucket()

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        deposit()
        failed = 0
        while True:
            try:
                return await call(*args, **kwargs)
            except Exception as error:
                failed += 1
                if failed == ATTEMPTS or (delay_s := wait_s(failed, error, backoff)) is None:
                    raise
                if not withdraw():
                    raise
                if delay_s:
                    await asyncio.sleep(delay_s)

    return guarded


# --- breaker: one probe at a time, generations, the lock only where something changes -----------


class Row:
    """Failures in a row. ``open``: there is anything but the closed state to think of."""

    __slots__ = ("failures", "generation", "lock", "probing", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.generation = 0
        self.until = 0.0
        self.probing = False
        self.lock = threading.Lock()

    def admit(self) -> None:
        """While it is open: through as the probe, or refused."""
        with self.lock:
            if not self.until:
                return
            if self.probing:
                raise refused("half-open", 0.0)
            self.probing = True

    def failed(self, generation: int) -> None:
        with self.lock:
            if generation != self.generation:
                return
            self.failures += 1
            if self.probing or self.failures >= FAILURES:
                self.until = now() + OPEN_S
                self.generation += 1
                self.probing = False

    def good(self, generation: int) -> None:
        with self.lock:
            if generation == self.generation:
                self.failures = 0
                if self.until:
                    self.until, self.probing = 0.0, False
                    self.generation += 1

    def neutral(self, generation: int) -> None:
        with self.lock:
            if generation == self.generation:
                self.probing = False


def breaker(call: Sync) -> Sync:
    row = Row()

    def guarded(*args: Any, **kwargs: Any) -> Any:
        if row.until:
            left = row.until - now()
            if left > 0:
                raise refused("open", left)
            row.admit()
        generation = row.generation
        try:
            value = call(*args, **kwargs)
        except Exception:
            row.failed(generation)
            raise
        except BaseException:
            row.neutral(generation)
            raise
        if row.failures:
            row.good(generation)
        return value

    return guarded


def breaker_async(call: Async) -> Async:
    row = Row()

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        if row.until:
            left = row.until - now()
            if left > 0:
                raise refused("open", left)
            row.admit()
        generation = row.generation
        try:
            value = await call(*args, **kwargs)
        except Exception:
            row.failed(generation)
            raise
        except BaseException:
            row.neutral(generation)
            raise
        if row.failures:
            row.good(generation)
        return value

    return guarded


class Ring(Row):
    """The last calls in a ring: 1 failed, 2 slow. Without a lock where a good call replaces a good
    one: a thread that comes between may lose that call."""

    __slots__ = ("at", "bad", "calls", "marks", "slow")

    def __init__(self) -> None:
        super().__init__()
        self.marks = bytearray(SIZE)
        self.at = self.calls = self.bad = self.slow = 0

    def count(self, generation: int, mark: int) -> None:
        with self.lock:
            if generation != self.generation:
                return
            if self.until:  # the probe
                if mark:
                    self.until = now() + OPEN_S
                else:
                    self.marks = bytearray(SIZE)
                    self.until = 0.0
                    self.at = self.calls = self.bad = self.slow = 0
                self.probing = False
                self.generation += 1
                return
            old = self.marks[self.at]
            self.marks[self.at] = mark
            self.at = (self.at + 1) % SIZE
            if self.calls < SIZE:
                self.calls += 1
            self.bad += (mark & 1) - (old & 1)
            self.slow += (mark >> 1) - (old >> 1)
            most = max(self.bad, self.slow)
            if mark and self.calls >= LEAST and most / self.calls >= RATE:
                self.until = now() + OPEN_S
                self.generation += 1


def window(call: Sync) -> Sync:
    ring, last = Ring(), SIZE - 1

    def guarded(*args: Any, **kwargs: Any) -> Any:
        if ring.until:
            left = ring.until - now()
            if left > 0:
                raise refused("open", left)
            ring.admit()
        generation = ring.generation
        started = now()
        try:
            value = call(*args, **kwargs)
        except Exception:
            ring.count(generation, 1 if now() - started < SLOW_S else 3)
            raise
        except BaseException:
            ring.neutral(generation)
            raise
        at = ring.at
        if now() - started >= SLOW_S:
            ring.count(generation, 2)
        elif ring.marks[at] or ring.calls < SIZE or ring.until or generation != ring.generation:
            ring.count(generation, 0)
        else:
            ring.at = at + 1 if at < last else 0
        return value

    return guarded


def window_async(call: Async) -> Async:
    ring, last = Ring(), SIZE - 1

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        if ring.until:
            left = ring.until - now()
            if left > 0:
                raise refused("open", left)
            ring.admit()
        generation = ring.generation
        started = now()
        try:
            value = await call(*args, **kwargs)
        except Exception:
            ring.count(generation, 1 if now() - started < SLOW_S else 3)
            raise
        except BaseException:
            ring.neutral(generation)
            raise
        at = ring.at
        if now() - started >= SLOW_S:
            ring.count(generation, 2)
        elif ring.marks[at] or ring.calls < SIZE or ring.until or generation != ring.generation:
            ring.count(generation, 0)
        else:
            ring.at = at + 1 if at < last else 0
        return value

    return guarded


# --- timeout --------------------------------------------------------------------------------


class Over(Exception):  # noqa: N818 - as everup names it
    """What code inside a synchronous timeout raises when it looks at the deadline."""


def timeout(call: Sync) -> Sync:
    get, put = deadline.get, deadline.set

    def guarded(*args: Any, **kwargs: Any) -> Any:
        outer = get()
        limit = at = now() + TIMEOUT_S
        if outer is not None and outer < at:
            at = outer
        put(at)
        try:
            return call(*args, **kwargs)
        except Over as error:
            if at == limit <= now():
                raise TimeoutError from error
            raise
        finally:
            put(outer)

    return guarded


def thread(call: Sync) -> Sync:
    def guarded(*args: Any, **kwargs: Any) -> Any:
        value: Any = None
        error: BaseException | None = None
        done = threading.Lock()
        done.acquire()

        def work() -> None:
            nonlocal value, error
            try:
                value = call(*args, **kwargs)
            except BaseException as raised:
                error = raised
            done.release()

        threading.Thread(target=copy_context().run, args=(work,), daemon=True).start()
        if not done.acquire(timeout=TIMEOUT_S):
            raise TimeoutError
        if error is not None:
            try:
                raise error
            finally:
                error = None
        return value

    return guarded


def finder() -> Callable[[Any], Any]:
    """The task of a loop: ``asyncio.current_task`` is Python code on 3.11."""
    if sys.version_info >= (3, 12):
        return asyncio.current_task
    tasks: dict[Any, Any] = asyncio.tasks._current_tasks  # type: ignore[attr-defined]
    return tasks.get


class Lane:
    """Timeouts of one length are due in the order they began: a deque and one timer."""

    __slots__ = ("armed", "loop", "queue")

    def __init__(self) -> None:
        self.loop: Any = None
        self.armed = False
        self.queue: deque[list[Any]] = deque()

    def move(self, loop: Any) -> None:
        self.loop, self.armed, self.queue = loop, False, deque()

    def arm(self, left_s: float) -> None:
        self.armed = True
        self.loop.call_later(left_s, self.fire)

    def fire(self) -> None:
        self.armed = False
        at = now()
        while self.queue:
            entry = self.queue[0]
            if entry[0] is not None:
                if entry[1] > at:
                    self.arm(entry[1] - at)
                    return
                entry[3] = True
                entry[0].cancel()
            self.queue.popleft()


def timeout_async(call: Async) -> Async:
    lane, find, running = Lane(), finder(), asyncio.get_running_loop

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        loop = running()
        if lane.loop is not loop:
            lane.move(loop)
        task = find(loop)
        entry = [task, now() + TIMEOUT_S, task.cancelling(), False]
        queue = lane.queue
        queue.append(entry)
        if not lane.armed:
            lane.arm(TIMEOUT_S)
        try:
            value = await call(*args, **kwargs)
        except BaseException as error:
            entry[0] = None
            if entry[3] and task.uncancel() <= entry[2] and type(error) is asyncio.CancelledError:
                raise TimeoutError from error
            raise
        if queue and queue[0] is entry:
            queue.popleft()
        else:
            entry[0] = None
            if entry[3]:
                task.uncancel()
        return value

    return guarded


# --- bulkhead, rate, limit -------------------------------------------------------------------


def bulkhead(call: Sync) -> Sync:
    free: list[None] = [None] * PLACES
    take, put, lock = free.pop, free.append, threading.Lock()
    waiting: deque[Any] = deque()

    def wake() -> None:
        with lock:
            while waiting and free:
                try:
                    take()
                except IndexError:
                    return
                waiting.popleft().release()

    def wait() -> None:
        gate = threading.Lock()
        gate.acquire()
        with lock:
            if len(waiting) >= QUEUE:
                raise refused("full", 0.0)
            waiting.append(gate)
        wake()
        gate.acquire()

    def guarded(*args: Any, **kwargs: Any) -> Any:
        if waiting:
            wait()
        else:
            try:
                take()
            except IndexError:
                wait()
        try:
            return call(*args, **kwargs)
        finally:
            put(None)
            if waiting:
                wake()

    return guarded


def bulkhead_async(call: Async) -> Async:
    used = 0
    waiting: deque[asyncio.Future[None]] = deque()

    async def wait() -> None:
        nonlocal used
        if len(waiting) >= QUEUE:
            raise refused("full", 0.0)
        future = asyncio.get_running_loop().create_future()
        waiting.append(future)
        try:
            await future
        except BaseException:
            if future.done() and not future.cancelled():
                used -= 1
                hand_over()
            raise

    def hand_over() -> None:
        nonlocal used
        while waiting:
            future = waiting.popleft()
            if not future.done():
                used += 1
                future.set_result(None)
                return

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        nonlocal used
        if used >= PLACES or waiting:
            await wait()
        else:
            used += 1
        try:
            return await call(*args, **kwargs)
        finally:
            used -= 1
            if waiting:
                hand_over()

    return guarded


def rate(call: Sync) -> Sync:
    every_s = 1.0 / MANY
    slack_s = 1.0 - every_s
    next_at, lock = 0.0, threading.Lock()

    def guarded(*args: Any, **kwargs: Any) -> Any:
        nonlocal next_at
        with lock:
            at = now()
            wait = next_at - at
            if wait <= 0:
                early = at - slack_s
                next_at = (next_at if next_at > early else early) + every_s
        if wait > 0:
            raise refused("too many", wait)
        return call(*args, **kwargs)

    return guarded


def rate_async(call: Async) -> Async:
    every_s = 1.0 / MANY
    slack_s = 1.0 - every_s
    next_at = 0.0

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        nonlocal next_at
        at = now()
        if next_at > at:
            raise refused("too many", next_at - at)
        early = at - slack_s
        next_at = (next_at if next_at > early else early) + every_s
        return await call(*args, **kwargs)

    return guarded


class Gradient:
    """A limit that follows the latency: the long average over that of the last window."""

    __slots__ = ("count", "ends_at", "limit", "lock", "long_s", "total_s", "under_way")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.limit = 20.0
        self.long_s = 0.0
        self.count = self.under_way = 0
        self.total_s = 0.0
        self.ends_at = -inf

    def step(self, at: float) -> None:
        with self.lock:
            if self.count < 10 or at < self.ends_at:
                return
            short_s = self.total_s / self.count
            self.long_s += (short_s - self.long_s) / 600 if self.long_s else short_s
            gradient = max(0.5, min(1.0, 1.5 * self.long_s / short_s))
            new = min(200.0, max(20.0, self.limit * gradient + 4))
            self.limit += 0.2 * (new - self.limit)
            self.count, self.total_s, self.ends_at = 0, 0.0, at + 1.0

    def dropped(self) -> None:
        with self.lock:
            self.limit = max(20.0, self.limit * 0.9)


def limit(call: Sync) -> Sync:
    state, lock = Gradient(), threading.Lock()

    def guarded(*args: Any, **kwargs: Any) -> Any:
        with lock:
            admitted = state.under_way < state.limit
            if admitted:
                state.under_way += 1
        if not admitted:
            raise refused("too many", 0.0)
        started = now()
        try:
            value = call(*args, **kwargs)
        except BaseException as error:
            with lock:
                state.under_way -= 1
            if isinstance(error, TimeoutError):
                state.dropped()
            raise
        ended = now()
        with lock:
            state.under_way -= 1
            state.total_s += ended - started
            state.count = count = state.count + 1
        if count >= 10 and ended >= state.ends_at:
            state.step(ended)
        return value

    return guarded


def limit_async(call: Async) -> Async:
    state = Gradient()

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        if state.under_way >= state.limit:
            raise refused("too many", 0.0)
        state.under_way += 1
        started = now()
        try:
            value = await call(*args, **kwargs)
        except BaseException as error:
            state.under_way -= 1
            if isinstance(error, TimeoutError):
                state.dropped()
            raise
        ended = now()
        state.under_way -= 1
        state.total_s += ended - started
        state.count = count = state.count + 1
        if count >= 10 and ended >= state.ends_at:
            state.step(ended)
        return value

    return guarded


# --- hedge: a second copy after a delay; the first answer wins ----------------------------------


class HedgeLane(Lane):
    """As for timeouts; what is due is started a second time."""

    __slots__ = ()

    def fire(self) -> None:
        self.armed = False
        at = now()
        while self.queue:
            entry = self.queue[0]
            if entry[0] is not None:
                if entry[1] > at:
                    self.arm(entry[1] - at)
                    return
                self.second(entry)
            self.queue.popleft()

    def second(self, entry: list[Any]) -> None:
        task, _at, _base, _copy, context, call, args, kwargs = entry
        copy = context.run(self.loop.create_task, call(*args, **kwargs))
        entry[3] = copy

        def ended(_copy: Any) -> None:
            if entry[0] is not None and not copy.cancelled() and copy.exception() is None:
                task.cancel()

        copy.add_done_callback(ended)


def hedge_async(call: Async) -> Async:
    lane, find, running = HedgeLane(), finder(), asyncio.get_running_loop

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        loop = running()
        if lane.loop is not loop:
            lane.move(loop)
        task = find(loop)
        base = task.cancelling()
        entry = [task, now() + TIMEOUT_S, base, None, copy_context(), call, args, kwargs]
        queue = lane.queue
        queue.append(entry)
        if not lane.armed:
            lane.arm(TIMEOUT_S)
        try:
            value = await call(*args, **kwargs)
        except asyncio.CancelledError:
            entry[0] = None
            copy = entry[3]
            if copy is not None and copy.done() and task.uncancel() <= base:
                return copy.result()
            if copy is not None:
                copy.cancel()
            raise
        except BaseException:
            entry[0] = None
            if entry[3] is not None:
                return await entry[3]
            raise
        if queue and queue[0] is entry:
            queue.popleft()
        else:
            entry[0] = None
            if entry[3] is not None:
                entry[3].cancel()
        return value

    return guarded


# --- retry around breaker around timeout, in one closure ---------------------------------------


def pipeline(call: Sync, backoff: Callable[[int], float] = none_s) -> Sync:
    row, get, put = Row(), deadline.get, deadline.set

    def guarded(*args: Any, **kwargs: Any) -> Any:
        failed = 0
        while True:
            if row.until:
                left = row.until - now()
                if left > 0:
                    raise refused("open", left)
                row.admit()
            generation = row.generation
            outer = get()
            limit = at = now() + TIMEOUT_S
            if outer is not None and outer < at:
                at = outer
            put(at)
            try:
                value = call(*args, **kwargs)
            except Exception as error:
                row.failed(generation)
                failed += 1
                if failed == ATTEMPTS:
                    if type(error) is Over and at == limit <= now():
                        raise TimeoutError from error
                    raise
                put(outer)
                if (delay_s := wait_s(failed, error, backoff)) is None:
                    raise
                if delay_s:
                    time.sleep(delay_s)
            except BaseException:
                row.neutral(generation)
                raise
            else:
                if row.failures:
                    row.good(generation)
                return value
            finally:
                put(outer)

    return guarded


def pipeline_async(call: Async, backoff: Callable[[int], float] = none_s) -> Async:
    row, lane, find, running = Row(), Lane(), finder(), asyncio.get_running_loop

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        failed = 0
        while True:
            if row.until:
                left = row.until - now()
                if left > 0:
                    raise refused("open", left)
                row.admit()
            generation = row.generation
            loop = running()
            if lane.loop is not loop:
                lane.move(loop)
            task = find(loop)
            entry = [task, now() + TIMEOUT_S, task.cancelling(), False]
            queue = lane.queue
            queue.append(entry)
            if not lane.armed:
                lane.arm(TIMEOUT_S)
            try:
                value = await call(*args, **kwargs)
            except BaseException as error:
                entry[0] = None
                late = entry[3] and task.uncancel() <= entry[2]
                if not isinstance(error, Exception) and not late:
                    row.neutral(generation)
                    raise
                row.failed(generation)
                failed += 1
                if failed == ATTEMPTS:
                    if late:
                        raise TimeoutError from error
                    raise
                delay_s = wait_s(failed, error, backoff) if isinstance(error, Exception) else 0.0
                if delay_s is None:
                    raise
                if delay_s:
                    await asyncio.sleep(delay_s)
                continue
            if queue and queue[0] is entry:
                queue.popleft()
            else:
                entry[0] = None
                if entry[3]:
                    task.uncancel()
            if row.failures:
                row.good(generation)
            return value

    return guarded


# --- the same, counted: outcomes, the time they took, a histogram --------------------------------


def metered(call: Sync) -> Sync:
    inner = pipeline(call)
    good, bad, total_s = [0] * 98, [0] * 98, 0.0

    def guarded(*args: Any, **kwargs: Any) -> Any:
        nonlocal total_s
        started = now()
        try:
            value = inner(*args, **kwargs)
        except Exception:
            bad[bisect_left(BOUNDS_S, now() - started)] += 1
            raise
        took_s = now() - started
        good[bisect_left(BOUNDS_S, took_s)] += 1
        total_s += took_s
        return value

    return guarded


def metered_async(call: Async) -> Async:
    inner = pipeline_async(call)
    good, bad, total_s = [0] * 98, [0] * 98, 0.0

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        nonlocal total_s
        started = now()
        try:
            value = await inner(*args, **kwargs)
        except Exception:
            bad[bisect_left(BOUNDS_S, now() - started)] += 1
            raise
        took_s = now() - started
        good[bisect_left(BOUNDS_S, took_s)] += 1
        total_s += took_s
        return value

    return guarded


def nested(call: Sync) -> Sync:
    """The three, one inside the other."""
    return retry(breaker(timeout(call)))


def nested_async(call: Async) -> Async:
    return retry_async(breaker_async(timeout_async(call)))
