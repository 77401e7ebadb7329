"""Policies in real clients of HTTP: httpx, aiohttp, requests, urllib3."""

import asyncio
import copy
import pickle
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import aiohttp
import httpx
import pytest
import requests
import urllib3
from _server import Server, serving

from everup.tolerate import (
    Breaker,
    BreakerOpen,
    Consecutive,
    Deadline,
    DeadlineExceeded,
    Fallback,
    Hedge,
    Keyed,
    Pipeline,
    Policy,
    Retry,
    State,
    Timeout,
    priority,
)
from everup.tolerate.http import BadStatus, Exchange, Guard, Rules, retry_after
from everup.tolerate.http.aiohttp import Middleware
from everup.tolerate.http.httpx import AsyncTransport, Transport
from everup.tolerate.http.requests import Adapter
from everup.tolerate.http.urllib3 import Pool
from everup.tolerate.testing import FakeClock

Ask = Callable[..., tuple[int, str]]
ONE = httpx.Limits(max_connections=1)


def httpx_sync(policy: Policy, rules: Rules | None = None, **options: Any) -> Ask:
    def ask(method: str, url: str, **more: Any) -> tuple[int, str]:
        inner = httpx.HTTPTransport(limits=ONE)
        # One connection, and no wait for it: an answer that is not closed would be an error.
        limit = httpx.Timeout(30.0, pool=0.5)
        with httpx.Client(transport=Transport(policy, inner, rules=rules), timeout=limit) as client:
            answers = [client.request(method, url, **more) for _ in range(2)]
        return answers[0].status_code, answers[0].text

    return ask


def httpx_async(policy: Policy, rules: Rules | None = None, **options: Any) -> Ask:
    def ask(method: str, url: str, **more: Any) -> tuple[int, str]:
        async def main() -> tuple[int, str]:
            inner = httpx.AsyncHTTPTransport(
                limits=ONE if options.get("one", True) else httpx.Limits()
            )
            limit = httpx.Timeout(30.0, pool=0.5)
            transport = AsyncTransport(policy, inner, rules=rules)
            async with httpx.AsyncClient(transport=transport, timeout=limit) as client:
                answers = [await client.request(method, url, **more) for _ in range(2)]
            return answers[0].status_code, answers[0].text

        return asyncio.run(main())

    return ask


def by_aiohttp(policy: Policy, rules: Rules | None = None, **options: Any) -> Ask:
    def ask(method: str, url: str, content: Any = None, **more: Any) -> tuple[int, str]:
        async def main() -> tuple[int, str]:
            connector = aiohttp.TCPConnector(limit=1)
            async with aiohttp.ClientSession(
                connector=connector, middlewares=(Middleware(policy, rules=rules),)
            ) as session:
                found = []
                for _ in range(2):
                    async with asyncio.timeout(30):
                        async with session.request(method, url, data=content, **more) as answer:
                            found.append((answer.status, await answer.text()))
            return found[0]

        return asyncio.run(main())

    return ask


def by_requests(policy: Policy, rules: Rules | None = None, **options: Any) -> Ask:
    def ask(method: str, url: str, content: Any = None, **more: Any) -> tuple[int, str]:
        inner = requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=1, pool_block=True)
        with requests.Session() as session:
            session.mount("http://", Adapter(policy, inner, rules=rules))
            answers = [session.request(method, url, data=content, **more) for _ in range(2)]
        return answers[0].status_code, answers[0].text

    return ask


def by_urllib3(policy: Policy, rules: Rules | None = None, **options: Any) -> Ask:
    def ask(method: str, url: str, content: Any = None, **more: Any) -> tuple[int, str]:
        with urllib3.PoolManager(maxsize=1, block=True) as inner:
            pool = Pool(policy, inner, rules=rules)
            answers = [pool.request(method, url, body=content, **more) for _ in range(2)]
        return answers[0].status, answers[0].data.decode()

    return ask


CLIENTS = {
    "httpx": httpx_sync, "httpx async": httpx_async, "aiohttp": by_aiohttp,
    "requests": by_requests, "urllib3": by_urllib3,
}  # fmt: skip
Made = Callable[..., Ask]


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Made:
    return CLIENTS[request.param]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def methods(server: Server) -> list[str]:
    return [one[0] for one in server.requests]


# -- judging, closing, giving the last


