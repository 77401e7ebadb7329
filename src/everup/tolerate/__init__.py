"""What a service needs within itself so that a dependency that fails does not take it down.

Policies, each alone or several in a ``Pipeline``, for functions and ``async def`` alike::

    from everup.tolerate import Breaker, Fallback, Pipeline, Retry, Timeout

    guard = Pipeline(Fallback([]), Retry(attempts=3), Breaker(), Timeout(1.0))

    @guard
    async def orders(customer: int) -> list[str]:
        return await client.get(f"/orders/{customer}")

    await guard.acall(client.get, "/prices")  # or one call at a time

``Retry`` (with a ``RetryBudget``), ``Breaker``, ``Timeout``, ``Deadline``, ``Bulkhead``, ``Limit``,
``RateLimit``, ``Shed``, ``Hedge``, ``Fallback``, ``Vote``, ``Chaos``; ``Keyed`` makes one for each
key, ``Meter`` counts, ``pipelines`` reads them from a file, and ``testing`` has the clock for your
tests. Standard library alone. Each name is loaded when it is first used.
"""

TYPE_CHECKING = False  # checkers take it for True; importing typing costs more than all of this
if TYPE_CHECKING:
    from everup.tolerate import backoff, testing
    from everup.tolerate._attempts import Attempt, Attempts, attempt
    from everup.tolerate._base import Event, Listener, Policy
    from everup.tolerate._clock import Clock
    from everup.tolerate._estimators import AIMD, Estimator, Gradient2, Vegas
    from everup.tolerate._outcome import Errors, Judge, Outcome
    from everup.tolerate._permit import Permit
    from everup.tolerate._windows import (
        Consecutive,
        Counts,
        CountWindow,
        Growing,
        State,
        TimeWindow,
        Why,
    )
    from everup.tolerate.breaker import Breaker
    from everup.tolerate.budget import RetryBudget
    from everup.tolerate.bulkhead import Bulkhead
    from everup.tolerate.chaos import Chaos
    from everup.tolerate.deadline import (
        Deadline,
        carry,
        check,
        deadline_at,
        headers,
        parse_grpc_timeout,
        remaining,
    )
    from everup.tolerate.errors import (
        BreakerOpen,
        BulkheadFull,
        ChaosError,
        DeadlineExceeded,
        LimitReached,
        NoQuorum,
        Overloaded,
        RateLimited,
        Rejected,
        TimedOut,
    )
    from everup.tolerate.fallback import Fallback
    from everup.tolerate.hedge import Hedge
    from everup.tolerate.keyed import Keyed
    from everup.tolerate.limit import Limit, LimitPermit
    from everup.tolerate.meter import Meter, Snapshot
    from everup.tolerate.pipeline import Pipeline
    from everup.tolerate.rate import RateLimit
    from everup.tolerate.retry import Retry
    from everup.tolerate.shed import Shed, ShedPermit, arrived, priority
    from everup.tolerate.table import Problem, TableError, pipelines
    from everup.tolerate.timeout import Timeout
    from everup.tolerate.vote import Vote

__all__ = [
    "AIMD",
    "Attempt",
    "Attempts",
    "Breaker",
    "BreakerOpen",
    "Bulkhead",
    "BulkheadFull",
    "Chaos",
    "ChaosError",
    "Clock",
    "Consecutive",
    "CountWindow",
    "Counts",
    "Deadline",
    "DeadlineExceeded",
    "Errors",
    "Estimator",
    "Event",
    "Fallback",
    "Gradient2",
    "Growing",
    "Hedge",
    "Judge",
    "Keyed",
    "Limit",
    "LimitPermit",
    "LimitReached",
    "Listener",
    "Meter",
    "NoQuorum",
    "Outcome",
    "Overloaded",
    "Permit",
    "Pipeline",
    "Policy",
    "Problem",
    "RateLimit",
    "RateLimited",
    "Rejected",
    "Retry",
    "RetryBudget",
    "Shed",
    "ShedPermit",
    "Snapshot",
    "State",
    "TableError",
    "TimeWindow",
    "TimedOut",
    "Timeout",
    "Vegas",
    "Vote",
    "Why",
    "arrived",
    "attempt",
    "backoff",
    "carry",
    "check",
    "deadline_at",
    "headers",
    "parse_grpc_timeout",
    "pipelines",
    "priority",
    "remaining",
    "testing",
]

_FROM = {
    "_attempts": "Attempt Attempts attempt",
    "_base": "Event Listener Policy",
    "_clock": "Clock",
    "_estimators": "AIMD Estimator Gradient2 Vegas",
    "_outcome": "Errors Judge Outcome",
    "_windows": "Consecutive CountWindow Counts Growing State TimeWindow Why",
    "_permit": "Permit",
    "breaker": "Breaker",
    "budget": "RetryBudget",
    "bulkhead": "Bulkhead",
    "chaos": "Chaos",
    "deadline": "Deadline carry check deadline_at headers parse_grpc_timeout remaining",
    "errors": "BreakerOpen BulkheadFull ChaosError DeadlineExceeded LimitReached NoQuorum"
    " Overloaded RateLimited Rejected TimedOut",
    "fallback": "Fallback",
    "hedge": "Hedge",
    "keyed": "Keyed",
    "limit": "Limit LimitPermit",
    "meter": "Meter Snapshot",
    "pipeline": "Pipeline",
    "rate": "RateLimit",
    "retry": "Retry",
    "shed": "Shed ShedPermit arrived priority",
    "table": "Problem TableError pipelines",
    "timeout": "Timeout",
    "vote": "Vote",
}
_WHERE = {name: module for module, names in _FROM.items() for name in names.split()}


# Not for checkers: they would take any name for one.
if not TYPE_CHECKING:  # pragma: no branch

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name in ("backoff", "testing"):
            return import_module(f"{__name__}.{name}")
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found: object = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
        globals()[name] = found  # so that it is looked up once
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
