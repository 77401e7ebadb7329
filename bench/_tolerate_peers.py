"""The other libraries in bench/tolerate.py: for each what gives its policies, set up for the same
work. No waits, no log handlers, no limit that is reached; where a library has several ways to do
it, the quickest. Each function imports its library, so that one which is not there costs its column
only; keys are those of the rows, and ``_async`` at the end is for coroutine functions."""

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from _tolerate_ideal import (
    ATTEMPTS,
    FAILURES,
    LEAST,
    MANY,
    OPEN_S,
    PLACES,
    QUEUE,
    RATE,
    SIZE,
    SLOW_S,
    TIMEOUT_S,
)

Wrap = Callable[[Any], Any]


def both(key: str, wrap: Wrap) -> dict[str, Wrap]:
    return {key: wrap, f"{key}_async": wrap}


def tenacity() -> dict[str, Wrap]:
    from tenacity import retry, stop_after_attempt, wait_none

    def plain(call: Any) -> Any:
        return retry(stop=stop_after_attempt(ATTEMPTS), wait=wait_none(), reraise=True)(call)

    return both("retry", plain)


def stamina() -> dict[str, Wrap]:
    import stamina

    stamina.instrumentation.set_on_retry_hooks([])  # else it logs each retry

    def plain(call: Any) -> Any:
        return stamina.retry(
            on=Exception,
            attempts=ATTEMPTS,
            timeout=None,
            wait_initial=0.0,
            wait_max=0.0,
            wait_jitter=0.0,
        )(call)

    return both("retry", plain)


def backoff() -> dict[str, Wrap]:
    import backoff

    def plain(call: Any) -> Any:
        return backoff.on_exception(
            backoff.constant, Exception, max_tries=ATTEMPTS, jitter=None, logger=None, interval=0
        )(call)

    return both("retry", plain)


def pybreaker() -> dict[str, Wrap]:
    import pybreaker

    def plain(call: Any) -> Any:
        return pybreaker.CircuitBreaker(fail_max=FAILURES, reset_timeout=OPEN_S)(call)

    return {"breaker": plain}  # around ``async def`` it never trips


def aiobreaker() -> dict[str, Wrap]:
    import aiobreaker

    def plain(call: Any) -> Any:
        return aiobreaker.CircuitBreaker(
            fail_max=FAILURES, timeout_duration=timedelta(seconds=OPEN_S)
        )(call)

    return both("breaker", plain)


def circuitbreaker() -> dict[str, Wrap]:
    from circuitbreaker import CircuitBreaker

    def plain(call: Any) -> Any:
        return CircuitBreaker(failure_threshold=FAILURES, recovery_timeout=OPEN_S)(call)

    return both("breaker", plain)


def purgatory() -> dict[str, Wrap]:
    from purgatory import AsyncCircuitBreakerFactory, SyncCircuitBreakerFactory

    def plain(call: Any) -> Any:
        return SyncCircuitBreakerFactory(FAILURES, OPEN_S)("bench")(call)

    def plain_async(call: Any) -> Any:
        return AsyncCircuitBreakerFactory(FAILURES, OPEN_S)("bench")(call)

    return {"breaker": plain, "breaker_async": plain_async}


def hyx() -> dict[str, Wrap]:
    from hyx.bulkhead import bulkhead
    from hyx.circuitbreaker import consecutive_breaker
    from hyx.ratelimit import tokenbucket
    from hyx.retry import retry
    from hyx.timeout import timeout

    def retried(call: Any) -> Any:
        # Its ``attempts`` are those after the first.
        return retry(on=Exception, attempts=ATTEMPTS - 1, backoff=0.0)(call)

    def broken(call: Any) -> Any:
        return consecutive_breaker(failure_threshold=FAILURES, recovery_time_secs=OPEN_S)(call)

    def timed(call: Any) -> Any:
        # As a block: its decorator makes a task for each call and takes three times as long.
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            async with timeout(TIMEOUT_S):
                return await call(*args, **kwargs)

        return guarded

    return {
        "retry_async": retried,
        "breaker_async": broken,
        "timeout_async": timed,
        "bulkhead_async": bulkhead(PLACES, PLACES + QUEUE),
        "rate_async": lambda call: tokenbucket(MANY, 1.0)(call),
        "pipeline_async": lambda call: retried(broken(timed(call))),
    }