def test_a_status_that_is_a_failure_is_repeated_and_the_answers_are_closed(
    client: Made, server: Server
) -> None:
    server.answers = [503, 502, 429, 504, 200]
    assert client(Retry(attempts=5, backoff=0))("GET", server.url) == (
        200, f"200 from {server.server_address[1]}",
    )  # fmt: skip
    assert len(server.requests) == 6  # and one by the second call


def test_the_last_answer_is_the_callers_whatever_it_is(client: Made, server: Server) -> None:
    server.answers = [500]
    status, text = client(Retry(attempts=3, backoff=0))("GET", server.url)
    assert status == 500
    assert text.startswith("500 from")
    assert len(server.requests) == 6


def test_statuses_are_yours_to_choose(client: Made, server: Server) -> None:
    server.answers = [404, 500]
    rules = Rules(statuses={404})
    assert client(Retry(attempts=3, backoff=0), rules)("GET", server.url)[0] == 500
    assert len(server.requests) == 3


def test_a_breaker_counts_statuses_and_its_rejection_comes_out(
    client: Made, server: Server
) -> None:
    server.answers = [503]
    breaker = Breaker("stock", trip=Consecutive(3))
    with pytest.raises(BreakerOpen):
        client(Pipeline(Retry(attempts=9, backoff=0), breaker))("GET", server.url)
    assert breaker.state is State.OPEN
    assert len(server.requests) == 3
    with pytest.raises(BreakerOpen):
        client(breaker)("GET", server.url)
    assert len(server.requests) == 3


@pytest.mark.parametrize("form", ["number", "date"])
def test_retry_after_is_waited_for(client: Made, server: Server, form: str) -> None:
    text = "7" if form == "number" else formatdate(time.time() + 7, usegmt=True)
    server.answers = [(503, {"Retry-After": text}), 200]
    waited: list[float] = []
    retry = Retry(attempts=2, backoff=0, max_delay_s=0.01)
    retry.subscribe(lambda event: waited.append(event.detail["error"].retry_after_s))
    assert client(retry)("GET", server.url)[0] == 200
    assert len(waited) == 1
    assert 5 <= waited[0] <= 7


# -- what may be repeated


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_idempotent_methods_are_repeated(client: Made, server: Server, method: str) -> None:
    server.answers = [503, 200]
    content = b"x" if method == "PUT" else None
    assert client(Retry(attempts=2, backoff=0))(method, server.url, content=content)[0] == 200
    assert methods(server) == [method] * 3
    if content:
        assert [one[3] for one in server.requests] == [content] * 3


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_others_are_not_but_the_breaker_counts_them(
    client: Made, server: Server, method: str
) -> None:
    server.answers = [503]
    breaker = Breaker(trip=Consecutive(2))
    ask = client(Pipeline(Retry(attempts=5, backoff=0), breaker))
    assert ask(method, server.url, content=b"x")[0] == 503
    assert methods(server) == [method] * 2  # two calls
    assert breaker.state is State.OPEN


def test_a_key_makes_a_post_one_that_may_be_repeated(client: Made, server: Server) -> None:
    server.answers = [503, 200]
    ask = client(Retry(attempts=2, backoff=0))
    assert ask("POST", server.url, content=b"x", headers={"Idempotency-Key": "1"})[0] == 200
    assert len(server.requests) == 3


def test_a_body_that_can_be_read_once_is_sent_once(client: Made, server: Server) -> None:
    server.answers = [503]

    def chunks() -> Iterator[bytes]:
        yield b"a"
        yield b"b"

    async def achunks() -> Any:
        yield b"a"
        yield b"b"

    ask = client(Retry(attempts=3, backoff=0))
    asynchronous = client in (httpx_async, by_aiohttp)
    with pytest.raises(Exception):  # noqa: B017, PT011, PT012 - the second call has nothing to send
        assert ask("PUT", server.url, content=achunks() if asynchronous else chunks())[0] == 503
        raise AssertionError
    assert server.requests[0][3] == b"ab"
    assert len(server.requests) <= 2


# -- what is sent on


def test_the_deadline_and_the_priority_are_sent_on_anew_each_time(
    client: Made, server: Server
) -> None:
    server.answers = [503, 200]
    token = priority.set(3)
    try:
        with Deadline(50.0):
            client(Retry(attempts=2, backoff=0.05))("GET", server.url)
    finally:
        priority.reset(token)
    first, second = (one[2] for one in server.requests[:2])
    assert first["priority"] == "u=3"
    left = [int(one["grpc-timeout"][:-1]) for one in (first, second)]
    assert left[0] > left[1]


