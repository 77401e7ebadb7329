"""Policies in real gRPC channels and servers, of grpc and of grpc.aio."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc
import grpc.aio
import pytest

from everup.tolerate import (
    Breaker,
    BreakerOpen,
    Bulkhead,
    Consecutive,
    Deadline,
    DeadlineExceeded,
    Hedge,
    Keyed,
    Meter,
    Pipeline,
    Policy,
    RateLimit,
    Retry,
    Shed,
    State,
    TimedOut,
    Timeout,
    priority,
    remaining,
)
from everup.tolerate.grpc import Call, Rules, aio, heed, name_of, sync
from everup.tolerate.testing import FakeClock, Recorder

Code = grpc.StatusCode
LEVEL, PUT, WATCH, CHAT = (
    "/shop.Stock/Level",
    "/shop.Stock/Put",
    "/shop.Stock/Watch",
    "/shop.Stock/Chat",
)
PUSHBACK = "grpc-retry-pushback-ms"
ALL = Rules(repeat=True)
LONG_S = 30.0  # longer than any test takes


class Seen(NamedTuple):
    """What a handler was asked."""

    metadata: dict[str, Any]
    left_s: float


class Stock:
    """A real server that does what its script says, step by step, and the last of it for ever: a
    code, or a function of the request and the context."""

    def __init__(self, *script: Any, interceptors: Any = ()) -> None:
        self.script = script
        self.seen: list[Seen] = []
        self._lock = threading.Lock()
        kinds = {
            "Level": grpc.unary_unary_rpc_method_handler(self.one),
            "Put": grpc.stream_unary_rpc_method_handler(self.one),
            "Watch": grpc.unary_stream_rpc_method_handler(self.several),
            "Chat": grpc.stream_stream_rpc_method_handler(self.several),
        }
        self._pool = ThreadPoolExecutor(8)
        self._server = grpc.server(self._pool, interceptors=interceptors)
        handlers = grpc.method_handlers_generic_handler("shop.Stock", kinds)
        self._server.add_generic_rpc_handlers((handlers,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    @property
    def calls(self) -> int:
        return len(self.seen)

    def __enter__(self) -> "Stock":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown()

    def one(self, request: Any, context: Any) -> bytes:
        if not isinstance(request, bytes):
            request = [*request]  # grpc.aio calls it INTERNAL to be answered before all is sent
        with self._lock:
            step = self.script[min(len(self.seen), len(self.script) - 1)]
            self.seen.append(Seen(dict(context.invocation_metadata()), context.time_remaining()))
        if isinstance(step, grpc.StatusCode):
            context.abort(step, "as the script says")
        got = step(request, context) if callable(step) else step
        assert isinstance(got, bytes)
        return got

    def several(self, request: Any, context: Any) -> Iterator[bytes]:
        first = self.one(request, context)
        for number in range(3):
            yield first + b"%d" % number


class Way:
    """A call by grpc, or by grpc.aio."""

    def __init__(self, asynchronous: bool) -> None:
        self.asynchronous = asynchronous

    def ask(
        self,
        stock: Stock,
        policy: Policy,
        rules: Rules | None = None,
        *,
        method: str = LEVEL,
        times: int = 1,
        around: Policy | None = None,
        **options: Any,
    ) -> Any:
        """The last answer of so many calls through one channel."""
        if self.asynchronous:
            return asyncio.run(self._ask_aio(stock, policy, rules, method, times, around, options))
        with grpc.insecure_channel(stock.address) as plain:
            channel = grpc.intercept_channel(plain, sync.ClientInterceptor(policy, rules=rules))
            ask = self._stub(channel, method)

            def once() -> Any:
                return [*ask(options)] if method in (WATCH, CHAT) else ask(options)

            once = around(once) if around is not None else once
            return self._last(once, times)

    @staticmethod
    def _last(once: Callable[[], Any], times: int) -> Any:
        for _ in range(times - 1):
            try:
                once()
            except Exception:
                pass
        return once()

    async def _ask_aio(self, stock: Any, policy: Any, rules: Any, method: str, times: int,
                       around: Policy | None, options: Any) -> Any:  # fmt: skip
        each = aio.interceptors(policy, rules=rules)
        async with grpc.aio.insecure_channel(stock.address, interceptors=each) as channel:
            ask = self._stub(channel, method)

            async def once() -> Any:
                if method in (WATCH, CHAT):
                    return [answer async for answer in ask(options)]
                return await ask(options)

            guarded: Any = once if around is None else around(once)
            for _ in range(times - 1):
                try:
                    await guarded()
                except Exception:
                    pass
            return await guarded()

    @staticmethod
    def _stub(channel: Any, method: str) -> Callable[[Any], Any]:
        kind = {PUT: "stream_unary", WATCH: "unary_stream", CHAT: "stream_stream"}
        stub = getattr(channel, kind.get(method, "unary_unary"))(method)

        def ask(options: dict[str, Any]) -> Any:
            options.setdefault("timeout", LONG_S)
            return stub(iter([b"a", b"b"]) if method in (PUT, CHAT) else b"a", **options)

        return ask


@pytest.fixture(params=[False, True], ids=["grpc", "grpc.aio"])
def way(request: pytest.FixtureRequest) -> Way:
    return Way(request.param)


def retry(attempts: int = 3, **options: Any) -> Retry:
    return Retry(attempts=attempts, **{"backoff": 0, **options})


# -- clients


def test_a_failure_is_repeated_and_the_caller_gets_the_answer(way: Way) -> None:
    guard = retry()
    recorder = Recorder(guard)
    with Stock(Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, b"7") as stock:
        assert way.ask(stock, guard, ALL) == b"7"
    assert stock.calls == 3
    assert recorder.kinds == ["retry", "retry", "recovered"]


@pytest.mark.parametrize(
    ("rules", "method", "calls"),
    [
        (None, LEVEL, 1),
        (Rules(), LEVEL, 1),
        (Rules(repeat=[LEVEL]), LEVEL, 3),
        (Rules(repeat=["/shop.Stock/*"]), LEVEL, 3),
        (Rules(repeat=["/shop.Other/*", "/shop.Stock/Levels"]), LEVEL, 1),
        (ALL, PUT, 1),  # a stream can be sent once
    ],
)
def test_only_what_may_be_repeated_is(way: Way, rules: Any, method: str, calls: int) -> None:
    with Stock(Code.UNAVAILABLE) as stock, pytest.raises(grpc.RpcError) as caught:
        way.ask(stock, retry(), rules, method=method)
    assert stock.calls == calls
    assert caught.value.code() is Code.UNAVAILABLE  # as without a policy
    assert caught.value.details() == "as the script says"


@pytest.mark.parametrize("code", list(Code))
def test_which_codes_are_failures(way: Way, code: Any) -> None:
    if code is Code.OK:
        pytest.skip("nobody aborts with it")
    breaker = Breaker(trip=Consecutive(1))
    with Stock(code) as stock, pytest.raises(grpc.RpcError) as caught:
        way.ask(stock, breaker)
    assert caught.value.code() is code
    fails = code.name in Rules().codes
    assert (breaker.state is State.OPEN) is fails


def test_an_answer_closes_what_a_failure_opens(way: Way) -> None:
    clock = FakeClock()
    breaker = Breaker("stock", trip=Consecutive(1), open_s=5.0, clock=clock)
    with Stock(Code.UNAVAILABLE, Code.NOT_FOUND) as stock:
        with pytest.raises(BreakerOpen, match="stock: open; again in 5 s"):
            way.ask(stock, breaker, times=2)
        assert stock.calls == 1
        clock.advance(5.0)
        with pytest.raises(grpc.RpcError):
            way.ask(stock, breaker)
    assert breaker.state is State.CLOSED


def test_other_codes_by_the_rules(way: Way) -> None:
    with Stock(Code.ABORTED) as stock, pytest.raises(grpc.RpcError):
        way.ask(stock, retry(), Rules(codes=["ABORTED"], repeat=True))
    assert stock.calls == 3


def pushing(milliseconds: str) -> Callable[[Any, Any], bytes]:
    def handle(_: Any, context: Any) -> bytes:
        context.set_trailing_metadata(((PUSHBACK, milliseconds),))
        context.abort(Code.RESOURCE_EXHAUSTED, "too many")
        return b""

    return handle


@pytest.mark.parametrize(("text", "waits"), [("7", [0.007]), ("-1", [0.05]), ("soon", [0.05])])
def test_the_server_says_how_long_to_wait(way: Way, text: str, waits: list[float]) -> None:
    guard = retry(backoff=0.05)
    clock = FakeClock()
    guard = guard.but(clock=clock)
    with Stock(pushing(text), b"7") as stock:
        if way.asynchronous:
            # FakeClock waits by the loop, whose time is real here.
            recorder = Recorder(guard)
            assert way.ask(stock, guard, ALL) == b"7"
            assert [recorder.events[0].detail["delay_s"]] == waits
        else:
            assert way.ask(stock, guard, ALL) == b"7"
            assert clock.slept == waits


def test_a_breaker_is_open_as_long_as_the_server_says(way: Way) -> None:
    breaker = Breaker(trip=Consecutive(1), retry_after_max_s=3600)
    with Stock(pushing("90000")) as stock, pytest.raises(BreakerOpen) as caught:
        way.ask(stock, breaker, times=2)
    assert caught.value.retry_after_s is not None
    assert 60.0 < caught.value.retry_after_s <= 90.0


def test_the_deadline_and_the_priority_are_told(way: Way) -> None:
    for method in (LEVEL, PUT, WATCH, CHAT):
        with Stock(b"7") as stock:
            token = priority.set(5)
            try:
                way.ask(stock, retry(), method=method, around=Deadline(20.0))
            finally:
                priority.reset(token)
            (seen,) = stock.seen
        assert seen.metadata["priority"] == "u=5"
        assert 0 < seen.left_s < 21.0  # grpc rounds up


def test_a_timeout_of_the_caller_s_own_is_kept_where_it_is_shorter(way: Way) -> None:
    with Stock(b"7") as stock:
        way.ask(stock, retry(), around=Deadline(2000.0), timeout=1000.0)
        way.ask(stock, retry(), around=Deadline(2000.0), timeout=None)
        way.ask(stock, retry(), timeout=None, metadata=(("priority", "u=1"),))
    assert [round(seen.left_s / 1000.0) for seen in stock.seen[:2]] == [1, 2]
    assert stock.seen[2].left_s > 86_400
    assert stock.seen[2].metadata["priority"] == "u=1"


def test_a_priority_is_not_told_where_the_rules_say_so(way: Way) -> None:
    token = priority.set(99)
    try:
        with Stock(b"7") as stock:
            way.ask(stock, retry(), Rules(tell=False))
            way.ask(stock, retry(), metadata=(("priority", "u=1"),))
            way.ask(stock, retry(), metadata=(("x", "y"),))
    finally:
        priority.reset(token)
    told = [seen.metadata.get("priority") for seen in stock.seen]
    assert told == [None, "u=1", "u=7"]
    assert stock.seen[2].metadata["x"] == "y"


def test_nobody_is_asked_when_the_deadline_is_over(way: Way) -> None:
    with Stock(b"7") as stock, pytest.raises(DeadlineExceeded):
        way.ask(stock, retry(), ALL, around=Deadline(0.0))
    assert stock.calls == 0


def test_a_server_that_hangs_is_left(way: Way) -> None:
    done = threading.Event()

    def hang(_: Any, context: Any) -> bytes:
        done.wait(LONG_S)
        return b"late"

    with Stock(hang) as stock:
        with pytest.raises((TimedOut, grpc.RpcError)) as caught:
            way.ask(stock, Pipeline(Timeout(0.2)))
        done.set()
    if isinstance(caught.value, grpc.RpcError):
        assert caught.value.code() is Code.DEADLINE_EXCEEDED


def test_where_nobody_listens_it_is_a_failure(way: Way) -> None:
    with Stock(b"7") as stock:
        pass
    breaker = Breaker(trip=Consecutive(2))
    with pytest.raises(grpc.RpcError) as caught:
        way.ask(stock, Pipeline(retry(2), breaker), ALL)
    assert caught.value.code() is Code.UNAVAILABLE
    assert breaker.state is State.OPEN


def test_a_hedge_asks_twice(way: Way) -> None:
    first = threading.Event()

    def slow(_: Any, context: Any) -> bytes:
        first.wait(LONG_S)
        return b"slow"

    hedge = Hedge(0.05, threads=0 if way.asynchronous else 4)
    with Stock(slow, b"quick") as stock:
        assert way.ask(stock, hedge, ALL) == b"quick"
        first.set()
    assert stock.calls == 2


def test_what_policies_look_at(way: Way) -> None:
    seen: list[Call] = []

    def key(call: Call) -> str:
        seen.append(call)
        return call.method

    keyed = Keyed(lambda method: Breaker(method), key=key)
    with Stock(b"7") as stock:
        way.ask(stock, Pipeline(keyed))
    assert keyed.get(LEVEL).name == LEVEL
    assert [(call.method, call.request, call.number) for call in seen] == [(LEVEL, b"a", 1)]


def test_streams_of_answers_pass(way: Way) -> None:
    with Stock(b"7") as stock:
        for method in (WATCH, CHAT):
            assert way.ask(stock, retry(), method=method) == [b"70", b"71", b"72"]


def test_a_call_by_future() -> None:
    guard = sync.ClientInterceptor(retry(), rules=ALL)
    with Stock(Code.UNAVAILABLE, b"7") as stock, grpc.insecure_channel(stock.address) as plain:
        call = grpc.intercept_channel(plain, guard).unary_unary(LEVEL).future(b"a", timeout=LONG_S)
        assert call.result() == b"7"
        assert call.code() is Code.OK


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"codes": ["UNAVAILABEL"]}, ValueError, "'UNAVAILABEL' is no status code of gRPC"),
        ({"codes": "UNAVAILABLE"}, TypeError, "codes must be a list of names, not 'UNAVAILABLE'"),
        ({"repeat": LEVEL}, TypeError, "repeat must be a list of names"),
    ],
)
def test_rules_that_cannot_be(options: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        Rules(**options)


def test_what_is_no_policy_is_refused() -> None:
    for make in (sync.ClientInterceptor, aio.interceptors, sync.ServerInterceptor):
        with pytest.raises(TypeError, match="expected a policy"):
            make(5)


def test_names_of_codes() -> None:
    assert [name_of(code.value[0]) for code in Code] == [code.name for code in Code]
    assert (name_of(Code.OK), name_of(None), name_of(99)) == ("OK", None, None)
    heed(ValueError())  # nothing trails it


# -- servers


def echo(request: bytes, context: Any) -> bytes:
    return request


@contextmanager
def served(policy: Policy | None, *script: Any, **options: Any) -> Iterator[Stock]:
    with Stock(*script, interceptors=[sync.ServerInterceptor(policy, **options)]) as stock:
        yield stock


def ask(stock: Stock, method: str = LEVEL, **options: Any) -> Any:
    """A client without policies."""
    with grpc.insecure_channel(stock.address) as channel:
        got = Way._stub(channel, method)(options)
        return [*got] if method in (WATCH, CHAT) else got


def refused(stock: Any, method: str = LEVEL, **options: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        ask(stock, method, **options)
    return caught.value


def test_a_rejection_is_unavailable_with_a_time_to_come_again() -> None:
    limit = RateLimit(1, 60.0)
    limit.try_take()
    for method in (LEVEL, PUT, WATCH, CHAT):
        with served(limit, b"7") as stock:
            error = refused(stock, method)
        assert error.code() is Code.UNAVAILABLE
        assert error.details().startswith("rate: more than 1 in 60 s; again in ")
        assert 0 < int(dict(error.trailing_metadata())[PUSHBACK]) <= 60_000
        assert stock.calls == 0


def test_one_without_a_time_gets_that_of_the_server() -> None:
    bulkhead = Bulkhead(1)
    with bulkhead, served(bulkhead, b"7", retry_after_s=2.5) as stock:
        assert dict(refused(stock).trailing_metadata())[PUSHBACK] == "2500"


def test_what_a_policy_lets_through_is_answered() -> None:
    meter = Meter()
    with served(meter, echo) as stock:
        assert ask(stock) == b"a"
    with served(None, b"7") as stock:
        assert ask(stock, PUT) == b"7"
        assert ask(stock, WATCH) == [b"70", b"71", b"72"]
        assert ask(stock, CHAT) == [b"70", b"71", b"72"]
    assert meter.snapshot().ok == 1


def test_a_stream_without_answers() -> None:
    class Silent(Stock):
        def several(self, request: Any, context: Any) -> Iterator[bytes]:
            self.seen.append(Seen({}, 0.0))
            yield from ()

    with Silent(b"7", interceptors=[sync.ServerInterceptor(Meter())]) as stock:
        assert ask(stock, WATCH) == []


def test_codes_are_failures_or_answers_for_the_policy() -> None:
    def quiet(_: Any, context: Any) -> bytes:
        context.set_code(Code.UNAVAILABLE)
        context.set_details("said, not raised")
        return b""

    def broken(_: Any, context: Any) -> bytes:
        raise KeyError("mine")

    meter = Meter()
    with served(meter, Code.NOT_FOUND, Code.INTERNAL, quiet, broken) as stock:
        codes = [refused(stock).code() for _ in range(4)]
    assert codes == [Code.NOT_FOUND, Code.INTERNAL, Code.UNAVAILABLE, Code.UNKNOWN]
    shot = meter.snapshot()
    assert (shot.ok, shot.failed) == (1, 3)


def test_the_deadline_and_the_priority_of_the_caller_hold_in_the_handler() -> None:
    seen: list[Any] = []

    def look(_: Any, context: Any) -> bytes:
        seen.append((remaining(), priority.get(None)))
        return b"7"

    with served(None, look, within_s=60.0) as stock:
        ask(stock, timeout=20.0, metadata=(("priority", "u=5"),))
        ask(stock, timeout=None, metadata=(("priority-bin", b"u=5"),))
        ask(stock, timeout=3600.0, metadata=(("priority", "what"),))
    (first, five), (second, none), (third, three) = seen
    assert 0 < first < 21.0
    assert 21.0 < second <= 60.0
    assert 21.0 < third <= 60.0
    assert (five, none, three) == (5, None, 3)
    with served(None, look) as stock:
        ask(stock, timeout=None)
    assert seen[-1] == (None, None)


def test_a_deadline_that_a_handler_finds_over() -> None:
    def late(_: Any, context: Any) -> bytes:
        raise DeadlineExceeded("over")

    with served(None, late) as stock:
        error = refused(stock)
    assert (error.code(), error.details()) == (Code.DEADLINE_EXCEEDED, "over")
    assert PUSHBACK not in dict(error.trailing_metadata() or ())


def test_what_trails_a_handler_that_is_refused_stays() -> None:
    def refuse(_: Any, context: Any) -> bytes:
        context.set_trailing_metadata((("mine", "1"),))
        raise BreakerOpen("db", "open", 0.25)

    with served(None, refuse) as stock:
        trailing = dict(refused(stock).trailing_metadata())
    assert (trailing["mine"], trailing[PUSHBACK]) == ("1", "250")


def test_a_method_that_there_is_not() -> None:
    with served(Meter(), b"7") as stock:
        error = refused(stock, "/shop.Stock/None")
    assert error.code() is Code.UNIMPLEMENTED


# -- servers of grpc.aio


class Handlers:
    """One of each form that grpc.aio takes."""

    def __init__(self, do: Callable[[], Any]) -> None:
        self.do = do

    async def one(self, request: Any, context: Any) -> bytes:
        return await self._do(context)

    async def _do(self, context: Any) -> bytes:
        got = self.do()
        if isinstance(got, tuple):
            context.set_code(got[0])
            got = got[1]
        if isinstance(got, grpc.StatusCode):
            await context.abort(got, "as the script says")
        if asyncio.iscoroutine(got):
            got = await got
        assert isinstance(got, bytes)
        return got

    def in_thread(self, request: Any, context: Any) -> bytes:
        got = self.do()
        if isinstance(got, tuple):
            context.set_code(got[0])
            got = got[1]
        if isinstance(got, grpc.StatusCode):
            context.abort(got, "as the script says")
        assert isinstance(got, bytes)
        return got

    async def yields(self, request: Any, context: Any) -> Any:
        yield await self._do(context)
        yield b"2"

    async def yields_none(self, request: Any, context: Any) -> Any:
        for _ in ():
            yield b""

    async def writes(self, request: Any, context: Any) -> None:
        await context.write(await self._do(context))
        await context.write(b"2")

    def in_thread_yields(self, request: Any, context: Any) -> Iterator[bytes]:
        yield self.in_thread(request, context)
        yield b"2"


def ask_aio(policy: Policy | None, do: Callable[[], Any], form: str = "one", **options: Any) -> Any:
    """Ask a server of grpc.aio whose handler has a form."""
    stream = form not in ("one", "in_thread")
    within = {name: options.pop(name) for name in ("within_s",) if name in options}

    async def main(pool: ThreadPoolExecutor) -> Any:
        guard = aio.ServerInterceptor(policy, **within)
        server = grpc.aio.server(pool, interceptors=[guard])
        kind = (
            grpc.unary_stream_rpc_method_handler if stream else grpc.unary_unary_rpc_method_handler
        )
        handler = kind(getattr(Handlers(do), form))
        handlers = grpc.method_handlers_generic_handler("shop.Stock", {"Level": handler})
        server.add_generic_rpc_handlers((handlers,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                options.setdefault("timeout", LONG_S)
                if stream:
                    call = channel.unary_stream(LEVEL)(b"a", **options)
                    return [answer async for answer in call]
                return await channel.unary_unary(LEVEL)(b"a", **options)
        finally:
            await server.stop(None)

    with ThreadPoolExecutor(2) as pool:
        return asyncio.run(main(pool))


@pytest.mark.parametrize("form", ["one", "in_thread"])
def test_a_code_that_is_only_said_is_a_failure_too(form: str) -> None:
    meter = Meter()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        ask_aio(meter, lambda: (Code.UNAVAILABLE, b""), form)
    assert caught.value.code() is Code.UNAVAILABLE
    assert meter.snapshot().failed == 1


FORMS = ["one", "in_thread", "yields", "writes", "in_thread_yields"]


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_an_asynchronous_handler_is_guarded(form: str) -> None:
    meter = Meter()
    got = ask_aio(meter, lambda: b"7", form)
    assert got == (b"7" if form in ("one", "in_thread") else [b"7", b"2"])
    assert meter.snapshot().ok == 1
    for code, failed in ((Code.NOT_FOUND, 0), (Code.UNAVAILABLE, 1)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            ask_aio(meter, lambda: code, form)  # noqa: B023
        assert caught.value.code() is code
        assert meter.snapshot().failed == failed
    assert meter.snapshot().ok == 2


@pytest.mark.parametrize("form", FORMS)
def test_each_is_refused_where_a_policy_says_so(form: str) -> None:
    called: list[int] = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        ask_aio(Shed(waited=lambda: 9.0), lambda: called.append(1), form)
    assert caught.value.code() is Code.UNAVAILABLE
    assert dict(caught.value.trailing_metadata())[PUSHBACK] == "1000"
    assert called == []


def test_a_stream_of_none() -> None:
    meter = Meter()
    assert ask_aio(meter, lambda: b"7", "yields_none") == []
    assert meter.snapshot().ok == 1


def test_at_the_deadline_an_asynchronous_handler_is_cancelled() -> None:
    ended: list[str] = []

    async def hang() -> bytes:
        try:
            await asyncio.sleep(LONG_S)
        finally:
            ended.append("cut")
        return b""

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        ask_aio(None, hang, within_s=0.2)
    assert caught.value.code() is Code.DEADLINE_EXCEEDED
    assert caught.value.details() == "request: over before the call was"
    assert ended == ["cut"]


def test_any_other_error_is_what_grpc_makes_of_it() -> None:
    async def fail() -> bytes:
        raise KeyError("mine")

    meter = Meter()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        ask_aio(meter, fail)
    assert caught.value.code() is Code.UNKNOWN
    assert meter.snapshot().failed == 1