def pyresilience() -> dict[str, Wrap]:
    from pyresilience import (
        BulkheadConfig,
        CircuitBreakerConfig,
        MetricsCollector,
        RateLimiterConfig,
        RetryBudgetConfig,
        RetryConfig,
        TimeoutConfig,
        resilient,
    )

    retry = RetryConfig(max_attempts=ATTEMPTS, delay=0.0, jitter=False)
    budget = RetryBudgetConfig(max_retries=MANY, refill_rate=MANY)
    row = CircuitBreakerConfig(failure_threshold=FAILURES, recovery_timeout=OPEN_S)
    window = CircuitBreakerConfig(
        recovery_timeout=OPEN_S,
        sliding_window_size=SIZE,
        failure_rate_threshold=RATE,
        minimum_calls=LEAST,
        slow_call_duration=SLOW_S,
        slow_call_rate_threshold=RATE,
    )
    timeout = TimeoutConfig(seconds=TIMEOUT_S)
    places = BulkheadConfig(max_concurrent=PLACES)
    rate = RateLimiterConfig(max_calls=MANY, period=1.0)

    def all_three(call: Any, **more: Any) -> Any:
        return resilient(retry=retry, circuit_breaker=row, timeout=timeout, **more)(call)

    return {
        **both("retry", lambda call: resilient(retry=retry)(call)),
        **both("budget", lambda call: resilient(retry=retry, retry_budget=budget)(call)),
        **both("breaker", lambda call: resilient(circuit_breaker=row)(call)),
        **both("window", lambda call: resilient(circuit_breaker=window)(call)),
        "thread": lambda call: resilient(timeout=timeout)(call),
        "timeout_async": lambda call: resilient(timeout=timeout)(call),
        **both("bulkhead", lambda call: resilient(bulkhead=places)(call)),
        **both("rate", lambda call: resilient(rate_limiter=rate)(call)),
        **both("pipeline", all_three),
        **both("metered", lambda call: all_three(call, listeners=[MetricsCollector()])),
    }


def stdlib() -> dict[str, Wrap]:
    """``asyncio.timeout`` and semaphores."""

    def timed(call: Any) -> Any:
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            async with asyncio.timeout(TIMEOUT_S):
                return await call(*args, **kwargs)

        return guarded

    def placed(call: Any) -> Any:
        places = threading.Semaphore(PLACES)

        def guarded(*args: Any, **kwargs: Any) -> Any:
            with places:
                return call(*args, **kwargs)

        return guarded

    def placed_async(call: Any) -> Any:
        places = asyncio.Semaphore(PLACES)

        async def guarded(*args: Any, **kwargs: Any) -> Any:
            async with places:
                return await call(*args, **kwargs)

        return guarded

    return {"timeout_async": timed, "bulkhead": placed, "bulkhead_async": placed_async}


def stack() -> dict[str, Wrap]:
    """tenacity around circuitbreaker around ``asyncio.timeout``: what one puts together of them."""
    around, inside, within = tenacity()["retry"], circuitbreaker()["breaker"], stdlib()

    def three(call: Any) -> Any:
        return around(inside(within["timeout_async"](call)))

    return {"pipeline_async": three}


PEERS: dict[str, Callable[[], dict[str, Wrap]]] = {
    "tenacity": tenacity,
    "stamina": stamina,
    "backoff": backoff,
    "pybreaker": pybreaker,
    "aiobreaker": aiobreaker,
    "circuitbreaker": circuitbreaker,
    "purgatory": purgatory,
    "hyx": hyx,
    "pyresilience": pyresilience,
    "stdlib": stdlib,
    "tenacity stack": stack,
}
LIBRARIES = [name for name in PEERS if name not in ("stdlib", "tenacity stack")]


def load() -> tuple[dict[str, dict[str, Wrap]], dict[str, str]]:
    """What is there, and the versions; a library that is not: ``not installed``."""
    from importlib.metadata import PackageNotFoundError, version

    found, versions = {}, {}
    for name, give in PEERS.items():
        try:
            found[name] = give()
        except ImportError:
            versions[name] = "not installed"
            continue
        if name in LIBRARIES:
            try:
                versions[name] = version(name)
            except PackageNotFoundError:
                versions[name] = "?"
    return found, versions