def test_headers_of_the_callers_own_stay(client: Made, server: Server) -> None:
    own = {"grpc-timeout": "1S", "Priority": "u=6, i"}
    token = priority.set(3)
    try:
        with Deadline(50.0):
            client(Retry())("GET", server.url, headers=own)
            client(Retry(), Rules(tell=False))("GET", server.url)
    finally:
        priority.reset(token)
    assert (server.requests[0][2]["grpc-timeout"], server.requests[0][2]["priority"]) == (
        "1S", "u=6, i",
    )  # fmt: skip
    assert not {"grpc-timeout", "priority"} & set(server.requests[-1][2])


def test_nothing_is_sent_after_the_deadline(client: Made, server: Server) -> None:
    clock = FakeClock()
    with Deadline(5.0, clock=clock):
        clock.advance(6.0)
        with pytest.raises(DeadlineExceeded):
            client(Retry(attempts=1))("GET", server.url)
    assert server.requests == []


def test_a_server_that_hangs_is_given_up_at_the_deadline(client: Made, server: Server) -> None:
    server.answers = [-200]
    with pytest.raises(Exception) as caught, Deadline(0.3):  # noqa: PT011
        client(Pipeline(Timeout(0.3)))("GET", server.url)
    assert "imeout" in type(caught.value).__name__ or isinstance(caught.value, TimeoutError)
    server.hold.set()


# -- another host


def test_further_attempts_go_to_the_other_hosts_in_turn(client: Made, server: Server) -> None:
    with serving(503) as second, serving(503, 200) as third:
        server.answers = [503]
        rules = Rules(hosts=[second.origin, third.origin])
        ask = client(Retry(attempts=5, backoff=0), rules)
        assert ask("GET", server.url) == (200, f"200 from {third.server_address[1]}")
        assert len(second.requests) >= 2
        host = third.requests[0][2]["host"]
        assert host == f"127.0.0.1:{third.server_address[1]}"
        assert third.requests[0][1] == "/things?n=1"


@pytest.mark.parametrize("host", ["10.0.0.1", "ftp://a", "http://a/b", "http://u@a", "http://a?b"])
def test_hosts_that_are_none_are_refused(host: str) -> None:
    with pytest.raises(ValueError, match="expected origins"):
        Rules(hosts=[host])


def test_a_text_is_no_list_of_hosts() -> None:
    with pytest.raises(TypeError, match="must be a list"):
        Rules(hosts="http://a")


@pytest.mark.parametrize("made", [httpx_async, httpx_sync, by_requests, by_urllib3])
def test_a_hedge_goes_elsewhere_and_the_loser_is_closed(made: Made) -> None:
    with serving(-200) as slow, serving(200) as quick:
        threads = {"threads": 4} if made is not httpx_async else {}
        hedge = Hedge(0.05, **threads)  # type: ignore[arg-type]
        rules = Rules(hosts=[quick.origin])
        if made is httpx_sync:

            def ask(method: str, url: str) -> tuple[int, str]:
                with httpx.Client(transport=Transport(hedge, rules=rules)) as client:
                    answer = client.request(method, url)
                    slow.hold.set()
                    while hedge.losers:
                        time.sleep(0.01)
                return answer.status_code, answer.text
        else:
            ask = made(hedge, rules, one=False)  # type: ignore[assignment]
        assert ask("GET", slow.url)[1] == f"200 from {quick.server_address[1]}"
        slow.hold.set()
        while hedge.losers:
            time.sleep(0.01)


def test_aiohttp_sends_no_request_twice_at_once() -> None:
    for policy in (Hedge(1), Pipeline(Retry(), Hedge(1))):
        with pytest.raises(TypeError, match="twice at once"):
            Middleware(policy)


# -- odds and ends


def test_what_a_key_sees(client: Made, server: Server) -> None:
    seen: list[Exchange] = []

    def key(exchange: Exchange) -> str:
        seen.append(exchange)
        return exchange.host

    keyed = Keyed(lambda host: Breaker(host), key=key)
    client(Pipeline(Retry(), keyed))("GET", server.url)
    assert (seen[0].host, seen[0].method, seen[0].url) == ("127.0.0.1", "GET", server.url)
    assert list(keyed.policies()) == ["127.0.0.1"]


