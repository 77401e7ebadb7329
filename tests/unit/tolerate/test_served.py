"""The middlewares for ASGI and WSGI: with Starlette and plain apps, over httpx."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware as Layer
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from everup.tolerate import (
    Breaker,
    BreakerOpen,
    Bulkhead,
    Consecutive,
    Deadline,
    Meter,
    Pipeline,
    Policy,
    RateLimited,
    Shed,
    State,
    TimedOut,
    Timeout,
    arrived,
    asgi,
    check,
    deadline_at,
    priority,
    remaining,
    wsgi,
)
from everup.tolerate._served import _urgency
from everup.tolerate.http._dates import waited_s
from everup.tolerate.testing import FakeClock

Handler = Callable[[], Any]
Ask = Callable[..., httpx.Response]


def starlette(
    handler: Handler, policy: Policy | None = None, inside: bool = False, **o: Any
) -> Ask:
    async def endpoint(_request: Request) -> Any:
        found = handler()
        if asyncio.iscoroutine(found):
            found = await found
        return found if isinstance(found, PlainTextResponse) else PlainTextResponse(str(found))

    layers = [Layer(asgi.Middleware, policy=policy, **o)] if inside else []  # type: ignore[arg-type]
    inner: Any = Starlette(routes=[Route("/", endpoint)], middleware=layers)
    app = inner if inside else asgi.Middleware(inner, policy, **o)

    def ask(**headers: str) -> httpx.Response:
        async def main() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.get("/", headers=sent)

        return asyncio.run(main())

    return ask


def starlette_inside(handler: Handler, policy: Policy | None = None, **options: Any) -> Ask:
    return starlette(handler, policy, True, **options)


def plain_wsgi(handler: Handler, policy: Policy | None = None, **options: Any) -> Ask:
    def app(environ: Any, start_response: Any) -> Any:
        found = handler()
        status = found.status_code if isinstance(found, PlainTextResponse) else 200
        text = found.body if isinstance(found, PlainTextResponse) else str(found).encode()
        start_response(f"{status} Whatever", [("Content-Length", str(len(text)))])
        return [text]

    guarded = wsgi.Middleware(app, policy, **options)

    def ask(**headers: str) -> httpx.Response:
        transport = httpx.WSGITransport(guarded, raise_app_exceptions=False)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        with httpx.Client(transport=transport, base_url="http://test") as client:
            try:
                return client.get("/", headers=sent)
            except ValueError:  # what a server does with it
                return httpx.Response(500)

    return ask


SERVERS = {"starlette": starlette, "starlette inside": starlette_inside, "wsgi": plain_wsgi}


@pytest.fixture(params=SERVERS)
def serve(request: pytest.FixtureRequest) -> Callable[..., Ask]:
    return SERVERS[request.param]


def raising(error: Callable[[], BaseException]) -> Handler:
    def handler() -> None:
        raise error()

    return handler


# -- what a request says


def test_without_anything_it_passes(serve: Any) -> None:
    answer = serve(lambda: f"{remaining()} {priority.get(None)}")()
    assert (answer.status_code, answer.text) == (200, "None None")


def test_arrival_priority_and_deadline_are_there_and_gone_afterwards(serve: Any) -> None:
    seen: list[Any] = []

    def handler() -> str:
        seen.append((arrived.get(), priority.get(), remaining()))
        return "fine"

    before = time.monotonic()
    assert serve(handler)(priority="u=5, i", grpc_timeout="20S").text == "fine"
    ((at, level, left),) = seen
    assert before <= at <= time.monotonic()
    assert level == 5
    assert 15 < left <= 20
    assert arrived.get(None) is None
    assert priority.get(None) is None
    assert deadline_at() is None


@pytest.mark.parametrize(
    ("header", "within_s", "most"),
    [("20S", None, 20), ("20S", 5, 5), ("2S", 5, 2), (None, 5, 5), ("nonsense", 5, 5)],
)
def test_the_earlier_deadline_counts(serve: Any, header: Any, within_s: Any, most: float) -> None:
    headers = {} if header is None else {"grpc_timeout": header}
    left = float(serve(lambda: remaining(), within_s=within_s)(**headers).text)
    assert most - 2 < left <= most


@pytest.mark.parametrize("unit", [1, 1e3, 1e6])
@pytest.mark.parametrize("prefix", ["", "t="])
def test_a_proxy_may_say_when_it_came(serve: Any, unit: float, prefix: str) -> None:
    text = f"{prefix}{(time.time() - 10) * unit:.0f}"
    ask = serve(lambda: f"{time.monotonic() - arrived.get()} {remaining()}",
                arrival="X-Request-Start", within_s=30)  # fmt: skip
    waited, left = map(float, ask(X_Request_Start=text).text.split())
    assert 9 < waited < 15
    assert 15 < left < 21


@pytest.mark.parametrize("text", ["", "soon", "t=", "nan", "12", "inf", "99999999999999999999"])
def test_nonsense_is_no_wait(text: str) -> None:
    assert waited_s(lambda name: text, "x") == 0.0


def test_a_header_that_is_not_named_is_not_believed(serve: Any) -> None:
    ask = serve(lambda: time.monotonic() - arrived.get())
    assert float(ask(X_Request_Start=str(time.time() - 100)).text) < 50


@pytest.mark.parametrize(
    ("text", "level"),
    [
        (None, None),
        ("u=0", 0),
        ("i, u=7", 7),
        ("u=8", 3),
        ("u=-1", 3),
        ("u=", 3),
        ("", 3),
        ("i", 3),
    ],
)
def test_priorities(text: str | None, level: int | None) -> None:
    assert _urgency(text) == level


# -- what is answered


@pytest.mark.parametrize(
    ("error", "after"),
    [
        (lambda: BreakerOpen("db", "open", 6.2), "7"),
        (lambda: RateLimited("quota", "too many", 0.01), "1"),
        (lambda: BreakerOpen("db", "isolated"), "3"),
    ],
)
def test_a_rejection_is_a_503_wherever_it_comes_from(serve: Any, error: Any, after: str) -> None:
    answer = serve(raising(error), retry_after_s=3)()
    assert (answer.status_code, answer.text) == (503, "Service Unavailable\n")
    assert answer.headers["retry-after"] == after


def test_what_came_too_late_is_shed(serve: Any) -> None:
    made: list[int] = []
    ask = serve(lambda: made.append(1), Shed(max_wait_s=1.0), arrival="x-start")
    assert ask(X_Start=str(time.time())).status_code == 200
    answer = ask(X_Start=str(time.time() - 30))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert made == [1]


def test_what_matters_little_is_shed(serve: Any) -> None:
    ask = serve(lambda: "fine", Shed("priority", load=lambda: 0.95))
    assert ask(priority="u=7").status_code == 503
    assert ask(priority="u=0").status_code == 200


@pytest.mark.parametrize("error", [lambda: TimedOut("db"), lambda: None])
def test_what_takes_too_long_is_a_504(serve: Any, error: Any) -> None:
    def handler() -> None:
        if (raised := error()) is not None:
            raise raised
        with Deadline(5.0, clock=(clock := FakeClock())):
            clock.advance(6.0)
            check()

    answer = serve(handler)()
    assert (answer.status_code, answer.text) == (504, "Gateway Timeout\n")
    assert "retry-after" not in answer.headers


def test_a_request_whose_client_has_given_up_is_not_served(serve: Any) -> None:
    made: list[int] = []
    ask = serve(lambda: made.append(1), arrival="x-start")
    assert ask(grpc_timeout="2S", X_Start=str(time.time() - 10)).status_code == 504
    assert made == []


@pytest.mark.parametrize("serve", [starlette, starlette_inside])
def test_an_asynchronous_handler_is_cut_off_at_the_deadline(serve: Any) -> None:
    ended: list[str] = []

    async def handler() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cut")

    assert serve(lambda: handler(), within_s=0.05)().status_code == 504
    assert ended == ["cut"]


def test_other_errors_are_answered_as_without_it(serve: Any) -> None:
    answer = serve(raising(lambda: ValueError("x")))()
    assert answer.status_code == 500


# -- what the policy sees


@pytest.mark.parametrize(
    "handler", [raising(lambda: ValueError("x")), lambda: PlainTextResponse("no", 500),
                lambda: PlainTextResponse("no", 503)],
)  # fmt: skip
def test_a_500_is_a_failure_for_the_policy_whoever_answered_it(serve: Any, handler: Any) -> None:
    breaker, meter = Breaker(trip=Consecutive(2)), Meter()
    ask = serve(handler, Pipeline(meter, breaker))
    for _ in range(2):
        assert ask().status_code >= 500
    assert breaker.state is State.OPEN
    answer = ask()
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 20
    assert (meter.snapshot().failed, meter.snapshot().rejected) == (2, 1)


def test_answers_are_as_they_were(serve: Any) -> None:
    for status in (200, 404, 429, 500, 503):
        answer = serve(lambda status=status: PlainTextResponse("that", status), Bulkhead(2))()
        assert (answer.status_code, answer.text) == (status, "that")


def test_a_place_is_held_while_a_request_is_served(serve: Any) -> None:
    bulkhead = Bulkhead(1)
    ask = serve(lambda: bulkhead.in_use, bulkhead)
    assert ask().text == "1"
    with bulkhead:
        assert ask().status_code == 503
    assert bulkhead.in_use == 0


@pytest.mark.parametrize("made", [asgi.Middleware, wsgi.Middleware])
def test_options_that_make_no_sense(made: Any) -> None:
    with pytest.raises(TypeError, match="expected a policy"):
        made(len, 5)
    with pytest.raises(TypeError, match="name of a header"):
        made(len, arrival=5)
    with pytest.raises(ValueError, match="within_s"):
        made(len, within_s=0)
    with pytest.raises(ValueError, match="retry_after_s"):
        made(len, retry_after_s=-1)


# -- ASGI alone


def run_asgi(app: Any, scope: dict[str, Any]) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.sleep(3600)

    asyncio.run(app(scope, receive, send))
    return sent


HTTP = {"type": "http", "method": "GET", "path": "/", "headers": [(b"X-Other", b"1")]}


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_all_but_http_passes_untouched(kind: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": f"{kind}.anything"})

    closed = Bulkhead(1)
    with closed:
        sent = run_asgi(asgi.Middleware(app, closed), {"type": kind})
    assert sent == [{"type": f"{kind}.anything"}]


def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        raise TimedOut("db")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> Any: ...

    with pytest.raises(TimedOut):
        asyncio.run(asgi.Middleware(app)(dict(HTTP), receive, send))
    assert sent == ["http.response.start", "http.response.body"]


def test_a_long_answer_of_500_is_not_held_for_ever() -> None:
    begun: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        for _ in range(9):
            await send({"type": "http.response.body", "body": b"x" * 60_000, "more_body": True})
            begun.append(len(sent))
        raise BreakerOpen("db", "open")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any: ...

    with pytest.raises(BreakerOpen):
        asyncio.run(asgi.Middleware(app)(dict(HTTP), receive, send))
    assert begun[0] == 0
    assert begun[-1] == 10
    assert [one["status"] for one in sent if "status" in one] == [500]


def test_a_stream_is_passed_on_as_it_comes() -> None:
    async def body() -> Any:
        for part in ("a", "b", "c"):
            yield part

    async def endpoint(_request: Request) -> Any:
        return StreamingResponse(body())

    app = asgi.Middleware(Starlette(routes=[Route("/", endpoint)]), Timeout(5.0))
    sent = run_asgi(app, {**HTTP, "query_string": b"", "root_path": "", "http_version": "1.1"})
    assert [one.get("body") for one in sent] == [None, b"a", b"b", b"c", b""]


def test_a_cancelled_request_is_neutral() -> None:
    meter = Meter()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    with contextlib.suppress(asyncio.CancelledError):
        run_asgi(asgi.Middleware(app, meter), dict(HTTP))
    assert meter.snapshot().neutral == 1


# -- WSGI alone


def run_wsgi(app: Any) -> tuple[list[str], bytes]:
    said: list[str] = []
    written: list[bytes] = []

    def start_response(status: str, headers: Any, *error: Any) -> Any:
        said.append(status)
        return written.append

    body = wsgi.Middleware(app)({"REQUEST_METHOD": "GET"}, start_response)
    return said, b"".join([*written, *body])


def test_an_app_that_begins_as_its_body_is_read() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        yield b"a"

    assert run_wsgi(app) == (["200 OK"], b"a")


def test_an_app_that_writes() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [])
        write(b"a")
        write(b"b")
        return [b"c"]

    assert run_wsgi(app) == (["200 OK"], b"abc")


def test_an_app_that_has_written_and_fails() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])(b"a")
        raise TimedOut("db")

    with pytest.raises(TimedOut):
        run_wsgi(app)


def test_an_app_that_corrects_itself() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        start_response("404 Not Found", [], (None, None, None))
        return [b"none"]

    assert run_wsgi(app) == (["404 Not Found"], b"none")
