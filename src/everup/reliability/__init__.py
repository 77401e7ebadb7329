"""The mathematics of failures: rates, repair times, availability, lifetimes and trends.

Pure functions on numbers: no clock, no hidden randomness, no files. Times are in seconds, rates
per second, confidence a fraction such as 0.95. numpy and scipy are imported by the functions that
need them, never by importing this package.
"""

_EXPORTS: dict[str, str] = {}
"""Public name -> the submodule that defines it."""


def __getattr__(name: str) -> object:
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{module}"), name)
