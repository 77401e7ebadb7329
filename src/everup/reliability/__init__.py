"""The mathematics of failures: rates, repair times, availability, lifetimes and trends.

Pure functions on numbers: no clock, no hidden randomness, no files. Times are in seconds, rates
per second, confidence a fraction such as 0.95::

    from everup import reliability

    reliability.mttf_s(3, 86400.0)  # seconds between failures after 3 in a day: with its interval
    reliability.blocks.steady_state(...)

The names here are those used most, each loaded when it is first used; the rest is in the modules,
``account`` to ``trees``. numpy and scipy are imported by the functions that need them, never by
importing this package.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from everup.reliability import (
        account,
        actions,
        availability,
        blocks,
        growth,
        history,
        importance,
        interval,
        lifetimes,
        markov,
        plan,
        rates,
        rejuvenation,
        repair,
        repairable,
        simulate,
        slo,
        trees,
    )
    from everup.reliability.availability import (
        downtime_s_per_year,
        exponential_interval,
        lognormal_interval,
        request_availability,
        service_availability,
    )
    from everup.reliability.blocks import KofN, Parallel, Series, Unit, from_graph
    from everup.reliability.growth import Window, laplace_test, power_law, trend
    from everup.reliability.interval import Interval
    from everup.reliability.lifetimes import kaplan_meier, weibull
    from everup.reliability.markov import Chain
    from everup.reliability.rates import compare_rates, failure_rate, mttf_s
    from everup.reliability.repair import (
        Recovery,
        bootstrap,
        lognormal_median,
        quantile_interval,
        recovery_summary,
    )
    from everup.reliability.repairable import Group, k_of_n, solve, standby
    from everup.reliability.slo import budget, burn_rate
    from everup.reliability.trees import (
        And,
        Basic,
        Not,
        Or,
        Vote,
        minimal_cut_sets,
        top_probability,
    )

__all__ = [
    "And", "Basic", "Chain", "Group", "Interval", "KofN", "Not", "Or", "Parallel", "Recovery",
    "Series", "Unit", "Vote", "Window", "account", "actions", "availability", "blocks",
    "bootstrap", "budget", "burn_rate", "compare_rates", "downtime_s_per_year",
    "exponential_interval", "failure_rate", "from_graph", "growth", "history", "importance",
    "interval", "k_of_n", "kaplan_meier", "laplace_test", "lifetimes", "lognormal_interval",
    "lognormal_median", "markov", "minimal_cut_sets", "mttf_s", "plan", "power_law",
    "quantile_interval", "rates", "recovery_summary", "rejuvenation", "repair", "repairable",
    "request_availability", "service_availability", "simulate", "slo", "solve", "standby",
    "top_probability", "trees", "trend", "weibull",
]  # fmt: skip

_NAMES = {
    "availability": "downtime_s_per_year exponential_interval lognormal_interval "
    "request_availability service_availability",
    "blocks": "KofN Parallel Series Unit from_graph",
    "growth": "Window laplace_test power_law trend",
    "interval": "Interval",
    "lifetimes": "kaplan_meier weibull",
    "markov": "Chain",
    "rates": "compare_rates failure_rate mttf_s",
    "repair": "Recovery bootstrap lognormal_median quantile_interval recovery_summary",
    "repairable": "Group k_of_n solve standby",
    "slo": "budget burn_rate",
    "trees": "And Basic Not Or Vote minimal_cut_sets top_probability",
}
_EXPORTS = {name: module for module, names in _NAMES.items() for name in names.split()}
"""Public name -> the submodule that defines it; what is in ``__all__`` besides is a submodule."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name not in _EXPORTS:
        return import_module(f"{__name__}.{name}")
    value: object = getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