def test_only_a_policy_guards() -> None:
    with pytest.raises(TypeError, match="expected a policy"):
        Guard(5, lambda exchange: None)  # type: ignore[arg-type]


def test_an_answer_that_was_given_up_is_not_given_to_the_caller(server: Server) -> None:
    """The second attempt is begun and not made: the first answer is closed by then."""
    server.answers = [503]
    begun: list[int] = []

    def second(exchange: Exchange) -> None:
        begun.append(exchange.number)

    class Inner(httpx.BaseTransport):
        def __init__(self) -> None:
            self.inner = httpx.HTTPTransport()

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if begun:
                raise BadStatus(503, None)
            begun.append(1)
            return self.inner.handle_request(request)

    transport = Transport(Retry(attempts=2, backoff=0), Inner())
    with httpx.Client(transport=transport) as client, pytest.raises(BadStatus) as bad:
        client.get(server.url)
    assert bad.value.status == 503


def test_what_was_not_answered_may_fall_back(server: Server) -> None:
    server.answers = [503]
    plan_b = Fallback(function=lambda error, exchange: httpx.Response(200, text="plan B"))
    with httpx.Client(
        transport=Transport(Pipeline(plan_b, Retry(attempts=2, backoff=0)))
    ) as client:
        assert client.get(server.url).text == "plan B"
        assert client.post(server.url).text == "plan B"


def test_urllib3_takes_no_retries_of_its_own(server: Server) -> None:
    pool = Pool(Retry())
    with pytest.raises(TypeError, match="both would multiply"):
        pool.request("GET", server.url, retries=3)
    assert pool.request("GET", server.url, timeout=urllib3.Timeout(5)).status == 200


def test_requests_takes_a_timeout_of_any_form(server: Server) -> None:
    with requests.Session() as session:
        session.mount("http://", Adapter(Retry()))
        for timeout in (None, 5, (5, 5), urllib3.Timeout(5)):
            assert session.get(server.url, timeout=timeout).status_code == 200


def test_httpx_timeouts_are_no_longer_than_what_is_left(server: Server) -> None:
    seen: list[Any] = []

    class Inner(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            seen.append(request.extensions["timeout"])
            return super().handle_request(request)

    with httpx.Client(transport=Transport(Retry(), Inner()), timeout=7.0) as client, Deadline(5.0):
        client.get(server.url)
        client.get(server.url, timeout=httpx.Timeout(None, connect=1.0))
    assert max(seen[0].values()) <= 5.0
    assert seen[1]["connect"] == 1.0
    assert seen[1]["read"] <= 5.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, None), ("", None), ("7", 7.0), (" 12 ", 12.0), ("1" * 12, None), ("soon", None),
     ("-1", None), ("1.5", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("x" * 99, None),
     ("Wed, 21 Foo 2015 07:28:00 GMT", None), ("Fri, 31 Dec 99999 23:59:59 GMT", None)],
)  # fmt: skip
def test_what_a_retry_after_says(text: str | None, seconds: float | None) -> None:
    found = retry_after(text)
    assert found == seconds or (found is not None and found > 1e9)


def test_a_date_in_the_future() -> None:
    found = retry_after(formatdate(time.time() + 100, usegmt=True))
    assert found is not None
    assert 95 <= found <= 100


def test_a_bad_status_travels_without_its_answer() -> None:
    bad = BadStatus(503, object(), 2.0)
    bad.add_note("tried twice")
    for other in (copy.copy(bad), pickle.loads(pickle.dumps(bad))):
        assert (other.status, other.answer, other.retry_after_s) == (503, None, 2.0)
        assert str(other) == "status 503"
        assert other.__notes__ == ["tried twice"]
    assert not hasattr(copy.copy(BadStatus(500)), "__notes__")


def test_closing_a_client_closes_what_is_inside(server: Server) -> None:
    client = httpx.Client(transport=Transport(Retry()))
    assert client.get(server.url).status_code == 200
    client.close()

    async def main() -> None:
        client = httpx.AsyncClient(transport=AsyncTransport(Retry()))
        assert (await client.get(server.url)).status_code == 200
        await client.aclose()

    asyncio.run(main())
